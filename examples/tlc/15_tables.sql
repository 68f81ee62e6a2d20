-- The lakehouse's own tables over this lake's sources. What stands above them (20_views.sql) is the same for every lake of trips.

CREATE MATERIALIZED VIEW reference.taxi_zones AS
SELECT location_id, borough, zone_name, service_zone, latitude, longitude, zone_type
FROM reference.zones;

-- All trips, also those that analytics leave out. Neither kind of file here has an airport fee.
CREATE MATERIALIZED VIEW nyc_taxi.trips AS
SELECT VendorID AS vendor_id,
       lpep_pickup_datetime AS pickup_datetime,
       lpep_dropoff_datetime AS dropoff_datetime,
       passenger_count,
       trip_distance,
       RatecodeID AS rate_code_id,
       store_and_fwd_flag,
       PULocationID AS pickup_location_id,
       DOLocationID AS dropoff_location_id,
       payment_type,
       fare_amount,
       extra,
       mta_tax,
       tip_amount,
       tolls_amount,
       improvement_surcharge,
       total_amount,
       congestion_surcharge,
       CAST(NULL AS DECIMAL(10, 2)) AS airport_fee
FROM tlc.green_trips
UNION ALL
SELECT vendor_id, pickup_datetime, dropoff_datetime, passenger_count, trip_distance, rate_code_id, store_and_fwd_flag,
       pickup_location_id, dropoff_location_id, payment_type, fare_amount, extra, mta_tax, tip_amount, tolls_amount,
       improvement_surcharge, total_amount, congestion_surcharge, CAST(NULL AS DECIMAL(10, 2)) AS airport_fee
FROM tlc.yellow_trips;

-- One weather from two sources that measure different things. Open-Meteo: no humidity, pressure or visibility, so never 'fog'; what
-- falls and is not rain is snow. The station: no clouds, so never 'cloudy'; what falls at freezing point is snow. Hours without a
-- temperature (the end of Open-Meteo's file is empty) are left out.
CREATE MATERIALIZED VIEW weather.hourly_weather AS
SELECT full_time AS "timestamp",
       'New York' AS location,
       CAST(40.7128 AS DOUBLE PRECISION) AS latitude,
       CAST(-74.006 AS DOUBLE PRECISION) AS longitude,
       "temperature_2m (°C)" AS temperature_celsius,
       "temperature_2m (°C)" * 1.8 + 32.0 AS temperature_fahrenheit,
       CAST(NULL AS DOUBLE PRECISION) AS humidity_percent,
       CAST(NULL AS DOUBLE PRECISION) AS pressure_hpa,
       "windspeed_10m (km/h)" AS wind_speed_kmh,
       "precipitation (mm)" AS precipitation_mm,
       CASE WHEN "precipitation (mm)" - "rain (mm)" > 0.01 THEN 'snow'
            WHEN "precipitation (mm)" >= 0.1 THEN 'rain'
            WHEN "cloudcover (%)" >= 60.0 THEN 'cloudy'
            ELSE 'clear'
       END AS weather_condition,
       CAST(NULL AS DOUBLE PRECISION) AS visibility_km
FROM weather.open_meteo
WHERE "temperature_2m (°C)" BETWEEN -100.0 AND 100.0
UNION ALL
SELECT datetime AS "timestamp",
       'New York' AS location,
       CAST(40.7128 AS DOUBLE PRECISION) AS latitude,
       CAST(-74.006 AS DOUBLE PRECISION) AS longitude,
       temp_c AS temperature_celsius,
       temp_c * 1.8 + 32.0 AS temperature_fahrenheit,
       humidity_pct AS humidity_percent,
       CAST(NULL AS DOUBLE PRECISION) AS pressure_hpa,
       wind_speed_kmh,
       precip_mm AS precipitation_mm,
       CASE WHEN precip_mm >= 0.1 AND temp_c <= 0.5 THEN 'snow'
            WHEN precip_mm >= 0.1 THEN 'rain'
            WHEN visibility_km < 1.0 THEN 'fog'
            ELSE 'clear'
       END AS weather_condition,
       visibility_km
FROM weather.station
WHERE temp_c BETWEEN -100.0 AND 100.0;
