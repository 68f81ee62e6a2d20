//! What queries become, as text, over the lakes that must run.

use std::sync::Arc;

use crate::catalog::Catalog;
use crate::explain::dataflow_text;
use crate::plan::{StoredColumns, columns_read, view_plan};
use crate::statement::{RelationKind, parse_script};

/// The catalog of a script, in which everything must plan.
pub(crate) fn catalog(script: &str) -> Catalog {
    let mut catalog = Catalog::new();
    for statement in parse_script(script, Some("lake.sql")).unwrap() {
        catalog.create(&statement).unwrap_or_else(|error| panic!("{error}"));
    }
    catalog
}

/// The last view's dataflow.
fn plan(script: &str) -> String {
    let catalog = catalog(script);
    let view = catalog.of_kind(RelationKind::MaterializedView).last().unwrap();
    let stored = columns_read(&catalog, &[view.id]);
    let plan = view_plan(&catalog, view.id, &stored).unwrap();
    format!("key {:?}\n{}", plan.key, dataflow_text(&plan.plan, &catalog))
}

const TRIPS: &str = "CREATE SOURCE trips (id BIGINT PRIMARY KEY, zone INTEGER NOT NULL, at TIMESTAMP NOT NULL, fare DECIMAL(10, 2),
    distance DOUBLE PRECISION, vendor INTEGER, flag TEXT) WITH (connector = 'files');
    CREATE SOURCE zones (zone INTEGER PRIMARY KEY, borough TEXT NOT NULL) WITH (connector = 'files');";

fn view(query: &str) -> String {
    plan(&format!("{TRIPS} CREATE MATERIALIZED VIEW v AS {query};"))
}

#[test]
fn w1() {
    println!("{}", plan(&(std::fs::read_to_string("/work/shared/bench/lakes/w1/10_sources.sql").unwrap() + &std::fs::read_to_string("/work/shared/bench/lakes/w1/20_views.sql").unwrap())));
    println!("{}", plan(&(std::fs::read_to_string("/work/shared/bench/lakes/w2/10_sources.sql").unwrap() + &std::fs::read_to_string("/work/shared/bench/lakes/w2/20_views.sql").unwrap())));
    println!("{}", plan(&(std::fs::read_to_string("/work/shared/bench/lakes/w3/10_sources.sql").unwrap() + &std::fs::read_to_string("/work/shared/bench/lakes/w3/20_views.sql").unwrap())));
    let _ = (StoredColumns::default(), Arc::new(1));
    println!("{}", view("SELECT zone, count(*) AS n FROM trips WHERE at > now() - INTERVAL '1 hour' GROUP BY zone"));
}
