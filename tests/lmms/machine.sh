#!/usr/bin/env bash
# Makes an environment with lmms-eval beside this project's: tests/lmms/machine.sh VENV LMMS_VENV
# It holds lmms-eval and what its Qwen2.5-VL adapter and the tested task import; the rest is VENV's, by a .pth file. The
# whole of lmms-eval's requirements pins versions that contradict requirements.lock.
set -euo pipefail
venv="$(cd "$1" && pwd)" made="$2"
cd "$(dirname "$0")/../.."
[ -x "$made/bin/python" ] || "$venv/bin/python" -m venv "$made"
packages="$("$made/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
"$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$packages/project.pth"
pip=("$made/bin/python" -m pip install --quiet --disable-pip-version-check)
torch="$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("torch").split("+")[0])')"
# torchvision n goes with torch m: 0.28 with 2.13.
vision="0.$((15 + $(cut -d. -f2 <<<"$torch")))"
"${pip[@]}" --no-deps 'lmms-eval==0.7.3' 'qwen-vl-utils>=0.0.14' 'av<16' "torchvision==$vision.*"
"${pip[@]}" --constraint requirements.lock \
  decord evaluate jsonlines loguru numexpr openai pytablewriter python-dotenv sacrebleu tenacity
# A torchvision that was built for CUDA has no operators beside a CPU build of torch, and cannot be imported without.
if ! "$made/bin/python" -c 'import torchvision' 2>/dev/null; then
  cat >"$packages/torchvision_operators.py" <<'PYTHON'
import torch

for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
PYTHON
  echo 'import torchvision_operators' >"$packages/torchvision_operators.pth"
  "$made/bin/python" -c 'import torchvision'
fi
