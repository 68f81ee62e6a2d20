//! The commands, one a file.

mod bench;
mod check;
mod demo;
mod epochs;
mod explain;
mod export;
mod maintain;
mod output;
mod progress;
mod restore;
mod run;
mod sql;
mod subscribe;
mod verify;

use livelake_actors::service::LakeError;
use livelake_queries::SqlError;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Write and run the New York taxi lake on the built-in generator: no other software needed.
    Demo(demo::Demo),
    /// Run a lake until it is told to stop; with --once, to the present end of its sources.
    Run(run::Run),
    /// Plan a lake without running it; every error with its place.
    Check(check::Check),
    /// Show how a view is maintained.
    Explain(explain::Explain),
    /// Ask a running lake.
    Sql(sql::Sql),
    /// Follow a view of a running lake.
    Subscribe(subscribe::Subscribe),
    /// Write a view's rows to a file.
    Export(export::Export),
    /// Recompute views from their inputs in batch, at one timestamp, and compare.
    Verify(verify::Verify),
    /// List the epochs that were committed, with the rows that they added and removed.
    Epochs(epochs::Epochs),
    /// Look after the tables: merge small files, write files anew that lost rows, delete files that nobody reaches.
    Maintain(maintain::Maintain),
    /// Go back: show all tables together as they were at an epoch, and read on from there.
    Restore(restore::Restore),
    /// Measure: what the published figures are made with.
    Bench(bench::Bench),
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Command::Demo(demo) => demo.run(),
            Command::Run(run) => run.run(),
            Command::Check(check) => check.run(),
            Command::Explain(explain) => explain.run(),
            Command::Sql(sql) => sql.run(),
            Command::Subscribe(subscribe) => subscribe.run(),
            Command::Export(export) => export.run(),
            Command::Verify(verify) => verify.run(),
            Command::Epochs(epochs) => epochs.run(),
            Command::Maintain(maintain) => maintain.run(),
            Command::Restore(restore) => restore.run(),
            Command::Bench(bench) => bench.run(),
        }
    }
}

/// Why a command did not do what it should, in lines for a person.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage, or a lake that does not plan.
    Usage(Vec<String>),
    /// It failed while running.
    Running(Vec<String>),
    /// An answer differs from its recomputation.
    Differs(Vec<String>),
}

impl Failure {
    /// What to print.
    pub fn lines(&self) -> &[String] {
        match self {
            Failure::Usage(lines) | Failure::Running(lines) | Failure::Differs(lines) => lines,
        }
    }
}

impl From<Vec<SqlError>> for Failure {
    fn from(errors: Vec<SqlError>) -> Failure {
        Failure::Usage(errors.iter().map(SqlError::to_string).collect())
    }
}

impl From<LakeError> for Failure {
    fn from(error: LakeError) -> Failure {
        let mut lines = vec![error.message];
        lines.extend(error.hint.map(|hint| format!("hint: {hint}")));
        if error.http_status < 500 { Failure::Usage(lines) } else { Failure::Running(lines) }
    }
}

/// A failure from something with words.
pub fn running(error: impl std::fmt::Display) -> Failure {
    Failure::Running(vec![error.to_string()])
}

/// What a running lake, or the way to it, said.
pub fn refused(error: livelake_actors::client::ClientError) -> Failure {
    use livelake_actors::client::ClientError;
    let mut lines = vec![error.to_string()];
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        lines.push(format!("because: {cause}"));
        source = cause.source();
    }
    match error {
        ClientError::Refused { status, .. } if status < 500 => Failure::Usage(lines),
        _ => Failure::Running(lines),
    }
}
