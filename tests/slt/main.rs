//! The files of `tests/slt` over PostgreSQL's protocol: each query's answer is PostgreSQL's own, whichever way it is asked.
//!
//! A file runs as it is; then with each of its queries made a materialized view before any row is there and read where the file
//! asks; then once more in that lake after all rows were deleted. `onlyif adhoc` before a query says that it is not for a view,
//! `skipif postgres` that PostgreSQL does not have it.
//!
//! With `LIVELAKE_SLT_POSTGRES=postgres://user@host:port/database` the files run against that server too, which shows that what they
//! expect is PostgreSQL's answer; with `LIVELAKE_SLT_UPDATE=1` as well, its answers are written into the files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sqllogictest::{
    AsyncDB, Condition, DBOutput, DefaultColumnType, Normalizer, QueryExpect, Record, Runner, SortMode, default_column_validator,
    default_normalizer, default_validator, parse_file,
};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use livelake_slt::Lake;

/// How answers are written into the files.
const BETWEEN_COLUMNS: &str = "  ";

/// A session over PostgreSQL's protocol.
struct Session {
    client: Client,
    engine: &'static str,
}

/// A refusal as the server words it, after its code.
#[derive(Debug)]
struct Refusal {
    code: Option<String>,
    message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.code.as_deref().unwrap_or("no code"), self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<tokio_postgres::Error> for Refusal {
    fn from(error: tokio_postgres::Error) -> Refusal {
        match error.as_db_error() {
            Some(refusal) => Refusal { code: Some(refusal.code().code().to_owned()), message: refusal.message().to_owned() },
            None => Refusal { code: None, message: error.to_string() },
        }
    }
}

impl Session {
    async fn open(url: &str, engine: &'static str) -> Result<Session, Refusal> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        // it ends when the client is dropped
        tokio::spawn(connection);
        Ok(Session { client, engine })
    }
}

#[async_trait::async_trait]
impl AsyncDB for Session {
    type Error = Refusal;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Refusal> {
        let (mut types, mut rows, mut changed) = (None, Vec::new(), 0);
        for message in self.client.simple_query(sql).await? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => types = Some(vec![DefaultColumnType::Text; columns.len()]),
                SimpleQueryMessage::Row(row) => {
                    let text = |column| match row.get(column) {
                        None => "NULL".to_owned(),
                        Some("") => "(empty)".to_owned(),
                        Some(text) => text.to_owned(),
                    };
                    rows.push((0..row.len()).map(text).collect());
                }
                SimpleQueryMessage::CommandComplete(count) => changed = count,
                _ => {}
            }
        }
        Ok(types.map_or(DBOutput::StatementComplete(changed), |types| DBOutput::Rows { types, rows }))
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        self.engine
    }

    fn error_sql_state(refusal: &Refusal) -> Option<String> {
        refusal.code.clone()
    }
}

/// The same rows, in whatever order: what a view's rows are compared by.
fn unordered(normalizer: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let mut expected: Vec<String> = expected.iter().map(normalizer).collect();
    let mut actual: Vec<String> = actual.iter().map(|row| row.iter().map(normalizer).collect::<Vec<_>>().join(" ")).collect();
    expected.sort();
    actual.sort();
    actual == expected
}

/// Whether a record with these conditions is for one with this label.
fn is_for(conditions: &[Condition], label: &str) -> bool {
    conditions.iter().all(|condition| match condition {
        Condition::OnlyIf { label: only } => only == label || only == "livelake",
        Condition::SkipIf { label: skipped } => skipped != label && skipped != "livelake",
    })
}

/// A file's records, with its queries made views.
struct Views {
    /// All that is created, in the order of the file: before the views.
    created: Vec<Record<DefaultColumnType>>,
    /// The names of the tables, the newest first.
    tables: Vec<String>,
    /// The views' statements.
    views: Vec<String>,
    /// All others; the views are read where the queries stand.
    replayed: Vec<Record<DefaultColumnType>>,
}

impl Views {
    fn of(records: Vec<Record<DefaultColumnType>>) -> Views {
        let mut of = Views { created: Vec::new(), tables: Vec::new(), views: Vec::new(), replayed: Vec::new() };
        let mut names = BTreeSet::new();
        for mut record in records {
            match &mut record {
                Record::Statement { sql, .. } if sql.starts_with("CREATE") => {
                    let words: Vec<&str> = sql.split([' ', '\n', '(']).collect();
                    if words[1] == "TABLE" {
                        of.tables.insert(0, words[2].to_owned());
                    }
                    of.created.push(record);
                }
                Record::Query { sql, conditions, expected: QueryExpect::Results { sort_mode, .. }, .. } => {
                    if is_for(conditions, "view") {
                        let name = format!("answer_{}", names.len());
                        of.views.push(format!("CREATE MATERIALIZED VIEW {name} AS {sql}"));
                        *sql = format!("SELECT * FROM {name}");
                        *sort_mode = Some(SortMode::RowSort);
                        names.insert(name);
                        of.replayed.push(record);
                    }
                }
                // an error is the answer of a query that is answered once; a view has it among its rows of errors
                Record::Query { .. } => {}
                _ => of.replayed.push(record),
            }
        }
        of
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "slt"));
    let only = std::env::var("LIVELAKE_SLT_ONLY").unwrap_or_default();
    files.retain(|file| file.to_str().unwrap().contains(&only));
    files.sort();
    files
}

