"""The judge of edited photographs in the stages that check edits: named by the config, pinned, loaded, heeded.

The editor is a Qwen-Image-Edit of tiny config and random weights; the judge the shipped Defender, which cannot read
what it is asked and so, clear or not, speaks for no edit.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_pipelines import save_qwen

from aot_core.attacker.scenes import AttackError
from aot_core.base_models.names import SHIPPED
from aot_core.contracts.artifact import ExternalRef
from aot_core.contracts.attack import ProposalSettings, RewardSettings, ValiditySettings
from aot_core.contracts.attacker_round import AttackerRoundConfig, AttackerRoundInputs, SamplingSettings
from aot_core.contracts.curate import CurateConfig, CurateInputs
from aot_core.contracts.evaluate import EvaluateConfig, EvaluateInputs
from aot_core.contracts.learning import EditorSettings
from aot_core.contracts.loading import ConfigError, load_campaign
from aot_core.contracts.spec import Place
from aot_core.data.dataset import write_dataset
from aot_core.defender.answering import Defender
from aot_core.engine.context import StageContext
from aot_core.engine.identity import pin_model, stage_spec
from aot_core.stages.attacker_round import run_attacker_round
from aot_core.stages.curate import run_curate
from aot_core.stages.evaluate import run_evaluate
from aot_core.stages.helpers.judging import load_judge
from aot_core.store import LocalStore
from tests.stages.test_big_editor_stages import photograph

CONFIGS = Path(__file__).parents[3] / "configs"
TINY_VL = ExternalRef(name="aot-tiny-vl")
LOOSE = ValiditySettings(min_ssim=0.0, max_outside=1.0)
"""An editor of random weights spares nothing: let it pass."""
JUDGED = LOOSE.model_copy(update={"judge": TINY_VL.name, "judge_dtype": "float32", "judge_tokens": 4})
ONE = ProposalSettings(edits=(1, 1))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def given(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What round and curation read: photographs, an editor and the shipped Defender."""
    data, base, defender, attacker = (
        tmp_path_factory.mktemp(name) for name in ("data", "base", "defender", "attacker")
    )
    samples = [photograph(number, data) for number in range(4, 28)]
    held_out = [s.model_copy(update={"split": "evaluate", "sample_id": f"e{s.sample_id}"}) for s in samples[:4]]
    write_dataset(data, [*samples[4:], *held_out])
    save_qwen(base / "editor", plus=False)
    shutil.copytree(SHIPPED / TINY_VL.name, defender / "model")
    shutil.copytree(base / "editor", attacker / "model")
    return {
        "dataset": store.put("prepare_data", "0" * 64, data),
        "defender": store.put("warm_start_defender", "1" * 64, defender),
        "attacker": store.put("warm_start_attacker", "2" * 64, attacker),
        "attacker_base": ExternalRef(name=str(base / "editor")),
        "defender_base": TINY_VL,
    }


def context(store: LocalStore, folder: Path) -> StageContext:
    for name in ("output", "scratch"):
        (folder / name).mkdir(parents=True)
    return StageContext(store, folder / "output", folder / "scratch")


def test_curation_heeds_the_judge(store: LocalStore, given: dict[str, Any], tmp_path: Path) -> None:
    config = CurateConfig(
        proposals=ONE, scenes=4, edits_per_scene=1, steps=2, minimum=1, gallery_rows=0, validity=LOOSE
    )
    free = run_curate(config, CurateInputs(**given), context(store, tmp_path / "free"))
    assert free.valid > 0
    judged = config.model_copy(update={"validity": JUDGED})
    with pytest.raises(AttackError, match=r"0 of 4 edits are valid"):
        run_curate(judged, CurateInputs(**given, judge=TINY_VL), context(store, tmp_path / "judged"))
    with pytest.raises(ValueError, match=r"validity\.judge asks for 'aot-tiny-vl' and no judge was given"):
        run_curate(judged, CurateInputs(**given), context(store, tmp_path / "none"))


def test_evaluation_heeds_the_judge(store: LocalStore, given: dict[str, Any], tmp_path: Path) -> None:
    config = EvaluateConfig(proposals=ONE, samples=1, limit=3, steps=2, gallery_rows=0, validity=LOOSE)
    players = {name: value for name, value in given.items() if name != "attacker"}
    inputs = EvaluateInputs(**players, attackers=(given["attacker"],), families=False)
    free = run_evaluate(config, inputs, context(store, tmp_path / "free"))
    assert free.valid["attacker_1"] > 0
    judged = config.model_copy(update={"validity": JUDGED})
    asked = inputs.model_copy(update={"judge": TINY_VL})
    assert run_evaluate(judged, asked, context(store, tmp_path / "judged")).valid == {"attacker_1": 0.0}


def test_the_round_heeds_the_judge(store: LocalStore, given: dict[str, Any], tmp_path: Path) -> None:
    config = AttackerRoundConfig(
        editor=EditorSettings(resolution=64),
        proposals=ONE,
        sampling=SamplingSettings(steps=3, sde_steps=1),
        reward=RewardSettings(validity=LOOSE),
        updates=1,
        scenes=1,
        proposals_per_scene=1,
        group_size=2,
        probe=1,
        gallery_rows=0,
    )
    inputs = AttackerRoundInputs(**given, judge=TINY_VL)
    free = run_attacker_round(config, inputs, context(store, tmp_path / "free"))
    assert free.valid > 0
    judged = config.model_copy(update={"reward": RewardSettings(validity=JUDGED)})
    assert run_attacker_round(judged, inputs, context(store, tmp_path / "judged")).valid == 0


def test_the_judge_is_loaded_as_the_settings_say(store: LocalStore, tmp_path: Path) -> None:
    place = context(store, tmp_path)
    judge = load_judge(JUDGED, pin_model(TINY_VL.name), place)
    assert isinstance(judge, Defender) and judge.max_new_tokens == 4
    assert load_judge(LOOSE, None, place) is None


def test_the_judges_contents_identify_the_stage(given: dict[str, Any]) -> None:
    def key(config: CurateConfig, judge: ExternalRef | None) -> str:
        return stage_spec("curate", config, CurateInputs(**given, judge=judge), Place(store="")).key

    judged = CurateConfig(validity=JUDGED)
    one, other = (ExternalRef(name="judge", sha256=digit * 64) for digit in "ab")
    moved = ExternalRef(name="elsewhere", sha256="a" * 64)
    assert key(judged, one) == key(judged, moved)
    assert len({key(CurateConfig(), None), key(judged, one), key(judged, other)}) == 3


@pytest.mark.parametrize("field", ["attacker_round.reward.validity.judge", "curate.validity.judge"])
def test_the_procedural_world_needs_no_judge(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"{field}: procedural scenes are read by a parser"):
        load_campaign(CONFIGS / "tiny.toml", [f"{field}=some/judge"])


def test_a_campaign_on_photographs_may_name_a_judge_a_section() -> None:
    judges = ["evaluate.validity.judge=some/judge", "curate.validity.judge=other/judge"]
    campaign = load_campaign(CONFIGS / "paper.toml", judges)
    assert {"some/judge", "other/judge"} < set(campaign.named_models)
