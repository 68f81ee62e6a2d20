#!/usr/bin/env bash
# connector.sh DIR NAME [KEY=VALUE …]: makes the Debezium connector NAME and returns when its snapshot is done and it streams.
# Its topics are NAME.<table>; KEY=VALUE are settings of the connector that win over the ones here.
set -euo pipefail
[ $# -ge 2 ] && [ -f "$1/env" ] || { echo "usage: connector.sh DIR NAME [KEY=VALUE ...]" >&2; exit 2; }
DIR=$(cd "$1" && pwd)
name=$2
shift 2
. "$DIR/env"
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
declare -A settings=(
  [connector.class]=io.debezium.connector.postgresql.PostgresConnector
  [plugin.name]=pgoutput
  [database.hostname]=127.0.0.1
  [database.port]=$(sed 's|.*:\([0-9]*\)/.*|\1|' <<<"$DATABASE_URL")
  [database.user]=postgres
  [database.password]=none
  [database.dbname]=shop
  [topic.prefix]=$name
  [slot.name]=$name
  [publication.name]=$name
  [publication.autocreate.mode]=filtered
  [schema.include.list]=public
  [skipped.operations]=none  # truncations too, which it leaves out by default
  [poll.interval.ms]=20
  # NAME.public.orders becomes NAME.orders
  [transforms]=short
  [transforms.short.type]=org.apache.kafka.connect.transforms.RegexRouter
  [transforms.short.regex]='([^.]+)\.public\.(.+)'
  [transforms.short.replacement]='$1.$2'
)
for pair in "$@"; do settings[${pair%%=*}]=${pair#*=}; done
body=
for key in "${!settings[@]}"; do
  value=${settings[$key]//\\/\\\\}
  body+=",\"$key\":\"${value//\"/\\\"}\""
done
curl -fsS -o /dev/null -X PUT -H 'Content-Type: application/json' --data "{${body#,}}" "$CONNECT_URL/connectors/$name/config" \
  || fail "Connect refused the connector"
# RUNNING says only that a thread lives; an active slot says that the snapshot is done.
streaming() {
  [ "$("$PSQL" "$DATABASE_URL" -Atc "select count(*) from pg_replication_slots where slot_name = '$name' and active")" = 1 ]
}
until_true 120 "connector $name" streaming
