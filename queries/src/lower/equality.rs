//! A lowered plan and DataFusion's batch answer say the same, on random rows with many equal keys and NULLs.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use livelake_dataflow::plan::RelationId;
use proptest::prelude::*;

use super::oracle;
use super::tests::{SOURCES, catalog};
use crate::catalog::{Catalog, Relation};
use crate::plan::{columns_read, view_plan};
use crate::session::{ReadRequest, RelationReader};
use crate::statement::RelationKind;
use crate::verify;

const NOW: i64 = 1_700_000_000_000_000;

/// One row's values, small so that they meet: each column takes what it needs of them.
type Seed = (i64, Option<i32>, Option<i64>);

#[derive(Debug)]
struct Rows(BTreeMap<RelationId, RecordBatch>);

#[async_trait]
impl RelationReader for Rows {
    async fn read(&self, relation: RelationId, _: u64, request: ReadRequest) -> datafusion::error::Result<Vec<RecordBatch>> {
        Ok(vec![self.0[&relation].project(&request.projection)?])
    }
}

/// Rows of a relation; its key is the row's number, so that it is unique.
fn rows_of(relation: &Relation, seeds: &[Seed]) -> RecordBatch {
    let small = |seed: &Seed| seed.1.map(|value| value.rem_euclid(4));
    let time = |seed: &Seed| NOW + seed.0 * 10 * 60_000_000;
    let column = |(index, field): (usize, &Arc<Field>)| -> ArrayRef {
        let key = relation.key.contains(&index);
        match field.data_type() {
            DataType::Int64 if key => Arc::new((0..seeds.len() as i64).collect::<Int64Array>()),
            DataType::Int32 if key => Arc::new((0..seeds.len() as i32).collect::<Int32Array>()),
            DataType::Int32 if !field.is_nullable() => {
                Arc::new(seeds.iter().map(|seed| small(seed).unwrap_or(1)).collect::<Int32Array>())
            }
            DataType::Int32 => Arc::new(seeds.iter().map(small).collect::<Int32Array>()),
            DataType::Int64 => Arc::new(seeds.iter().map(|seed| seed.2).collect::<Int64Array>()),
            DataType::Float64 => {
                Arc::new(seeds.iter().map(|seed| seed.2.map(|value| value as f64 / 4.0)).collect::<Float64Array>())
            }
            DataType::Decimal128(precision, scale) => {
                let values: Decimal128Array = seeds.iter().map(|seed| seed.2.map(|value| i128::from(value) * 50)).collect();
                Arc::new(values.with_precision_and_scale(*precision, *scale).unwrap())
            }
            DataType::Utf8 if !field.is_nullable() => {
                Arc::new(StringArray::from_iter_values(seeds.iter().map(|s| format!("b{}", s.0 % 3))))
            }
            DataType::Utf8 => {
                Arc::new(seeds.iter().map(|seed| small(seed).map(|value| format!("f{value}"))).collect::<StringArray>())
            }
            DataType::Date32 => {
                Arc::new(seeds.iter().map(|seed| seed.1.map(|day| 19_675 - day.rem_euclid(12))).collect::<Date32Array>())
            }
            DataType::Timestamp(_, zone) => {
                Arc::new(TimestampMicrosecondArray::from_iter_values(seeds.iter().map(time)).with_timezone_opt(zone.clone()))
            }
            other => panic!("no rows of {other}"),
        }
    };
    let fields: Vec<Field> = relation.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let columns = relation.schema.fields().iter().enumerate().map(column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The rows that the view should have and those that its plan gives.
fn check(query: &str, seeds: &[Vec<Seed>]) {
    let catalog: Catalog = catalog(&format!("{SOURCES} CREATE MATERIALIZED VIEW v AS {query};"));
    let view = catalog.of_kind(RelationKind::MaterializedView).last().unwrap().clone();
    let rows: BTreeMap<RelationId, RecordBatch> =
        catalog.of_kind(RelationKind::Source).zip(seeds).map(|(source, seeds)| (source.id, rows_of(source, seeds))).collect();
    let stored = columns_read(&catalog, &[view.id]);
    let plan = view_plan(&catalog, view.id, &stored).unwrap();
    let in_engine = rows.iter().map(|(id, rows)| (*id, rows.project(&stored.of(catalog.by_id(*id).unwrap())).unwrap())).collect();
    let actual = oracle::run(&plan.plan, &in_engine, NOW);
    assert_eq!(actual.schema().fields().len(), view.schema.fields().len());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let expected = runtime.block_on(verify::expected(&Arc::new(catalog), Arc::new(Rows(rows)), NOW as u64, view.id)).unwrap();
    let differences = verify::compare(&view.schema, &expected, std::slice::from_ref(&actual)).unwrap();
    assert!(differences.is_empty(), "{query}\n{differences:#?}");
    if !plan.key.is_empty() {
        let keys = actual.project(&plan.key).unwrap();
        let text = |row: usize| format!("{:?}", keys.slice(row, 1).columns());
        let mut all: Vec<String> = (0..keys.num_rows()).map(text).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), actual.num_rows(), "{query}: the key does not identify rows");
    }
}

