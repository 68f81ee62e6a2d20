//! The same tests with a real REST catalog (`tests/catalog`, Iceberg's own), which takes an epoch's tables together or one by one, and what
//! only such a catalog can do wrong.

use std::process::{Command, Stdio};

use super::remote::{Server, add, places, some};
use super::*;

/// The variable that names the server, up to where a lake's name follows.
const SERVER: &str = "LIVELAKE_TEST_REST";

/// Where lakes' catalogs are, if they are on a server of the protocol.
pub(super) fn server() -> Option<String> {
    std::env::var(SERVER).ok()
}

pub(super) fn is_rest() -> bool {
    server().is_some()
}

/// Whether the server commits one table after the other.
pub(super) fn takes_turns() -> bool {
    server().is_some_and(|server| server.contains("/turns-"))
}

/// The server, where `tests/catalog/setup.sh` was run.
fn start() -> Option<Server> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?.join("livelake/catalog");
    if !cache.join("installed.txt").exists() {
        println!("not tried with a REST catalog: run tests/catalog/setup.sh first");
        return None;
    }
    Some(Server::start(|port, folder| {
        let mut command = Command::new("java");
        command.args([
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xmx256m",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "-cp",
        ]);
        command.arg(format!("{0}/classes:{0}/jars/*", cache.display()));
        command.args(["RestCatalog", &port.to_string()]).arg(folder);
        command
    }))
}

/// Runs tests by this binary, told where the server is.
fn run_all(server: &Server, kind: &str, tests: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    for test in tests {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("epoch::tests::{test}"), "--nocapture", "--test-threads", "1"]);
        command.env(SERVER, format!("rest+http://127.0.0.1:{}/{kind}", server.port));
        command.env(network::HARM, folder.path().join("harm")).stdin(Stdio::null());
        if kind == "guarded-" {
            command.env("LIVELAKE_CATALOG_CREDENTIAL", "ann:secret");
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{test} on {kind}:\n{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        println!(
            "{test} on {kind}: {}",
            said.lines().filter(|line| line.contains(" left ") || line.contains(" failed, ")).collect::<String>()
        );
    }
}

const ALL: &[&str] = &[
    "model::tables_equal_the_model_by_hour",
    "history::all_tables_go_back_to_an_epoch_together",
    "network::commits_get_through",
    "rest::a_writer_that_was_replaced_writes_no_more",
    "rest::tables_come_and_go",
    "rest::pyiceberg_reads_the_tables",
];

#[test]
fn tables_in_a_rest_catalog_equal_the_model() {
    let Some(server) = start() else { return };
    run_all(&server, "together-", ALL);
    run_all(&server, "turns-", ALL);
    run_all(&server, "guarded-", &["model::tables_equal_the_model_by_hour"]);
}

#[test]
fn a_death_leaves_one_of_two_epochs_in_a_rest_catalog() {
    let Some(server) = start() else { return };
    run_all(&server, "together-", &["crashes::a_death_at_any_place_leaves_one_of_two_epochs"]);
    run_all(&server, "turns-", &["crashes::a_death_at_any_place_leaves_one_of_two_epochs"]);
}

/// The lock in the warehouse is only there to say who is at work: without it the catalog does.
#[tokio::test]
async fn a_writer_that_was_replaced_writes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let Some((catalog, _)) = places(folder.path()) else { return };
    let nothing = Lake::open_reader(&options(folder.path())).await.unwrap_err();
    assert!(matches!(nothing, SinkError::NoLake(_)), "{nothing}");
    let first = Lake::open(&options(folder.path())).await.unwrap();
    add(&first, 1).await.unwrap();
    let refused = Lake::open(&options(folder.path())).await.unwrap_err().to_string();
    assert!(refused.contains("is being written by test (process "), "{refused}");
    assert!(refused.contains(&catalog), "{refused}");

    std::fs::remove_file(folder.path().join("warehouse/livelake.writer")).unwrap();
    let second = Lake::open(&options(folder.path())).await.unwrap();
    let error = add(&first, 2).await.unwrap_err();
    assert!(matches!(&error, SinkError::Superseded { holder } if holder.starts_with("test (process ")), "{error}");
    assert_eq!(second.newest().await.unwrap().unwrap().number, 1);
    add(&second, 2).await.unwrap();
    let error = add(&first, 3).await.unwrap_err();
    assert!(matches!(error, SinkError::EpochOrder { .. } | SinkError::Superseded { .. }), "{error}");
    assert_eq!(rows_of(&second, "r.t", &schema()).await, batch(some(0..2).iter()));
}

