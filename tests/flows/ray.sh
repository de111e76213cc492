#!/usr/bin/env bash
# Makes an environment with Ray and Dask beside this project's: tests/flows/ray.sh VENV RAY_VENV
# The extras `aot[ray]` and `aot[dask]`, at the lock's versions of what both need; the rest is VENV's, by a .pth file.
set -euo pipefail
venv="$1" made="$2"
[ -x "$made/bin/python" ] || "$venv/bin/python" -m venv "$made"
packages="$("$made/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
"$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$packages/project.pth"
"$made/bin/python" -m pip install --quiet --disable-pip-version-check --constraint requirements.lock \
  'prefect-ray>=0.4.5' 'prefect-dask>=0.3.6'
