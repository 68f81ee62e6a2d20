//! The engine through its handle: plans built by hand, answers compared with a plain recomputation after every tick.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, Column, Literal};
use livelake_dataflow::errors::error_schema;
use livelake_dataflow::handle::{EngineConfig, EngineHandle};
use livelake_dataflow::plan::{Aggregate, AggregateFunction, OrderBy, Plan, RelationId};
use livelake_dataflow::protocol::{EngineError, Envelope, InputBatch, Op, PeekRequest, SourceSpec, SubscriptionEvent, ViewSpec};
use proptest::prelude::*;

const TRIPS: RelationId = RelationId(1);
const ZONES: RelationId = RelationId(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// Recomputes a view's rows from the source's.
type Expected = fn(&BTreeMap<i64, Row>) -> Vec<String>;
/// One row of the source: id, group, amount.
type Row = (i64, Option<i64>, Option<i64>);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("zone", DataType::Int64, true),
        Field::new("amount", DataType::Int64, true),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn engine(workers: usize) -> EngineHandle {
    let engine = EngineHandle::start(&EngineConfig { workers, retention_us: 0 }).unwrap();
    let spec = SourceSpec {
        id: TRIPS,
        name: "trips".into(),
        schema: schema(),
        key: vec![0],
        envelope: Envelope::Upsert,
        keep: true,
        only_inserts: false,
    };
    engine.create_source(spec).unwrap();
    engine
}

fn get() -> Plan {
    Plan::Get { relation: TRIPS, schema: schema() }
}

fn view(engine: &EngineHandle, id: u64, plan: Plan) -> RelationId {
    let id = RelationId(id);
    engine.create_view(ViewSpec { id, name: format!("view {}", id.0), plan, key: vec![], errors: None }).unwrap();
    id
}

fn rows_of(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows: Vec<String> = batches
        .iter()
        .flat_map(|batch| {
            let columns: Vec<_> =
                batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(","))
                .collect::<Vec<_>>()
        })
        .collect();
    rows.sort();
    rows
}

fn read(engine: &EngineHandle, id: RelationId, as_of: u64) -> Result<Vec<String>, EngineError> {
    let (send, receive) = channel();
    let request = PeekRequest { id, as_of, key: None, limit: None, projection: None };
    engine.peek(request, Box::new(move |answer| send.send(answer).unwrap()));
    Ok(rows_of(&receive.recv_timeout(PATIENCE).unwrap()?))
}

fn field(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn aggregate(function: AggregateFunction, arguments: &[usize], distinct: bool) -> Aggregate {
    Aggregate { function, arguments: arguments.to_vec(), distinct, data_type: DataType::Int64 }
}

fn reduce_plan() -> Plan {
    Plan::Reduce {
        input: Box::new(get()),
        keys: vec![1],
        aggregates: vec![
            aggregate(AggregateFunction::Count, &[], false),
            aggregate(AggregateFunction::Sum, &[2], false),
            aggregate(AggregateFunction::Count, &[2], true),
            aggregate(AggregateFunction::Min, &[2], false),
            aggregate(AggregateFunction::Max, &[2], false),
        ],
        schema: Arc::new(Schema::new(["zone", "trips", "sum", "different", "least", "greatest"].map(field).to_vec())),
    }
}

fn reduce_expected(state: &BTreeMap<i64, Row>) -> Vec<String> {
    let mut groups: BTreeMap<Option<i64>, Vec<Option<i64>>> = BTreeMap::new();
    for row in state.values() {
        groups.entry(row.1).or_default().push(row.2);
    }
    let show = |value: Option<i64>| value.map_or("NULL".to_owned(), |value| value.to_string());
    let mut rows: Vec<String> = groups
        .into_iter()
        .map(|(zone, amounts)| {
            let mut known: Vec<i64> = amounts.iter().copied().flatten().collect();
            let sum = (!known.is_empty()).then(|| known.iter().sum());
            known.sort_unstable();
            known.dedup();
            let parts = [
                show(zone),
                amounts.len().to_string(),
                show(sum),
                known.len().to_string(),
                show(known.first().copied()),
                show(known.last().copied()),
            ];
            parts.join(",")
        })
        .collect();
    rows.sort();
    rows
}

fn top_plan() -> Plan {
    let mut fields: Vec<Field> = schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("place", DataType::Int64, false));
    Plan::TopK {
        input: Box::new(get()),
        partition: vec![1],
        order: vec![OrderBy { column: 2, descending: true, nulls_first: false }],
        offset: 1,
        limit: Some(2),
        row_number: true,
        schema: Arc::new(Schema::new(fields)),
    }
}