/// How long a lake may take to be ready to answer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A lake that answers.
async fn lake() -> Lake {
    let lake = Lake::start();
    let ready = async {
        let session = Session::open(&lake.url, "livelake").await.unwrap();
        while let Err(refusal) = session.client.simple_query("SELECT one FROM ready").await {
            let code = Refusal::from(refusal).code;
            assert_eq!(code.as_deref(), Some("57P03"), "it is starting or it answers");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.unwrap();
    lake
}

/// Runs all the records; what is wrong with them.
async fn all<C, M>(runner: &mut Runner<Session, M>, records: Vec<Record<DefaultColumnType>>, faults: &mut Vec<String>, way: &str)
where
    C: Future<Output = Result<Session, Refusal>>,
    M: Fn() -> C + Send + Sync,
    M: sqllogictest::MakeConnection<Conn = Session, MakeFuture = C>,
{
    for record in records {
        if let Record::Halt { .. } = record {
            break;
        }
        if let Err(fault) = runner.run_async(record).await {
            faults.push(format!("{way}: {}", fault.display(false)));
        }
    }
}

/// As the file is.
async fn answered_once(file: &Path, url: &str, engine: &'static str, faults: &mut Vec<String>) {
    let mut runner = Runner::new(|| Session::open(url, engine));
    runner.add_label("adhoc");
    all(&mut runner, parse_file(file).unwrap(), faults, "answered once").await;
}

/// With views, twice.
async fn maintained(file: &Path, url: &str, faults: &mut Vec<String>) {
    let of = Views::of(parse_file(file).unwrap());
    let mut runner = Runner::new(|| Session::open(url, "livelake"));
    runner.add_label("view");
    runner.with_validator(unordered);
    all(&mut runner, of.created, faults, "created").await;
    let session = Session::open(url, "livelake").await.unwrap();
    for view in &of.views {
        if let Err(refusal) = session.client.simple_query(view).await {
            faults.push(format!("{}: {view}: {}", file.display(), Refusal::from(refusal)));
        }
    }
    all(&mut runner, of.replayed.clone(), faults, "maintained").await;
    for table in &of.tables {
        session.client.simple_query(&format!("DELETE FROM {table}")).await.unwrap();
    }
    all(&mut runner, of.replayed, faults, "emptied and filled again").await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults\n\n{}", faults.len(), faults.join("\n\n"));
}

#[test]
fn queries_answered_once() {
    let mut faults = Vec::new();
    for file in files() {
        runtime().block_on(async {
            let lake = lake().await;
            answered_once(&file, &lake.url, "livelake", &mut faults).await;
        });
    }
    none(&faults);
}

#[test]
fn queries_maintained_from_before_the_first_row() {
    let mut faults = Vec::new();
    for file in files() {
        runtime().block_on(async {
            let lake = lake().await;
            maintained(&file, &lake.url, &mut faults).await;
        });
    }
    none(&faults);
}

#[test]
fn what_the_files_expect_is_what_postgresql_answers() {
    let Ok(url) = std::env::var("LIVELAKE_SLT_POSTGRES") else {
        eprintln!("LIVELAKE_SLT_POSTGRES names no server: this test has nothing to ask");
        return;
    };
    let mut faults = Vec::new();
    for file in files() {
        runtime().block_on(async {
            let session = Session::open(&url, "postgres").await.unwrap();
            let fresh = "DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public; SET TIME ZONE 'UTC'";
            session.client.batch_execute(fresh).await.unwrap();
            if std::env::var_os("LIVELAKE_SLT_UPDATE").is_some() {
                let mut runner = Runner::new(|| Session::open(&url, "postgres"));
                runner.add_label("adhoc");
                let updated = runner
                    .update_test_file(&file, BETWEEN_COLUMNS, default_validator, default_normalizer, default_column_validator)
                    .await;
                updated.unwrap();
            } else {
                answered_once(&file, &url, "postgres", &mut faults).await;
            }
        });
    }
    none(&faults);
}
