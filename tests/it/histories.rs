//! Base relations with histories, and views over them that are compared with DataFusion's batch answer after every tick.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use livelake_actors::lake::reader::EngineReader;
use livelake_dataflow::handle::{EngineConfig, EngineHandle};
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::{Envelope, InputBatch, Op, PeekRequest, SourceSpec, ViewSpec};
use livelake_queries::RelationName;
use livelake_queries::catalog::{Catalog, Created, Relation};
use livelake_queries::plan::{StoredColumns, view_plan};
use livelake_queries::statement::{RelationKind, Statement, parse_script};
use livelake_queries::verify::{compare, expected};
use proptest::prelude::*;

const RELATIONS: &str = "
CREATE SOURCE trips (id INTEGER PRIMARY KEY, zone INTEGER, vendor TEXT, miles DOUBLE PRECISION, fare DECIMAL(10, 2), at TIMESTAMP)
  WITH (connector = 'files', path = 'x.csv');
CREATE SOURCE zones (zone INTEGER PRIMARY KEY, name TEXT, weight BIGINT) WITH (connector = 'files', path = 'x.csv');
CREATE SOURCE notes (zone INTEGER, note TEXT) WITH (connector = 'files', path = 'x.csv');";

/// A change of trips: id, zone, vendor, miles, cents, minute; and whether it deletes.
pub type Trip = (i32, Option<i32>, Option<u8>, Option<f64>, Option<i64>, Option<i64>, bool);
pub type Tick = (Vec<Trip>, Vec<(i32, Option<u8>, Option<i64>, bool)>, Vec<(Option<i32>, u8, bool)>);

fn letters(values: impl Iterator<Item = Option<u8>>) -> ArrayRef {
    Arc::new(values.map(|value| value.map(|value| ["a", "b", "C", ""][value as usize % 4])).collect::<StringArray>())
}

fn ops(deletes: impl Iterator<Item = bool>, put: Op, away: Op) -> Option<Vec<u8>> {
    Some(deletes.map(|delete| if delete { away as u8 } else { put as u8 }).collect())
}

fn batch(relation: &Relation, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(relation.visible_schema(), columns).unwrap()
}

fn trips(relation: &Relation, changes: &[Trip]) -> InputBatch {
    let decimals =
        changes.iter().map(|c| c.4.map(i128::from)).collect::<Decimal128Array>().with_precision_and_scale(10, 2).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(changes.iter().map(|c| Some(c.0)).collect::<Int32Array>()),
        Arc::new(changes.iter().map(|c| c.1).collect::<Int32Array>()),
        letters(changes.iter().map(|c| c.2)),
        Arc::new(changes.iter().map(|c| c.3).collect::<Float64Array>()),
        Arc::new(decimals),
        Arc::new(changes.iter().map(|c| c.5.map(|minute| minute * 60_000_000)).collect::<TimestampMicrosecondArray>()),
    ];
    InputBatch::Rows { rows: batch(relation, columns), ops: ops(changes.iter().map(|c| c.6), Op::Upsert, Op::Delete) }
}

/// An engine, the catalog, and the views that were made.
pub struct Lake {
    /// The engine.
    pub engine: EngineHandle,
    catalog: Arc<Catalog>,
    stored: StoredColumns,
    views: Vec<Arc<Relation>>,
    notes: Vec<(Option<i32>, u8)>,
}

impl Lake {
    pub fn new(workers: usize) -> Lake {
        Lake::of(RELATIONS, workers)
    }

    /// A lake of the relations that a script creates.
    pub fn of(relations: &str, workers: usize) -> Lake {
        let engine = EngineHandle::start(&EngineConfig { workers, retention_us: 0 }).unwrap();
        let mut catalog = Catalog::new();
        for statement in parse_script(relations, None).unwrap() {
            catalog.create(&statement).unwrap();
        }
        let mut stored = StoredColumns::default();
        for relation in catalog.iter() {
            stored.0.insert(relation.id, (0..relation.visible).collect());
            let envelope = if relation.key.is_empty() { Envelope::Append } else { Envelope::Upsert };
            let (name, key) = (relation.name.to_string(), relation.key.clone());
            engine
                .create_source(SourceSpec {
                    id: relation.id,
                    name,
                    schema: relation.visible_schema(),
                    key,
                    envelope,
                    keep: true,
                    only_inserts: false,
                })
                .unwrap();
        }
        Lake { engine, catalog: Arc::new(catalog), stored, views: Vec::new(), notes: Vec::new() }
    }

    fn relation(&self, name: &str) -> Arc<Relation> {
        Arc::clone(self.catalog.get(&RelationName::parse(name)).unwrap())
    }

    /// Makes a view, or says why it cannot be.
    pub fn create(&mut self, name: &str, query: &str) -> Result<(), String> {
        let sql = format!("CREATE MATERIALIZED VIEW {name} AS {query};");
        let statements = parse_script(&sql, None).map_err(|errors| format!("{errors:?}"))?;
        statements.iter().try_for_each(|statement| self.define(statement))
    }

    /// Runs the statement of a view.
    pub fn define(&mut self, statement: &Statement) -> Result<(), String> {
        let mut catalog = self.catalog.as_ref().clone();
        let created = catalog.create(statement).map_err(|error| error.to_string())?;
        let catalog = Arc::new(catalog);
        let Created::New(view) = created else { return Ok(()) };
        if view.kind == RelationKind::View {
            self.catalog = catalog;
            return Ok(());
        }
        let name = view.name.to_string();
        let planned = view_plan(&catalog, view.id, &self.stored).map_err(|error| error.to_string())?;
        self.catalog = catalog;
        let errors = Some(self.relation(&view.name.errors().name).id);
        self.engine
            .create_view(ViewSpec { id: view.id, name, plan: planned.plan, key: planned.key, errors })
            .map_err(|error| error.to_string())?;
        self.views.push(view);
        Ok(())
    }

