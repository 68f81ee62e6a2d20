//! Statements as users write them, and what is said of those that are wrong.

use super::*;

fn parsed(text: &str) -> StatementKind {
    parse_statement(text).unwrap_or_else(|error| panic!("{text}: {error}")).kind
}

fn failure(text: &str) -> String {
    let errors = parse_script(text, Some("a.sql")).expect_err(text);
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_source_is_read_whole() {
    let text = r#"CREATE SOURCE IF NOT EXISTS weather.hourly (
        "temperature_2m (°C)" DOUBLE, Hour TIMESTAMP NOT NULL, price NUMERIC, amount DECIMAL(10, 2) CHECK (amount > 0),
        station TEXT DEFAULT 'a' COMMENT 'where it''s measured', seen TIMESTAMPTZ, PRIMARY KEY (station, hour), CHECK (hour > '2000-01-01')
    ) WITH (connector = 'kafka', time.precision.mode = 'adaptive', "Headers.X" = 'y', limit = 10, watch = TRUE, properties.sasl.mechanism = 'PLAIN',)"#;
    let StatementKind::CreateSource(source) = parsed(text) else { panic!("not a source") };
    assert!(source.if_not_exists);
    assert_eq!(source.name, RelationName::new("weather", "hourly"));
    let columns: Vec<String> = source
        .columns
        .columns
        .iter()
        .map(|c| format!("{} {} {}", c.name, c.data_type, if c.not_null { "not null" } else { "" }))
        .collect();
    assert_eq!(
        columns,
        [
            "temperature_2m (°C) Float64 ",
            "hour Timestamp(µs) not null",
            "price Decimal128(38, 10) ",
            "amount Decimal128(10, 2) ",
            "station Utf8 not null",
            "seen Timestamp(µs, \"UTC\") ",
        ]
    );
    assert_eq!(source.columns.key, [4, 1]);
    assert_eq!(source.columns.columns[4].default.as_deref(), Some("'a'"));
    assert_eq!(source.columns.columns[4].comment.as_deref(), Some("where it's measured"));
    let checks: Vec<&str> = source.columns.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(checks, ["hourly_amount_check", "hourly_check1"]);
    let options: Vec<String> = source.options.iter().map(|option| format!("{}={}", option.name, option.value)).collect();
    assert_eq!(
        options,
        [
            "connector=kafka",
            "time.precision.mode=adaptive",
            "Headers.X=y",
            "limit=10",
            "watch=TRUE",
            "properties.sasl.mechanism=PLAIN"
        ]
    );
    assert_eq!(source.options.with_prefix("properties.").collect::<Vec<_>>(), [("sasl.mechanism", "PLAIN")]);
}

#[test]
fn options_are_typed_and_environment_is_replaced() {
    let StatementKind::CreateSource(source) =
        parsed("CREATE SOURCE s (a INT) WITH (connector = 'files', path = '${ROOT}/x-${N}.csv', rate = 'ten')")
    else {
        panic!("not a source")
    };
    let lookup = |name: &str| (name == "ROOT").then(|| "/data".to_string());
    let error = source.options.resolve(&lookup).unwrap_err();
    assert_eq!(error.to_string(), "1:52: option path needs N, which is not set in the environment\n  hint: set it: N=…");
    let both = |name: &str| Some(if name == "ROOT" { "/data" } else { "7" }.to_string());
    assert_eq!(source.options.resolve(&both).unwrap().get("path"), Some("/data/x-7.csv"));
    assert_eq!(source.options.parsed::<u64>("rate", "a whole number").unwrap_err().message, "option rate must be a whole number");
    assert!(source.options.check_known(&["connector", "path", "rate"]).is_ok());
    let unknown = source.options.check_known(&["connector", "paths", "rate"]).unwrap_err();
    assert_eq!((unknown.message.as_str(), unknown.hint.as_deref()), ("unknown option path", Some("did you mean paths?")));
}

