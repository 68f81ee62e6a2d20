//! One query, from its text to the last of its answer: planned as a lake plans it, fed by a generator thread, kept as a materialized view.
//!
//! ```text
//!   generator thread ──▶ bounded channel ──▶ this thread: columns that the query reads ──▶ engine, one tick a batch of events
//! ```
//! At most [`OPEN_TICKS`] ticks are open, so that the queues take little memory and a slow query slows the generator. What is measured
//! goes from the start of the generator until the view is complete at the last tick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use livelake_actors::lake::reader::{EngineReader, peek};
use livelake_dataflow::handle::{EngineConfig, EngineHandle};
use livelake_dataflow::protocol::{Envelope, InputBatch, PeekRequest, SourceSpec, Timestamp, ViewSpec};
use livelake_queries::RelationName;
use livelake_queries::catalog::{Catalog, Relation};
use livelake_queries::plan::{StoredColumns, columns_read, view_plan};
use livelake_queries::statement::parse_script;
use livelake_queries::verify::{compare, expected};
use serde::{Deserialize, Serialize};

use super::events::{EventGenerator, Events, Schemas, side_input, tick_after};
use super::query::{Query, SCHEMA};
use crate::commands::{Failure, running};

/// Ticks that the engine may be behind.
const OPEN_TICKS: usize = 3;
/// Batches that the generator may be ahead.
const READY_BATCHES: usize = 2;
/// Rows of a push: several a tick, so that all workers have some.
const PUSH_ROWS: usize = 16 * 1024;
/// A query that takes longer for one tick will not end.
const PATIENCE: Duration = Duration::from_secs(600);

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many events.
    pub events: u64,
    /// Events of a tick.
    pub tick: u64,
    /// Events of a second of their own time.
    pub event_rate: u64,
    /// Engine threads.
    pub workers: usize,
    /// Of the generator.
    pub seed: u64,
    /// Whether the answer is compared with a batch computation after each tick, which needs all events kept.
    pub check: bool,
}

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Which query.
    pub query: String,
    /// How many events it was given.
    pub events: u64,
    /// From the first event's making until the view was complete.
    pub seconds: f64,
    /// Events by seconds.
    pub events_per_second: f64,
    /// The most memory that the process had, bytes.
    pub peak_bytes: u64,
    /// Rows of the view.
    pub rows: i64,
    /// Bytes of the view's own arrangement.
    pub view_bytes: u64,
    /// Rows that a batch computation has and the view has not, and the other way round, over all ticks; absent: not compared.
    pub differences: Option<usize>,
}

/// The streams, the view, and the engine that keeps it.
struct Lake {
    engine: EngineHandle,
    catalog: Arc<Catalog>,
    stored: StoredColumns,
}

const VIEW: &str = "answer";

fn relation(catalog: &Catalog, name: &str) -> Result<Arc<Relation>, Failure> {
    let found = catalog.get(&RelationName::parse(name));
    found.cloned().ok_or_else(|| running(format!("the script does not create {name}")))
}

impl Lake {
    fn new(query: &str, settings: &Settings) -> Result<Lake, Failure> {
        let engine = EngineHandle::start(&EngineConfig { workers: settings.workers, retention_us: 0 }).map_err(running)?;
        let mut catalog = Catalog::new();
        let script = format!("{SCHEMA}CREATE MATERIALIZED VIEW {VIEW} AS\n{query};");
        for statement in parse_script(&script, None)? {
            catalog.create(&statement).map_err(|error| vec![error])?;
        }
        let lake = Lake { engine, stored: StoredColumns::default(), catalog: Arc::new(catalog) };
        let view = lake.relation(VIEW)?;
        let stored = columns_read(&lake.catalog, &[view.id]);
        for source in lake.catalog.iter().filter(|relation| relation.is_base()) {
            let spec = SourceSpec {
                id: source.id,
                name: source.name.to_string(),
                schema: stored.schema(source),
                key: stored.key(source),
                envelope: Envelope::Append,
                keep: settings.check,
                only_inserts: true,
            };
            lake.engine.create_source(spec).map_err(running)?;
        }
        let plan = view_plan(&lake.catalog, view.id, &stored).map_err(|error| vec![error])?;
        let errors = Some(lake.relation(&view.name.errors().name)?.id);
        let spec = ViewSpec { id: view.id, name: view.name.to_string(), plan: plan.plan, key: plan.key, errors };
        lake.engine.create_view(spec).map_err(running)?;
        Ok(Lake { stored, ..lake })
    }

    fn relation(&self, name: &str) -> Result<Arc<Relation>, Failure> {
        relation(&self.catalog, name)
    }

    /// Hands over the columns that are read.
    fn push(&self, relation: &Relation, rows: &RecordBatch) -> Result<(), Failure> {
        let rows = rows.project(&self.stored.of(relation)).map_err(running)?;
        for from in (0..rows.num_rows()).step_by(PUSH_ROWS) {
            let rows = rows.slice(from, PUSH_ROWS.min(rows.num_rows() - from));
            self.engine.push(relation.id, InputBatch::Rows { rows, ops: None }).map_err(running)?;
        }
        Ok(())
    }

