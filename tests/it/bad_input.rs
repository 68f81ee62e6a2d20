//! What comes in is broken, what should be there is not, the disk says no: a clear message, and everything else is right.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{LakeDir, Running, until};

/// A change message with a line end.
fn change(op: &str, before: Value, after: Value) -> Vec<u8> {
    format!("{}\n", json!({ "before": before, "after": after, "source": {}, "op": op, "ts_ms": 1 })).into_bytes()
}

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn source(running: &Running, name: &str) -> Value {
    let all = running.get("/api/v1/sources");
    all["data"].as_array().unwrap().iter().find(|source| source["name"] == name).unwrap().clone()
}

/// Lines and the words that must be in their reason; all other lines are good.
fn assert_refused(running: &Running, source: &str, wanted: &[(usize, &str)]) {
    let rows = running.rows(&format!("SELECT position, reason FROM {source}$errors"));
    let found: Vec<(String, String)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["position"].as_str().unwrap().to_owned(), row["reason"].as_str().unwrap().to_owned()))
        .collect();
    for (line, words) in wanted {
        let reason = found.iter().find(|(position, _)| position.ends_with(&format!(":{line}")));
        assert!(reason.is_some_and(|(_, reason)| reason.contains(words)), "line {line} should say {words}: {found:?}");
    }
    assert_eq!(found.len(), wanted.len(), "{found:?}");
}

#[test]
fn broken_change_messages_are_put_aside_with_their_reasons() {
    let sql = "
CREATE SOURCE orders (id INTEGER PRIMARY KEY, item TEXT, n INTEGER NOT NULL, weight DOUBLE PRECISION, price DECIMAL(10, 2))
  WITH (connector = 'files', path = 'orders.ndjson', format = 'debezium-json', decimal.handling.mode = 'double');
CREATE MATERIALIZED VIEW items AS SELECT item, count(*) AS orders, sum(n) AS n, sum(price) AS price FROM orders GROUP BY item;
CREATE SINK orders FROM orders WITH (connector = 'iceberg');
CREATE SINK items FROM items WITH (connector = 'iceberg');";
    let row = |id: i64, item: &str, n: i64| json!({ "id": id, "item": item, "n": n, "weight": 1.5, "price": 2.5 });
    let with = |id: i64, column: &str, value: Value| {
        let mut row = row(id, "tea", id);
        row[column] = value;
        row
    };
    let without = |id: i64, column: &str| {
        let mut row = row(id, "tea", id);
        row.as_object_mut().unwrap().remove(column);
        row
    };
    let long = "x".repeat(10 << 20);
    let lines = [
        change("c", Value::Null, row(1, "tea", 1)),
        b"{\"before\":null,\"after\":{\"id\":2,\"item\":\"te\n".to_vec(),
        change("c", Value::Null, with(3, "n", json!("many"))),
        change("c", Value::Null, without(4, "item")),
        change("c", Value::Null, without(5, "n")),
        change("c", Value::Null, with(6, "colour", json!("red"))),
        change("c", Value::Null, with(7, "weight", json!("NaN"))),
        change("c", Value::Null, with(8, "price", json!("NaN"))),
        b"{\"before\":null,\"after\":{\"id\":9,\"item\":\"tea\",\"n\":9,\"weight\":NaN},\"op\":\"c\"}\n".to_vec(),
        change("c", Value::Null, with(10, "item", json!(long))),
        b"{\"before\":null,\"after\":{\"id\":11,\"item\":\"\xff\xfe\",\"n\":11},\"op\":\"c\"}\n".to_vec(),
        change("u", Value::Null, Value::Null),
        // what is said of the row before is not believed: neither its values nor that it was there
        change("u", row(1, "coffee", 77), row(1, "milk", 100)),
        change("d", row(99, "nothing", 0), Value::Null),
        change("c", Value::Null, with(15, "n", json!(3_000_000_000_i64))),
        change("c", Value::Null, with(16, "price", json!(123_456_789_012_i64))),
        change("c", Value::Null, row(17, "tea", 17)),
    ];
    let lake = LakeDir::new(&[("10_lake.sql", sql)]);
    append(&lake.path().join("orders.ndjson"), &lines.concat());
    let running = lake.start(&["epochs.interval=50ms"]);
    until("all is read", || Some(()).filter(|()| running.rows("SELECT id FROM orders WHERE id = 17") != json!([])));
    let refused = [
        (2, "cut off"),
        (3, "column n: \"many\" is not an integer"),
        (5, "column n is missing or NULL"),
        (8, "column price: \"NaN\" is not a number"),
        (9, "malformed JSON"),
        (11, "not UTF-8"),
        (12, "neither `before` nor `after`"),
        (15, "column n: \"3000000000\" is out of range"),
        (16, "column price: \"123456789012\" is out of range"),
    ];
    assert_refused(&running, "orders", &refused);
    let rows = running.rows("SELECT id, length(item) AS item, n, CAST(weight AS TEXT) AS weight FROM orders ORDER BY id");
    let expected = json!([
        { "id": 1, "item": 4, "n": 100, "weight": "1.5" },
        { "id": 4, "item": null, "n": 4, "weight": "1.5" },
        { "id": 6, "item": 3, "n": 6, "weight": "1.5" },
        { "id": 7, "item": 3, "n": 7, "weight": "NaN" },
        { "id": 10, "item": 10 << 20, "n": 10, "weight": "1.5" },
        { "id": 17, "item": 3, "n": 17, "weight": "1.5" },
    ]);
    assert_eq!(rows, expected);
    let teas = running.rows("SELECT orders, n, CAST(price AS TEXT) AS price FROM items WHERE item = 'tea'");
    assert_eq!(teas, json!([{ "orders": 3, "n": 30, "price": "7.50" }]));
    let status = source(&running, "orders");
    assert_eq!((&status["errors"], &status["ignored_fields"]), (&json!(9), &json!(1)), "{status}");
    assert_eq!(running.terminate(), Some(0));
    let tables = lake.tables();
    assert_eq!((tables["public.orders"].len(), tables["public.items"].len()), (6, 4));
    assert_eq!(tables["public.orders$errors"].len(), 9, "they are durable where their source goes on in the middle");
    let verdict = lake.expect(&["verify"]);
    assert_eq!(verdict, "items: 4 rows, 0 differ\n");
}