#[test]
fn other_statements() {
    let StatementKind::CreateSink(sink) =
        parsed("CREATE SINK z FROM realtime.zones WITH (connector = 'iceberg', partition_by = 'month(at), zone')")
    else {
        panic!("not a sink")
    };
    assert_eq!((sink.from, sink.options.get("partition_by")), (RelationName::new("realtime", "zones"), Some("month(at), zone")));
    let StatementKind::CreateView(view) = parsed("CREATE MATERIALIZED VIEW iceberg.a.b (x, Y) AS SELECT 1, 2") else {
        panic!("not a view")
    };
    assert_eq!(
        (view.name, view.materialized, view.columns),
        (RelationName::new("a", "b"), true, vec!["x".to_string(), "y".to_string()])
    );
    let StatementKind::Drop(drop) = parsed("DROP MATERIALIZED VIEW IF EXISTS a.b, c CASCADE") else { panic!("not a drop") };
    assert_eq!((drop.kind, drop.names.len(), drop.if_exists, drop.cascade), (RelationKind::MaterializedView, 2, true, true));
    assert!(matches!(parsed("FLUSH"), StatementKind::Flush));
    let StatementKind::CopyToFile(copy) = parsed("COPY (SELECT 1 AS of) TO 'a.parquet'") else { panic!() };
    assert_eq!((copy.file.as_str(), copy.format), ("a.parquet", None));
    let StatementKind::CopyToFile(copy) = parsed("copy a.t (x, \"Y\") to 'b' with (format NDJSON);") else { panic!() };
    assert_eq!((copy.file.as_str(), copy.format.as_deref()), ("b", Some("ndjson")));
    assert_eq!(copy.query.query.to_string(), "SELECT \"x\", \"Y\" FROM \"a\".\"t\"");
    assert!(matches!(parsed("VACUUM"), StatementKind::Vacuum(None)));
    assert!(matches!(parsed("vacuum a.t;"), StatementKind::Vacuum(Some(name)) if name == RelationName::new("a", "t")));
    assert!(matches!(parsed("SHOW EPOCHS"), StatementKind::ShowEpochs(None)));
    assert!(matches!(parsed("SHOW EPOCHS LIMIT 3"), StatementKind::ShowEpochs(Some(3))));
    assert!(
        matches!(parsed("VERIFY MATERIALIZED VIEW v;"), StatementKind::Verify(name) if name == RelationName::new("public", "v"))
    );
    assert!(matches!(parsed("BEGIN"), StatementKind::Session(SessionCommand::Begin)));
    assert!(matches!(parsed("START TRANSACTION ISOLATION LEVEL REPEATABLE READ"), StatementKind::Session(SessionCommand::Begin)));
    assert!(matches!(parsed("SET extra_float_digits = 3"), StatementKind::Session(SessionCommand::Set(_))));
    assert!(matches!(parsed("SET TIME ZONE 'UTC'"), StatementKind::Session(SessionCommand::Set(_))));
    assert!(matches!(parsed("DISCARD ALL"), StatementKind::Session(SessionCommand::Other(_))));
    assert!(matches!(parsed("INSERT INTO t VALUES (1, 'a') ON CONFLICT (id) DO NOTHING"), StatementKind::Insert(_)));
    assert!(matches!(parsed("UPDATE t SET a = 1 WHERE b = 2"), StatementKind::Update(_)));
    assert!(matches!(parsed("DELETE FROM t WHERE b = $1"), StatementKind::Delete(_)));
    assert!(matches!(parsed("TRUNCATE TABLE t"), StatementKind::Truncate(names) if names.len() == 1));
}

#[test]
fn shows() {
    let show = |text: &str| match parsed(text) {
        StatementKind::Show(show) => show,
        other => panic!("{other:?}"),
    };
    assert_eq!(show("SHOW SOURCES"), Show::Relations(RelationKind::Source));
    assert_eq!(show("SHOW MATERIALIZED VIEWS"), Show::Relations(RelationKind::MaterializedView));
    assert_eq!(show("SHOW COLUMNS FROM a.b"), Show::Columns(RelationName::new("a", "b")));
    assert_eq!(show("SHOW CREATE MATERIALIZED VIEW b"), Show::Create(RelationName::new("public", "b")));
    assert_eq!(show("SHOW CREATE b"), Show::Create(RelationName::new("public", "b")));
    assert!(matches!(parsed("SHOW server_version"), StatementKind::ShowSetting(name) if name == "server_version"));
    assert!(
        matches!(parsed("SHOW TRANSACTION ISOLATION LEVEL"), StatementKind::ShowSetting(name) if name == "transaction isolation level")
    );
}

