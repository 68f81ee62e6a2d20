-- Analytics over nyc_taxi.trips and weather.hourly_weather. Times are instants; days and hours that people see are New York's.

-- Only these count in analytics.
CREATE VIEW nyc_taxi.valid_trips AS
SELECT *
FROM nyc_taxi.trips
WHERE trip_distance > 0.0
  AND fare_amount > 0
  AND total_amount > 0
  AND pickup_datetime < dropoff_datetime
  AND dropoff_datetime < pickup_datetime + INTERVAL '24 hours'
  AND pickup_location_id BETWEEN 1 AND 263
  AND dropoff_location_id BETWEEN 1 AND 263;

-- Sums per zone and hour. Days and hours of New York begin on whole hours everywhere, so what is asked per day or per hour is added up
-- from here: a changed trip touches one row of this view and a handful above it.
CREATE MATERIALIZED VIEW nyc_taxi.zone_hours AS
SELECT date_trunc('hour', pickup_datetime) AS hour_start,
       pickup_location_id,
       count(*) AS trips,
       sum(total_amount) AS revenue,
       sum(fare_amount) AS fares,
       sum(tip_amount) AS tips,
       sum(trip_distance) AS miles,
       sum(extract(epoch FROM dropoff_datetime) - extract(epoch FROM pickup_datetime)) AS seconds
FROM nyc_taxi.valid_trips
GROUP BY date_trunc('hour', pickup_datetime), pickup_location_id;

CREATE MATERIALIZED VIEW nyc_taxi.daily_summary AS
SELECT CAST(hour_start AT TIME ZONE 'America/New_York' AS DATE) AS trip_date,
       CAST(sum(trips) AS BIGINT) AS trips,
       sum(revenue) AS revenue,
       CAST(sum(fares) AS DOUBLE PRECISION) / sum(trips) AS avg_fare,
       sum(miles) / sum(trips) AS avg_distance,
       count(DISTINCT pickup_location_id) AS active_zones
FROM nyc_taxi.zone_hours
GROUP BY CAST(hour_start AT TIME ZONE 'America/New_York' AS DATE);

-- An hour of the day is two hours long when the clock goes back in autumn: its trips are added up, its weather is averaged.
CREATE MATERIALIZED VIEW analytics.trip_weather_correlation AS
SELECT CAST(z.hour_start AT TIME ZONE 'America/New_York' AS DATE) AS trip_date,
       CAST(extract(hour FROM z.hour_start AT TIME ZONE 'America/New_York') AS INTEGER) AS hour,
       w.weather_condition,
       round(avg(w.temperature_celsius), 2) AS temperature_celsius,
       round(avg(w.humidity_percent), 2) AS humidity_percent,
       round(avg(w.wind_speed_kmh), 2) AS wind_speed_kmh,
       CAST(sum(z.trips) AS BIGINT) AS total_trips,
       sum(z.miles) / sum(z.trips) AS avg_trip_distance,
       CAST(sum(z.fares) AS DOUBLE PRECISION) / sum(z.trips) AS avg_fare_amount,
       CAST(sum(z.tips) AS DOUBLE PRECISION) / sum(z.trips) AS avg_tip_amount,
       sum(z.seconds) / 60.0 / sum(z.trips) AS avg_trip_duration_minutes,
       count(DISTINCT z.pickup_location_id) AS pickup_zone_diversity
FROM nyc_taxi.zone_hours AS z
JOIN weather.hourly_weather AS w ON w."timestamp" = z.hour_start
WHERE w.location = 'New York'
GROUP BY CAST(z.hour_start AT TIME ZONE 'America/New_York' AS DATE),
         CAST(extract(hour FROM z.hour_start AT TIME ZONE 'America/New_York') AS INTEGER),
         w.weather_condition;

CREATE MATERIALIZED VIEW realtime.trip_aggregations AS
SELECT window_start,
       window_end,
       pickup_location_id AS pickup_zone_id,
       count(*) AS total_trips,
       sum(total_amount) AS total_revenue,
       avg(trip_distance) AS avg_trip_distance,
       CAST(sum(fare_amount) AS DOUBLE PRECISION) / count(*) AS avg_fare_amount,
       count(DISTINCT vendor_id) AS unique_vendors
FROM TUMBLE(nyc_taxi.valid_trips, pickup_datetime, INTERVAL '5 minutes')
GROUP BY window_start, window_end, pickup_location_id;