/// Without a key only what is said of the row before tells what to take away. Views say when there was less than that.
#[test]
fn a_row_taken_away_that_was_not_there_is_told_by_the_views() {
    let sql = "
CREATE SOURCE events (item TEXT, n INTEGER) WITH (connector = 'files', path = 'events.ndjson', format = 'debezium-json');
CREATE MATERIALIZED VIEW items AS SELECT item, sum(n) AS n FROM events GROUP BY item;
CREATE MATERIALIZED VIEW listed AS SELECT item, n FROM events;
CREATE SINK listed FROM listed WITH (connector = 'iceberg');";
    let row = |item: &str, n: i64| json!({ "item": item, "n": n });
    let lines = [
        change("c", Value::Null, row("tea", 1)),
        change("u", row("coffee", 5), row("milk", 2)),
        change("u", row("tea", 1), row("tea", 3)),
        change("c", Value::Null, row("tea", 4)),
    ];
    let lake = LakeDir::new(&[("10_lake.sql", sql)]);
    append(&lake.path().join("events.ndjson"), &lines.concat());
    let running = lake.start(&["epochs.interval=50ms"]);
    until("all is read", || Some(()).filter(|()| running.rows("SELECT n FROM items WHERE item = 'tea'") == json!([{ "n": 7 }])));
    assert_eq!(running.rows("SELECT * FROM items ORDER BY item"), json!([{ "item": "milk", "n": 2 }, { "item": "tea", "n": 7 }]));
    let views = running.get("/api/v1/views");
    let failure = views["data"][0]["failure"].as_str().unwrap();
    assert!(failure.contains("more rows were retracted than there were in events (item = coffee)"), "{failure}");
    let errors = json!([{ "reason": "more rows were retracted than there were in events", "row": "item = coffee" }]);
    assert_eq!(running.rows("SELECT * FROM items$errors"), errors);
    // the source says so itself: a view that only passes rows on does not look
    let source = || running.get("/api/v1/relations")["data"].as_array().unwrap()[0].clone();
    let (name, failure) = (source()["name"].clone(), source()["failure"].clone());
    assert_eq!(
        (name, failure),
        (json!("events"), json!("more rows were retracted than there were in events (item = coffee, n = 5)"))
    );
    // the row comes after all
    append(&lake.path().join("events.ndjson"), &change("c", Value::Null, row("coffee", 5)));
    until("nothing is wrong any more", || Some(()).filter(|()| running.get("/api/v1/views")["data"][0]["failure"].is_null()));
    assert_eq!((source()["failure"].clone(), running.rows("SELECT * FROM items$errors")), (Value::Null, json!([])));
    // a row that was missing in the changes kept no epoch from being committed, and no row out of the table
    append(&lake.path().join("events.ndjson"), &change("c", Value::Null, row("salt", 1)));
    until("it is read", || Some(()).filter(|()| running.rows("SELECT n FROM listed WHERE item = 'salt'") == json!([{ "n": 1 }])));
    assert_eq!(running.terminate(), Some(0));
    let mut listed = lake.tables()["public.listed"].clone();
    listed.sort();
    assert_eq!(listed.len(), 4, "milk, salt and two of tea: {listed:?}");
}