fn top_expected(state: &BTreeMap<i64, Row>) -> Vec<String> {
    let mut groups: BTreeMap<Option<i64>, Vec<Row>> = BTreeMap::new();
    for row in state.values() {
        groups.entry(row.1).or_default().push(*row);
    }
    let show = |value: Option<i64>| value.map_or("NULL".to_owned(), |value| value.to_string());
    let mut rows = Vec::new();
    for (zone, mut group) in groups {
        group.sort_by_key(|row| (row.2.is_none(), row.2.map(|amount| -amount), row.0));
        for (at, row) in group.iter().enumerate().skip(1).take(2) {
            rows.push(format!("{},{},{},{}", row.0, show(zone), show(row.2), at + 1));
        }
    }
    rows.sort();
    rows
}

fn join_plan() -> Plan {
    let pairs: Vec<Field> = schema().fields().iter().chain(schema().fields()).map(|field| field.as_ref().clone()).collect();
    Plan::Join {
        left: Box::new(get()),
        right: Box::new(get()),
        on: vec![(1, 2)],
        null_equals_null: false,
        range: None,
        schema: Arc::new(Schema::new(pairs)),
    }
}

fn join_expected(state: &BTreeMap<i64, Row>) -> Vec<String> {
    let show = |row: &Row| rows_of(&[batch(&[*row])]).remove(0);
    let mut rows: Vec<String> = state
        .values()
        .flat_map(|left| {
            let matching = state.values().filter(|right| left.1.is_some() && left.1 == right.2);
            matching.map(|right| format!("{},{}", show(left), show(right))).collect::<Vec<_>>()
        })
        .collect();
    rows.sort();
    rows
}

/// An upsert of a row, or a delete of an id.
fn change() -> impl Strategy<Value = (Row, bool)> {
    ((0..12i64, proptest::option::of(0..4i64), proptest::option::of(0..4i64)), prop::bool::weighted(0.3))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Views made before and between the changes equal a recomputation after every tick, on one, two and three workers.
    #[test]
    fn views_equal_recomputation(ticks in prop::collection::vec(prop::collection::vec(change(), 0..12), 1..10), workers in 1..4usize, late in 0..9usize) {
        let engine = engine(workers);
        let checks: Vec<(Plan, Expected)> =
            vec![(reduce_plan(), reduce_expected), (top_plan(), top_expected), (join_plan(), join_expected)];
        let mut views = Vec::new();
        for (at, (plan, expected)) in checks.iter().enumerate() {
            views.push((view(&engine, 10 + at as u64, plan.clone()), *expected));
        }
        let mut state = BTreeMap::new();
        for (tick, changes) in ticks.iter().enumerate() {
            if tick == late {
                for (at, (plan, expected)) in checks.iter().enumerate() {
                    views.push((view(&engine, 20 + at as u64, plan.clone()), *expected));
                }
            }
            for chunk in changes.chunks(5) {
                let rows: Vec<Row> = chunk.iter().map(|(row, _)| *row).collect();
                let ops = chunk.iter().map(|(_, delete)| if *delete { Op::Delete as u8 } else { Op::Upsert as u8 }).collect();
                engine.push(TRIPS, InputBatch::Rows { rows: batch(&rows), ops: Some(ops) }).unwrap();
            }
            for (row, delete) in changes {
                if *delete { state.remove(&row.0); } else { state.insert(row.0, *row); }
            }
            let as_of = engine.advance_to(1000 * (tick as u64 + 1));
            for (id, expected) in &views {
                prop_assert_eq!(read(&engine, *id, as_of).unwrap(), expected(&state), "view {} at tick {}", id.0, tick);
            }
        }
        engine.shutdown();
    }
}

