//! Queries and changes of tables as a session plans and runs them, over relations in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::util::pretty::pretty_format_batches;

use super::*;
use crate::catalog::Relation;
use crate::lower::tests::{SOURCES, catalog as planned};
use crate::name::RelationName;
use crate::statement::{StatementKind, parse_statement};
use crate::verify;

const HOUR: i64 = 3_600_000_000;

/// Relations in memory, and what was asked of them.
#[derive(Default)]
struct Memory {
    rows: BTreeMap<RelationId, RecordBatch>,
    asked: Mutex<Vec<ReadRequest>>,
}

#[async_trait]
impl RelationReader for Memory {
    async fn read(&self, relation: RelationId, _: u64, request: ReadRequest) -> Result<Vec<RecordBatch>> {
        let rows = self.rows.get(&relation).expect("a relation with rows").project(&request.projection)?;
        self.asked.lock().unwrap().push(request);
        Ok(vec![rows])
    }
}

/// Rows of a relation from some of its columns; the others are NULL.
fn rows(relation: &Relation, columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let length = columns[0].1.len();
    let column = |field: &arrow::datatypes::FieldRef| match columns.iter().find(|(name, _)| name == field.name()) {
        Some((_, array)) => Arc::clone(array),
        None => arrow::array::new_null_array(field.data_type(), length),
    };
    let arrays = relation.schema.fields().iter().map(column).collect();
    let fields: Vec<_> = relation.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), arrays).unwrap()
}

fn lake() -> (Arc<Catalog>, Arc<Memory>) {
    let catalog = planned(&format!(
        "{SOURCES} CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT DEFAULT 'none', n BIGINT);
         CREATE VIEW far AS SELECT id, zone, distance FROM trips WHERE distance > 2;"
    ));
    let mut memory = Memory::default();
    let trips = catalog.get(&RelationName::parse("trips")).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4]))),
        ("zone", Arc::new(Int32Array::from(vec![7, 7, 8, 7]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, 10 * 60_000_000, HOUR, HOUR + 1]))),
        ("fare", Arc::new(Decimal128Array::from(vec![100, 250, 300, 50]).with_precision_and_scale(10, 2).unwrap())),
        ("distance", Arc::new(Float64Array::from(vec![1.0, 2.5, 3.0, 4.0]))),
        ("_file", Arc::new(StringArray::from(vec!["a", "a", "b", "b"]))),
    ];
    memory.rows.insert(trips.id, rows(trips, columns));
    let table = catalog.get(&RelationName::parse("t")).unwrap();
    let columns: Vec<(&str, ArrayRef)> =
        vec![("id", Arc::new(Int32Array::from(vec![1, 2]))), ("n", Arc::new(Int64Array::from(vec![10, 20])))];
    memory.rows.insert(table.id, rows(table, columns));
    (Arc::new(catalog), Arc::new(memory))
}

async fn answer_at(lake: &(Arc<Catalog>, Arc<Memory>), sql: &str, as_of: u64) -> String {
    let context = context(&lake.0, Arc::clone(&lake.1) as Arc<dyn RelationReader>, as_of);
    let statement = parse_statement(sql).unwrap();
    let StatementKind::Query(select) = &statement.kind else { panic!("not a query") };
    let frame =
        query(&context, &lake.0, &select.query, &statement.position).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    pretty_format_batches(&frame.collect().await.unwrap()).unwrap().to_string()
}

async fn answer(sql: &str) -> String {
    answer_at(&lake(), sql, 2 * HOUR as u64).await
}

#[tokio::test]
async fn windows_in_batch() {
    let tumble = answer(
        "SELECT window_start, window_end, count(*) AS n FROM TUMBLE(trips, at, INTERVAL '1 hour') GROUP BY 1, 2 ORDER BY 1",
    )
    .await;
    let hop = answer(
        "SELECT w.window_start, sum(w.id) AS ids FROM HOP((SELECT id, at FROM trips), at, INTERVAL '30 minutes', INTERVAL '1 hour') AS w \
         GROUP BY w.window_start ORDER BY 1",
    )
    .await;
    insta::assert_snapshot!(format!("{tumble}\n{hop}"));
}

