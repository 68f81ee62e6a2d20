//! The 22 queries of TPC-H as views over its tables, made before and after the rows came, under its refresh functions: orders with their
//! line items come (RF1) and go (RF2). After each, every view is DataFusion's batch answer. The data are tpchgen's.
//! LIVELAKE_TPCH_SCALE sets the scale factor.

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::csv::ReaderBuilder;
use arrow::datatypes::Int64Type;
use livelake_dataflow::protocol::Op;
use livelake_queries::statement::parse_script;
use tpchgen::csv::{CustomerCsv, LineItemCsv, NationCsv, OrderCsv, PartCsv, PartSuppCsv, RegionCsv, SupplierCsv};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator, RegionGenerator,
    SupplierGenerator,
};

use crate::histories::Lake;

const REFRESHES: i64 = 3;

fn scale() -> f64 {
    std::env::var("LIVELAKE_TPCH_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(0.01)
}

fn read(lake: &Lake, relation: &str, rows: impl Iterator<Item = impl Display>) -> RecordBatch {
    let text: String = rows.map(|row| format!("{row}\n")).collect();
    let schema = lake.schema(relation);
    let reader = ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(8192).build(text.as_bytes()).unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

/// The rows of some orders; the first column is the order's key in both tables.
fn of_orders(rows: &RecordBatch, wanted: impl Fn(i64) -> bool) -> RecordBatch {
    let keys = rows.column(0).as_primitive::<Int64Type>();
    let wanted: BooleanArray = keys.values().iter().map(|key| Some(wanted(*key))).collect();
    filter_record_batch(rows, &wanted).unwrap()
}

#[test]
fn the_22_queries_of_tpc_h_are_their_batch_answers_at_each_refresh() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut lake = Lake::of(include_str!("tpch/relations.sql"), 2);
    let views = parse_script(include_str!("tpch/queries.sql"), None).unwrap();
    assert_eq!(views.len(), 22 + 1);
    let scale = scale();
    let (before, after) = views.split_at(12);
    before.iter().for_each(|view| lake.define(view).unwrap_or_else(|error| panic!("{error}\n{}", view.text)));

    let feed = |name: &str, rows: &RecordBatch| lake.feed(name, rows, Op::Upsert);
    feed("nation", &read(&lake, "nation", NationGenerator::new(scale, 1, 1).iter().map(NationCsv::new)));
    feed("region", &read(&lake, "region", RegionGenerator::new(scale, 1, 1).iter().map(RegionCsv::new)));
    feed("part", &read(&lake, "part", PartGenerator::new(scale, 1, 1).iter().map(PartCsv::new)));
    feed("supplier", &read(&lake, "supplier", SupplierGenerator::new(scale, 1, 1).iter().map(SupplierCsv::new)));
    feed("partsupp", &read(&lake, "partsupp", PartSuppGenerator::new(scale, 1, 1).iter().map(PartSuppCsv::new)));
    feed("customer", &read(&lake, "customer", CustomerGenerator::new(scale, 1, 1).iter().map(CustomerCsv::new)));
    let orders = read(&lake, "orders", OrderGenerator::new(scale, 1, 1).iter().map(OrderCsv::new));
    let lines = read(&lake, "lineitem", LineItemGenerator::new(scale, 1, 1).iter().map(LineItemCsv::new));
    // one order in a hundred comes with each refresh
    let comes_with = |refresh: i64| move |key: i64| key % 100 == refresh;
    let late = |key: i64| (0..REFRESHES).any(|refresh| comes_with(refresh)(key));
    feed("orders", &of_orders(&orders, |key| !late(key)));
    feed("lineitem", &of_orders(&lines, |key| !late(key)));
    let mut as_of = lake.engine.advance_to(1);
    after.iter().for_each(|view| lake.define(view).unwrap_or_else(|error| panic!("{error}\n{}", view.text)));
    let full = |lake: &Lake, as_of| (1..=22).filter(|number| lake.size(&format!("q{number}"), as_of) > 0).count();
    assert_eq!(lake.check(as_of, &runtime), 0);
    let answered = full(&lake, as_of);
    assert!(answered >= 20, "{answered} of 22 queries have rows at this scale");

    for refresh in 0..REFRESHES {
        for (name, rows) in [("orders", &orders), ("lineitem", &lines)] {
            lake.feed(name, &of_orders(rows, comes_with(refresh)), Op::Upsert);
        }
        as_of = lake.engine.advance_to(as_of + 1);
        assert_eq!(lake.check(as_of, &runtime), 0);
        for (name, rows) in [("orders", &orders), ("lineitem", &lines)] {
            lake.feed(name, &of_orders(rows, |key| key % 100 == 10 + refresh), Op::Delete);
        }
        as_of = lake.engine.advance_to(as_of + 1);
        assert_eq!(lake.check(as_of, &runtime), 0);
    }
    lake.engine.shutdown();
}