#[test]
fn sources_that_are_away_are_waited_for_while_others_go_on() {
    let sql = "
CREATE SOURCE here (id INTEGER, at TIMESTAMP) WITH (connector = 'files', path = 'here-*.csv', format = 'csv', header = 'true', poll = '20ms');
CREATE SOURCE later (id INTEGER) WITH (connector = 'files', path = 'later-*.csv', format = 'csv', header = 'true', poll = '20ms');
CREATE SOURCE away (id INTEGER PRIMARY KEY) WITH (connector = 'kafka', brokers = '127.0.0.1:1', topic = 'nothing', format = 'json');
CREATE MATERIALIZED VIEW counts AS SELECT 'here' AS source, count(*) AS n FROM here UNION ALL SELECT 'later' AS source, count(*) AS n FROM later;
CREATE SINK counts FROM counts WITH (connector = 'iceberg');";
    let lake = LakeDir::new(&[("10_lake.sql", sql), ("here-1.csv", "id,at\n1,2025-01-01 00:00:00\n")]);
    let running = lake.start(&["epochs.interval=50ms"]);
    let waiting = |name: &str, words: &str| {
        until(&format!("{name} says {words}"), || {
            let status = source(&running, name);
            Some(())
                .filter(|()| status["state"] == "waiting" && status["message"].as_str().is_some_and(|said| said.contains(words)))
        });
    };
    waiting("later", "no file matches later-*.csv yet");
    waiting("away", "broker 127.0.0.1:1 cannot be reached");
    running.rows("SELECT 1");
    let epoch = running.epoch();
    std::fs::write(lake.path().join("here-2.csv"), "id,at\n2,2025-01-01 00:00:00\n").unwrap();
    until("another epoch", || Some(()).filter(|()| running.epoch() > epoch));
    let count = |source: &str| running.rows(&format!("SELECT n FROM counts WHERE source = '{source}'"))[0]["n"].as_u64();
    until("here goes on", || Some(()).filter(|()| count("here") == Some(2)));
    waiting("away", "broker 127.0.0.1:1 cannot be reached");
    std::fs::write(lake.path().join("later-1.csv"), "id\n1\n2\n3\n").unwrap();
    until("what was away comes", || Some(()).filter(|()| count("later") == Some(3)));
    assert_eq!(source(&running, "later")["state"], "running");
    assert_eq!(running.get("/health")["data"]["status"], "running");
    assert_eq!(running.terminate(), Some(0));
    assert_eq!(lake.tables()["public.counts"], ["here|2", "later|3"]);
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let lake = LakeDir::new(&[("10_lake.sql", "CREATE TABLE t (id INTEGER PRIMARY KEY);\n")]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (server, other) in [("http", "postgres"), ("postgres", "http")] {
        let setting = format!("{server}.port={port}");
        let said = lake.refused(&["run", "--set", &format!("{other}.port=0"), "--set", &setting], 1);
        assert!(said.contains(&format!("port {port} on 127.0.0.1 is in use")), "{said}");
        assert!(said.contains(&format!("--set {server}.port=")), "{said}");
    }
}

#[test]
fn a_statement_that_does_not_plan_is_told_with_its_place_and_a_hint() {
    let sql =
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT);\nCREATE MATERIALIZED VIEW v AS\n  SELECT itme FROM orders;\n";
    let lake =
        LakeDir::new(&[("10_lake.sql", sql), ("20_lake.sql", "CREATE SINK w FROM orderz WITH (connector = 'iceberg');\n")]);
    let said = lake.refused(&["check"], 2);
    assert!(said.contains("10_lake.sql:3:10: ") && said.contains("did you mean item?"), "{said}");
    assert!(said.contains("20_lake.sql:1:") && said.contains("did you mean") && said.contains("orders"), "{said}");
    lake.refused(&["run", "--once"], 2);
}

