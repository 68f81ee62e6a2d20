//! How fast Debezium's JSON messages become Arrow batches, on one core, beside other ways to do it with sonic-rs.
//!
//! `cargo bench -p livelake-actors --bench decode`. LIVELAKE_BENCH_DATA names a folder with `trips-0.ndjson` of real messages; without
//! it made-up ones of the same form are used.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use livelake_actors::decode::{DecimalHandling, DecodeSpec, Format, Input, decoder};
use sonic_rs::JsonValueTrait;

/// Columns of the trips, all that a message has.
fn trips() -> SchemaRef {
    let money = DataType::Decimal128(10, 2);
    let stamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    let columns = [
        ("id", DataType::Int64, false),
        ("vendor_id", DataType::Int32, false),
        ("pickup_datetime", stamp.clone(), false),
        ("dropoff_datetime", stamp, false),
        ("passenger_count", DataType::Int16, true),
        ("trip_distance", DataType::Float64, true),
        ("rate_code_id", DataType::Int16, true),
        ("store_and_fwd_flag", DataType::Utf8, true),
        ("pickup_location_id", DataType::Int32, false),
        ("dropoff_location_id", DataType::Int32, false),
        ("payment_type", DataType::Int16, true),
        ("fare_amount", money.clone(), true),
        ("extra", money.clone(), true),
        ("mta_tax", money.clone(), true),
        ("tip_amount", money.clone(), true),
        ("tolls_amount", money.clone(), true),
        ("improvement_surcharge", money.clone(), true),
        ("total_amount", money.clone(), true),
        ("congestion_surcharge", money.clone(), true),
        ("airport_fee", money, true),
    ];
    Arc::new(Schema::new(columns.map(|(name, data_type, nullable)| Field::new(name, data_type, nullable)).to_vec()))
}

/// What an aggregation by zone and time reads.
const WANTED: [&str; 7] =
    ["id", "vendor_id", "pickup_datetime", "trip_distance", "pickup_location_id", "fare_amount", "total_amount"];

fn spec(wanted: &[&str]) -> Arc<DecodeSpec> {
    let declared = trips();
    let mut spec = DecodeSpec::new("public.trips", Arc::clone(&declared), vec!["id".into()], Format::DebeziumJson);
    let places: Vec<usize> = wanted.iter().map(|name| declared.index_of(name).unwrap()).collect();
    if !places.is_empty() {
        spec.schema = Arc::new(declared.project(&places).unwrap());
    }
    spec.decimal_handling = DecimalHandling::Double;
    Arc::new(spec)
}

/// 16 MB of messages, whole lines.
fn messages() -> Vec<u8> {
    const LENGTH: usize = 16 << 20;
    let mut bytes = match std::env::var("LIVELAKE_BENCH_DATA") {
        Ok(folder) => std::fs::read(format!("{folder}/trips-0.ndjson")).unwrap(),
        Err(_) => (0..LENGTH as i64 / 700).flat_map(message).collect(),
    };
    bytes.truncate(LENGTH);
    let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap();
    bytes.truncate(end + 1);
    bytes
}

fn message(id: i64) -> Vec<u8> {
    let pickup = 1_741_000_000_000_000 + id * 1_234_567;
    let (dropoff, from, to, fare) = (pickup + 600_000_000, id % 263 + 1, id * 7 % 263 + 1, 300 + id % 4000);
    let (fare, total) = (format!("{}.{}", fare / 100, fare % 100), format!("{}.{:02}", fare / 100 + 4, fare % 100));
    format!(
        r#"{{"before":null,"after":{{"id":{id},"vendor_id":2,"pickup_datetime":{pickup},"dropoff_datetime":{dropoff},"passenger_count":1,"trip_distance":1.97,"rate_code_id":1,"store_and_fwd_flag":"N","pickup_location_id":{from},"dropoff_location_id":{to},"payment_type":1,"fare_amount":{fare},"extra":1.0,"mta_tax":0.5,"tip_amount":2.05,"tolls_amount":0.0,"improvement_surcharge":1.0,"total_amount":{total},"congestion_surcharge":2.5,"airport_fee":null}},"source":{{"version":"3.6.1.Final","connector":"postgresql","name":"lakehouse","ts_ms":1741000000000,"snapshot":"false","db":"nyc","sequence":"[\"66756334904\",\"{id}\"]","schema":"public","table":"trips","txId":2218863,"lsn":{id},"xmin":null}},"op":"c","ts_ms":1741000000123,"transaction":null}}
"#
    )
    .into_bytes()
}