    fn wait(&self, tick: Timestamp) -> Result<(), Failure> {
        if self.engine.wait(tick, PATIENCE) {
            return Ok(());
        }
        Err(running(self.engine.failure().unwrap_or_else(|| format!("a tick took more than {} s", PATIENCE.as_secs()))))
    }

    /// How many rows differ from the batch answer, errors of the view among them.
    fn differences(&self, as_of: Timestamp) -> Result<usize, Failure> {
        let view = self.relation(VIEW)?;
        let errors = self.relation(&view.name.errors().name)?;
        let reader =
            EngineReader { engine: self.engine.clone(), catalog: Arc::clone(&self.catalog), stored: self.stored.clone() };
        let all = |id| PeekRequest { id, as_of, key: None, limit: None, projection: None };
        let runtime = tokio::runtime::Runtime::new().map_err(running)?;
        runtime.block_on(async {
            let wanted = expected(&self.catalog, Arc::new(reader), as_of, view.id).await.map_err(|error| vec![error])?;
            let rows = peek(&self.engine, all(view.id)).await.map_err(running)?;
            let failed = peek(&self.engine, all(errors.id)).await.map_err(running)?;
            let failed: usize = failed.iter().map(RecordBatch::num_rows).sum();
            Ok(failed + compare(&view.schema, &wanted, &rows).map_err(running)?.len())
        })
    }
}

/// Starts making events; ends early when nobody takes them.
fn generate(schemas: Schemas, settings: Settings) -> std::sync::mpsc::Receiver<Result<Events, arrow::error::ArrowError>> {
    let (send, receive) = std::sync::mpsc::sync_channel(READY_BATCHES);
    std::thread::spawn(move || {
        let mut generator = EventGenerator::new(schemas, settings.seed, settings.event_rate);
        let mut left = settings.events;
        while left > 0 {
            let count = settings.tick.min(left);
            left -= count;
            if send.send(generator.next(count)).is_err() {
                return;
            }
        }
    });
    receive
}

/// Runs one query over all events.
pub fn measure(query: &Query, settings: &Settings) -> Result<Measured, Failure> {
    let lake = Lake::new(query.sql, settings)?;
    let (person, auction, bid) = (lake.relation("person")?, lake.relation("auction")?, lake.relation("bid")?);
    let schemas = schemas(&lake.catalog)?;
    let side = lake.relation("side_input")?;
    lake.push(&side, &side_input(&side.visible_schema()).map_err(running)?)?;
    lake.wait(lake.engine.advance_to(tick_after(0)))?;
    let begin = Instant::now();
    let mut ticks = std::collections::VecDeque::new();
    let (mut done, mut differences) = (0, None);
    for events in generate(schemas, *settings) {
        let events = events.map_err(running)?;
        lake.push(&person, &events.person)?;
        lake.push(&auction, &events.auction)?;
        lake.push(&bid, &events.bid)?;
        done += events.count;
        let tick = lake.engine.advance_to(tick_after(done));
        if settings.check {
            *differences.get_or_insert(0) += lake.differences(tick)?;
        }
        ticks.push_back(tick);
        if ticks.len() > OPEN_TICKS {
            ticks.pop_front().map_or(Ok(()), |tick| lake.wait(tick))?;
        }
    }
    ticks.pop_back().map_or(Ok(()), |tick| lake.wait(tick))?;
    let seconds = begin.elapsed().as_secs_f64();
    let peak_bytes = livelake_actors::memory::peak_bytes();
    let size = lake.engine.size(lake.relation(VIEW)?.id).unwrap_or_default();
    lake.engine.shutdown();
    Ok(Measured {
        query: query.name.to_owned(),
        events: done,
        seconds,
        events_per_second: done as f64 / seconds,
        peak_bytes,
        rows: size.rows,
        view_bytes: size.bytes,
        differences,
    })
}

fn schemas(catalog: &Catalog) -> Result<Schemas, Failure> {
    let of = |name: &str| Ok::<_, Failure>(relation(catalog, name)?.visible_schema());
    Ok(Schemas { person: of("person")?, auction: of("auction")?, bid: of("bid")? })
}

/// The generator alone: what no query can be faster than.
pub fn generator_alone(settings: &Settings) -> Result<Measured, Failure> {
    let mut catalog = Catalog::new();
    for statement in parse_script(SCHEMA, None)? {
        catalog.create(&statement).map_err(|error| vec![error])?;
    }
    let begin = Instant::now();
    let mut done = 0;
    for events in generate(schemas(&catalog)?, *settings) {
        done += events.map_err(running)?.count;
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Measured {
        query: "none".to_owned(),
        events: done,
        seconds,
        events_per_second: done as f64 / seconds,
        peak_bytes: livelake_actors::memory::peak_bytes(),
        rows: 0,
        view_bytes: 0,
        differences: None,
    })
}