    /// Rows of a relation with a key come, or go.
    pub fn feed(&self, name: &str, rows: &RecordBatch, op: Op) {
        let relation = self.relation(name);
        let rows = batch(&relation, rows.columns().to_vec());
        let ops = Some(vec![op as u8; rows.num_rows()]);
        self.engine.push(relation.id, InputBatch::Rows { rows, ops }).unwrap();
    }

    /// The columns of a relation.
    pub fn schema(&self, name: &str) -> SchemaRef {
        self.relation(name).visible_schema()
    }

    /// How many rows a view has.
    pub fn size(&self, name: &str, as_of: u64) -> usize {
        self.rows(self.relation(name).id, as_of).iter().map(RecordBatch::num_rows).sum()
    }

    pub fn push(&mut self, tick: &Tick) {
        let (trips_relation, zones, notes) = (self.relation("trips"), self.relation("zones"), self.relation("notes"));
        for chunk in tick.0.chunks(4) {
            self.engine.push(trips_relation.id, trips(&trips_relation, chunk)).unwrap();
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(tick.1.iter().map(|c| Some(c.0)).collect::<Int32Array>()),
            letters(tick.1.iter().map(|c| c.1)),
            Arc::new(tick.1.iter().map(|c| c.2).collect::<Int64Array>()),
        ];
        let deletes = ops(tick.1.iter().map(|c| c.3), Op::Upsert, Op::Delete);
        self.engine.push(zones.id, InputBatch::Rows { rows: batch(&zones, columns), ops: deletes }).unwrap();
        // only what is there can be retracted
        let mut changes = Vec::new();
        for (zone, note, retract) in &tick.2 {
            match self.notes.iter().position(|known| known == &(*zone, *note)) {
                Some(at) if *retract => {
                    self.notes.remove(at);
                    changes.push((*zone, *note, true));
                }
                _ if *retract => {}
                _ => {
                    self.notes.push((*zone, *note));
                    changes.push((*zone, *note, false));
                }
            }
        }
        let columns: Vec<ArrayRef> =
            vec![Arc::new(changes.iter().map(|c| c.0).collect::<Int32Array>()), letters(changes.iter().map(|c| Some(c.1)))];
        let retractions = ops(changes.iter().map(|c| c.2), Op::Insert, Op::Retract);
        self.engine.push(notes.id, InputBatch::Rows { rows: batch(&notes, columns), ops: retractions }).unwrap();
    }

    fn rows(&self, id: RelationId, as_of: u64) -> Vec<RecordBatch> {
        let (send, receive) = channel();
        let request = PeekRequest { id, as_of, key: None, limit: None, projection: None };
        self.engine.peek(request, Box::new(move |answer| send.send(answer).unwrap()));
        receive.recv_timeout(Duration::from_secs(120)).unwrap().unwrap()
    }

    /// Compares every view with its batch answer. Says how many of them DataFusion could not answer in batch (its physical planner refuses
    /// some plans that it made itself); of those only the errors are looked at.
    pub fn check(&self, as_of: u64, runtime: &tokio::runtime::Runtime) -> usize {
        let mut unanswered = 0;
        for view in &self.views {
            let reader =
                EngineReader { engine: self.engine.clone(), catalog: Arc::clone(&self.catalog), stored: self.stored.clone() };
            let actual = self.rows(view.id, as_of);
            let differences = match runtime.block_on(expected(&self.catalog, Arc::new(reader), as_of, view.id)) {
                Ok(wanted) => compare(&view.schema, &wanted, &actual).unwrap(),
                Err(error) if ["plan: [", "internal error"].iter().any(|own| error.message.starts_with(own)) => {
                    unanswered += 1;
                    Vec::new()
                }
                Err(error) => panic!("{} at {as_of}: {error:?}\n{}", view.name, view.sql),
            };
            let shown: Vec<_> = differences
                .iter()
                .map(|one| format!("{} {:?}", if one.missing { "missing" } else { "extra" }, one.row.columns()))
                .collect();
            assert!(differences.is_empty(), "{} at {as_of}: {shown:#?}\n{}", view.name, view.sql);
            let errors = self.rows(self.relation(&view.name.errors().name).id, as_of);
            assert!(errors.is_empty(), "{} at {as_of}: {errors:?}\n{}", view.name, view.sql);
        }
        unanswered
    }
}

fn miles() -> impl Strategy<Value = f64> {
    prop_oneof![4 => (0..40i32).prop_map(|tenths| f64::from(tenths) / 10.0), 1 => Just(f64::NAN), 1 => Just(-0.0), 1 => Just(1e15), 1 => Just(-1e-9)]
}

pub fn tick() -> impl Strategy<Value = Tick> {
    let some = |range: std::ops::Range<i64>| proptest::option::weighted(0.9, range);
    let zone = || proptest::option::weighted(0.9, 0..4i32);
    let trip = (
        0..10i32,
        zone(),
        proptest::option::weighted(0.9, 0..4u8),
        proptest::option::weighted(0.9, miles()),
        some(-200..2000),
        some(0..12),
        prop::bool::weighted(0.25),
    );
    let zones = (0..4i32, proptest::option::of(0..4u8), some(0..9), prop::bool::weighted(0.3));
    (
        prop::collection::vec(trip, 0..9),
        prop::collection::vec(zones, 0..3),
        prop::collection::vec((zone(), 0..3u8, prop::bool::weighted(0.4)), 0..4),
    )
}
