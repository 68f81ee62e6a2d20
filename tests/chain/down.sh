#!/usr/bin/env bash
# down.sh DIR: stops the chain in DIR, and only its own processes. What it stored stays.
set -euo pipefail
[ $# = 1 ] && [ -d "$1" ] || { echo "usage: down.sh DIR" >&2; exit 2; }
DIR=$(cd "$1" && pwd)
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
halt connect  # first, so that it can still write its offsets
if [ -f "$DIR/postgres/postmaster.pid" ]; then
  (cd / && as_postgres "$(postgres_programs)/pg_ctl" -D "$DIR/postgres" -m fast -w -t 30 -s stop) || true
fi
halt kafka
