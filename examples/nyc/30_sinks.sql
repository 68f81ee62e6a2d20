-- What is committed to Iceberg, all of it as one cut per epoch. A month's partition value tells its year, a day's its month: where the
-- tables' description says "year, month" there is one partition field, as Iceberg wants it.

CREATE SINK taxi_cdc.trips FROM taxi_cdc.trips
  WITH (connector = 'iceberg', partition_by = 'day(pickup_datetime)');
CREATE SINK taxi_cdc.payment_types FROM taxi_cdc.payment_types
  WITH (connector = 'iceberg');
CREATE SINK taxi_cdc.vendors FROM taxi_cdc.vendors
  WITH (connector = 'iceberg');

CREATE SINK reference.taxi_zones FROM reference.taxi_zones
  WITH (connector = 'iceberg');
CREATE SINK weather.hourly_weather FROM weather.hourly_weather
  WITH (connector = 'iceberg', partition_by = 'day(timestamp)');
CREATE SINK nyc_taxi.trips FROM nyc_taxi.trips
  WITH (connector = 'iceberg', partition_by = 'month(pickup_datetime)');
CREATE SINK nyc_taxi.daily_summary FROM nyc_taxi.daily_summary
  WITH (connector = 'iceberg');
CREATE SINK analytics.trip_weather_correlation FROM analytics.trip_weather_correlation
  WITH (connector = 'iceberg', partition_by = 'month(trip_date)');
CREATE SINK realtime.trip_aggregations FROM realtime.trip_aggregations
  WITH (connector = 'iceberg', partition_by = 'hour(window_start)');
CREATE SINK realtime.zone_activity FROM realtime.zone_activity
  WITH (connector = 'iceberg');
