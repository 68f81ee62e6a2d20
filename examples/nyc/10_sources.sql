-- Where the rows come from. Here everything is made by the built-in generator; to run on the real thing, replace
--     connector = 'generator', kind = 'nyc.trips', …
-- by
--     connector = 'kafka', brokers = 'localhost:9092', topic = 'lakehouse.trips', format = 'debezium-json'
-- and leave the rest as it is: the generator sends the same messages. All generator sources share one seed, so that the weather
-- is the one that the trips were made under.

-- Trips, as Debezium captures them from PostgreSQL: inserts, corrections, deletions. The database keeps UTC.
CREATE SOURCE taxi_cdc.trips (
    id BIGINT PRIMARY KEY,
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
    time_zone = 'UTC'
);

CREATE SOURCE taxi_cdc.payment_types (
    id INTEGER PRIMARY KEY,
    description TEXT NOT NULL
) WITH (
    connector = 'generator',
    kind = 'nyc.payment_types',
    seed = '1',
    history = '3 days',
    format = 'debezium-json'
);

CREATE SOURCE taxi_cdc.vendors (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    active BOOLEAN NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
) WITH (
    connector = 'generator',
    kind = 'nyc.vendors',
    seed = '1',
    history = '3 days',
    format = 'debezium-json'
);

-- Hourly weather. An hour is told when it begins and once more, corrected, when it is over: the later row wins.
CREATE SOURCE weather.observations (
    location TEXT,
    observed_at TIMESTAMPTZ,
    latitude DOUBLE PRECISION,
    longitude DOUBLE PRECISION,
    temperature_celsius DOUBLE PRECISION,
    humidity_percent DOUBLE PRECISION,
    pressure_hpa DOUBLE PRECISION,
    wind_speed_kmh DOUBLE PRECISION,
    precipitation_mm DOUBLE PRECISION,
    snowfall_cm DOUBLE PRECISION,
    cloud_cover_percent DOUBLE PRECISION,
    visibility_km DOUBLE PRECISION,
    PRIMARY KEY (location, observed_at)
) WITH (
    connector = 'generator',
    kind = 'nyc.weather',
    seed = '1',
    history = '3 days',
    format = 'json'
);

-- The 263 taxi zones, and two numbers that are not places: 264 (unknown) and 265 (outside of the city).
CREATE SOURCE reference.zones (
    location_id INTEGER PRIMARY KEY,
    borough TEXT NOT NULL,
    zone_name TEXT NOT NULL,
    service_zone TEXT,
    latitude DOUBLE PRECISION,
    longitude DOUBLE PRECISION,
    zone_type TEXT
) WITH (
    connector = 'files',
    path = 'zones.csv',
    format = 'csv',
    header = 'true'
);