#[test]
fn subscriptions() {
    let subscribe = |text: &str| match parsed(text) {
        StatementKind::Subscribe(subscribe) | StatementKind::CopySubscribe(subscribe) => subscribe,
        other => panic!("{other:?}"),
    };
    let plain = subscribe("SUBSCRIBE TO a.b");
    assert!(plain.snapshot && plain.progress && plain.upsert_key.is_none() && plain.as_of.is_none());
    let full = subscribe("SUBSCRIBE v ENVELOPE UPSERT (KEY (a, B)) WITH (SNAPSHOT = false, PROGRESS = false) AS OF 42");
    assert_eq!(
        (full.upsert_key, full.snapshot, full.progress, full.as_of),
        (Some(vec!["a".into(), "b".into()]), false, false, Some(42))
    );
    let query = subscribe(
        "COPY (SUBSCRIBE TO (SELECT a FROM v WHERE b > 1) WITH (PROGRESS)) TO STDOUT"
            .replace("(PROGRESS)", "(progress = true)")
            .as_str(),
    );
    assert!(query.progress && matches!(query.target, SubscribeTarget::Query(_)));
}

#[test]
fn copies() {
    let copy = |text: &str| match parsed(text) {
        StatementKind::Copy(copy) => copy,
        other => panic!("{other:?}"),
    };
    let into = copy("COPY t (a, b) FROM STDIN WITH (FORMAT csv, HEADER true, DELIMITER ';')");
    assert_eq!(
        (into.direction, into.format, into.delimiter, into.header, into.null.as_str()),
        (CopyDirection::In, CopyFormat::Csv, ';', true, "")
    );
    assert!(matches!(into.target, CopyTarget::Relation(_, columns) if columns == ["a", "b"]));
    let out = copy("COPY (SELECT * FROM t AS OF 7) TO STDOUT");
    assert_eq!(
        (out.direction, out.format, out.delimiter, out.null.as_str()),
        (CopyDirection::Out, CopyFormat::Text, '\t', "\\N")
    );
    assert!(matches!(out.target, CopyTarget::Query(query) if query.as_of == Some(AsOf::Timestamp(7))));
    assert_eq!(copy("COPY t TO STDOUT (FORMAT binary)").format, CopyFormat::Binary);
}

#[test]
fn as_of_is_taken_off_the_end_only() {
    let as_of = |text: &str| match parsed(text) {
        StatementKind::Query(query) => query.as_of,
        other => panic!("{other:?}"),
    };
    assert_eq!(as_of("SELECT * FROM v AS OF 1700000000000000"), Some(AsOf::Timestamp(1_700_000_000_000_000)));
    assert_eq!(
        as_of("SELECT * FROM v WHERE a > 1 ORDER BY b LIMIT 3 AS OF '2023-11-14 22:13:20'"),
        Some(AsOf::Timestamp(1_700_000_000_000_000))
    );
    assert_eq!(as_of("SELECT * FROM v AS OF EPOCH 12"), Some(AsOf::Epoch(12)));
    assert_eq!(as_of("SELECT a AS of, epoch FROM v"), None);
    assert_eq!(as_of("SELECT a AS of FROM v"), None);
    assert_eq!(as_of("SELECT a FROM v AS offset_table"), None);
    assert!(failure("SELECT * FROM v AS OF 'yesterday'").contains("a.sql:1:23: 'yesterday' is not a time"));
}

