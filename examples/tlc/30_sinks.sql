-- What is committed to Iceberg, all of it as one cut per epoch. A month's partition value tells its year, a day's its month: where the
-- tables' description says "year, month" there is one partition field, as Iceberg wants it.

CREATE SINK sinks.reference_taxi_zones FROM reference.taxi_zones
  WITH (connector = 'iceberg', table = 'reference.taxi_zones');
CREATE SINK sinks.weather_hourly_weather FROM weather.hourly_weather
  WITH (connector = 'iceberg', table = 'weather.hourly_weather', partition_by = 'day(timestamp)');
CREATE SINK sinks.nyc_taxi_trips FROM nyc_taxi.trips
  WITH (connector = 'iceberg', table = 'nyc_taxi.trips', partition_by = 'month(pickup_datetime)');
CREATE SINK sinks.nyc_taxi_daily_summary FROM nyc_taxi.daily_summary
  WITH (connector = 'iceberg', table = 'nyc_taxi.daily_summary');
CREATE SINK sinks.analytics_trip_weather_correlation FROM analytics.trip_weather_correlation
  WITH (connector = 'iceberg', table = 'analytics.trip_weather_correlation', partition_by = 'month(trip_date)');
CREATE SINK sinks.realtime_trip_aggregations FROM realtime.trip_aggregations
  WITH (connector = 'iceberg', table = 'realtime.trip_aggregations', partition_by = 'hour(window_start)');
CREATE SINK sinks.realtime_zone_activity FROM realtime.zone_activity
  WITH (connector = 'iceberg', table = 'realtime.zone_activity');
