#!/usr/bin/env bash
# Restores a back-up into a compose deployment, over what is there: infra/backup/restore.sh FOLDER/20260101T000000Z
# Asks first; `--yes` does not.
set -euo pipefail
source="$(cd "${1:?give the folder that backup.sh printed}" && pwd)"
cd "$(dirname "$0")/.."
compose=(docker compose --env-file .env -f compose.yaml)
(cd "$source" && sha256sum --check --quiet SHA256SUMS)
if [ "${2:-}" != --yes ]; then
  read -r -p "Replace the databases and the object store by $source? [yes] " answer
  [ "$answer" = yes ]
fi
"${compose[@]}" stop worker mlflow prefect objects
"${compose[@]}" up -d --wait postgres
for database in prefect mlflow mlflow_auth; do
  "${compose[@]}" exec -T postgres dropdb --username aot --if-exists --force "$database"
  "${compose[@]}" exec -T postgres createdb --username aot "$database"
  "${compose[@]}" exec -T postgres pg_restore --username aot --dbname "$database" --exit-on-error <"$source/$database.dump"
done
"${compose[@]}" run --rm -T --no-deps --entrypoint sh objects -c 'rm -rf /data/* && tar -C /data -x' <"$source/objects.tar"
"${compose[@]}" up -d --wait