/// Undoes something at its end, also when a test fails.
struct Undo<F: FnMut() -> bool>(F);

impl<F: FnMut() -> bool> Drop for Undo<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// Runs a tool; whether it did what it should.
fn tool(program: &str, arguments: &[&str], path: &Path) -> bool {
    Command::new(program).args(arguments).arg(path).output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let lake = LakeDir::new(&[("10_lake.sql", "CREATE TABLE t (id INTEGER PRIMARY KEY);\n"), (".livelake", "")]);
    let said = lake.refused(&["run", "--set", "http.port=0", "--set", "postgres.port=0"], 1);
    assert!(said.contains(".livelake is a file, but the lake keeps a folder there"), "{said}");

    std::fs::remove_file(lake.path().join(".livelake")).unwrap();
    // root may write where permissions say no, but not where nothing may change
    let lock = |on: bool| {
        tool("chattr", &[if on { "+i" } else { "-i" }], lake.path())
            || tool("chmod", &[if on { "0555" } else { "0755" }], lake.path())
    };
    lock(true);
    let _writable_again = Undo(|| lock(false));
    if std::fs::write(lake.path().join("probe"), "").is_ok() {
        println!("not tried with a read-only folder: this user can write anywhere");
        return;
    }
    let said = lake.refused(&["run", "--set", "http.port=0", "--set", "postgres.port=0"], 1);
    assert!(said.contains("cannot make the folder") && said.contains(".livelake"), "{said}");
}

const ORDERS: &str = "
CREATE SOURCE orders (id INTEGER PRIMARY KEY, item TEXT) WITH (connector = 'files', path = 'orders.csv', format = 'csv', header = 'true', poll = '20ms');
CREATE MATERIALIZED VIEW items AS SELECT item, count(*) AS n FROM orders GROUP BY item;
CREATE SINK orders FROM orders WITH (connector = 'iceberg', partition_by = 'item');
CREATE SINK items FROM items WITH (connector = 'iceberg');";

/// Orders number `from` and up, of three items.
fn orders(from: usize, count: usize) -> Vec<u8> {
    let items = ["tea", "milk", "coffee"];
    (from..from + count).map(|id| format!("{id},{}\n", items[id % 3])).collect::<String>().into_bytes()
}

