-- The audit trail: every change event as it came, one row each, only ever added to. Deletes show the row that they took away.
-- These sources read the same messages as those of taxi_cdc.trips and its kin (the generator's options must be the same).

CREATE SOURCE taxi_cdc.trip_events (
    id BIGINT,
    vendor_id INTEGER NOT NULL,
    pickup_datetime TIMESTAMPTZ NOT NULL,
    dropoff_datetime TIMESTAMPTZ NOT NULL,
    passenger_count SMALLINT,
    trip_distance DOUBLE PRECISION,
    rate_code_id SMALLINT,
    store_and_fwd_flag TEXT,
    pickup_location_id INTEGER NOT NULL,
    dropoff_location_id INTEGER NOT NULL,
    payment_type SMALLINT,
    fare_amount DECIMAL(10, 2),
    extra DECIMAL(10, 2),
    mta_tax DECIMAL(10, 2),
    tip_amount DECIMAL(10, 2),
    tolls_amount DECIMAL(10, 2),
    improvement_surcharge DECIMAL(10, 2),
    total_amount DECIMAL(10, 2),
    congestion_surcharge DECIMAL(10, 2),
    airport_fee DECIMAL(10, 2)
) WITH (
    connector = 'generator',
    kind = 'nyc.trips',
    seed = '1',
    rate = '2',
    history = '3 days',
    rhythm = 'true',
    format = 'debezium-json',
    time.precision.mode = 'adaptive',
    decimal.handling.mode = 'double',
    time_zone = 'UTC',
    envelope = 'events'
);

CREATE SOURCE taxi_cdc.payment_type_events (id INTEGER, description TEXT)
  WITH (connector = 'generator', kind = 'nyc.payment_types', seed = '1', history = '3 days', format = 'debezium-json', envelope = 'events');

CREATE SOURCE taxi_cdc.vendor_events (id INTEGER, name TEXT, active BOOLEAN, updated_at TIMESTAMPTZ)
  WITH (connector = 'generator', kind = 'nyc.vendors', seed = '1', history = '3 days', format = 'debezium-json', envelope = 'events');

CREATE MATERIALIZED VIEW taxi_cdc.trips_cdc AS
SELECT id, vendor_id, pickup_datetime, dropoff_datetime, passenger_count, trip_distance, rate_code_id, store_and_fwd_flag,
       pickup_location_id, dropoff_location_id, payment_type, fare_amount, extra, mta_tax, tip_amount, tolls_amount,
       improvement_surcharge, total_amount, congestion_surcharge, airport_fee,
       _op AS op, _source_ts AS source_ts, _lsn AS lsn, _tx_id AS tx_id, _topic AS topic, _partition AS "partition", _offset AS "offset"
FROM taxi_cdc.trip_events;

CREATE MATERIALIZED VIEW taxi_cdc.payment_types_cdc AS
SELECT id, description,
       _op AS op, _source_ts AS source_ts, _lsn AS lsn, _tx_id AS tx_id, _topic AS topic, _partition AS "partition", _offset AS "offset"
FROM taxi_cdc.payment_type_events;

CREATE MATERIALIZED VIEW taxi_cdc.vendors_cdc AS
SELECT id, name, active, updated_at,
       _op AS op, _source_ts AS source_ts, _lsn AS lsn, _tx_id AS tx_id, _topic AS topic, _partition AS "partition", _offset AS "offset"
FROM taxi_cdc.vendor_events;

CREATE SINK taxi_cdc.trips_cdc FROM taxi_cdc.trips_cdc
  WITH (connector = 'iceberg', mode = 'append', partition_by = 'hour(source_ts)');
CREATE SINK taxi_cdc.payment_types_cdc FROM taxi_cdc.payment_types_cdc
  WITH (connector = 'iceberg', mode = 'append', partition_by = 'hour(source_ts)');
CREATE SINK taxi_cdc.vendors_cdc FROM taxi_cdc.vendors_cdc
  WITH (connector = 'iceberg', mode = 'append', partition_by = 'hour(source_ts)');
