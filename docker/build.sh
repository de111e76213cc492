#!/usr/bin/env bash
# Builds images: docker/build.sh [control] [stage-cpu] [stage-gpu]; all three where none is named.
# BASE_IMAGE, PIP_NO_INDEX, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL are passed on where they are set; PIP_CONF names a
# pip.conf that is mounted as a secret (an index with a password leaves no trace in the image).
# The index should serve torch's CPU build for stage-cpu and its CUDA build for stage-gpu.
set -euo pipefail
cd "$(dirname "$0")/.."
docker="${DOCKER:-docker}"
commit="$(git describe --always --dirty --abbrev=40 2>/dev/null || true)"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
pass=()
for name in BASE_IMAGE PIP_NO_INDEX PIP_INDEX_URL PIP_EXTRA_INDEX_URL; do
  if [ -n "${!name:-}" ]; then pass+=(--build-arg "$name=${!name}"); fi
done
if [ -n "${PIP_CONF:-}" ]; then pass+=(--secret "id=pip_conf,src=$PIP_CONF"); fi
[ "$#" -gt 0 ] || set -- control stage-cpu stage-gpu
for image in "$@"; do
  DOCKER_BUILDKIT=1 "$docker" build --file docker/Dockerfile --target "$image" --build-arg "IMAGE=$image" \
    --build-arg "GIT_COMMIT=$commit" --build-arg "VERSION=$version" "${pass[@]}" --tag "aot-$image:latest" .
  "$docker" image inspect --format "aot-$image {{.Size}} bytes {{.Id}}" "aot-$image:latest"
done
