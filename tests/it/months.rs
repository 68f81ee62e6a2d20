//! Month files like those of the city, made up: types that change from month to month, columns that are all null, hours of weather.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, LargeStringArray, NullArray, RecordBatch, StringArray};
use arrow::array::{TimestampMicrosecondArray, TimestampMillisecondArray};
use parquet::arrow::ArrowWriter;

const HOUR: i64 = 3_600;
/// 2021-01-01 and 2023-02-01, as stamps without a zone.
const WINTER: i64 = 1_609_459_200;
const LATER: i64 = 1_675_209_600;

/// A trip, in a month file's terms.
struct Trip {
    vendor: i64,
    from: i64,
    to: i64,
    passengers: Option<i64>,
    miles: f64,
    pickup: i64,
    dropoff: i64,
    fare: f64,
    tip: f64,
}

impl Trip {
    fn total(&self) -> f64 {
        ((self.fare + self.tip) * 100.0).round() / 100.0 + 0.3
    }
}

/// Numbers that only depend on the seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Trips within `span` seconds after `begin`; one in ten is not valid, each in another way.
fn trips(numbers: &mut Numbers, count: i64, begin: i64, span: i64) -> Vec<Trip> {
    let trip = |index: i64| {
        let from = begin + numbers.below(span);
        let mut trip = Trip {
            vendor: 1 + numbers.below(2),
            from,
            to: from + 60 + numbers.below(540),
            passengers: Some(numbers.below(6)).filter(|passengers| *passengers > 0),
            miles: (1 + numbers.below(2_000)) as f64 / 100.0,
            pickup: 1 + numbers.below(263),
            dropoff: 1 + numbers.below(263),
            fare: (300 + numbers.below(6_000)) as f64 / 100.0,
            tip: numbers.below(900) as f64 / 100.0,
        };
        match index % 50 {
            0 => trip.miles = 0.0,
            10 => trip.fare = -trip.fare,
            20 => trip.pickup = 264,
            30 => trip.to = trip.from,
            40 => trip.to += 30 * HOUR,
            _ => {}
        }
        trip
    };
    (0..count).map(trip).collect()
}

/// How a month's file has its columns.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Ids and counts int64 and double, stamps without a zone, a column of type null.
    Early,
    /// Ids int32, counts int64, large strings, stamps in milliseconds.
    Late,
    /// As `Late`, with stamps that are instants.
    Instants,
}

