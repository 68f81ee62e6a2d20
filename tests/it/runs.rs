//! Runs with an end, by the real binary: what they answer, that a second one adds nothing, and how they fail.

use crate::process::{LakeDir, real_data, until};

const ORDERS: &str = "
CREATE SOURCE shop.orders (id INTEGER, item TEXT, amount DECIMAL(10, 2))
  WITH (connector = 'files', path = 'orders-*.csv', format = 'csv', header = 'true');
CREATE MATERIALIZED VIEW shop.items AS SELECT item, count(*) AS orders, sum(amount) AS amount FROM shop.orders GROUP BY item;
CREATE SINK sinks.orders FROM shop.orders WITH (connector = 'iceberg', table = 'shop.orders', mode = 'append');
CREATE SINK sinks.items FROM shop.items WITH (connector = 'iceberg', table = 'shop.items');
";

#[test]
fn a_second_run_adds_nothing_and_a_new_file_is_read_alone() {
    let lake =
        LakeDir::new(&[("10_lake.sql", ORDERS), ("orders-1.csv", "id,item,amount\n1,tea,2.50\n2,milk,1.20\n3,tea,2.75\n")]);
    let query = ["run", "--once", "--query", "SELECT * FROM shop.items ORDER BY item", "--format", "csv"];
    assert_eq!(lake.expect(&query), "item,orders,amount\nmilk,1,1.20\ntea,2,5.25\n");
    let (tables, epochs) = (lake.tables(), lake.epochs());
    assert_eq!(epochs.len(), 1);
    assert_eq!(tables["shop.orders"], ["1|tea|2.50", "2|milk|1.20", "3|tea|2.75"]);

    assert_eq!(lake.expect(&query), "item,orders,amount\nmilk,1,1.20\ntea,2,5.25\n");
    assert_eq!((lake.tables(), lake.epochs()), (tables, epochs), "nothing new, so nothing is written");

    std::fs::write(lake.path().join("orders-2.csv"), "id,item,amount\n4,milk,1.30\n").unwrap();
    let stats = lake.path().join("stats.json");
    assert_eq!(lake.expect(&["run", "--once", "--stats", stats.to_str().unwrap()]), "");
    let stats: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(stats).unwrap()).unwrap();
    assert_eq!(stats["events"], 1, "only the new file is read");
    assert_eq!(lake.tables()["shop.items"], ["milk|2|2.50", "tea|2|5.25"]);
}

#[test]
fn broken_rows_are_put_aside_and_everything_else_is_right() {
    let text = "id,item,amount\n1,tea,2.50\nx,milk,1.20\n3,tea\n4,\"milk,1.00\n5,milk,NaN\n6,milk,1.00\n";
    let lake = LakeDir::new(&[("10_lake.sql", ORDERS), ("orders-1.csv", text)]);
    let items = lake.expect(&["run", "--once", "--query", "SELECT * FROM shop.items ORDER BY item", "--format", "csv"]);
    assert!(items.contains("milk,1,1.00"), "{items}");
    let reasons = lake.expect(&[
        "run",
        "--once",
        "--query",
        "SELECT position, reason FROM \"shop\".\"orders$errors\" ORDER BY position",
        "--format",
        "csv",
    ]);
    assert!(reasons.lines().count() > 3, "{reasons}");
    assert!(reasons.contains("orders-1.csv:3"), "{reasons}");
}