#[tokio::test]
async fn now_is_the_answers_timestamp() {
    let lake = lake();
    let recent = "SELECT id FROM trips WHERE at > now() - INTERVAL '1 hour' ORDER BY id";
    assert_eq!(answer_at(&lake, recent, HOUR as u64).await.lines().count(), 3 + 1 + 3);
    assert_eq!(answer_at(&lake, recent, 2 * HOUR as u64).await.lines().count(), 3 + 1 + 1);
    let clock =
        answer_at(&lake, "SELECT now() AS a, current_timestamp() AS b, current_date() - interval 1 day AS c", 90_000_000_000)
            .await;
    insta::assert_snapshot!(clock);
}

#[tokio::test]
async fn a_key_is_sought_and_columns_are_pruned() {
    let lake = lake();
    answer_at(&lake, "SELECT fare FROM trips WHERE id = 3", 1).await;
    let asked = lake.1.asked.lock().unwrap().pop().unwrap();
    let key = asked.key.expect("a seek");
    assert_eq!(key.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0), 3);
    assert_eq!(asked.projection, [0, 3]);
    answer_at(&lake, "SELECT zone FROM trips LIMIT 2", 1).await;
    let asked = lake.1.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.projection, asked.limit, asked.key.is_none()), (vec![1], Some(2), true));
    assert!(answer_at(&lake, "SELECT count(*) AS n FROM trips", 1).await.contains("| 4 |"));
    assert_eq!(lake.1.asked.lock().unwrap().pop().unwrap().projection, Vec::<usize>::new());
}

#[tokio::test]
async fn names_of_all_kinds() {
    let hidden = answer("SELECT *, _file FROM trips ORDER BY id LIMIT 1").await;
    let view = answer("SELECT f.zone, count(*) AS n FROM iceberg.public.far f GROUP BY f.zone ORDER BY 1").await;
    let tables = answer("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1").await;
    let star = answer("SELECT * FROM trips WHERE id = 1").await;
    assert!(!star.contains("_file"));
    insta::assert_snapshot!(format!("{hidden}\n{view}\n{tables}"));
}

#[tokio::test]
async fn queries_are_described() {
    let (catalog, memory) = lake();
    let context = context(&catalog, memory, 0);
    let statement = parse_statement("SELECT id, fare FROM trips WHERE zone = $1 AND flag LIKE $2").unwrap();
    let StatementKind::Query(select) = &statement.kind else { panic!("not a query") };
    let described = describe(&context, &catalog, &select.query, &statement.position).await.unwrap();
    assert_eq!(described.parameters, [DataType::Int32, DataType::Utf8]);
    let names: Vec<&str> = described.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["id", "fare"]);
    let values = vec![datafusion::common::ScalarValue::Int32(Some(7)), datafusion::common::ScalarValue::from("f%")];
    let filled = described.plan.with_param_values(values).unwrap();
    let text = crate::explain::answer_text(DataFrame::new(context.state(), filled)).await.unwrap();
    assert!(text.contains("trips.zone = Int32(7)") && text.contains("physical plan"), "{text}");
}

async fn changed(sql: &str) -> (Change, String) {
    let (catalog, memory) = lake();
    let context = context(&catalog, memory, 0);
    let statement = parse_statement(sql).unwrap();
    let planned =
        change(&context, &catalog, &statement.kind, &statement.position).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let rows = DataFrame::new(context.state(), planned.rows.clone()).collect().await.unwrap();
    (planned, pretty_format_batches(&rows).unwrap().to_string())
}

