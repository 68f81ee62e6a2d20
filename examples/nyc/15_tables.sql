-- The lakehouse's own tables over this lake's sources. What stands above them (20_views.sql) is the same for every lake of trips.

CREATE MATERIALIZED VIEW reference.taxi_zones AS
SELECT location_id, borough, zone_name, service_zone, latitude, longitude, zone_type
FROM reference.zones;

-- All trips, also those that analytics leave out.
CREATE MATERIALIZED VIEW nyc_taxi.trips AS
SELECT vendor_id, pickup_datetime, dropoff_datetime, passenger_count, trip_distance, rate_code_id, store_and_fwd_flag,
       pickup_location_id, dropoff_location_id, payment_type, fare_amount, extra, mta_tax, tip_amount, tolls_amount,
       improvement_surcharge, total_amount, congestion_surcharge, airport_fee
FROM taxi_cdc.trips;

-- weather_condition: what falls counts before what is seen. Snow: any snowfall; rain: a tenth of a millimetre or more; fog: one sees
-- less than a kilometre; cloudy: three fifths of the sky.
CREATE MATERIALIZED VIEW weather.hourly_weather AS
SELECT observed_at AS "timestamp",
       location,
       latitude,
       longitude,
       temperature_celsius,
       temperature_celsius * 1.8 + 32.0 AS temperature_fahrenheit,
       humidity_percent,
       pressure_hpa,
       wind_speed_kmh,
       precipitation_mm,
       CASE WHEN snowfall_cm > 0.0 THEN 'snow'
            WHEN precipitation_mm >= 0.1 THEN 'rain'
            WHEN visibility_km < 1.0 THEN 'fog'
            WHEN cloud_cover_percent >= 60.0 THEN 'cloudy'
            ELSE 'clear'
       END AS weather_condition,
       visibility_km
FROM weather.observations;
