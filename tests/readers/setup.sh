#!/usr/bin/env bash
# Makes the Python environment in which other people's Iceberg readers check our tables, and an S3 server (moto) stands in for a bucket. Does nothing when it is there already.
# An extension of DuckDB's fits exactly one version of DuckDB, so all versions are pinned together.
set -euo pipefail

packages=(
  'pyiceberg[sql-sqlite,pyarrow]==0.12.0' 'pyiceberg-core==0.10.1'
  'psycopg2-binary==2.9.13' 'moto[server]==5.2.5'
  'duckdb==1.5.5' 'duckdb-extension-iceberg==1.5.5' 'duckdb-extension-avro==1.5.5' 'pytz'
)
folder="${XDG_CACHE_HOME:-$HOME/.cache}/livelake/readers"
wanted="$(printf '%s\n' "${packages[@]}")"

if [ -x "$folder/bin/python" ] && [ "$(cat "$folder/installed.txt" 2>/dev/null)" = "$wanted" ]; then
  echo "the readers are installed in $folder"
  exit 0
fi
python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}"
printf '%s\n' "$wanted" > "$folder/installed.txt"
echo "installed the readers in $folder"