const QUERIES: &[&str] = &[
    "SELECT id, fare * 2 AS f, upper(flag) AS flag FROM trips WHERE fare > 1 AND zone IN (1, 2)",
    "SELECT zone, count(*) AS n, count(flag) AS flags, count(DISTINCT vendor) AS vendors, sum(fare) AS revenue, avg(distance) AS d,
        min(at) AS first, max(flag) AS last, sum(fare) FILTER (WHERE vendor = 1) AS r1, count(*) FILTER (WHERE vendor = 1) AS n1,
        sum(DISTINCT vendor) AS s FROM trips GROUP BY zone",
    "SELECT count(*) AS n, sum(fare) AS s FROM trips WHERE zone > 100",
    "SELECT vendor, count(*) AS n FROM trips GROUP BY vendor HAVING count(*) > 2",
    "SELECT window_start, window_end, zone, sum(fare) AS s FROM TUMBLE(trips, at, INTERVAL '1 hour') GROUP BY window_start, window_end, zone",
    "SELECT id, window_start, window_end FROM HOP(trips, at, INTERVAL '20 minutes', INTERVAL '50 minutes')",
    "SELECT t.id, z.borough FROM trips t JOIN zones z ON z.zone = t.vendor AND t.fare > length(z.borough)",
    "SELECT a.id AS a, b.id AS b FROM trips a JOIN trips b ON a.vendor = b.vendor AND a.flag = b.flag AND a.at < b.at",
    "SELECT t.id, z.borough FROM trips t LEFT JOIN zones z ON z.zone = t.vendor",
    "SELECT t.id, z.borough FROM trips t LEFT JOIN zones z ON z.zone = t.vendor AND t.fare > 2 * z.zone",
    "SELECT l.level, l.message, t.vendor FROM log l RIGHT JOIN trips t ON t.vendor = l.level",
    "SELECT l.level, t.vendor, t.zone FROM log l FULL JOIN trips t ON t.vendor = l.level AND t.flag = l.message",
    "SELECT level FROM log WHERE level IN (SELECT vendor FROM trips WHERE fare > 1)",
    "SELECT level, message FROM log l WHERE NOT EXISTS (SELECT 1 FROM trips t WHERE t.vendor = l.level AND t.fare > l.level)",
    "SELECT level FROM log WHERE level IS NOT NULL AND level NOT IN (SELECT zone FROM zones)",
    "SELECT zone, count(*) AS n, 100.0 * count(*) / (SELECT count(*) FROM trips) AS share FROM trips GROUP BY zone",
    "SELECT z.zone, (SELECT max(t.fare) FROM trips t WHERE t.vendor = z.zone) AS dearest FROM zones z",
    "SELECT z.zone, (SELECT count(*) FROM trips t WHERE t.vendor = z.zone) AS n FROM zones z",
    "SELECT z.zone, (SELECT count(*) FROM trips t WHERE t.vendor = z.zone) AS n, (SELECT count(*) FROM log l WHERE l.level = z.zone) AS m,
        (SELECT sum(t.fare) FROM trips t WHERE t.vendor = z.zone) AS s FROM zones z",
    "SELECT id, (SELECT DISTINCT z.borough FROM zones z WHERE z.zone = t.vendor) AS b,
        (SELECT upper(borough) FROM zones z WHERE z.zone = t.zone AND z.borough <> 'b1') AS u FROM trips t",
    "SELECT id, (SELECT borough FROM zones z WHERE z.zone = (SELECT max(level) FROM log)) AS b FROM trips t",
    "SELECT vendor, count(*) AS n FROM trips t GROUP BY vendor HAVING count(*) > (SELECT zone FROM zones WHERE zone = 1)",
    "SELECT id FROM trips t WHERE vendor = (SELECT zone FROM zones z WHERE z.zone = t.zone) OR fare > (SELECT zone FROM zones WHERE zone = 1)",
    "SELECT z.zone, CASE WHEN (SELECT count(*) FROM trips t WHERE t.vendor = z.zone) > 1
        THEN (SELECT count(*) FROM trips t WHERE t.vendor = z.zone) END AS n FROM zones z",
    "SELECT z.borough FROM zones z WHERE (SELECT count(*) FROM trips t WHERE t.vendor = z.zone) >= (SELECT count(*) FROM log l WHERE l.level = z.zone)",
    "SELECT z.zone, most.fare, most.n FROM zones z CROSS JOIN (SELECT max(fare) AS fare, count(*) AS n FROM trips) AS most",
    "SELECT DISTINCT level, message FROM log",
    "SELECT DISTINCT ON (vendor) vendor, id, fare FROM trips ORDER BY vendor, fare DESC, id",
    "SELECT level FROM log UNION SELECT vendor FROM trips",
    "SELECT level FROM log UNION ALL SELECT vendor FROM trips UNION ALL SELECT 1",
    "SELECT level FROM log EXCEPT SELECT vendor FROM trips",
    "SELECT level FROM log INTERSECT SELECT vendor FROM trips",
    "SELECT id, fare FROM trips ORDER BY fare DESC NULLS LAST, id LIMIT 4 OFFSET 2",
    "SELECT vendor, id, n FROM (SELECT *, row_number() OVER (PARTITION BY vendor ORDER BY fare DESC, id) AS n FROM trips) AS t WHERE n <= 2",
    "SELECT vendor, id FROM (SELECT *, row_number() OVER (PARTITION BY vendor ORDER BY at, id) AS n FROM trips) AS t WHERE n > 1 AND n < 4",
    "SELECT vendor, id, fare FROM (SELECT *, row_number() OVER (PARTITION BY vendor ORDER BY id) AS n FROM trips) AS t WHERE n = 1 AND fare > 1",
    "SELECT zone, count(*) AS n FROM trips WHERE at > now() - INTERVAL '1 hour' AND at <= now() GROUP BY zone",
    "SELECT id FROM trips WHERE at BETWEEN now() - interval 1 hour AND now() + interval 1 hour",
    "SELECT id FROM trips WHERE now() - at < INTERVAL '30 minutes' AND now() >= at - INTERVAL '20 minutes'",
    "SELECT id FROM trips WHERE day >= current_date() - interval 7 days UNION ALL SELECT id FROM trips WHERE day = current_date() AND zone = 1",
    "SELECT id FROM trips WHERE date_trunc('hour', at) = date_trunc('hour', now()) AND at < date_trunc('hour', now() + INTERVAL '1 hour')",
    "SELECT b.zone, b.n FROM (SELECT zone, count(*) AS n FROM trips GROUP BY zone) AS b
        JOIN (SELECT max(n) AS most FROM (SELECT zone, count(*) AS n FROM trips GROUP BY zone) AS c) AS m ON b.n = m.most",
];

fn seeds() -> impl Strategy<Value = Vec<Vec<Seed>>> {
    let seed = (-12_i64..12, proptest::option::of(0..8_i32), proptest::option::of(-2_i64..9));
    proptest::collection::vec(proptest::collection::vec(seed, 0..14), 3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_answer_as_their_queries(seeds in seeds()) {
        for query in QUERIES {
            check(query, &seeds);
        }
    }
}