-- The sliding last hour: trips that began, and trips that ended, within it. They leave by themselves as time passes.
CREATE VIEW realtime.pickups_last_hour AS
SELECT pickup_location_id, dropoff_location_id, pickup_datetime, fare_amount, total_amount
FROM nyc_taxi.valid_trips
WHERE pickup_datetime > now() - INTERVAL '1 hour' AND pickup_datetime <= now();

CREATE VIEW realtime.dropoffs_last_hour AS
SELECT dropoff_location_id, dropoff_datetime
FROM nyc_taxi.valid_trips
WHERE dropoff_datetime > now() - INTERVAL '1 hour' AND dropoff_datetime <= now();

-- Where most trips of the last hour go to from each zone; of two with as many trips, the lower number.
CREATE VIEW realtime.top_destinations AS
SELECT pickup_location_id, dropoff_location_id
FROM (
    SELECT pickup_location_id,
           dropoff_location_id,
           row_number() OVER (PARTITION BY pickup_location_id ORDER BY trips DESC, dropoff_location_id) AS place
    FROM (
        SELECT pickup_location_id, dropoff_location_id, count(*) AS trips
        FROM realtime.pickups_last_hour
        GROUP BY pickup_location_id, dropoff_location_id
    ) AS pairs
) AS ranked
WHERE place <= 1;

-- One row per zone where anything happened. A zone may have only pickups or only drop-offs: each part brings nothing for the others'
-- columns, and the sum puts them together.
CREATE MATERIALIZED VIEW realtime.zone_last_hour AS
SELECT zone_id,
       max(latest) AS latest,
       CAST(sum(pickups) AS BIGINT) AS pickups,
       CAST(sum(dropoffs) AS BIGINT) AS dropoffs,
       sum(revenue) AS revenue,
       sum(fares) AS fares,
       max(top_destination_zone) AS top_destination_zone
FROM (
    SELECT pickup_location_id AS zone_id,
           max(pickup_datetime) AS latest,
           count(*) AS pickups,
           CAST(0 AS BIGINT) AS dropoffs,
           CAST(sum(total_amount) AS DECIMAL(20, 2)) AS revenue,
           CAST(sum(fare_amount) AS DECIMAL(20, 2)) AS fares,
           CAST(NULL AS INTEGER) AS top_destination_zone
    FROM realtime.pickups_last_hour
    GROUP BY pickup_location_id
    UNION ALL
    SELECT dropoff_location_id AS zone_id,
           max(dropoff_datetime) AS latest,
           CAST(0 AS BIGINT) AS pickups,
           count(*) AS dropoffs,
           CAST(0 AS DECIMAL(20, 2)) AS revenue,
           CAST(0 AS DECIMAL(20, 2)) AS fares,
           CAST(NULL AS INTEGER) AS top_destination_zone
    FROM realtime.dropoffs_last_hour
    GROUP BY dropoff_location_id
    UNION ALL
    SELECT pickup_location_id AS zone_id,
           CAST(NULL AS TIMESTAMPTZ) AS latest,
           CAST(0 AS BIGINT) AS pickups,
           CAST(0 AS BIGINT) AS dropoffs,
           CAST(0 AS DECIMAL(20, 2)) AS revenue,
           CAST(0 AS DECIMAL(20, 2)) AS fares,
           dropoff_location_id AS top_destination_zone
    FROM realtime.top_destinations
) AS parts
GROUP BY zone_id;

-- activity_score = 100 × (0.5 × pickups share + 0.3 × revenue share + 0.2 × drop-offs share), each share being relative to the zone
-- that has most of it in this hour. activity_timestamp is the zone's latest pickup or drop-off.
CREATE MATERIALIZED VIEW realtime.zone_activity AS
SELECT z.zone_id,
       z.latest AS activity_timestamp,
       z.pickups AS pickup_count,
       z.dropoffs AS dropoff_count,
       z.revenue AS revenue_last_hour,
       CAST(z.fares AS DOUBLE PRECISION) / nullif(z.pickups, 0) AS avg_fare_last_hour,
       z.top_destination_zone,
       50.0 * coalesce(CAST(z.pickups AS DOUBLE PRECISION) / nullif(most.pickups, 0), 0.0)
         + 30.0 * coalesce(CAST(z.revenue AS DOUBLE PRECISION) / nullif(CAST(most.revenue AS DOUBLE PRECISION), 0.0), 0.0)
         + 20.0 * coalesce(CAST(z.dropoffs AS DOUBLE PRECISION) / nullif(most.dropoffs, 0), 0.0) AS activity_score
FROM realtime.zone_last_hour AS z
CROSS JOIN (
    SELECT max(pickups) AS pickups, max(revenue) AS revenue, max(dropoffs) AS dropoffs
    FROM realtime.zone_last_hour
) AS most;
