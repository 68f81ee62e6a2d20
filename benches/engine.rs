//! The engine's hot paths from Arrow batches through views planned from SQL text, one worker, no I/O.
//!
//! `cargo bench --workspace --bench engine`. Each measurement pushes rows, closes the tick and waits until every view is complete.
//! LIVELAKE_BENCH_ROWS sets how many trips the big relations have (1,000,000; the published figures are with 10,000,000).

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use livelake_dataflow::handle::{EngineConfig, EngineHandle};
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::{Envelope, InputBatch, SourceSpec, ViewSpec};
use livelake_queries::RelationName;
use livelake_queries::catalog::Catalog;
use livelake_queries::plan::{StoredColumns, view_plan};
use livelake_queries::statement::parse_script;

const TRIPS: &str =
    "id BIGINT PRIMARY KEY, zone INTEGER NOT NULL, miles DOUBLE PRECISION, fare DECIMAL(10, 2), at TIMESTAMP NOT NULL";
/// The same rows as they come, without a key: nothing of them is kept but what the views keep.
const RIDES: &str = "id BIGINT, zone INTEGER NOT NULL, miles DOUBLE PRECISION, fare DECIMAL(10, 2), at TIMESTAMP NOT NULL";
const BATCH_ROWS: usize = 64 * 1024;
/// Rows of a measured push where not a single row is.
const PUSH_ROWS: usize = 1 << 20;