fn write_green(path: &Path, trips: &[Trip], kind: Kind) {
    let early = kind == Kind::Early;
    let id = |of: &dyn Fn(&Trip) -> i64| -> ArrayRef {
        if early {
            Arc::new(trips.iter().map(of).collect::<Int64Array>())
        } else {
            Arc::new(trips.iter().map(|trip| i32::try_from(of(trip)).unwrap()).collect::<Int32Array>())
        }
    };
    let number = |of: &dyn Fn(&Trip) -> Option<i64>| -> ArrayRef {
        if early {
            Arc::new(trips.iter().map(|trip| of(trip).map(|value| value as f64)).collect::<Float64Array>())
        } else {
            Arc::new(trips.iter().map(of).collect::<Int64Array>())
        }
    };
    let stamp = |of: &dyn Fn(&Trip) -> i64| -> ArrayRef {
        match kind {
            Kind::Early => Arc::new(trips.iter().map(|trip| Some(of(trip) * 1_000_000)).collect::<TimestampMicrosecondArray>()),
            Kind::Late => Arc::new(trips.iter().map(|trip| Some(of(trip) * 1_000)).collect::<TimestampMillisecondArray>()),
            Kind::Instants => {
                let stamps: TimestampMicrosecondArray = trips.iter().map(|trip| Some(of(trip) * 1_000_000)).collect();
                Arc::new(stamps.with_timezone("UTC"))
            }
        }
    };
    let money =
        |of: &dyn Fn(&Trip) -> f64| -> ArrayRef { Arc::new(trips.iter().map(|trip| Some(of(trip))).collect::<Float64Array>()) };
    let flags = || trips.iter().map(|trip| Some(if trip.vendor == 1 { "Y" } else { "N" }));
    let flag: ArrayRef =
        if early { Arc::new(flags().collect::<StringArray>()) } else { Arc::new(flags().collect::<LargeStringArray>()) };
    let nothing: ArrayRef =
        if early { Arc::new(NullArray::new(trips.len())) } else { Arc::new(Float64Array::from(vec![None; trips.len()])) };
    let columns = [
        ("VendorID", id(&|trip| trip.vendor)),
        ("lpep_pickup_datetime", stamp(&|trip| trip.from)),
        ("lpep_dropoff_datetime", stamp(&|trip| trip.to)),
        ("store_and_fwd_flag", flag),
        ("RatecodeID", number(&|trip| trip.passengers.map(|_| 1))),
        ("PULocationID", id(&|trip| trip.pickup)),
        ("DOLocationID", id(&|trip| trip.dropoff)),
        ("passenger_count", number(&|trip| trip.passengers)),
        ("trip_distance", money(&|trip| trip.miles)),
        ("fare_amount", money(&|trip| trip.fare)),
        ("extra", money(&|_| 0.5)),
        ("mta_tax", money(&|_| 0.5)),
        ("tip_amount", money(&|trip| trip.tip)),
        ("tolls_amount", money(&|_| 0.0)),
        ("ehail_fee", Arc::clone(&nothing)),
        ("improvement_surcharge", money(&|_| 0.3)),
        ("total_amount", money(&Trip::total)),
        ("payment_type", number(&|trip| trip.passengers.map(|_| 2))),
        ("trip_type", number(&|_| Some(1))),
        // a declared column that this month has no value for
        ("congestion_surcharge", nothing),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// `2021-01-01 00:00:00` of seconds since 1970.
fn text(seconds: i64, separator: char) -> String {
    let stamp: TimestampMicrosecondArray = [Some(seconds * 1_000_000)].into_iter().collect();
    stamp.value_as_datetime(0).unwrap().format(&format!("%Y-%m-%d{separator}%H:%M:%S")).to_string()
}

fn yellow(trips: &[Trip]) -> String {
    let mut lines = "vendor_id,pickup_datetime,dropoff_datetime,passenger_count,trip_distance,rate_code_id,store_and_fwd_flag,\
        pickup_location_id,dropoff_location_id,payment_type,fare_amount,extra,mta_tax,tip_amount,tolls_amount,\
        improvement_surcharge,total_amount,congestion_surcharge\n"
        .to_owned();
    for trip in trips {
        let passengers = trip.passengers.map_or_else(String::new, |passengers| passengers.to_string());
        lines.push_str(&format!(
            "{},{},{},{passengers},{},1,N,{},{},1,{},1.0,0.5,{},0.0,0.3,{:.2},\n",
            trip.vendor,
            text(trip.from, ' '),
            text(trip.to, ' '),
            trip.miles,
            trip.pickup,
            trip.dropoff,
            trip.fare,
            trip.tip,
            trip.total()
        ));
    }
    lines
}

/// Writes a folder as `examples/tlc/README.md` describes it: three winter months of both colours, a month two years later, and trips of
/// the last hour, so that no view is empty.
pub fn write_months(data: &Path) {
    let mut numbers = Numbers(20_210_101);
    for folder in ["trips_green", "trips_yellow", "weather"] {
        std::fs::create_dir_all(data.join(folder)).unwrap();
    }
    let month = 30 * 24 * HOUR;
    let green = |name: &str| data.join("trips_green").join(format!("green_tripdata_{name}.parquet"));
    write_green(&green("2021-01"), &trips(&mut numbers, 3_000, WINTER, month), Kind::Early);
    write_green(&green("2021-02"), &trips(&mut numbers, 3_000, WINTER + month, month), Kind::Early);
    write_green(&green("2023-02"), &trips(&mut numbers, 3_000, LATER, month), Kind::Late);
    // long enough ago to be over, and far from leaving the hour
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    write_green(&green("recent"), &trips(&mut numbers, 400, now - 30 * 60, 10 * 60), Kind::Instants);
    for (number, begin) in [("2021-01", WINTER), ("2021-03", WINTER + 2 * month)] {
        let file = data.join(format!("trips_yellow/yellow_tripdata_{number}.csv"));
        std::fs::write(file, yellow(&trips(&mut numbers, 2_000, begin, month))).unwrap();
    }

    let mut hours =
        "full_time,year,temperature_2m (°C),precipitation (mm),rain (mm),cloudcover (%),windspeed_10m (km/h)\n".to_owned();
    for hour in 0..100 * 24 {
        let at = text(WINTER + hour * HOUR, 'T');
        let at = at.strip_suffix(":00").unwrap();
        let (snow, rain) = (numbers.below(20) / 19, numbers.below(5) / 4);
        // the end of the file is empty, as the real one's is
        let line = if hour < 98 * 24 {
            let degrees = (numbers.below(300) - 100) as f64 / 10.0;
            format!("{at},2021,{degrees},{},{rain},{},{}\n", snow + rain, numbers.below(101), numbers.below(400) as f64 / 10.0)
        } else {
            format!("{at},2021,,,,,\n")
        };
        hours.push_str(&line);
    }
    std::fs::write(data.join("weather/NYC_Weather_2021.csv"), hours).unwrap();

    let mut hours = "datetime,temp_c,precip_mm,humidity_pct,wind_speed_kmh,visibility_km\n".to_owned();
    for hour in 0..40 * 24 {
        let degrees = (numbers.below(200) - 100) as f64 / 10.0;
        let wet = numbers.below(3) as f64 / 10.0;
        let (humid, wind) = (numbers.below(101), numbers.below(50));
        let seen = numbers.below(1_700) as f64 / 100.0;
        hours.push_str(&format!("{},{degrees},{wet},{humid}.0,{wind}.0,{seen}\n", text(LATER + hour * HOUR, ' ')));
    }
    std::fs::write(data.join("weather/weather_hourly_2023.csv"), hours).unwrap();
}
