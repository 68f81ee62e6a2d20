//! A lake run by the real binary, in a folder of its own, and its tables read back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use livelake_sinks::{Lake, LakeOptions, TableName};

/// A folder with a lake's files.
pub struct LakeDir {
    folder: tempfile::TempDir,
}

impl LakeDir {
    /// Writes the files.
    pub fn new(files: &[(&str, &str)]) -> LakeDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        LakeDir { folder }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_livelake"));
        command.arg(arguments[0]).arg(self.path()).args(&arguments[1..]).env("RUST_LOG", "warn");
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must end well; its standard output.
    pub fn expect(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} failed: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a run without an end on free ports.
    pub fn start(&self, settings: &[&str]) -> Running {
        let mut command = self.command(&["run", "--set", "http.port=0", "--set", "postgres.port=0"]);
        settings.iter().for_each(|setting| {
            command.args(["--set", setting]);
        });
        Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn options(&self) -> LakeOptions {
        LakeOptions::new(self.path())
    }

    /// All tables' rows as sorted text, but for the table of epochs.
    pub fn tables(&self) -> BTreeMap<String, Vec<String>> {
        let options = self.options();
        runtime().block_on(async move {
            let lake = Lake::open_reader(&options).await.unwrap();
            let mut all = BTreeMap::new();
            for info in lake.tables().await.unwrap() {
                if info.table.name != "_epochs" {
                    all.insert(info.table.to_string(), rows(&lake, &info.table, info.schema.clone()).await);
                }
            }
            all
        })
    }

    /// Numbers and timestamps of all epochs, oldest first.
    pub fn epochs(&self) -> Vec<(u64, u64)> {
        let options = self.options();
        runtime().block_on(async move {
            let lake = Lake::open_reader(&options).await.unwrap();
            let mut epochs: Vec<_> =
                lake.epochs(usize::MAX >> 1).await.unwrap().iter().map(|epoch| (epoch.number, epoch.timestamp)).collect();
            epochs.reverse();
            epochs
        })
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

async fn rows(lake: &Lake, table: &TableName, schema: arrow::datatypes::SchemaRef) -> Vec<String> {
    let (send, mut receive) = tokio::sync::mpsc::channel(8);
    let reading = lake.read(table, schema, send);
    let collecting = async {
        let mut batches = Vec::new();
        while let Some(batch) = receive.recv().await {
            batches.push(batch);
        }
        batches
    };
    let (read, batches) = tokio::join!(reading, collecting);
    read.unwrap();
    let mut rows: Vec<String> = batches.iter().flat_map(as_text).collect();
    rows.sort();
    rows
}

fn as_text(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect()
}

/// A process that is killed when it goes out of scope.
pub struct Running(Child);

impl Running {
    /// SIGKILL after a time, or at once if it ended by itself.
    pub fn kill_after(mut self, time: Duration) {
        std::thread::sleep(time);
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// The address that it prints for HTTP.
    pub fn http(&mut self) -> String {
        use std::io::{BufRead, BufReader};
        let mut lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().strip_prefix("http ").map(str::to_owned)).expect("it prints its address");
        std::thread::spawn(move || lines.for_each(drop));
        line
    }

    /// SIGTERM; its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folder with real data, if it is there: LIVELAKE_SHARED_DATA, else `shared/data` beside the repository.
pub fn real_data() -> Option<PathBuf> {
    let folder = std::env::var_os("LIVELAKE_SHARED_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("no real data at {}: this test has nothing to read", folder.display());
    None
}
