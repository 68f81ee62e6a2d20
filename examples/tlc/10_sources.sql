-- TLC month files and hourly weather in the folder that the environment variable TLC_DATA names (README.md shows its layout).
-- Month files change from month to month: ids are int64 or int32, counts double or int64, a column may be all null. What is
-- declared here is what the lake has. Their stamps are New York's local time.

CREATE SOURCE tlc.green_trips (
    VendorID INTEGER,
    lpep_pickup_datetime TIMESTAMPTZ,
    lpep_dropoff_datetime TIMESTAMPTZ,
    passenger_count SMALLINT,
    trip_distance DOUBLE PRECISION,
    RatecodeID SMALLINT,
    store_and_fwd_flag TEXT,
    PULocationID INTEGER,
    DOLocationID INTEGER,
    payment_type SMALLINT,
    fare_amount DECIMAL(10, 2),
    extra DECIMAL(10, 2),
    mta_tax DECIMAL(10, 2),
    tip_amount DECIMAL(10, 2),
    tolls_amount DECIMAL(10, 2),
    improvement_surcharge DECIMAL(10, 2),
    total_amount DECIMAL(10, 2),
    congestion_surcharge DECIMAL(10, 2)
) WITH (
    connector = 'files',
    path = '${TLC_DATA}/trips_green/green_tripdata_*.parquet',
    format = 'parquet',
    time_zone = 'America/New_York'
);

CREATE SOURCE tlc.yellow_trips (
    vendor_id INTEGER,
    pickup_datetime TIMESTAMPTZ,
    dropoff_datetime TIMESTAMPTZ,
    passenger_count SMALLINT,
    trip_distance DOUBLE PRECISION,
    rate_code_id SMALLINT,
    store_and_fwd_flag TEXT,
    pickup_location_id INTEGER,
    dropoff_location_id INTEGER,
    payment_type SMALLINT,
    fare_amount DECIMAL(10, 2),
    extra DECIMAL(10, 2),
    mta_tax DECIMAL(10, 2),
    tip_amount DECIMAL(10, 2),
    tolls_amount DECIMAL(10, 2),
    improvement_surcharge DECIMAL(10, 2),
    total_amount DECIMAL(10, 2),
    congestion_surcharge DECIMAL(10, 2)
) WITH (
    connector = 'files',
    path = '${TLC_DATA}/trips_yellow/yellow_tripdata_*.csv',
    format = 'csv',
    header = 'true',
    time_zone = 'America/New_York'
);

-- Open-Meteo's export: stamps in UTC.
CREATE SOURCE weather.open_meteo (
    full_time TIMESTAMPTZ PRIMARY KEY,
    "temperature_2m (°C)" DOUBLE PRECISION,
    "precipitation (mm)" DOUBLE PRECISION,
    "rain (mm)" DOUBLE PRECISION,
    "cloudcover (%)" DOUBLE PRECISION,
    "windspeed_10m (km/h)" DOUBLE PRECISION
) WITH (
    connector = 'files',
    path = '${TLC_DATA}/weather/NYC_Weather_*.csv',
    format = 'csv',
    header = 'true',
    time_zone = 'UTC'
);

-- A station's hours: stamps five hours behind UTC all year round.
CREATE SOURCE weather.station (
    datetime TIMESTAMPTZ PRIMARY KEY,
    temp_c DOUBLE PRECISION,
    precip_mm DOUBLE PRECISION,
    humidity_pct DOUBLE PRECISION,
    wind_speed_kmh DOUBLE PRECISION,
    visibility_km DOUBLE PRECISION
) WITH (
    connector = 'files',
    path = '${TLC_DATA}/weather/weather_hourly_*.csv',
    format = 'csv',
    header = 'true',
    time_zone = '-05:00'
);

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
    path = '../nyc/zones.csv',
    format = 'csv',
    header = 'true'
);
