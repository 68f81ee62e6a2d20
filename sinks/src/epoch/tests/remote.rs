//! The same tests with the tables in a bucket and the catalog in PostgreSQL: real servers, started here.
//!
//! The bucket is moto's, an S3 server of the readers' Python environment (`tests/readers/setup.sh`). Each test of another file that is named
//! here is run by this test binary, started again with the places in its environment; there each lake has a database and a folder of the
//! bucket to itself.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::*;

const BUCKET: &str = "LIVELAKE_TEST_BUCKET";
const DATABASE: &str = "LIVELAKE_TEST_DATABASE";

/// Whether lakes are somewhere else than in a folder.
pub(super) fn is_remote() -> bool {
    std::env::var_os(BUCKET).is_some() || rest::is_rest()
}

/// `storage.catalog` and `storage.warehouse` of the lake of a folder; `None`: in the folder.
pub(super) fn places(folder: &Path) -> Option<(String, String)> {
    let name = folder.file_name()?.to_str()?.trim_start_matches('.').to_lowercase();
    if let Some(server) = rest::server() {
        let warehouse = match std::env::var(BUCKET) {
            Ok(bucket) => format!("s3://{bucket}/{name}"),
            Err(_) => folder.join("warehouse").display().to_string(),
        };
        return Some((format!("{server}{name}"), warehouse));
    }
    let (bucket, server) = (std::env::var(BUCKET).ok()?, std::env::var(DATABASE).ok()?);
    psql(&server, &format!("CREATE DATABASE {name}"));
    Some((format!("{server}/{name}"), format!("s3://{bucket}/{name}")))
}

/// Runs a statement; one that fails because it was run before is none of ours.
fn psql(server: &str, statement: &str) -> String {
    let output = Command::new("psql").args(["-qAtX", "-c", statement, &format!("{server}/postgres")]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A server of a test's, stopped when dropped.
pub(super) struct Server {
    process: Child,
    pub(super) port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // PostgreSQL's other processes end with the one that takes this
        let _ = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts what `command` makes of a port and a folder, and waits until it answers there.
    pub(super) fn start(command: impl FnOnce(u16, &Path) -> Command) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::Builder::new().prefix("livelake-server-").tempdir().unwrap();
        let mut process = command(port, folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "the server stopped");
            assert!(begun.elapsed() < Duration::from_secs(120), "the server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Server { process, port, _folder: folder }
    }

    /// An S3 server with one bucket.
    fn moto(python: &Path) -> Server {
        let server = Server::start(|port, _| {
            let mut command = Command::new(python);
            command.args(["-c", "from moto.server import main; import sys; main(sys.argv[1:])", "-H", "127.0.0.1", "-p"]);
            command.arg(port.to_string());
            command
        });
        let url = format!("http://127.0.0.1:{}/lake", server.port);
        let made = Command::new("curl").args(["-fsS", "-o", "/dev/null", "-X", "PUT", &url]).status().unwrap();
        assert!(made.success(), "the bucket is not made");
        server
    }

    /// A PostgreSQL that trusts everybody on this machine.
    fn postgres(programs: &Path) -> Server {
        Server::start(|port, folder| {
            // PostgreSQL refuses to be run by root
            let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
            let start = |program: &str| {
                let program = programs.join(program);
                let mut command = Command::new(if is_root { Path::new("setpriv") } else { &program });
                if is_root {
                    // it becomes the program, so that a signal reaches that
                    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(&program);
                }
                command
            };
            if is_root {
                assert!(Command::new("chown").arg("postgres").arg(folder).status().unwrap().success());
            }
            let data = folder.join("data");
            let made = start("initdb").args(["-U", "postgres", "--auth=trust", "--no-sync", "-D"]).arg(&data).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let mut command = start("postgres");
            command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c", "fsync=off", "-k", ""]);
            command
        })
    }
}

/// The servers' programs, as far as this machine has them.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let python = readers::python()?;
    let has_moto = Command::new(&python).args(["-c", "import moto.server"]).output().is_ok_and(|output| output.status.success());
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let postgres = versions.map(|entry| entry.path().join("bin")).find(|bin| bin.join("initdb").exists())?;
    has_moto.then_some((python, postgres))
}

/// This test binary, told where the servers are.
fn again(test: &str, bucket: u16, database: &Server) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
    command.env(BUCKET, "lake").env(DATABASE, format!("postgres://postgres@127.0.0.1:{}", database.port));
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{bucket}")).env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    command
}

