#!/usr/bin/env bash
# Fills docker/wheels with what the images need, so that they can be built off the network:
#   docker/wheels.sh && PIP_NO_INDEX=1 docker/build.sh stage-cpu
# To be run with the image's Python version (PYTHON=python3.11); takes this machine's pip configuration.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
{
  "$python" docker/requirements.py control
  "$python" docker/requirements.py stage-cpu
  echo async-timeout # Debian bookworm's 3.11.2 needs it, a later 3.11 would leave it out
} | sort -u > docker/wheels/.wanted
"$python" -m pip download --quiet --disable-pip-version-check --only-binary :all: --constraint requirements.lock \
  --requirement docker/wheels/.wanted --dest docker/wheels
rm docker/wheels/.wanted
