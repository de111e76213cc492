#!/usr/bin/env bash
# Backs a compose deployment up: infra/backup/backup.sh FOLDER
# Postgres (Prefect, MLflow, its users) by pg_dump, consistent while everything runs; then the object store's files.
# The databases first: an artifact that is named there is in the objects' copy that is made after.
set -euo pipefail
target="$(mkdir -p "${1:?give a folder}" && cd "$1" && pwd)/$(date -u +%Y%m%dT%H%M%SZ)"
cd "$(dirname "$0")/.."
compose=(docker compose --env-file .env -f compose.yaml)
umask 077
mkdir "$target.partial"
for database in prefect mlflow mlflow_auth; do
  "${compose[@]}" exec -T postgres pg_dump --username aot --format custom "$database" >"$target.partial/$database.dump"
done
# SeaweedFS appends to its volumes: stopped for the copy, or the last needle may be torn.
"${compose[@]}" stop objects >/dev/null
trap '"${compose[@]}" start objects >/dev/null' EXIT
"${compose[@]}" run --rm -T --no-deps --entrypoint tar objects -C /data -c . >"$target.partial/objects.tar"
(cd "$target.partial" && sha256sum -- *.dump objects.tar >SHA256SUMS)
mv "$target.partial" "$target"
echo "$target"