#[test]
fn explains() {
    let explain = |text: &str| match parsed(text) {
        StatementKind::Explain(explain) => explain,
        other => panic!("{other:?}"),
    };
    assert!(matches!(explain("EXPLAIN MATERIALIZED VIEW v").target, ExplainTarget::Relation(_)));
    assert!(matches!(explain("EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT 1").target, ExplainTarget::View(_)));
    let query = explain("EXPLAIN ANALYZE SELECT * FROM v AS OF 5");
    assert!(query.analyze && matches!(query.target, ExplainTarget::Query(query) if query.as_of == Some(AsOf::Timestamp(5))));
}

#[test]
fn errors_say_where() {
    assert_eq!(
        failure("SELECT 1;\nCREATE SOURCE s (\n  a INTEGER,\n  a TEXT) WITH (x = 'y');"),
        "a.sql:4:3: column a is declared twice"
    );
    assert_eq!(failure("CREATE SOURCE s (a FOO) WITH (x = 'y')"), "a.sql:1:18: there is no type FOO");
    assert_eq!(failure("CREATE SOURCE s (a INT)"), "a.sql:1:1: expected WITH (connector = '…', …) after the source's columns");
    assert_eq!(failure("SELECT 'abc"), "a.sql:1:8: unterminated string literal");
    assert_eq!(
        failure("CREATE SINK s FROM v WITH (a = 'b', a = 'c')"),
        "a.sql:1:37: expected each option once, but a is given again, found a"
    );
    assert_eq!(failure("SELECT a FROM\n  t WHERE"), "a.sql:2:10: expected an expression, found the end of the statement");
    assert_eq!(failure("GRANT SELECT ON t TO u"), "a.sql:1:1: GRANT SELECT is not a statement that livelake knows");
    // Every broken statement of a script is said, not only the first.
    assert_eq!(failure("SELEC 1;\nDROP ROLE x;\nSELECT 1;").lines().count(), 2);
}

#[test]
fn texts_and_places_of_statements() {
    let statements =
        parse_script("-- a lake\nCREATE VIEW é AS SELECT 'é;é' AS x ; -- done\n\n  SELECT  2 ;;", Some("b.sql")).unwrap();
    let found: Vec<(&str, String)> = statements.iter().map(|s| (s.text.as_str(), s.position.to_string())).collect();
    assert_eq!(found, [("CREATE VIEW é AS SELECT 'é;é' AS x", "b.sql:2:1".to_string()), ("SELECT  2", "b.sql:4:3".to_string())]);
}

/// What statements are made of, whole and broken.
const PIECES: [&str; 48] = [
    "SELECT",
    "FROM",
    "WHERE",
    "a",
    "\"B c\"",
    "'text",
    "'it''s'",
    "1",
    "1.5e9",
    "(",
    ")",
    ",",
    ";",
    "*",
    "AS OF",
    "EPOCH 3",
    "AS OF EPOCH 3",
    "CREATE",
    "MATERIALIZED VIEW",
    "SOURCE",
    "SINK",
    "TABLE",
    "INDEX v ON",
    "WITH",
    "(connector = 'files'",
    "SUBSCRIBE TO",
    "ENVELOPE UPSERT (KEY (a))",
    "COPY",
    "TO STDOUT",
    "FROM STDIN",
    "SHOW EPOCHS LIMIT",
    "VACUUM",
    "VERIFY MATERIALIZED VIEW",
    "EXPLAIN ANALYZE",
    "$1",
    "$$ body $$",
    "--comment\n",
    "/* open",
    "*/",
    "::",
    "INTERVAL '1 day'",
    "TUMBLE(a, b, INTERVAL '1 hour')",
    "CREATE FUNCTION f(n BIGINT) RETURNS BIGINT LANGUAGE sql AS",
    "é",
    "\u{0}",
    "=",
    "ON CONFLICT (a) DO UPDATE SET",
    "TRUNCATE",
];

proptest::proptest! {
    #[test]
    fn any_text_is_statements_or_errors(pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..25)) {
        let text = pieces.join(" ");
        if let Ok(statements) = parse_script(&text, Some("a.sql")) {
            for statement in statements {
                proptest::prop_assert!(parse_script(&statement.text, None).is_ok_and(|again| again.len() == 1), "{}", statement.text);
            }
        }
    }
}
