"""Every shipped config loads; a wrong one is refused in the file's own words."""

from pathlib import Path

import pytest

from aot_core.contracts.loading import ConfigError, load_campaign

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_loads(path: Path) -> None:
    assert load_campaign(path).name == path.stem


def write(folder: Path, text: str) -> Path:
    path = folder / "campaign.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "x"\nroundz = 3', ["roundz: unknown key", "did you mean 'rounds'"]),
        ('name = "x"\n[evaluate]\nsample = 3', ["evaluate.sample: unknown key", "'samples'"]),
        ('name = "x"\n[evaluate]\nsamples = 0', ["evaluate.samples", "greater than or equal to 1"]),
        ('name = "x"\n[evaluate]\nseed = 1', ["evaluate.seed", "top"]),
        ('name = "../x"', ["name"]),
        ("name = ", ["not valid TOML"]),
        (
            'name = "x"\nrun = { gpu_slots = ["aot-gpu-0"] }\ndefender_round = { processes = 2 }',
            ["defender_round.processes needs several GPUs", "gpu_slots"],
        ),
        ('name = "x"\nstop_after = "lunch"', ["stop_after", "prepare_data"]),
    ],
)
def test_a_wrong_config_names_the_field_and_the_fix(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_campaign(write(tmp_path, text))
    for word in words:
        assert word in str(caught.value)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_campaign(tmp_path / "absent.toml")


def test_overrides_are_toml_or_text(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "x"\nseed = 5')
    campaign = load_campaign(path, ["rounds=1", "models.defender=some/model", "evaluate.limit=7"])
    assert (campaign.rounds, campaign.models.defender, campaign.evaluate.limit) == (1, "some/model", 7)
    with pytest.raises(ConfigError, match=r"section\.field=value"):
        load_campaign(path, ["rounds"])
    with pytest.raises(ConfigError, match="is a value"):
        load_campaign(path, ["seed.more=1"])


def test_stage_seeds_follow_the_campaigns_seed_and_round(tmp_path: Path) -> None:
    campaign = load_campaign(write(tmp_path, 'name = "x"\nseed = 2'))
    assert campaign.seeded(campaign.curate, 3).seed == 2003