fn rows() -> usize {
    std::env::var("LIVELAKE_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000)
}

/// An engine with one worker, a source and views over it.
struct Lake {
    engine: EngineHandle,
    source: RelationId,
    view: RelationId,
    ids: std::ops::RangeFrom<i64>,
}

impl Lake {
    fn new(columns: &str, others: &str, views: &[&str]) -> Lake {
        let engine = EngineHandle::start(&EngineConfig { workers: 1, retention_us: 0 }).unwrap();
        let mut catalog = Catalog::new();
        let mut sql = format!("CREATE SOURCE trips ({columns}) WITH (connector = 'files', path = 'x.csv'); {others}");
        for (number, view) in views.iter().enumerate() {
            sql.push_str(&format!("CREATE MATERIALIZED VIEW v{number} AS {view};"));
        }
        parse_script(&sql, None).unwrap().iter().for_each(|statement| drop(catalog.create(statement).unwrap()));
        let catalog = Arc::new(catalog);
        let mut stored = StoredColumns::default();
        let named = |name: &str| Arc::clone(catalog.get(&RelationName::parse(name)).unwrap());
        for relation in catalog.iter().filter(|relation| !relation.name.to_string().starts_with('v')) {
            stored.0.insert(relation.id, (0..relation.visible).collect());
            let envelope = if relation.key.is_empty() { Envelope::Append } else { Envelope::Upsert };
            let (name, key) = (relation.name.to_string(), relation.key.clone());
            let keep = !relation.key.is_empty();
            engine
                .create_source(SourceSpec {
                    id: relation.id,
                    name,
                    schema: relation.visible_schema(),
                    key,
                    envelope,
                    keep,
                    only_inserts: true,
                })
                .unwrap();
        }
        for number in 0..views.len() {
            let view = named(&format!("v{number}"));
            let planned = view_plan(&catalog, view.id, &stored).unwrap();
            engine
                .create_view(ViewSpec {
                    id: view.id,
                    name: format!("v{number}"),
                    plan: planned.plan,
                    key: planned.key,
                    errors: None,
                })
                .unwrap();
        }
        if let Some(zones) = catalog.get(&RelationName::parse("zones")) {
            let columns: Vec<(&str, ArrayRef)> = vec![
                ("zone", Arc::new((1..=250).collect::<Int32Array>())),
                ("name", Arc::new((1..=250).map(|zone| Some(format!("zone {zone}"))).collect::<StringArray>())),
            ];
            let rows = RecordBatch::try_from_iter(columns).unwrap();
            engine.push(zones.id, InputBatch::Rows { rows, ops: None }).unwrap();
        }
        Lake { engine, source: named("trips").id, view: named("v0").id, ids: 0.. }
    }

    /// Zones 1 to 250, a trip every tenth of a second: what a city's months look like.
    fn trips(&mut self, count: usize) -> Vec<RecordBatch> {
        let ids: Vec<i64> = self.ids.by_ref().take(count).collect();
        ids.chunks(BATCH_ROWS)
            .map(|ids| {
                // a multiplicative hash: the same rows in each run
                let spread = |id: i64, below: u64| ((id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % below;
                let columns: Vec<(&str, ArrayRef)> = vec![
                    ("id", Arc::new(Int64Array::from(ids.to_vec()))),
                    ("zone", Arc::new(ids.iter().map(|id| spread(*id, 250) as i32 + 1).collect::<Int32Array>())),
                    ("miles", Arc::new(ids.iter().map(|id| spread(*id, 2000) as f64 / 100.0).collect::<Float64Array>())),
                    (
                        "fare",
                        Arc::new(
                            ids.iter()
                                .map(|id| i128::from(spread(*id, 9000)))
                                .collect::<Decimal128Array>()
                                .with_precision_and_scale(10, 2)
                                .unwrap(),
                        ),
                    ),
                    ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(ids.iter().map(|id| *id * 100_000)))),
                ];
                RecordBatch::try_from_iter(columns).unwrap()
            })
            .collect()
    }

    fn push(&self, rows: Vec<RecordBatch>) {
        rows.into_iter().for_each(|rows| self.engine.push(self.source, InputBatch::Rows { rows, ops: None }).unwrap());
    }

    /// Closes the tick and waits until all is complete.
    fn tick(&self) {
        let time = self.engine.advance_to(self.engine.last_tick() + 1);
        assert!(self.engine.wait(time, Duration::from_secs(600)), "the tick is not complete: {:?}", self.engine.failure());
    }

    fn fill(columns: &str, others: &str, views: &[&str], count: usize) -> Lake {
        let mut lake = Lake::new(columns, others, views);
        for _ in 0..count.div_ceil(PUSH_ROWS) {
            let rows = lake.trips(PUSH_ROWS.min(count));
            lake.push(rows);
            lake.tick();
        }
        lake
    }
}

impl Drop for Lake {
    fn drop(&mut self) {
        self.engine.shutdown();
    }
}

const WINDOWS: &str = "SELECT window_start, zone, count(*) AS n, sum(fare) AS s FROM TUMBLE(trips, at, INTERVAL '5 minutes') GROUP BY window_start, window_end, zone";
const FLOAT_WINDOWS: &str = "SELECT window_start, zone, avg(miles) AS m FROM TUMBLE(trips, at, INTERVAL '5 minutes') GROUP BY window_start, window_end, zone";
const JOINED: &str =
    "SELECT z.name, count(*) AS n, sum(t.fare) AS s FROM trips t JOIN zones z ON z.zone = t.zone GROUP BY z.name";
const RANKED: &str = "SELECT zone, id, place FROM (SELECT zone, id, row_number() OVER (PARTITION BY zone ORDER BY fare DESC, id) AS place FROM trips) r WHERE place <= 3";
const ZONES: &str = "CREATE SOURCE zones (zone INTEGER PRIMARY KEY, name TEXT) WITH (connector = 'files', path = 'x.csv');";

/// Rows a second of one core, from batches in memory to the complete view.
fn bulk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bulk");
    group.throughput(Throughput::Elements(PUSH_ROWS as u64)).sample_size(10).measurement_time(Duration::from_secs(8));
    for (name, columns, others, view) in [
        ("window count and sum", RIDES, "", WINDOWS),
        ("window avg of floats", RIDES, "", FLOAT_WINDOWS),
        ("upsert", TRIPS, "", "SELECT count(*) AS n FROM trips"),
        ("upsert, join, sum", TRIPS, ZONES, JOINED),
        ("upsert, top 3 of each zone", TRIPS, "", RANKED),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let mut lake = Lake::new(columns, others, &[view]);
                    let rows = lake.trips(PUSH_ROWS);
                    (lake, rows)
                },
                |(lake, rows)| {
                    lake.push(rows);
                    lake.tick();
                    lake
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// From one pushed row, a change of a trip that is there, to the complete view over all trips.
fn one_row(criterion: &mut Criterion) {
    let count = rows();
    let mut group = criterion.benchmark_group(format!("one changed row of {count}"));
    for (name, others, view) in [
        ("count", "", "SELECT count(*) AS n FROM trips"),
        ("window", "", WINDOWS),
        ("join", ZONES, JOINED),
        ("top 3", "", RANKED),
    ] {
        let mut lake = Lake::fill(TRIPS, others, &[view], count);
        let changed: Vec<RecordBatch> = lake.trips(64).iter().flat_map(|rows| (0..64).map(|row| rows.slice(row, 1))).collect();
        let first = changed[0].column(0).to_data().buffers()[0].typed_data::<i64>()[0];
        let mut turn = 0u64;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    turn += 1;
                    // somewhere in the middle, another place each time, with another trip's values
                    let id = (turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as i64 % first;
                    let row = &changed[turn as usize % changed.len()];
                    let mut columns = row.columns().to_vec();
                    columns[0] = Arc::new(Int64Array::from(vec![id]));
                    let row = RecordBatch::try_new(row.schema(), columns).unwrap();
                    let begin = Instant::now();
                    lake.push(vec![row]);
                    lake.tick();
                    spent += begin.elapsed();
                }
                spent
            });
        });
        let (trips, view) = (lake.engine.size(lake.source).unwrap(), lake.engine.size(lake.view).unwrap());
        println!(
            "{name}: {} bytes an update of trips ({} updates), {} bytes a row of the view ({} updates)",
            trips.bytes / trips.updates.max(1),
            trips.updates,
            view.bytes / view.updates.max(1),
            view.updates
        );
    }
    group.finish();
}

criterion_group!(benches, bulk, one_row);
criterion_main!(benches);
