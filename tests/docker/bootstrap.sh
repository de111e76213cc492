#!/usr/bin/env bash
# A Debian bookworm as an image, from the machine's own package mirror: bootstrap.sh IMAGE PACKAGE,PACKAGE,...
set -euo pipefail
image="$1" packages="$2" docker="${DOCKER:-docker}"
if "$docker" image inspect "$image" >/dev/null 2>&1; then exit 0; fi
root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
# Either of the two places may be missing; without a mirror debootstrap takes Debian's own.
mirror="$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null \
  | sed -n 's/^\(URIs:\|deb\( \[.*\]\)\?\) *\(http[^ ]*\).*/\3/p' | head -1 || true)"
debootstrap --variant=minbase --include="$packages" bookworm "$root" "$mirror" >/dev/null
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
tar -C "$root" -c . | "$docker" import - "$image"
