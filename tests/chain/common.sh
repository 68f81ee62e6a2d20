# Read by the other scripts, not run. A chain lives in one folder, DIR: data, logs, `NAME.pid` (process id and when it began), `env`.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${PG_PORT:=54330}" "${KAFKA_PORT:=19192}" "${CONNECT_PORT:=18183}"
: "${CONTROLLER_PORT:=$((KAFKA_PORT + 1))}"

fail() { echo "chain: $*" >&2; exit 1; }

# PostgreSQL does not run as root.
as_postgres() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

# The folder of PostgreSQL's programs, the newest where there are several.
postgres_programs() {
  local newest
  newest=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
  [ -n "$newest" ] || newest=$(dirname "$(command -v pg_ctl || fail "no PostgreSQL server: install it, on Debian with apt-get install postgresql")")
  echo "$newest"
}

# The class path; the jars (about 60 MB) are fetched once for each content of the pom.
jars() {
  local folder="${LIVELAKE_CHAIN_CACHE:-$HOME/.cache/livelake-chain}/tests-$(sha256sum "$HERE/pom.xml" | cut -c1-12)"
  if [ ! -d "$folder" ]; then
    mkdir -p "$(dirname "$folder")"
    mvn -B -q -f "$HERE/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$folder.$$" >&2 \
      || fail "maven could not fetch the jars"
    mv -T "$folder.$$" "$folder" 2>/dev/null || rm -rf "$folder.$$"  # another run may have been faster
  fi
  echo "$folder/*"
}

# When a process began, in ticks since boot: with the id it names a process for good, because ids come again.
began() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# run_java NAME ARGUMENTS: in the background. Quick to start and small: no second compiler, no parallel collector.
run_java() {
  local name=$1
  shift
  nohup java -Xms64m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$HERE/log4j2.properties" \
    -cp "$(jars)" "$@" >"$DIR/$name.log" 2>&1 </dev/null &
  echo "$! $(began $!)" >"$DIR/$name.pid"
}

running() {
  local id start
  read -r id start <"$DIR/$1.pid" && [ -n "$start" ] && [ "$(began "$id")" = "$start" ]
}

# halt NAME: asks the process to end, and ends it after 15 s.
halt() {
  local tries=0
  [ -f "$DIR/$1.pid" ] || return 0
  if running "$1"; then
    kill "$(cut -d' ' -f1 "$DIR/$1.pid")"
    while running "$1" && [ $tries -lt 75 ]; do sleep 0.2; tries=$((tries + 1)); done
    if running "$1"; then kill -9 "$(cut -d' ' -f1 "$DIR/$1.pid")"; fi
  fi
  rm -f "$DIR/$1.pid"
}

# until_true SECONDS WHAT COMMAND: asks again and again.
until_true() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "$what is not ready: see the logs in $DIR"
    sleep 0.2
  done
}
