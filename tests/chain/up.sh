#!/usr/bin/env bash
# up.sh DIR: PostgreSQL, a Kafka broker and Kafka Connect with Debezium, all on 127.0.0.1, with everything they store in DIR.
# Returns when all three answer; DIR/env then holds their addresses. CHAIN_PARTS='kafka' starts the broker alone.
# Ports: PG_PORT, KAFKA_PORT, CONTROLLER_PORT, CONNECT_PORT. A DIR that was used before goes on with its data.
set -euo pipefail
[ $# = 1 ] || { echo "usage: up.sh DIR" >&2; exit 2; }
mkdir -p "$1"
DIR=$(cd "$1" && pwd)
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parts=" ${CHAIN_PARTS:-postgres kafka connect} "
with() { [[ $parts == *" $1 "* ]]; }
# What was started is stopped again if something fails.
trap '[ $? = 0 ] || { tail -n 5 "$DIR"/*.log >&2; "$HERE/down.sh" "$DIR"; }' EXIT

if with kafka; then
  jars >/dev/null
  cat >"$DIR/broker.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$CONTROLLER_PORT
listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,CONTROLLER://127.0.0.1:$CONTROLLER_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$DIR/kafka
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=4194304
END
  if [ ! -f "$DIR/kafka/meta.properties" ]; then
    java -Xmx128m -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$HERE/log4j2.properties" -cp "$(jars)" \
      kafka.tools.StorageTool format -t "$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d =)" \
      -c "$DIR/broker.properties" >"$DIR/format.log" 2>&1
  fi
  run_java kafka kafka.Kafka "$DIR/broker.properties"
fi

if with postgres; then
  programs=$(postgres_programs)
  if [ ! -f "$DIR/postgres/PG_VERSION" ]; then
    mkdir -p "$DIR/postgres"
    if [ "$(id -u)" = 0 ]; then
      chown postgres "$DIR/postgres"
      chmod o+x "$DIR"
      as_postgres test -w "$DIR/postgres" || fail "the user postgres cannot reach $DIR: a folder above it is closed to others"
    fi
    (cd / && as_postgres "$programs/initdb" -D "$DIR/postgres" -U postgres -A trust -E UTF8 --locale=C --no-sync) >"$DIR/initdb.log"
    # Only TCP (a socket's path would be limited to 107 bytes), logical decoding for Debezium, and no durability: it is a test.
    as_postgres tee -a "$DIR/postgres/postgresql.conf" >/dev/null <<END
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_level = logical
max_replication_slots = 20
max_wal_senders = 20
shared_buffers = 32MB
fsync = off
timezone = 'UTC'
END
  fi
  touch "$DIR/postgres.log"
  if [ "$(id -u)" = 0 ]; then chown postgres "$DIR/postgres.log"; fi
  (cd / && as_postgres "$programs/pg_ctl" -D "$DIR/postgres" -o "-p $PG_PORT" -l "$DIR/postgres.log" -w -t 120 -s start)
  psql="$programs/psql -h 127.0.0.1 -p $PG_PORT -U postgres -Atq"
  [ "$($psql -c "select 1 from pg_database where datname = 'shop'")" = 1 ] || $psql -c 'create database shop'
fi

if with kafka; then
  started() { running kafka && grep -q 'Kafka Server started' "$DIR/kafka.log"; }
  until_true 120 Kafka started
fi

if with connect; then
  cat >"$DIR/connect.properties" <<END
bootstrap.servers=127.0.0.1:$KAFKA_PORT
listeners=http://127.0.0.1:$CONNECT_PORT
key.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable=false
value.converter=org.apache.kafka.connect.json.JsonConverter
value.converter.schemas.enable=false
offset.storage.file.filename=$DIR/connect.offsets
offset.flush.interval.ms=1000
plugin.discovery=service_load
END
  run_java connect org.apache.kafka.connect.cli.ConnectStandalone "$DIR/connect.properties"
  until_true 120 Connect curl -fsS -m 2 "http://127.0.0.1:$CONNECT_PORT/connectors"
fi

cat >"$DIR/env" <<END
export DATABASE_URL=postgresql://postgres@127.0.0.1:$PG_PORT/shop
export KAFKA_BROKERS=127.0.0.1:$KAFKA_PORT
export CONNECT_URL=http://127.0.0.1:$CONNECT_PORT
export PSQL="$(with postgres && postgres_programs)/psql"
END
