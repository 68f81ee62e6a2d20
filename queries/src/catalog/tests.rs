use super::*;
use crate::lower::tests::{SOURCES, catalog};
use crate::statement::{Show, parse_statement};

fn error(catalog: &mut Catalog, text: &str) -> String {
    let statement = parse_statement(text).unwrap();
    match &statement.kind {
        StatementKind::Drop(request) => catalog.drop_relation(request, &statement.position).unwrap_err().to_string(),
        _ => catalog.create(&statement).unwrap_err().to_string(),
    }
}

fn drop_it(catalog: &mut Catalog, text: &str) -> Vec<String> {
    let statement = parse_statement(text).unwrap();
    let StatementKind::Drop(request) = &statement.kind else { panic!("not a drop") };
    let dropped = catalog.drop_relation(request, &statement.position).unwrap();
    dropped.iter().map(|relation| format!("{} {}", relation.kind, relation.name)).collect()
}

fn lake() -> Catalog {
    catalog(&format!(
        "{SOURCES} CREATE MATERIALIZED VIEW nyc.hourly AS SELECT date_trunc('hour', at) AS hour, count(*) AS n FROM trips GROUP BY 1;
         CREATE VIEW busy AS SELECT * FROM nyc.hourly WHERE n > 10;
         CREATE SINK busy FROM busy WITH (connector = 'iceberg');
         CREATE MATERIALIZED VIEW bad AS SELECT count(*) AS n FROM trips$errors;"
    ))
}

#[test]
fn names_schemas_and_keys() {
    let lake = lake();
    assert_eq!(lake.schemas(), ["nyc", "public"]);
    let busy = lake.get(&RelationName::parse("busy")).unwrap();
    assert_eq!((busy.kind, busy.key_names()), (RelationKind::View, vec!["hour"]));
    assert_eq!(lake.sink(&RelationName::parse("busy")).unwrap().kind, RelationKind::Sink);
    let errors = lake.get(&RelationName::parse("trips$errors")).unwrap();
    let columns: Vec<&str> = errors.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(columns, ERROR_COLUMNS);
    let errors = lake.get(&RelationName::parse("nyc.hourly$errors")).unwrap();
    assert_eq!((errors.kind, errors.is_base(), errors.schema.fields().len()), (RelationKind::Errors, false, 2));
    assert!(lake.get(&RelationName::parse("busy$errors")).is_none(), "a plain view keeps nothing");
    let trips = lake.get(&RelationName::parse("iceberg.public.trips")).unwrap();
    assert_eq!((trips.visible, trips.schema.fields().len()), (8, 8 + METADATA_COLUMNS.len()));
    assert!(busy.show_create().ends_with("\n-- key: hour"));
}

#[test]
fn a_drop_is_refused_or_cascades_readers_first() {
    let mut lake = lake();
    assert_eq!(
        error(&mut lake, "DROP MATERIALIZED VIEW nyc.hourly"),
        "1:1: nyc.hourly cannot be dropped: view busy reads it\n  hint: drop that first, or say CASCADE to drop all that depends on it"
    );
    assert!(error(&mut lake, "DROP SOURCE trips").contains("trips cannot be dropped"));
    assert_eq!(drop_it(&mut lake, "DROP SINK IF EXISTS nothing"), Vec::<String>::new());
    assert_eq!(
        error(&mut lake, "DROP VIEW nyc.hourly"),
        "1:1: nyc.hourly is a materialized view, not a view\n  hint: DROP MATERIALIZED VIEW nyc.hourly"
    );
    assert!(lake.get(&RelationName::parse("busy")).is_some());
    assert_eq!(
        drop_it(&mut lake, "DROP SOURCE trips CASCADE"),
        [
            "sink busy",
            "view busy",
            "error relation nyc.hourly$errors",
            "materialized view nyc.hourly",
            "error relation bad$errors",
            "materialized view bad",
            "error relation trips$errors",
            "source trips"
        ]
    );
    assert!(lake.get(&RelationName::parse("zones")).is_some());
}

#[test]
fn names_are_taken_once() {
    let mut lake = lake();
    let twice = error(&mut lake, "CREATE TABLE trips (a INTEGER)");
    assert!(twice.starts_with("1:1: trips exists already: it is a source"), "{twice}");
    lake.create(&parse_statement("CREATE TABLE \"calm$errors\" (a INTEGER)").unwrap()).unwrap();
    let errors = error(&mut lake, "CREATE MATERIALIZED VIEW calm AS SELECT 1 AS one");
    assert!(errors.starts_with("1:1: calm$errors exists already: it is a table"), "{errors}");
    let again = parse_statement("CREATE SOURCE IF NOT EXISTS trips (id BIGINT) WITH (connector = 'files')").unwrap();
    assert!(matches!(lake.create(&again).unwrap(), Created::Existed(relation) if relation.key == [0]));
}

#[test]
fn bad_definitions() {
    let mut lake = lake();
    assert_eq!(
        error(&mut lake, "CREATE SINK s FROM nyc.hourlie WITH (connector = 'iceberg')"),
        "1:20: relation nyc.hourlie does not exist\n  hint: did you mean nyc.hourly?"
    );
    let envelope = error(&mut lake, "CREATE SOURCE s (a INTEGER) WITH (connector = 'files', envelope = 'upsert')");
    assert_eq!(
        envelope,
        "1:56: envelope upsert needs a primary key\n  hint: declare PRIMARY KEY (…), or say envelope = 'append'"
    );
    let check = error(&mut lake, "CREATE TABLE t (a INTEGER CHECK (b > 1))");
    assert!(check.starts_with("1:17: column b does not exist"), "{check}");
    assert!(error(&mut lake, "CREATE SOURCE s WITH (connector = 'files')").contains("columns of s are not known"));
}

#[test]
fn a_catalog_comes_back_from_its_statements() {
    let lake = lake();
    let again = catalog(&lake.to_statements().join("\n"));
    let listed = |catalog: &Catalog| catalog.iter().map(|r| format!("{} {} {:?}", r.kind, r.name, r.schema)).collect::<Vec<_>>();
    assert_eq!(listed(&lake), listed(&again));
}

#[test]
fn shows_answer_rows() {
    let lake = lake();
    let text = |show: &Show| {
        let batch = lake.show(show, &Position::default()).unwrap();
        arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string()
    };
    insta::assert_snapshot!(format!(
        "{}\n{}",
        text(&Show::Relations(RelationKind::MaterializedView)),
        text(&Show::Columns(RelationName::parse("zones")))
    ));
}