#[test]
fn mistakes_are_told_with_their_place_and_exit_codes() {
    let lake = LakeDir::new(&[("10_lake.sql", "CREATE MATERIALIZED VIEW v AS\nSELECT nothing FROM nowhere;\n")]);
    let output = lake.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("10_lake.sql:2:") && said.contains("nowhere"), "{said}");

    let lake = LakeDir::new(&[("10_lake.sql", &ORDERS.replace("header", "haeder"))]);
    let output = lake.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("did you mean header"), "{said}");

    let lake = LakeDir::new(&[("10_lake.sql", ORDERS)]);
    let output = lake.run(&["run", "--once"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("shop.orders") && said.contains("no file matches"), "{said}");

    let output = lake.run(&["run", "--once", "--set", "engine.wrokers=1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("engine.workers"));
}

#[test]
fn a_running_lake_answers_takes_statements_and_stops_in_order() {
    let lake = LakeDir::new(&[("10_lake.sql", "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);\n")]);
    let running = lake.start(&["epochs.interval=1h"]);
    let ask = |sql: &str| running.ask(sql);
    running.rows("INSERT INTO t VALUES (1, 'one'), (2, 'two')");
    assert_eq!(ask("INSERT INTO t VALUES (1, 'again')")["code"], "duplicate_key");
    assert_eq!(ask("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, max(name) AS last FROM t")["success"], true);
    assert_eq!(ask("SELECT * FROM v")["data"], serde_json::json!([{ "n": 2, "last": "two" }]));
    assert_eq!(ask("UPDATE t SET name = 'zwei' WHERE id = 2")["success"], true);
    assert_eq!(ask("DELETE FROM t WHERE id = 1")["success"], true);
    assert_eq!(ask("SELECT * FROM v")["data"], serde_json::json!([{ "n": 1, "last": "zwei" }]));
    assert_eq!(ask("CREATE TABLE made_later (id INTEGER PRIMARY KEY)")["success"], true);
    assert_eq!(ask("INSERT INTO made_later VALUES (7)")["success"], true);
    assert!(ask("VERIFY MATERIALIZED VIEW v")["data"][0]["verdict"].as_str().unwrap().contains("0 differ"));
    assert_eq!(running.verified(&[]), "v: 1 rows, 0 differ\n");
    assert_eq!(ask("TRUNCATE TABLE t")["success"], true);
    assert_eq!(running.verified(&["v"]), "v: 1 rows, 0 differ\n");
    assert_eq!(ask("SELECT * FROM v")["data"], serde_json::json!([{ "n": 0, "last": null }]));
    assert_eq!(ask("INSERT INTO t VALUES (2, 'zwei')")["success"], true);
    let twice = "CREATE FUNCTION twice(n BIGINT) RETURNS BIGINT LANGUAGE sql AS $$ SELECT n * 2; $$";
    assert_eq!(ask(twice)["success"], true);
    assert_eq!(ask(twice)["code"], "exists");
    assert_eq!(ask("CREATE MATERIALIZED VIEW doubled AS SELECT twice(id) AS id FROM t")["success"], true);
    assert_eq!(ask("DROP FUNCTION twice")["code"], "in_use");
    assert_eq!(ask("SELECT twice(1, 2)")["message"], "the function twice takes 1 arguments, not 2");
    assert_eq!(ask("SHOW FUNCTIONS")["data"][0]["name"], "twice");
    assert_eq!(running.terminate(), Some(0));

    let again = lake.start(&[]);
    assert_eq!(again.rows("SELECT id, twice(id) AS more FROM doubled"), serde_json::json!([{ "id": 4, "more": 8 }]));
    let rows = again.rows("SELECT t.name, v.n FROM t, v");
    assert_eq!(rows, serde_json::json!([{ "name": "zwei", "n": 1 }]), "tables and views made at run time survive");
    assert_eq!(again.rows("SELECT id FROM made_later"), serde_json::json!([{ "id": 7 }]), "so do their rows");
}

/// Rows that leave by themselves are due between ticks; an answer is never of a moment between two, where some have left and some not.
#[test]
fn rows_that_leave_by_themselves_leave_all_views_at_once() {
    let sql = "
CREATE SOURCE trips (id BIGINT PRIMARY KEY, pickup_datetime TIMESTAMPTZ NOT NULL, dropoff_datetime TIMESTAMPTZ NOT NULL, zone_id INTEGER)
  WITH (connector = 'generator', kind = 'nyc.trips', rate = '200', history = '3 hours', format = 'debezium-json');
CREATE MATERIALIZED VIEW ends AS
SELECT kind, count(*) AS n FROM (
    SELECT 'pickup' AS kind FROM trips WHERE pickup_datetime > now() - INTERVAL '1 hour' AND pickup_datetime <= now()
    UNION ALL
    SELECT 'dropoff' AS kind FROM trips WHERE dropoff_datetime > now() - INTERVAL '1 hour' AND dropoff_datetime <= now()
) AS both GROUP BY kind;";
    let lake = LakeDir::new(&[("10_lake.sql", sql)]);
    let running = lake.start(&["engine.tick=50ms", "engine.workers=2"]);
    until("the past", || Some(()).filter(|()| running.rows("SELECT sum(n) AS n FROM ends")[0]["n"].as_u64() > Some(100_000)));
    for _ in 0..60 {
        let verdict = running.rows("VERIFY MATERIALIZED VIEW ends");
        assert_eq!(verdict[0]["verdict"], "ends: 2 rows, 0 differ", "{verdict}");
    }
}

/// A source without a table of its own is read again from its beginning at every start, which must not show in the tables.
#[test]
fn nothing_is_answered_or_committed_before_what_was_there_is_read_again() {
    let sql = "
CREATE SOURCE numbers (id INTEGER, remainder INTEGER) WITH (connector = 'files', path = 'numbers-*.csv', format = 'csv', header = 'true');
CREATE MATERIALIZED VIEW sums AS SELECT remainder, count(*) AS n, sum(id) AS total FROM numbers GROUP BY remainder;
CREATE SINK sums FROM sums WITH (connector = 'iceberg');";
    let lake = LakeDir::new(&[("10_lake.sql", sql)]);
    for file in 0..40 {
        let lines: String = (0..20_000).map(|id| format!("{},{}\n", file * 20_000 + id, id % 1000)).collect();
        std::fs::write(lake.path().join(format!("numbers-{file:02}.csv")), format!("id,remainder\n{lines}")).unwrap();
    }
    lake.expect(&["run", "--once", "--set", "epochs.interval=1h"]);
    let (tables, epochs) = (lake.tables(), lake.epochs());
    assert_eq!((epochs.len(), tables["public.sums"].len()), (1, 1000));

    // commits as often as it can, if it may
    let running = lake.start(&["epochs.interval=1ms"]);
    assert_eq!(running.rows("SELECT sum(n) AS n FROM sums")[0]["n"], 800_000, "the first answer is a whole one");
    assert_eq!(running.terminate(), Some(0));
    assert_eq!(lake.epochs(), epochs);
    lake.expect(&["run", "--once", "--set", "epochs.interval=1ms"]);
    assert_eq!(lake.epochs(), epochs);

    let running = lake.start(&["epochs.interval=1ms"]);
    running.url();
    assert_eq!(running.terminate(), Some(0), "it is stopped while it reads");
    assert_eq!((&lake.epochs(), &lake.tables()), (&epochs, &tables));

    // all files are away: waited for, and the tables keep what they have
    let away = lake.beside("away");
    let files: Vec<String> = (0..40).map(|file| format!("numbers-{file:02}.csv")).collect();
    files.iter().for_each(|file| std::fs::rename(lake.path().join(file), away.join(file)).unwrap());
    let running = lake.start(&["epochs.interval=1ms"]);
    until("it says what it waits for", || {
        let health = running.get("/health");
        let said = health["message"].as_str().unwrap_or_default().to_owned();
        Some(()).filter(|()| said.contains("numbers has to be read again") && said.contains("no file matches numbers-*.csv"))
    });
    assert_eq!(running.ask("SELECT * FROM sums")["code"], "unavailable");
    files.iter().for_each(|file| std::fs::rename(away.join(file), lake.path().join(file)).unwrap());
    assert_eq!(running.rows("SELECT sum(n) AS n FROM sums")[0]["n"], 800_000);
    assert_eq!(running.terminate(), Some(0));
    assert_eq!((lake.epochs(), lake.tables()), (epochs, tables));

    // less than there was: said, and then it goes on with what there is
    std::fs::remove_file(lake.path().join("numbers-39.csv")).unwrap();
    let running = lake.start(&["epochs.interval=1ms"]);
    assert_eq!(running.rows("SELECT sum(n) AS n FROM sums")[0]["n"], 780_000);
    assert!(running.said().contains("less to read than it had"), "{}", running.said());
    assert_eq!(running.terminate(), Some(0));
}

#[test]
fn the_official_month_files_give_their_published_sums() {
    let Some(data) = real_data() else { return };
    let sql = format!(
        "CREATE SOURCE green (lpep_pickup_datetime TIMESTAMP, \"PULocationID\" INTEGER, passenger_count SMALLINT, total_amount DECIMAL(10, 2))
           WITH (connector = 'files', path = '{}/trips_green/*.parquet', format = 'parquet');
         CREATE MATERIALIZED VIEW months AS SELECT count(*) AS trips, sum(total_amount) AS amount FROM green;
         CREATE MATERIALIZED VIEW zones AS SELECT \"PULocationID\", count(*) AS trips, sum(total_amount) AS amount FROM green GROUP BY \"PULocationID\";",
        data.display()
    );
    let lake = LakeDir::new(&[("10_lake.sql", &sql)]);
    let sums = lake.expect(&["run", "--once", "--query", "SELECT * FROM months", "--format", "csv"]);
    assert_eq!(sums, "trips,amount\n568368,11973673.21\n");
    let verdicts = lake.expect(&["verify"]);
    assert!(verdicts.contains("zones: 257 rows") && verdicts.lines().all(|line| line.ends_with(" 0 differ")), "{verdicts}");

    let sql = format!(
        "CREATE SOURCE orders (id BIGINT PRIMARY KEY, price DOUBLE PRECISION, quantity INTEGER)
           WITH (connector = 'files', path = '{}/debezium/arroyo_postgres_orders/*.json', format = 'debezium-json', decimal.handling.mode = 'double');
         CREATE MATERIALIZED VIEW total AS SELECT count(*) AS orders, round(sum(price * quantity), 2) AS amount FROM orders;",
        data.display()
    );
    let lake = LakeDir::new(&[("10_lake.sql", &sql)]);
    let total = lake.expect(&["run", "--once", "--query", "SELECT * FROM total", "--format", "csv"]);
    assert_eq!(total, "orders,amount\n559,1700576.22\n");
}

#[test]
fn views_are_verified_while_rows_stream_in() {
    let lake = LakeDir::new(&[(
        "10_lake.sql",
        "CREATE SOURCE cdc.trips (
             id BIGINT PRIMARY KEY, pickup_datetime TIMESTAMPTZ, pickup_location_id INTEGER, total_amount DECIMAL(10, 2), trip_distance DOUBLE
         ) WITH (connector = 'generator', kind = 'nyc.trips', rate = '4000', history_events = '20000', format = 'debezium-json',
                 time.precision.mode = 'adaptive', decimal.handling.mode = 'double');
         CREATE MATERIALIZED VIEW zones AS
             SELECT pickup_location_id AS zone, count(*) AS trips, sum(total_amount) AS revenue, avg(trip_distance) AS miles
             FROM cdc.trips GROUP BY pickup_location_id;
         CREATE MATERIALIZED VIEW best AS
             SELECT zone, revenue, rank() OVER (ORDER BY revenue DESC) AS place FROM zones WHERE trips > 3;
         CREATE MATERIALIZED VIEW pairs AS
             SELECT a.zone, count(*) AS rivals FROM zones a JOIN zones b ON b.revenue > a.revenue AND b.zone <> a.zone GROUP BY a.zone;",
    )]);
    let running = lake.start(&[]);
    let trips = || running.rows("SELECT count(*) AS n FROM cdc.trips")[0]["n"].as_u64().unwrap();
    until("trips come", || Some(trips()).filter(|trips| *trips > 5_000));
    let mut seen = trips();
    for _ in 0..5 {
        let said = running.verified(&[]);
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines.len() == 3 && lines.iter().all(|line| line.ends_with(" rows, 0 differ")), "{said}");
        // it goes on meanwhile
        seen = until("more trips", || Some(trips()).filter(|trips| *trips > seen));
    }
}