#[test]
fn a_subscription_replays_to_the_view() {
    let engine = engine(2);
    let id = view(&engine, 10, reduce_plan());
    let (send, receive) = channel();
    engine.push(TRIPS, InputBatch::Rows { rows: batch(&[(1, Some(1), Some(5)), (2, Some(1), Some(7))]), ops: None }).unwrap();
    let first = engine.advance_to(10);
    engine.subscribe(id, first, Box::new(move |event| send.send(event).unwrap())).unwrap();
    engine.push(TRIPS, InputBatch::Rows { rows: batch(&[(2, Some(2), Some(9))]), ops: None }).unwrap();
    let last = engine.advance_to(20);
    let mut held: BTreeMap<String, i64> = BTreeMap::new();
    let mut seen = Vec::new();
    loop {
        match receive.recv_timeout(PATIENCE).unwrap() {
            SubscriptionEvent::Changes(changes) => {
                seen.push(changes.as_of);
                for row in 0..changes.rows.num_rows() {
                    *held.entry(rows_of(&[changes.rows.slice(row, 1)]).remove(0)).or_default() += changes.diffs.value(row);
                }
            }
            SubscriptionEvent::Progress(upper) if upper > last => break,
            SubscriptionEvent::Progress(_) => {}
            SubscriptionEvent::End(error) => panic!("{error:?}"),
        }
    }
    held.retain(|_, count| *count != 0);
    assert_eq!(held.keys().cloned().collect::<Vec<_>>(), read(&engine, id, last).unwrap());
    assert!(held.values().all(|count| *count == 1));
    assert!(seen.is_sorted() && seen[0] == first);
    engine.shutdown();
}

#[test]
fn truncation_and_key_look_up() {
    let engine = engine(3);
    let rows: Vec<Row> = (0..100).map(|id| (id, Some(id % 3), Some(id))).collect();
    engine.push(TRIPS, InputBatch::Rows { rows: batch(&rows), ops: None }).unwrap();
    engine.advance_to(1);
    engine.push(TRIPS, InputBatch::Truncate).unwrap();
    engine.push(TRIPS, InputBatch::Rows { rows: batch(&[(7, None, Some(1)), (200, None, None)]), ops: None }).unwrap();
    let as_of = engine.advance_to(2);
    assert_eq!(read(&engine, TRIPS, as_of).unwrap(), ["200,NULL,NULL", "7,NULL,1"]);
    let key = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![7])) as ArrayRef)]).unwrap();
    let (send, receive) = channel();
    let request = PeekRequest { id: TRIPS, as_of, key: Some(key), limit: None, projection: Some(vec![2]) };
    engine.peek(request, Box::new(move |answer| send.send(answer).unwrap()));
    let found = receive.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(
        found.iter().map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect::<Vec<_>>(),
        [[1]]
    );
    engine.shutdown();
}

#[test]
fn relations_that_are_read_cannot_be_dropped_and_others_go_on() {
    let engine = engine(1);
    let id = view(&engine, 10, reduce_plan());
    assert!(matches!(engine.drop_relation(TRIPS), Err(EngineError::InUse { .. })));
    engine.drop_relation(id).unwrap();
    assert!(engine.frontier(id).is_none());
    let wide = Schema::new(vec![field("zone"), Field::new("name", DataType::Utf8, true)]);
    let zones = SourceSpec {
        id: ZONES,
        name: "zones".into(),
        schema: Arc::new(wide),
        key: vec![],
        envelope: Envelope::Append,
        keep: true,
        only_inserts: false,
    };
    engine.create_source(zones).unwrap();
    let least = Plan::Reduce {
        input: Box::new(Plan::Get {
            relation: ZONES,
            schema: Arc::new(Schema::new(vec![field("zone"), Field::new("name", DataType::Utf8, true)])),
        }),
        keys: vec![],
        aggregates: vec![
            Aggregate { function: AggregateFunction::Max, arguments: vec![1], distinct: false, data_type: DataType::Utf8 },
            aggregate(AggregateFunction::Count, &[], false),
        ],
        schema: Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true), field("rows")])),
    };
    let id = view(&engine, 11, least);
    let as_of = engine.advance_to(1);
    assert_eq!(read(&engine, id, as_of).unwrap(), ["NULL,0"]);
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("Astoria"), None, Some("Soho")]));
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("zone", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef, true),
        ("name", names, true),
    ])
    .unwrap();
    engine.push(ZONES, InputBatch::Rows { rows: rows.clone(), ops: None }).unwrap();
    let as_of = engine.advance_to(2);
    assert_eq!(read(&engine, id, as_of).unwrap(), ["Soho,3"]);
    engine.push(ZONES, InputBatch::Rows { rows: rows.slice(2, 1), ops: Some(vec![Op::Retract as u8]) }).unwrap();
    let as_of = engine.advance_to(3);
    assert_eq!(read(&engine, id, as_of).unwrap(), ["Astoria,2"]);
    engine.shutdown();
}