#[tokio::test]
async fn changes_say_which_rows_come_and_go() {
    let (inserted, new) = changed(
        "INSERT INTO t (id, n) VALUES (1, 5), (3, 6) ON CONFLICT (id) DO UPDATE SET n = t.n + excluded.n WHERE t.n > 1 RETURNING id, n * 2 AS twice",
    )
    .await;
    let ChangeKind::Insert(Conflict::DoUpdate { columns, condition }) = &inserted.kind else { panic!("{inserted:?}") };
    assert_eq!((columns.len(), columns[2].to_string(), condition.is_some()), (3, "n@2 + n@5".to_string(), true));
    assert_eq!(inserted.returning.unwrap().schema.field(1).name(), "twice");
    let (_, updated) = changed("UPDATE t SET N = n + 1, id = id + 10 WHERE id = 2").await;
    let (_, deleted) = changed("DELETE FROM t WHERE n < 15").await;
    insta::assert_snapshot!(format!("{new}\n{updated}\n{deleted}"));
}

#[tokio::test]
async fn only_tables_are_written_to() {
    let (catalog, memory) = lake();
    let context = context(&catalog, memory, 0);
    let statement = parse_statement("DELETE FROM trips").unwrap();
    let error = change(&context, &catalog, &statement.kind, &statement.position).await.unwrap_err();
    assert_eq!(error.message, "trips is a source: only tables can be written to");
}

#[tokio::test]
async fn the_spec_queries_run_as_written() {
    let catalog = Arc::new(planned(
        "CREATE TABLE ml.demand_prediction_features (location_id INTEGER, prediction_hour TIMESTAMP, predicted_demand DOUBLE, weather_impact_factor DOUBLE, confidence_score DOUBLE);
         CREATE TABLE analytics.trip_weather_correlation (weather_condition TEXT, total_trips BIGINT, avg_fare_amount DOUBLE, temperature_celsius DOUBLE);
         CREATE TABLE analytics.zone_performance_metrics (zone_name TEXT, borough TEXT, total_pickups BIGINT, avg_fare_per_pickup DOUBLE, peak_hour_factor DOUBLE, weather_impact_score DOUBLE, trip_date DATE);
         CREATE TABLE realtime.zone_activity (zone_id INTEGER, activity_timestamp TIMESTAMPTZ, activity_score DOUBLE, revenue_last_hour DECIMAL(12, 2), pickup_count BIGINT);",
    ));
    let mut memory = Memory::default();
    for relation in catalog.iter() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("trip_date", Arc::new(Date32Array::from(vec![0, 20, 20]))),
            ("total_pickups", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("total_trips", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("temperature_celsius", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]))),
            ("avg_fare_per_pickup", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]))),
            ("prediction_hour", Arc::new(TimestampMicrosecondArray::from(vec![0, 21 * 24 * HOUR, 22 * 24 * HOUR]))),
            (
                "activity_timestamp",
                Arc::new(TimestampMicrosecondArray::from(vec![0, 21 * 24 * HOUR, 22 * 24 * HOUR]).with_timezone("UTC")),
            ),
        ];
        memory.rows.insert(relation.id, rows(relation, columns));
    }
    let lake = (catalog, Arc::new(memory));
    let queries = [
        "SELECT location_id, prediction_hour, predicted_demand, weather_impact_factor, confidence_score FROM iceberg.ml.demand_prediction_features WHERE prediction_hour >= current_timestamp()",
        "SELECT weather_condition, AVG(total_trips) as avg_trips, AVG(avg_fare_amount) as avg_fare, CORR(temperature_celsius, total_trips) as temp_correlation FROM iceberg.analytics.trip_weather_correlation GROUP BY weather_condition",
        "SELECT zone_name, borough, SUM(total_pickups * avg_fare_per_pickup) as total_revenue, AVG(peak_hour_factor) as avg_peak_factor, AVG(weather_impact_score) as weather_sensitivity FROM iceberg.analytics.zone_performance_metrics WHERE trip_date >= current_date() - interval 7 days GROUP BY zone_name, borough ORDER BY total_revenue DESC",
        "SELECT zone_id, activity_timestamp, activity_score, revenue_last_hour, pickup_count FROM iceberg.realtime.zone_activity WHERE activity_timestamp >= current_timestamp() - interval 1 hour ORDER BY activity_score DESC",
    ];
    let mut answers = Vec::new();
    for sql in queries {
        answers.push(answer_at(&lake, sql, (21 * 24 * HOUR) as u64).await);
    }
    insta::assert_snapshot!(answers.join("\n"));
}

