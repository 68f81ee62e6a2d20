//! A lake run by the real binary, in a folder of its own, and its tables read back.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use livelake_sinks::{Lake, LakeOptions, TableName, failpoint};
use serde_json::Value;

/// Longer than anything takes on any machine: who waits this long waits for something that does not come.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for this: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder with a lake's files.
pub struct LakeDir {
    path: PathBuf,
    /// Holds the lake; deleted with this value.
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, PathBuf)>,
}

impl LakeDir {
    /// Writes the files.
    pub fn new(files: &[(&str, &str)]) -> LakeDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        LakeDir { path: folder.path().to_path_buf(), folder, variables: Vec::new() }
    }

    /// A copy of one of the examples, with the others beside it because it may read their files.
    pub fn of_example(name: &str) -> LakeDir {
        let folder = tempfile::tempdir().unwrap();
        let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
        for example in std::fs::read_dir(&examples).unwrap().map(|entry| entry.unwrap()) {
            let copy = folder.path().join(example.file_name());
            std::fs::create_dir(&copy).unwrap();
            let files = std::fs::read_dir(example.path()).unwrap().map(|entry| entry.unwrap().path());
            // a lake that was tried out in place has its tables there
            for file in files.filter(|file| file.is_file()) {
                std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
            }
        }
        LakeDir { path: folder.path().join(name), folder, variables: Vec::new() }
    }

    /// A folder on the same disk for files that are not the lake's.
    pub fn beside(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Sets an environment variable for all that runs here.
    pub fn with(mut self, variable: &'static str, value: impl Into<PathBuf>) -> LakeDir {
        self.variables.push((variable, value.into()));
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_livelake"));
        command.arg(arguments[0]);
        if arguments[0] == "demo" {
            command.arg("--dir");
        }
        command.arg(self.path()).args(&arguments[1..]).env("RUST_LOG", "warn");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
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

    /// Runs a command that must end with this code; all that it says.
    pub fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} said: {said}");
        said
    }

    /// Starts a run without an end on free ports.
    pub fn start(&self, settings: &[&str]) -> Running {
        self.start_command(&["run"], settings, &[])
    }

    /// Starts a run that dies at a place of `livelake_sinks::failpoint`.
    pub fn start_dying(&self, failpoint: &str, settings: &[&str]) -> Running {
        let mut command = self.command(&["run"]);
        for setting in ["http.port=0", "postgres.port=0"].iter().chain(settings) {
            command.args(["--set", setting]);
        }
        Running::start(command.env(failpoint::VARIABLE, failpoint))
    }

    /// Starts a command without an end on free ports, by way of others if `by` names some (`prlimit …`).
    pub fn start_command(&self, arguments: &[&str], settings: &[&str], by: &[&str]) -> Running {
        let mut command = self.command(arguments);
        for setting in ["http.port=0", "postgres.port=0"].iter().chain(settings) {
            command.args(["--set", setting]);
        }
        if let [program, options @ ..] = by {
            let mut outer = Command::new(program);
            outer.args(options).arg(command.get_program()).args(command.get_args());
            outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command = outer;
        }
        Running::start(&mut command)
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

    /// Numbers and timestamps of all epochs, oldest first; none where there is no lake yet.
    pub fn epochs(&self) -> Vec<(u64, u64)> {
        let options = self.options();
        runtime().block_on(async move {
            let Ok(lake) = Lake::open_reader(&options).await else { return Vec::new() };
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
pub struct Running {
    child: Child,
    /// What it said on standard output and on standard error, by line.
    said: Arc<Mutex<Vec<String>>>,
}

fn note(said: &Arc<Mutex<Vec<String>>>, from: impl Read + Send + 'static) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            said.lock().unwrap().push(line);
        }
    });
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::default();
        note(&said, child.stdout.take().unwrap());
        note(&said, child.stderr.take().unwrap());
        Running { child, said }
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What `livelake verify URL [VIEW]` says, which must end well.
    pub fn verified(&self, view: &[&str]) -> String {
        let command = Command::new(env!("CARGO_BIN_EXE_livelake")).arg("verify").arg(self.url()).args(view).output().unwrap();
        assert!(command.status.success(), "{}", String::from_utf8_lossy(&command.stderr));
        String::from_utf8(command.stdout).unwrap()
    }

    /// All that it said so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// The address that it prints for HTTP.
    pub fn url(&self) -> String {
        until("it prints its address", || {
            self.said.lock().unwrap().iter().find_map(|line| line.strip_prefix("http ").map(str::to_owned))
        })
    }

    /// What it has under this path.
    pub fn get(&self, path: &str) -> Value {
        request(ureq::get(format!("{}{path}", self.url())).config().http_status_as_error(false).build().call())
    }

    /// What it answers to a statement.
    pub fn ask(&self, sql: &str) -> Value {
        let request_of = ureq::post(format!("{}/api/v1/sql", self.url())).header("content-type", "application/json");
        request(request_of.config().http_status_as_error(false).build().send(serde_json::json!({ "sql": sql }).to_string()))
    }

    /// The rows that it answers with, once it is ready to answer.
    pub fn rows(&self, sql: &str) -> Value {
        let answer = until("it is ready to answer", || Some(self.ask(sql)).filter(|answer| answer["code"] != "unavailable"));
        assert_eq!(answer["success"], true, "{sql}: {answer}");
        answer["data"].clone()
    }

    /// The number of its newest epoch; 0 if there is none.
    pub fn epoch(&self) -> u64 {
        self.get("/api/v1/epochs")["data"][0]["epoch"].as_u64().unwrap_or(0)
    }

    /// Waits until it has committed an epoch that was begun after this call.
    pub fn next_epoch(&self) -> u64 {
        let before = self.epoch();
        until("another epoch", || Some(self.epoch()).filter(|epoch| *epoch > before))
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// SIGKILL, or nothing if it ended by itself.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        self.child.wait().unwrap().code()
    }
}

/// A JSON answer, whatever its status.
fn request(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
    match answer {
        Ok(mut answer) => serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap(),
        Err(error) => panic!("the lake does not answer: {error}"),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder with real data, if the environment variable LIVELAKE_SHARED_DATA names one.
pub fn real_data() -> Option<PathBuf> {
    let folder = std::env::var_os("LIVELAKE_SHARED_DATA").map(PathBuf::from).filter(|folder| folder.is_dir());
    if folder.is_none() {
        eprintln!("LIVELAKE_SHARED_DATA names no folder with real data: this test has nothing to read");
    }
    folder
}

/// The Python in which `tests/readers/setup.sh` has installed other people's readers of Iceberg tables, if it has.
pub fn readers() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let python = Some(cache.join("livelake/readers/bin/python")).filter(|python| python.exists());
    if python.is_none() {
        eprintln!("not compared with pyiceberg and DuckDB: run tests/readers/setup.sh first");
    }
    python
}