fn expression(left: Arc<dyn PhysicalExpr>, operator: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(left, operator, right))
}

/// `column op value` of the trips, beside another column.
fn computed(beside: usize, operator: Operator, value: i64, swapped: bool) -> Plan {
    let column = |at: usize| Arc::new(Column::new(schema().field(at).name(), at)) as Arc<dyn PhysicalExpr>;
    let value: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::Int64(Some(value))));
    let (left, right) = if swapped { (value, column(2)) } else { (column(2), value) };
    Plan::Map {
        input: Box::new(get()),
        predicates: vec![],
        projection: vec![column(beside), expression(left, operator, right)],
        schema: Arc::new(Schema::new(vec![field(schema().field(beside).name()), field("value")])),
    }
}

const QUARTER: i64 = i64::MAX / 4;

/// A view and its errors: 12 divided by each amount; sums of which those above 4 do not fit.
fn failing_plans() -> [Plan; 2] {
    let sums = Plan::Reduce {
        input: Box::new(computed(1, Operator::Multiply, QUARTER, false)),
        keys: vec![0],
        aggregates: vec![aggregate(AggregateFunction::Sum, &[1], false)],
        schema: Arc::new(Schema::new(["zone", "sum"].map(field).to_vec())),
    };
    [computed(0, Operator::Divide, 12, true), sums]
}

