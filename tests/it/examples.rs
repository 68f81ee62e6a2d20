//! The examples are run as a reader of the documentation would run them, and what they say is compared with other computations.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::docs;
use crate::machine::Share;
use crate::months::write_months;
use crate::process::{LakeDir, Running, readers, real_data, until};

/// All materialized views.
fn views(running: &Running) -> Vec<String> {
    let all = running.get("/api/v1/views");
    let views = all["data"].as_array().unwrap().iter().filter(|view| view["kind"] == "materialized_view");
    views.map(|view| view["name"].as_str().unwrap().to_owned()).collect()
}

/// Each line of `livelake verify`: the view and its rows. Asserts that none differs.
fn verified(lake: &LakeDir) -> Vec<(String, u64)> {
    let verdicts = lake.expect(&["verify"]);
    let line = |line: &str| {
        let (view, rest) = line.split_once(": ").unwrap();
        let rows = rest.strip_suffix(" rows, 0 differ").unwrap_or_else(|| panic!("{line}"));
        (view.to_owned(), rows.parse().unwrap())
    };
    verdicts.lines().map(line).collect()
}

/// Whether `livelake subscribe` tells changes.
fn follows(running: &Running, relation: &str) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_livelake"));
    let mut child = command
        .args(["subscribe", relation, "--url", &running.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(3).filter(|line| line.is_ok()).count();
    child.kill().unwrap();
    child.wait().unwrap();
    lines == 3
}

#[test]
fn the_flagship_lake_answers_at_once_commits_and_is_right() {
    let lake = LakeDir::new(&[]);
    let settings = ["epochs.interval=2s"];
    let running = lake.start_command(&["demo", "--rate", "200"], &settings, &[]);
    let share = Share::of(running.id());
    let within = |what: &str, limit: Duration| {
        let (passed, alone) = share.elapsed();
        println!("{what} after {passed:.1?} ({alone:.1?} if the machine had nothing else to do)");
        assert!(alone < limit, "{what} took longer than {limit:?}");
    };
    let count = || running.rows("SELECT count(*) AS trips FROM nyc_taxi.trips")[0]["trips"].as_u64().unwrap();
    count();
    within("the first answer", Duration::from_secs(5));
    until("the first epoch", || Some(()).filter(|()| running.epoch() > 0));
    within("the first epoch", Duration::from_secs(15));
    let trips = until("the made-up past", || Some(count()).filter(|trips| *trips > 50_000));
    within("the past", Duration::from_secs(60));

    let last = running.next_epoch() + 2;
    until("more epochs", || Some(()).filter(|()| running.epoch() >= last));
    let names = views(&running);
    assert_eq!(names.len(), 12, "{names:?}");
    for view in &names {
        let rows = running.rows(&format!("SELECT count(*) AS n FROM {view}"))[0]["n"].as_u64().unwrap();
        assert!(rows > 0, "{view} is empty");
        let verdict = running.rows(&format!("VERIFY MATERIALIZED VIEW {view}"));
        assert!(verdict[0]["verdict"].as_str().unwrap().contains(" 0 differ"), "{view}: {verdict}");
    }
    until("more trips", || Some(()).filter(|()| count() > trips));
    for (place, sql) in docs::statements() {
        match sql.strip_prefix("COPY (SUBSCRIBE ").and_then(|rest| rest.strip_suffix(") TO STDOUT")) {
            None => assert!(running.rows(&sql).as_array().is_some_and(|rows| !rows.is_empty()), "{place}: {sql}: no rows"),
            Some(relation) => assert!(follows(&running, relation), "{place}: {sql}: nothing comes"),
        }
    }
    let health = running.get("/health");
    assert_eq!(health["data"]["status"], "running", "{health}");
    let before = running.epoch();
    assert_eq!(running.terminate(), Some(0));
    let epochs = lake.epochs();
    assert!(epochs.last().unwrap().0 > before, "stopping commits a last epoch");
    for (table, rows) in lake.tables() {
        // of some sources the generator breaks no message
        assert!(!rows.is_empty() || table.ends_with("$errors"), "the table {table} is empty");
    }
    assert_eq!(verified(&lake).len(), names.len());
}

/// Runs the views over month files, and compares all answers and all tables with DuckDB's answers to the same SQL.
fn months(data: &Path, empty: &[&str]) {
    let lake = LakeDir::of_example("tlc").with("TLC_DATA", data);
    lake.expect(&["check"]);
    lake.expect(&["run", "--once"]);
    for (view, rows) in verified(&lake) {
        assert_eq!(rows == 0, empty.contains(&view.as_str()), "{view} has {rows} rows");
    }
    let (tables, epochs) = (lake.tables(), lake.epochs());
    lake.expect(&["run", "--once"]);
    assert_eq!(lake.epochs(), epochs, "a second run finds nothing new");
    assert!(lake.tables() == tables, "and leaves the tables alone");

    let running = lake.start(&[]);
    running.rows("SELECT 1");
    let answers = lake.beside("answers");
    for view in views(&running) {
        let file = answers.join(format!("{view}.parquet"));
        let arguments = [view.as_str(), "-o", file.to_str().unwrap(), "--url", &running.url()].map(str::to_owned);
        let output = Command::new(env!("CARGO_BIN_EXE_livelake")).arg("export").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let ignored = running.get("/api/v1/sources");
    for source in ignored["data"].as_array().unwrap() {
        assert_eq!(source["errors"], 0, "{source}");
    }
    assert_eq!(running.terminate(), Some(0));
    assert_eq!(lake.epochs(), epochs, "neither does a run without an end");

    let Some(python) = readers() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/views.py");
    let output = Command::new(python).arg(script).arg(lake.path()).arg(&answers).env("TLC_DATA", data).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn month_files_whose_types_drift_give_the_answers_that_duckdb_gives() {
    let data = tempfile::tempdir().unwrap();
    write_months(data.path());
    months(data.path(), &[]);
}

/// The real months are years old, so nothing of them is within the last hour.
#[test]
fn the_real_months_give_the_answers_that_duckdb_gives() {
    let Some(data) = real_data() else { return };
    months(&data, &["realtime.zone_last_hour", "realtime.zone_activity"]);
}

#[test]
fn of_the_real_months_only_the_new_one_is_read() {
    let Some(data) = real_data() else { return };
    let sql = "
        CREATE SOURCE green (lpep_pickup_datetime TIMESTAMP, \"PULocationID\" INTEGER, total_amount DECIMAL(10, 2))
          WITH (connector = 'files', path = '*.parquet', format = 'parquet');
        CREATE MATERIALIZED VIEW zones AS SELECT \"PULocationID\", count(*) AS trips, sum(total_amount) AS amount FROM green GROUP BY \"PULocationID\";
        CREATE SINK green FROM green WITH (connector = 'iceberg', mode = 'append', partition_by = 'month(lpep_pickup_datetime)');
        CREATE SINK zones FROM zones WITH (connector = 'iceberg');";
    let lake = LakeDir::new(&[("10_lake.sql", sql)]);
    let mut files: Vec<_> = std::fs::read_dir(data.join("trips_green")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let add = |file: &Path| std::fs::copy(file, lake.path().join(file.file_name().unwrap())).unwrap();
    let read = || {
        let stats = lake.path().join("stats.json");
        lake.expect(&["run", "--once", "--stats", stats.to_str().unwrap()]);
        let stats: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(stats).unwrap()).unwrap();
        stats["events"].as_u64().unwrap()
    };
    let (last, earlier) = files.split_last().unwrap();
    for file in earlier {
        add(file);
    }
    assert_eq!(read(), 568_368 - 64_809);
    assert_eq!(read(), 0);
    add(last);
    assert_eq!(read(), 64_809);
    let tables = lake.tables();
    assert_eq!(tables["public.green"].len(), 568_368);
    let trips: u64 = tables["public.zones"].iter().map(|row| row.split('|').nth(1).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(trips, 568_368);
}