#[tokio::test]
async fn a_view_is_recomputed_from_its_base_relations() {
    let (catalog, memory) = lake();
    let mut catalog = Arc::unwrap_or_clone(catalog);
    for text in [
        "CREATE MATERIALIZED VIEW recent AS SELECT id, zone FROM trips WHERE at > now() - INTERVAL '1 hour'",
        "CREATE MATERIALIZED VIEW zones_recent AS SELECT zone, count(*) AS n FROM recent GROUP BY zone",
    ] {
        catalog.create(&parse_statement(text).unwrap()).unwrap();
    }
    let view = catalog.get(&RelationName::parse("zones_recent")).unwrap().clone();
    let expected = verify::expected(&Arc::new(catalog), memory, 2 * HOUR as u64, view.id).await.unwrap();
    let right = rows(&view, vec![("zone", Arc::new(Int32Array::from(vec![7]))), ("n", Arc::new(Int64Array::from(vec![1])))]);
    assert!(verify::compare(&view.schema, &expected, &[right]).unwrap().is_empty());
    let wrong = rows(&view, vec![("zone", Arc::new(Int32Array::from(vec![7]))), ("n", Arc::new(Int64Array::from(vec![2])))]);
    assert_eq!(verify::compare(&view.schema, &expected, &[wrong]).unwrap().len(), 2);
}

#[tokio::test]
async fn two_correlated_counts_in_one_select() {
    let counts = answer(
        "SELECT t.id, (SELECT count(*) FROM trips WHERE trips.id = t.id) AS a, (SELECT count(*) FROM trips WHERE trips.zone = t.id) AS b \
         FROM t ORDER BY t.id",
    )
    .await;
    assert!(counts.contains("| 1  | 1 | 0 |") && counts.contains("| 2  | 1 | 0 |"), "{counts}");
}

#[tokio::test]
async fn parameters_have_the_types_that_the_statement_says() {
    let lake = lake();
    let types = async |sql: &str| {
        let context = context(&lake.0, Arc::clone(&lake.1) as Arc<dyn RelationReader>, 1);
        let statement = parse_statement(sql).unwrap();
        let StatementKind::Query(select) = &statement.kind else { panic!("not a query") };
        describe(&context, &lake.0, &select.query, &statement.position).await.unwrap().parameters
    };
    assert_eq!(types("SELECT id FROM trips WHERE id = $1").await, [DataType::Int64]);
    assert_eq!(types("SELECT $1::int AS a, CAST($2 AS DATE) AS b").await, [DataType::Int32, DataType::Date32]);
    assert_eq!(types("SELECT id FROM trips ORDER BY id LIMIT $2 OFFSET $1").await, [DataType::Int64, DataType::Int64]);
    assert_eq!(types("SELECT $1 AS said").await, [DataType::Utf8]);
    let inside = "SELECT id FROM trips WHERE zone IN (SELECT $1::bigint FROM t WHERE n < $2)";
    assert_eq!(types(inside).await, [DataType::Int64, DataType::Int64]);
}

#[tokio::test]
async fn the_group_of_null_is_among_the_first() {
    let null = answer("SELECT count(*) AS n FROM (SELECT DISTINCT name FROM t ORDER BY name LIMIT 3) q").await;
    assert!(null.contains("| 1 |"), "{null}");
}

#[tokio::test]
async fn a_filter_that_is_null_takes_no_row() {
    let none = answer("SELECT count(*) FILTER (WHERE length(name) < 9) AS named FROM t GROUP BY name").await;
    assert!(none.contains("| 0     |"), "{none}");
}
mod functions;