fn failing_expected(state: &BTreeMap<i64, Row>) -> [(Vec<String>, Vec<String>); 2] {
    let show = |value: Option<i64>| value.map_or("NULL".to_owned(), |value| value.to_string());
    let (mut quotients, mut sums) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    let mut zones: BTreeMap<Option<i64>, Option<i64>> = BTreeMap::new();
    for (id, zone, amount) in state.values() {
        match amount {
            Some(0) => quotients.1.push(format!("Divide by zero error,id = {id}, zone = {}, amount = 0", show(*zone))),
            amount => quotients.0.push(format!("{id},{}", show(amount.map(|amount| 12 / amount)))),
        }
        let sum = zones.entry(*zone).or_default();
        *sum = sum.map_or(*amount, |sum| Some(sum + amount.unwrap_or(0)));
    }
    for (zone, sum) in zones {
        match sum {
            Some(sum @ 5..) => {
                let much = i128::from(sum) * i128::from(QUARTER);
                sums.1.push(format!("Arithmetic overflow: the sum {much} does not fit Int64,zone = {}", show(zone)));
            }
            sum => sums.0.push(format!("{},{}", show(zone), show(sum.map(|sum| sum * QUARTER)))),
        }
    }
    [quotients, sums].map(|(mut rows, mut errors)| {
        rows.sort();
        errors.sort();
        (rows, errors)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Errors are those of the present input after every tick, and the other rows are right, on one, two and three workers.
    #[test]
    fn errors_are_those_of_the_present_input(ticks in prop::collection::vec(prop::collection::vec(change(), 0..12), 1..10), workers in 1..4usize, late in 0..9usize) {
        let engine = engine(workers);
        let create = |first: u64| failing_plans().into_iter().zip((first..).step_by(2)).map(|(plan, id)| {
            let (id, errors) = (RelationId(id), RelationId(id + 1));
            engine.create_view(ViewSpec { id, name: "failing".to_owned(), plan, key: vec![], errors: Some(errors) }).unwrap();
            (id, errors)
        }).collect::<Vec<_>>();
        let mut views = create(10);
        let mut state = BTreeMap::new();
        for (tick, changes) in ticks.iter().enumerate() {
            if tick == late {
                views.extend(create(20));
            }
            for (row, delete) in changes {
                let op = if *delete { Op::Delete } else { Op::Upsert };
                engine.push(TRIPS, InputBatch::Rows { rows: batch(&[*row]), ops: Some(vec![op as u8]) }).unwrap();
                if *delete { state.remove(&row.0); } else { state.insert(row.0, *row); }
            }
            let as_of = engine.advance_to(1000 * (tick as u64 + 1));
            for ((id, errors), (rows, reasons)) in views.iter().zip(failing_expected(&state).iter().cycle()) {
                prop_assert_eq!(&read(&engine, *id, as_of).unwrap(), rows, "view {} at tick {}", id.0, tick);
                prop_assert_eq!(&read(&engine, *errors, as_of).unwrap(), reasons, "errors {} at tick {}", errors.0, tick);
            }
        }
        engine.shutdown();
    }
}

#[test]
fn less_than_nothing_is_an_error_that_names_the_source_and_goes() {
    let engine = engine(2);
    let zones = SourceSpec {
        id: ZONES,
        name: "shop.zones".into(),
        schema: schema(),
        key: vec![],
        envelope: Envelope::Append,
        keep: true,
        only_inserts: false,
    };
    engine.create_source(zones).unwrap();
    let get = || Box::new(Plan::Get { relation: ZONES, schema: schema() });
    let counts = Plan::Reduce {
        input: get(),
        keys: vec![1],
        aggregates: vec![aggregate(AggregateFunction::Count, &[], false)],
        schema: Arc::new(Schema::new(["zone", "rows"].map(field).to_vec())),
    };
    let order = vec![OrderBy { column: 2, descending: false, nulls_first: false }];
    let first =
        Plan::TopK { input: get(), partition: vec![1], order, offset: 0, limit: Some(1), row_number: false, schema: schema() };
    let (send, told) = channel();
    engine.listen_to_errors(Box::new(move |id, errors| send.send((id, errors)).unwrap()));
    let view = |id: u64, plan: Plan| {
        let errors = Some(RelationId(id + 1));
        engine.create_view(ViewSpec { id: RelationId(id), name: "v".into(), plan, key: vec![], errors }).unwrap();
    };
    view(10, counts);
    view(20, first);
    let push = |op: Op, at: u64| {
        engine.push(ZONES, InputBatch::Rows { rows: batch(&[(1, Some(7), Some(3))]), ops: Some(vec![op as u8]) }).unwrap();
        engine.advance_to(at)
    };
    let words = "more rows were retracted than there were in shop.zones";
    for _ in 0..2 {
        let as_of = push(Op::Retract, engine.last_tick() + 1);
        for errors in [11, 21] {
            assert_eq!(read(&engine, RelationId(errors), as_of).unwrap(), [format!("{words},zone = 7")]);
        }
        let as_of = push(Op::Insert, engine.last_tick() + 1);
        for id in [10, 11, 20, 21] {
            assert_eq!(read(&engine, RelationId(id), as_of).unwrap(), Vec::<String>::new());
        }
    }
    // the source itself says so, too: a view that only passes rows on would never notice
    let about_source = std::iter::from_fn(|| told.recv_timeout(PATIENCE).ok()).find(|(id, _)| *id == ZONES).unwrap().1;
    assert_eq!((about_source[0].reason.as_str(), about_source[0].diff), (words, 1));
    assert_eq!(about_source[0].row, "id = 1, zone = 7, amount = 3");

    let part_of = engine.drop_relation(RelationId(11)).unwrap_err();
    assert!(matches!(part_of, EngineError::PartOf { relation: RelationId(11), view: RelationId(10) }), "{part_of}");
    let over = Plan::Get { relation: RelationId(11), schema: error_schema() };
    engine.create_view(ViewSpec { id: RelationId(30), name: "over".into(), plan: over, key: vec![], errors: None }).unwrap();
    assert!(matches!(engine.drop_relation(RelationId(10)), Err(EngineError::InUse { relation: RelationId(11), .. })));
    engine.drop_relation(RelationId(30)).unwrap();
    engine.drop_relation(RelationId(10)).unwrap();
    assert!(matches!(read(&engine, RelationId(11), engine.last_tick()), Err(EngineError::UnknownRelation(_))));
    engine.shutdown();
}
