//! `livelake sql [SQL]`: ask a running lake, or talk to it at a prompt.

use std::io::IsTerminal;

use livelake_actors::client::{self, ClientError, OutputFormat, prompt};

use super::{Failure, refused};

/// Ask a running lake.
#[derive(Debug, clap::Args)]
pub struct Sql {
    /// One or several statements; a prompt if absent.
    sql: Option<String>,
    /// Where the lake listens.
    #[arg(long, default_value = client::DEFAULT_URL)]
    url: String,
    /// How answers are printed.
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
}

impl Sql {
    /// Asks.
    pub fn run(self) -> Result<(), Failure> {
        let mut out = std::io::stdout();
        let outcome = match &self.sql {
            Some(sql) => client::sql(&self.url, sql, self.format, &mut out),
            None => {
                let input = std::io::stdin();
                let interactive = input.is_terminal();
                prompt::run(&self.url, self.format, interactive, &mut input.lock(), &mut out, &mut std::io::stderr())
            }
        };
        quiet_end(outcome)
    }
}

/// An output that is closed early (`| head`) is no failure.
pub fn quiet_end(outcome: Result<(), ClientError>) -> Result<(), Failure> {
    match outcome {
        Err(ClientError::Output { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(refused),
    }
}
