#!/usr/bin/env bash
# Makes a machine fit for `pytest -m docker`: a docker daemon where there is none, a base image, the
# images `aot-stage-cpu` and `aot-control`.
#   tests/docker/machine.sh          what is missing is made (Debian, root); what stands is used
#   tests/docker/machine.sh down     ends the daemon that this script started
# No registry is needed: the base is bookworm from the machine's own package mirror. BASE_IMAGE=... takes another one.
set -euo pipefail
cd "$(dirname "$0")/../.."
state="${AOT_TEST_DOCKER:-${XDG_STATE_HOME:-$HOME/.local/state}/aot/docker}"
pid_file="$state/dockerd.pid"

if [ "${1:-up}" = down ]; then
  if [ -f "$pid_file" ]; then kill "$(cat "$pid_file")"; fi
  exit 0
fi

packages=()
command -v dockerd >/dev/null || docker info >/dev/null 2>&1 || packages+=(docker.io)
[ -n "${BASE_IMAGE:-}" ] || command -v debootstrap >/dev/null || packages+=(debootstrap)
if [ "${#packages[@]}" -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" iptables
fi

# A client that builds with BuildKit: one with buildx, or one so old that it does so by itself.
for candidate in "${DOCKER:-}" "$(command -v docker || true)" /usr/bin/docker; do
  [ -x "$candidate" ] || continue
  major="$("$candidate" version --format '{{.Client.Version}}' 2>/dev/null | cut -d. -f1 || true)"
  if "$candidate" buildx version >/dev/null 2>&1 || [ "${major:-99}" -lt 23 ]; then DOCKER="$candidate"; break; fi
done
export DOCKER="${DOCKER:?no docker client that can build with BuildKit}"

if ! "$DOCKER" info >/dev/null 2>&1; then
  mkdir -p "$state"
  setsid nohup dockerd --data-root "$state/data" --exec-root "$state/exec" --pidfile "$pid_file" \
    >"$state/dockerd.log" 2>&1 &
  for _ in $(seq 60); do "$DOCKER" info >/dev/null 2>&1 && break; sleep 1; done
  "$DOCKER" info >/dev/null || { tail -20 "$state/dockerd.log"; exit 1; }
fi

if [ -z "${BASE_IMAGE:-}" ]; then
  export BASE_IMAGE=aot-base:bookworm
  tests/docker/bootstrap.sh "$BASE_IMAGE" python3,python3-venv,ca-certificates
fi

# The packages come through this machine's pip, which may have mirrors that a container does not see.
compgen -G 'docker/wheels/torch-*.whl' >/dev/null || docker/wheels.sh
PIP_NO_INDEX=1 docker/build.sh stage-cpu control
