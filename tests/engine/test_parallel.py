"""What a stage of several processes is started with, and what becomes of what they say. The processes themselves run in
`test_defender_stages.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.defender_round import DefenderRoundConfig, DefenderRoundInputs
from aot_core.contracts.errors import StageBadInputError, StageCrashedError, StageOutOfMemoryError
from aot_core.contracts.spec import Place, StageSpec
from aot_core.engine.context import StageContext
from aot_core.engine.identity import stage_spec
from aot_core.engine.parallel import Report, _command, _judge, run_in_processes
from aot_core.store import LocalStore

ACCELERATE = Path(__file__).parents[2] / "configs" / "accelerate"


def spec_of(store: Path, accelerate: str = "", processes: int = 2) -> StageSpec:
    some = ArtifactRef(uri=f"aot://curate/{'a' * 64}", sha256="b" * 64)
    inputs = DefenderRoundInputs(curated=some, defender=some, base=ExternalRef(name="aot-tiny-vl"))
    place = Place(store=str(store), device="cpu", accelerate=accelerate)
    return stage_spec("defender_round", DefenderRoundConfig(processes=processes), inputs, place)


def test_the_number_of_processes_is_part_of_what_a_round_is_and_how_weights_lie_is_not(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    assert spec.processes == 2
    assert spec.key == spec_of(tmp_path, (ACCELERATE / "fsdp.yaml").read_text()).key
    one = stage_spec("defender_round", DefenderRoundConfig(), DefenderRoundInputs(**spec.inputs), spec.place)
    assert one.processes == 1 and one.key != spec.key


@pytest.mark.parametrize(
    ("accelerate", "says"),
    [
        ((ACCELERATE / "fsdp.yaml").read_text(), "run.accelerate asks for FSDP.* runs on the CPU"),
        ((ACCELERATE / "deepspeed.yaml").read_text(), "run.accelerate asks for DEEPSPEED"),
        ("distributed: FSDP", "run.accelerate: not a config of accelerate .*KeyError: 'distributed_type'"),
        ("a: [", "run.accelerate: not a config of accelerate"),
    ],
    ids=["fsdp", "deepspeed", "no type", "no yaml"],
)
def test_what_this_machine_cannot_do_is_said_before_a_process_is_started(
    accelerate: str, says: str, tmp_path: Path
) -> None:
    context = StageContext(LocalStore(tmp_path), tmp_path / "output", tmp_path, "cpu")
    with pytest.raises(StageBadInputError, match=says):
        run_in_processes(spec_of(tmp_path, accelerate), context)
    assert not (tmp_path / "processes").exists()


def test_more_processes_than_gpus_are_refused(tmp_path: Path) -> None:
    context = StageContext(LocalStore(tmp_path), tmp_path / "output", tmp_path, "cuda")
    with pytest.raises(StageBadInputError, match=r"defender_round.processes is 32 and this machine has \d+ usable"):
        run_in_processes(spec_of(tmp_path, processes=32), context)


def test_accelerate_is_told_how_many_and_how(tmp_path: Path) -> None:
    plain = _command(spec_of(tmp_path), tmp_path)
    assert "--multi_gpu" in plain and plain[plain.index("--num_processes") + 1] == "2"
    text = (ACCELERATE / "fsdp.yaml").read_text()
    sharded = _command(spec_of(tmp_path, text), tmp_path)
    config = Path(sharded[sharded.index("--config_file") + 1])
    assert config.read_text() == text and "--multi_gpu" not in sharded


def test_the_cause_is_told_and_not_its_consequence(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with pytest.raises(StageCrashedError, match="its 2 processes ended with exit code 9"):
        _judge(spec, tmp_path, 9)
    (tmp_path / "report-0.json").write_text(Report(error="crash", message="connection lost").model_dump_json())
    (tmp_path / "report-1.json").write_text(Report(error="out_of_memory", message="no memory").model_dump_json())
    with pytest.raises(StageOutOfMemoryError, match="no memory"):
        _judge(spec, tmp_path, 1)
    for rank in (0, 1):
        (tmp_path / f"report-{rank}.json").write_text(Report(outputs={"updates": rank}).model_dump_json())
    assert _judge(spec, tmp_path, 0) == {"updates": 0}, "process 0's"


def test_a_process_ends_when_the_one_that_waits_for_it_is_gone() -> None:
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    watch = "import sys; from aot_core.engine.parallel import _end_with; _end_with(int(sys.argv[1]))"
    child = subprocess.Popen([sys.executable, "-c", watch, str(parent.pid)], env=dict(os.environ))
    try:
        parent.kill()
        parent.wait()
        assert child.wait(120) == 1
    finally:
        child.kill()
