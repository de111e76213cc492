"""A round against a Defender behind an endpoint: a server on loopback, and every way that it can fail a round."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from PIL import Image
from pydantic import ValidationError

from aot_core.base_models.names import SHIPPED
from aot_core.contracts.artifact import ExternalRef
from aot_core.contracts.attack import RewardSettings
from aot_core.contracts.attacker_round import AttackerRoundConfig, AttackerRoundInputs, OpponentSettings
from aot_core.contracts.errors import StageCrashedError
from aot_core.contracts.loading import ConfigError, load_campaign
from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, SplitSizes
from aot_core.contracts.scene import Query, Question
from aot_core.contracts.spec import Place, StageSpec
from aot_core.data.build import BuildJob, build_dataset
from aot_core.engine.identity import stage_spec
from aot_core.engine.runner import execute
from aot_core.evaluation.engines.protocol import EngineError
from aot_core.stages.helpers.opponent import EndpointDefender
from aot_core.store import LocalStore
from tests.evaluation.engines.conftest import Server, serving

TINY = Path(__file__).parents[3] / "configs" / "tiny.toml"
QUESTION = Question(query=Query(kind="existence", target={}), text="Is it red?", options=("yes", "no"), answer="A")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


def settings(server: Server, **other: object) -> OpponentSettings:
    quick = {"concurrency": 4, "timeout_seconds": 5.0, "retries": 2, "pause_seconds": 0.01}
    return OpponentSettings.model_validate({"url": server.url, "model": "victim", **quick, **other})


def by_picture(_text: str, picture: str) -> str:
    """The same answer to the same picture, to three of four pictures the first."""
    return r"\boxed{B}" if crc32(picture.encode()) % 4 == 0 else r"\boxed{A}"


def spec(store: LocalStore, folder: Path, opponent: OpponentSettings) -> StageSpec:
    """A round on the shipped pair's editor, as small as it goes. The Defender's artifact is empty: it is not loaded."""
    data = PrepareDataConfig(
        splits=SplitSizes(warm_start=0, train=30, evaluate=0), effectiveness=EffectivenessSettings(enabled=False)
    )
    (folder / "data").mkdir(parents=True)
    build_dataset(BuildJob(data, None, folder / "work"), folder / "data")
    shutil.copytree(SHIPPED / "aot-tiny-edit", folder / "attacker" / "model")
    (folder / "defender").mkdir()
    (folder / "defender" / "empty.txt").write_text("")
    config = AttackerRoundConfig(
        seed=4,
        candidates=24,
        updates=2,
        scenes=1,
        proposals_per_scene=2,
        group_size=4,
        reward=RewardSettings(efficacy="share", dense=0.0),
        opponent=opponent,
    )
    inputs = AttackerRoundInputs(
        dataset=store.put("prepare_data", "0" * 64, folder / "data"),
        attacker=store.put("warm_start_attacker", "1" * 64, folder / "attacker"),
        defender=store.put("warm_start_defender", "2" * 64, folder / "defender"),
        attacker_base=ExternalRef(name="aot-tiny-edit"),
        defender_base=ExternalRef(name="aot-tiny-vl"),
    )
    return stage_spec("attacker_round", config, inputs, Place(store=str(store.root), device="cpu", threads=1))


def test_a_round_is_played_against_an_endpoint(server: Server, tmp_path: Path) -> None:
    server.says = by_picture
    server.trouble = lambda _name, before: "error" if before == 0 else ""  # every request fails once
    planned = spec(LocalStore(tmp_path / "store"), tmp_path / "inputs", settings(server))
    record = execute(planned).record
    assert record is not None
    outputs = record.outputs
    assert outputs["edits"] == 16 and outputs["valid"] > 0
    assert 0 < server.most_in_flight <= 4
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in server.bodies} == {("victim", 1.0, 64)}
    # The 24 clean scenes come first: k = 3 samples are requests with seeds of their own, each sent twice.
    assert len({body["seed"] for body in server.bodies[:144]}) == 72
    assert outputs["kl"] > 0


def test_the_endpoint_identifies_the_round(server: Server, tmp_path: Path) -> None:
    planned = spec(LocalStore(tmp_path / "store"), tmp_path / "inputs", settings(server))
    assert planned.identity.config["opponent"]["model"] == "victim"
    config = AttackerRoundConfig.model_validate(planned.config)
    inputs = AttackerRoundInputs.model_validate(planned.inputs)
    other = config.model_copy(update={"opponent": settings(server, model="another")})
    assert stage_spec("attacker_round", other, inputs, planned.place).key != planned.key


def test_an_endpoint_that_is_down_is_a_crash_that_may_be_tried_again(server: Server, tmp_path: Path) -> None:
    server.trouble = lambda _name, _before: "error"
    store = LocalStore(tmp_path / "store")
    planned = spec(store, tmp_path / "inputs", settings(server))
    with pytest.raises(StageCrashedError, match=r"EngineError: .*failed 3 times, the last time with HTTP 500"):
        execute(planned)
    assert store.find("attacker_round", planned.key) is None


def test_answers_come_in_order_and_by_the_calls_seed(server: Server, tmp_path: Path) -> None:
    server.says = lambda _text, picture: f"picture {crc32(picture.encode())}"
    images = [Image.new("RGB", (3, 2), (shade, 0, 0)) for shade in (0, 100, 200)]
    who = EndpointDefender(settings(server), tmp_path / "scratch")
    said = who.answer(images, [QUESTION] * 3, samples=2, temperature=0.7, seed=5)
    assert [len(set(texts)) for texts in said] == [1, 1, 1] and len({texts[0] for texts in said}) == 3
    first = {body["seed"] for body in server.bodies}
    assert who.answer(images, [QUESTION] * 3, samples=2, temperature=0.7, seed=5) == said
    assert {body["seed"] for body in server.bodies} == first
    assert who.answer(images[:1], [QUESTION], samples=1, temperature=0.7, seed=6) == [said[0][:1]]
    assert len({body["seed"] for body in server.bodies}) == 7
    assert list((tmp_path / "scratch").iterdir()) == []
    with pytest.raises(ValueError, match="shorter"):
        who.answer(images, [QUESTION], samples=1, temperature=1.0, seed=0)
    with pytest.raises(EngineError, match=r"reward\.efficacy"):
        who.letter_logprobs(images, [QUESTION] * 3)


def test_a_picture_that_is_not_read_yet_is_read_before_threads_share_it(server: Server, tmp_path: Path) -> None:
    """Large enough that several threads would be reading at once: Pillow then fails an assertion of its own."""
    server.says = lambda _text, picture: str(crc32(picture.encode()))
    Image.effect_noise((1500, 1500), 80).convert("RGB").save(tmp_path / "unread.png")
    who = EndpointDefender(settings(server, concurrency=16), tmp_path / "scratch")
    with Image.open(tmp_path / "unread.png") as unread:
        (said,) = who.answer([unread], [QUESTION], samples=16, temperature=1.0, seed=0)
    assert len(said) == 16 and len(set(said)) == 1


def test_a_wrong_key_ends_it_at_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="AOT_TEST_KEY"):
        EndpointDefender(settings(server, api_key_env="AOT_TEST_KEY"), tmp_path)
    monkeypatch.setenv("AOT_TEST_KEY", "wrong")
    server.trouble = lambda _name, _before: "key"
    who = EndpointDefender(settings(server, api_key_env="AOT_TEST_KEY"), tmp_path)
    with pytest.raises(EngineError, match="refused the request with HTTP 401"):
        who.answer([Image.new("RGB", (3, 2))], [QUESTION], samples=1, temperature=1.0, seed=0)
    assert sum(server.asked.values()) == 1


@pytest.mark.parametrize("reward", [{}, {"efficacy": "share"}, {"dense": 0.0}])
def test_a_reward_that_wants_probabilities_is_refused(server: Server, reward: dict[str, object]) -> None:
    asked = RewardSettings.model_validate(reward)
    with pytest.raises(
        ValidationError, match=r'set reward\.efficacy = "share" or "consecutive", and reward\.dense = reward\.learn'
    ):
        AttackerRoundConfig(opponent=settings(server), reward=asked)


def test_the_config_file_names_it() -> None:
    endpoint = ["attacker_round.opponent.url=http://127.0.0.1:9/v1", "attacker_round.opponent.model=victim"]
    with pytest.raises(ConfigError, match="an endpoint gives no letters' probabilities"):
        load_campaign(TINY, endpoint)
    plain = ["attacker_round.reward.efficacy=consecutive", "attacker_round.reward.dense=0"]
    campaign = load_campaign(TINY, endpoint + plain)
    assert campaign.attacker_round.opponent is not None and campaign.attacker_round.opponent.model == "victim"