/// A dropped table leaves the catalog; one that is not ours is left alone, and so is the epoch that wants its name.
#[tokio::test]
async fn tables_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let Some((catalog, warehouse)) = places(folder.path()) else { return };
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let names = async |lake: &Lake| lake.tables().await.unwrap().iter().map(|table| table.table.to_string()).collect::<Vec<_>>();
    for number in 1..=3_u64 {
        let rows = some(0..number.cast_signed());
        let changes = difference(&Contents::new(), &rows);
        let drops = [TableDrop { table: TableName::parse("r.t"), purge: true }];
        lake.commit(&epoch(number * 2), vec![change("r.t", "", SinkMode::Snapshot, changes)], &[], Arc::new(Rows::default()))
            .await
            .unwrap();
        assert_eq!(names(&lake).await, ["livelake._epochs", "r.t"]);
        assert_eq!(rows_of(&lake, "r.t", &schema()).await, batch(rows.iter()));
        lake.commit(&epoch(number * 2 + 1), Vec::new(), &drops, Arc::new(Rows::default())).await.unwrap();
        assert_eq!(names(&lake).await, ["livelake._epochs"]);
        assert!(!folder.path().join("warehouse/r/t").exists());
    }
    let base = catalog.trim_start_matches("rest+");
    let body = r#"{"name":"other","schema":{"type":"struct","schema-id":0,"fields":[{"id":1,"name":"id","type":"long","required":false}]}}"#;
    let made = Command::new("curl")
        .args(["-fsS", "-o", "/dev/null", "-H", "content-type: application/json", "-d", body])
        .arg(format!("{base}/v1/namespaces/r/tables"))
        .status();
    assert!(made.unwrap().success());
    let tables = vec![change("r.other", "", SinkMode::Snapshot, difference(&Contents::new(), &some(0..3)))];
    let error = lake.commit(&epoch(8), tables, &[], Arc::new(Rows::default())).await.unwrap_err();
    assert!(error.to_string().contains("r.other") && error.to_string().contains("not this lake's"), "{error}");
    let tables = vec![change("r.more", "", SinkMode::Snapshot, difference(&Contents::new(), &some(0..3)))];
    lake.commit(&epoch(9), tables, &[], Arc::new(Rows::default())).await.unwrap();
    assert_eq!(names(&lake).await, ["livelake._epochs", "r.more"]);
    drop(lake);
    let wrong = LakeOptions { catalog: format!("{catalog}/nowhere"), warehouse, ..options(folder.path()) };
    let error = Lake::open(&wrong).await.unwrap_err().to_string();
    assert!(error.contains("is this the address of an Iceberg REST catalog?"), "{error}");
}

#[tokio::test]
async fn pyiceberg_reads_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    let (Some((catalog, _)), Some(python)) = (places(folder.path()), readers::python()) else { return };
    let (lake, after) = readers::written(folder.path()).await;
    let script = "import sys\n\
        from pyiceberg.catalog.rest import RestCatalog\n\
        catalog = RestCatalog('lake', uri=sys.argv[1])\n\
        for table in sys.argv[2:]:\n\
        \x20   rows = catalog.load_table(table).scan().to_arrow()\n\
        \x20   print(table, rows.num_rows, sum(rows['id'].to_pylist()), sum(rows['amount'].to_pylist()))\n\
        epochs = catalog.load_table('livelake._epochs').scan().to_arrow()\n\
        print(sorted(epochs['epoch'].to_pylist()))\n";
    let tables = ["r.whole", "r.day", "r.hour_borough", "r.bucket"];
    let output = Command::new(python).args(["-c", script, catalog.trim_start_matches("rest+")]).args(tables).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cents: i64 = after.values().map(|row| row.2).sum();
    let mut expected: Vec<String> = tables
        .iter()
        .map(|table| format!("{table} {} {} {}.{:02}", after.len(), after.keys().sum::<i64>(), cents / 100, cents % 100))
        .collect();
    let mut epochs: Vec<u64> = lake.epochs(100).await.unwrap().iter().map(|epoch| epoch.number).collect();
    epochs.sort_unstable();
    expected.push(format!("{epochs:?}"));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(), expected);
}