fn run_all(tests: &[&str]) {
    let Some((python, postgres)) = programs() else {
        println!("not tried in a bucket with PostgreSQL: install PostgreSQL and run tests/readers/setup.sh first");
        return;
    };
    let (bucket, database) = (Server::moto(&python), Server::postgres(&postgres));
    let folder = tempfile::tempdir().unwrap();
    let harm = folder.path().join("harm");
    let failing = network::Network::before(bucket.port, 200, 7, harm.clone());
    for test in tests {
        // requests to the bucket are cut, too, where the test is about that
        let port = if test.starts_with("network::") { failing.port } else { bucket.port };
        let output = again(&format!("epoch::tests::{test}"), port, &database).env(network::HARM, &harm).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{test}:\n{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn tables_in_a_bucket_equal_the_model() {
    run_all(&[
        "model::tables_equal_the_model_by_hour",
        "history::all_tables_go_back_to_an_epoch_together",
        "network::commits_get_through",
        "remote::many_files_lose_rows_in_one_epoch",
        "remote::two_writers_take_turns",
        "remote::a_catalog_that_went_away_comes_back",
        "remote::pyiceberg_reads_the_bucket",
    ]);
}

#[test]
fn a_death_leaves_one_of_two_epochs_in_a_bucket() {
    run_all(&["crashes::a_death_at_any_place_leaves_one_of_two_epochs"]);
}

pub(super) fn some(numbers: std::ops::Range<i64>) -> Contents {
    numbers.map(|id| (id, (Some(id), Some("Queens".to_string()), id))).collect()
}

pub(super) async fn add(lake: &Lake, number: i64) -> Result<CommitReport, SinkError> {
    let changes = difference(&some(0..number - 1), &some(0..number));
    let tables = vec![change("r.t", "", SinkMode::Snapshot, changes)];
    lake.commit(&epoch(number.unsigned_abs()), tables, &[], Arc::new(Rows::default())).await
}

/// Reading a file blocks a thread that is in a task of tokio's: that must not use up what the task may do before it lets others go on.
#[tokio::test]
async fn many_files_lose_rows_in_one_epoch() {
    let folder = tempfile::tempdir().unwrap();
    if !is_remote() {
        return;
    }
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    let rows = |ids: std::ops::Range<i64>| -> Contents { ids.map(|id| (id, (Some(id / 2 * 3_600_000_000), None, id))).collect() };
    let odd: Contents = rows(0..200).into_iter().filter(|(id, _)| id % 2 == 1).collect();
    for (number, before, after) in [(1, Contents::new(), rows(0..200)), (2, rows(0..200), odd.clone())] {
        let tables = vec![change("r.hours", "hour(seen_at)", SinkMode::Snapshot, difference(&before, &after))];
        lake.commit(&epoch(number), tables, &[], Arc::new(Rows::default())).await.unwrap();
    }
    assert_eq!(rows_of(&lake, "r.hours", &schema()).await, batch(odd.iter()));
}

/// The lock is the connection's: it is free when that is gone, and a writer that lost it is told at its next commit.
#[tokio::test]
async fn two_writers_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let Some((catalog, _)) = places(folder.path()) else { return };
    let nothing = Lake::open_reader(&options(folder.path())).await.unwrap_err();
    assert!(matches!(nothing, SinkError::NoLake(_)), "{nothing}");
    let first = Lake::open(&options(folder.path())).await.unwrap();
    add(&first, 1).await.unwrap();
    let refused = Lake::open(&options(folder.path())).await.unwrap_err().to_string();
    assert!(refused.contains("is being written by test (process "), "{refused}");
    assert!(refused.contains(&catalog), "{refused}");

    // every connection of this lake is cut
    let (server, name) = catalog.rsplit_once('/').unwrap();
    psql(server, &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
    let second = Lake::open(&options(folder.path())).await.unwrap();
    let error = loop {
        // the first try may find out that its connection is gone
        match add(&first, 2).await.unwrap_err() {
            error if error.is_retryable() => continue,
            error => break error,
        }
    };
    assert!(matches!(error, SinkError::Superseded { .. }), "{error}");
    add(&second, 2).await.unwrap();
    assert_eq!(rows_of(&second, "r.t", &schema()).await, batch(some(0..2).iter()));
}

/// A cut connection costs one try.
#[tokio::test]
async fn a_catalog_that_went_away_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some((catalog, _)) = places(folder.path()) else { return };
    let lake = Lake::open(&options(folder.path())).await.unwrap();
    add(&lake, 1).await.unwrap();
    let (server, name) = catalog.rsplit_once('/').unwrap();
    for number in 2..6 {
        psql(server, &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
        let error = add(&lake, number).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        add(&lake, number).await.unwrap();
    }
    assert_eq!(rows_of(&lake, "r.t", &schema()).await, batch(some(0..5).iter()));
}

#[tokio::test]
async fn pyiceberg_reads_the_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let (Some((catalog, _)), Some(python)) = (places(folder.path()), readers::python()) else { return };
    let (lake, after) = readers::written(folder.path()).await;
    let script = "import os, sys\n\
        from pyiceberg.catalog.sql import SqlCatalog\n\
        s3 = {'s3.endpoint': os.environ['AWS_ENDPOINT_URL'], 's3.region': 'us-east-1'}\n\
        catalog = SqlCatalog('iceberg', uri=sys.argv[1].replace('postgres://', 'postgresql+psycopg2://'), init_catalog_tables='false', **s3)\n\
        for table in sys.argv[2:]:\n\
        \x20   rows = catalog.load_table(table).scan().to_arrow()\n\
        \x20   print(table, rows.num_rows, sum(rows['id'].to_pylist()), sum(rows['amount'].to_pylist()))\n";
    let tables = ["r.whole", "r.day", "r.hour_borough", "r.bucket"];
    let output = Command::new(python).args(["-c", script, &catalog]).args(tables).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cents: i64 = after.values().map(|row| row.2).sum();
    let expected: Vec<String> = tables
        .iter()
        .map(|table| format!("{table} {} {} {}.{:02}", after.len(), after.keys().sum::<i64>(), cents / 100, cents % 100))
        .collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(), expected);
    drop(lake);
}
