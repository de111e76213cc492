"""How many answers a second: vLLM's server beside transformers' `generate`, on the same questions, in one run.

    PATH="$PWD/.venv-vllm/bin:$PATH" python benchmarks/vllm_throughput.py --questions 200 --repeats 3

Both engines are those of `aot bench`, and greedy. The server is started, and both are asked eight questions, before
anything is timed. Then they take turns, `--repeats` times each: whatever else the machine does meets both alike.
Prints the median of each, the ratio of every turn, and how many answers are equal. The time includes opening the
pictures and writing the answers to the journal, as in an evaluation. Needs vLLM on the path (`make test-vllm` makes an
environment of it); on a CPU set `VLLM_CPU_KVCACHE_SPACE=1`.
"""

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image

from aot_core.base_models.names import model_folder
from aot_core.contracts.benchmarks import EndpointSettings, VllmSettings
from aot_core.defender.answering import Defender
from aot_core.evaluation.engines.openai_engine import OpenAIEngine
from aot_core.evaluation.engines.protocol import Ask, Engine, Journal, ask_all
from aot_core.evaluation.engines.transformers_engine import TransformersEngine
from aot_core.evaluation.engines.vllm_server import vllm_server
from aot_core.recipes.defender_lessons import KINDS
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.questions import ask_world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("defender", nargs="?", default="aot-tiny-vl", help="shipped name or folder")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="transformers' batch, and requests under way at vLLM")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of transformers; vLLM binds its own")
    parser.add_argument("--vllm", action="append", default=[], metavar="ARGUMENT", help="handed to `vllm serve`")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = model_folder(arguments.defender)
    if folder is None:
        raise SystemExit(f"{arguments.defender!r} is no shipped model and no folder; give one of them")
    questions = asks(arguments.questions)
    defender = Defender.load(str(folder))
    sampling = {"max_new_tokens": arguments.max_new_tokens, "temperature": 0.0, "seed": 0}
    settings = VllmSettings(arguments=tuple(arguments.vllm), start_seconds=1500, concurrency=arguments.batch)
    dtype = str(defender.model.dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)

        def engines(endpoint: EndpointSettings) -> dict[str, Engine]:
            batched = TransformersEngine(
                defender.model, defender.processor, name="w", batch_size=arguments.batch, **sampling
            )
            return {"transformers": batched, "vLLM": OpenAIEngine(endpoint, weights="w", **sampling)}

        with vllm_server(folder, settings, work / "vllm.log", dtype) as endpoint:
            seconds: dict[str, list[float]] = {"transformers": [], "vLLM": []}
            said: dict[str, dict[str, list[str]]] = {}
            for turn in range(arguments.repeats + 1):
                for name, engine in engines(endpoint).items():
                    chosen = questions if turn else questions[:8]  # the first turn only warms up
                    with Journal(work / f"{name}-{turn}.jsonl", engine.identity) as journal:
                        begun = time.perf_counter()
                        answers = ask_all(engine, chosen, journal)
                        if turn:
                            seconds[name].append(time.perf_counter() - begun)
                    said[name] = {key: list(texts) for key, texts in answers.items()}
    equal = sum(said["vLLM"][key] == texts for key, texts in said["transformers"].items())
    for name, taken in seconds.items():
        rates = [len(questions) / one for one in taken]
        print(f"{name}: {statistics.median(rates):.1f} answers/s (from {min(rates):.1f} to {max(rates):.1f})")
    ratios = [a / b for a, b in zip(seconds["transformers"], seconds["vLLM"], strict=True)]
    print(f"vLLM / transformers: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; {equal} of {len(questions)} equal")


def asks(count: int) -> list[Ask]:
    """Questions about scenes of five objects, every kind as often as the others."""
    rng, found = np.random.default_rng(0), []
    while len(found) < count:
        objects = world.random_objects(rng, 5)
        question = ask_world(rng, KINDS[len(found) % len(KINDS)], objects)
        if question is not None:
            picture = world.render(objects, world.random_backdrop(rng))
            found.append(Ask(f"q{len(found)}", question.prompt, partial(_alone, picture), 1))
    return found


def _alone(picture: Image) -> list[Image]:
    return [picture]


if __name__ == "__main__":
    main()