fn decoding(criterion: &mut Criterion) {
    let bytes = messages();
    let file: Arc<str> = "trips-0.ndjson".into();
    let mut group = criterion.benchmark_group("debezium-json");
    group.throughput(Throughput::Bytes(bytes.len() as u64)).sample_size(20);
    for (name, wanted) in [("7 of 20 columns", &WANTED[..]), ("20 of 20 columns", &[]), ("1 of 20 columns", &WANTED[..1])] {
        let mut decoder = decoder(&spec(wanted)).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let input = Input::Lines { file: &file, first_line: 1, bytes: &bytes, header: None, last: true };
                decoder.decode(input).unwrap();
                black_box(decoder.take())
            });
        });
    }
    group.finish();
}

/// What the same seven fields cost with sonic-rs's own ways to get at them, without making any columns.
fn alternatives(criterion: &mut Criterion) {
    let bytes = messages();
    let text = std::str::from_utf8(&bytes).unwrap();
    let mut group = criterion.benchmark_group("alternatives");
    group.throughput(Throughput::Bytes(bytes.len() as u64)).sample_size(10);
    group.bench_function("lines and UTF-8 only", |bencher| {
        bencher.iter(|| memchr::memchr_iter(b'\n', std::str::from_utf8(black_box(&bytes)).unwrap().as_bytes()).count());
    });
    let mut tree = sonic_rs::PointerTree::new();
    for column in WANTED {
        tree.add_path(["after", column].iter());
    }
    tree.add_path(["op"].iter());
    group.bench_function("get_many", |bencher| {
        bencher.iter(|| text.lines().filter(|line| sonic_rs::get_many(*line, &tree).is_ok_and(|found| found.len() == 8)).count());
    });
    group.bench_function("to_object_iter", |bencher| {
        bencher.iter(|| {
            let mut found = 0;
            for line in text.lines() {
                for (key, value) in sonic_rs::to_object_iter(line).map(Result::unwrap) {
                    if key == "after" && value.is_object() {
                        let fields = sonic_rs::to_object_iter(value.as_raw_str()).map(Result::unwrap);
                        found += fields.filter(|(key, _)| WANTED.contains(&key.as_ref())).count();
                    }
                }
            }
            found
        });
    });
    group.bench_function("to_object_iter_unchecked", |bencher| {
        bencher.iter(|| {
            let mut found = 0;
            for line in text.lines() {
                // SAFETY: the input is made of well-formed JSON.
                for (key, value) in unsafe { sonic_rs::to_object_iter_unchecked(line) }.map(Result::unwrap) {
                    if key == "after" && value.is_object() {
                        // SAFETY: as above.
                        let fields = unsafe { sonic_rs::to_object_iter_unchecked(value.as_raw_str()) }.map(Result::unwrap);
                        found += fields.filter(|(key, _)| WANTED.contains(&key.as_ref())).count();
                    }
                }
            }
            found
        });
    });
    group.bench_function("serde, other fields ignored", |bencher| {
        bencher
            .iter(|| text.lines().filter(|line| sonic_rs::from_str::<Change>(line).is_ok_and(|change| change.op == "c")).count());
    });
    group.bench_function("tree per message", |bencher| {
        bencher.iter(|| {
            let trees = text.lines().map(|line| sonic_rs::from_str::<sonic_rs::Value>(line).unwrap());
            trees.filter(|tree| tree.get("op").is_some()).count()
        });
    });
    group.finish();
}

#[derive(serde::Deserialize)]
struct Change<'a> {
    #[expect(dead_code, reason = "only measured")]
    after: Option<Trip>,
    op: &'a str,
}

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only measured")]
struct Trip {
    id: i64,
    vendor_id: i32,
    pickup_datetime: i64,
    trip_distance: Option<f64>,
    pickup_location_id: i32,
    fare_amount: Option<f64>,
    total_amount: Option<f64>,
}

criterion_group!(benches, decoding, alternatives);
criterion_main!(benches);
