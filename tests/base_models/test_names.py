"""Model names resolve without a hub, and a folder that is not there is refused at once."""

from pathlib import Path

import pytest

from aot_core.base_models.names import UnknownModelError, model_folder


def test_a_hub_name_is_left_to_the_hub_client() -> None:
    assert model_folder("Qwen/Qwen2.5-VL-7B-Instruct") is None


@pytest.mark.parametrize("name", ["./absent", "/no/such/folder", "~/absent", "absent", "a/b/c", "aot-tiny-absent"])
def test_a_folder_that_does_not_exist_is_no_hub_lookup(name: str) -> None:
    with pytest.raises(UnknownModelError, match=r"does not exist|is not shipped"):
        model_folder(name)


@pytest.mark.parametrize("name", ["", ".", "/etc", "x" * 300, "o/" + "x" * 300, "~nobody-of-that-name/x", "a\0b"])
def test_a_folder_without_a_model_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModelError):
        model_folder(name)


def test_a_folder_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert model_folder(str(tmp_path)) == tmp_path.resolve()


@pytest.mark.parametrize("name", ["aot-tiny-vl", "aot-tiny-edit"])
def test_the_tiny_pair_is_shipped(name: str) -> None:
    folder = model_folder(name)
    assert folder is not None
    assert list(folder.rglob("*.safetensors"))
    assert (folder / "README.md").is_file(), "a model card"
    assert not [p for p in folder.rglob("*") if p.suffix in {".bin", ".pt", ".pkl", ".pickle"}]