/// The tables cannot be written for a while: it is said, queries go on, nothing is lost and nothing is there twice.
fn commits_fail_for_a_while(lake: &LakeDir, words: &str, breaks: impl Fn(), mends: impl Fn()) {
    let path = lake.path().join("orders.csv");
    append(&path, b"id,item\n");
    append(&path, &orders(0, 300));
    let running = lake.start(&["epochs.interval=50ms"]);
    let count = |running: &Running| running.rows("SELECT count(*) AS n FROM orders")[0]["n"].as_u64().unwrap();
    let committed = || lake.tables().get("public.orders").map_or(0, Vec::len);
    until("a first epoch", || Some(()).filter(|()| running.epoch() > 0));
    until("the first orders are committed", || Some(()).filter(|()| committed() == 300));

    let before = lake.epochs();
    breaks();
    append(&path, &orders(300, 3_000));
    until("it says what is wrong", || {
        let health = running.get("/health");
        let said = health["message"].as_str().unwrap_or_default().to_owned();
        Some(()).filter(|()| said.contains("could not be committed") && said.contains(words))
    });
    until("queries go on", || Some(()).filter(|()| count(&running) == 3_300));
    append(&path, &orders(3_300, 300));
    until("reading goes on", || Some(()).filter(|()| count(&running) == 3_600));
    assert_eq!(running.epoch(), before.last().unwrap().0, "nothing was committed");

    mends();
    until("it is committed", || Some(()).filter(|()| running.epoch() > before.last().unwrap().0));
    until("all is well", || Some(()).filter(|()| running.get("/health")["data"]["status"] == "running"));
    until("all orders are committed", || Some(()).filter(|()| committed() == 3_600));
    assert_eq!(lake.tables()["public.items"], ["coffee|1200", "milk|1200", "tea|1200"]);

    // it is broken again when the lake is stopped: said, and made good by the next start
    breaks();
    append(&path, &orders(3_600, 300));
    until("they are read", || Some(()).filter(|()| count(&running) == 3_900));
    assert_eq!(running.terminate(), Some(1), "the last epoch is not there, so stopping did not do what it should");
    mends();
    lake.expect(&["run", "--once"]);
    assert_eq!(lake.tables()["public.items"], ["coffee|1300", "milk|1300", "tea|1300"]);
    assert_eq!(committed(), 3_900);
    for (at, (number, _)) in lake.epochs().iter().enumerate() {
        assert_eq!(*number, at as u64 + 1, "epochs have neither gaps nor repeats");
    }
}

#[test]
fn tables_whose_folder_is_away_for_a_while() {
    let lake = LakeDir::new(&[("10_lake.sql", ORDERS)]);
    let (folder, away) = (lake.path().join(".livelake/warehouse"), lake.path().join(".livelake/elsewhere"));
    let breaks = || {
        std::fs::rename(&folder, &away).unwrap();
        std::fs::write(&folder, "").unwrap();
    };
    let mends = || {
        std::fs::remove_file(&folder).unwrap();
        std::fs::rename(&away, &folder).unwrap();
    };
    commits_fail_for_a_while(&lake, "Not a directory", breaks, mends);
}

#[test]
fn a_disk_that_is_full_for_a_while() {
    let lake = LakeDir::new(&[("10_lake.sql", ORDERS)]);
    let disk = lake.path().join(".livelake");
    std::fs::create_dir(&disk).unwrap();
    if !tool("mount", &["-t", "tmpfs", "-o", "size=16m", "none"], &disk) {
        println!("not tried with a full disk: this user cannot mount a small one");
        return;
    }
    let _unmounted = Undo(|| tool("umount", &["-l"], &disk));
    let filler = disk.join("filler");
    let breaks = || {
        // to the last byte
        for block in [1 << 20, 4096, 1] {
            let bytes = vec![0; block];
            while std::fs::metadata(&filler).map_or(0, |file| file.len()) < 32 << 20 {
                use std::io::Write;
                let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&filler).unwrap();
                if file.write_all(&bytes).is_err() {
                    break;
                }
            }
        }
    };
    let mends = || std::fs::remove_file(&filler).unwrap();
    commits_fail_for_a_while(&lake, "No space left", breaks, mends);
}
