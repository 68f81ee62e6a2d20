//! `livelake subscribe VIEW`: follow a view of a running lake.

use livelake_actors::client::{self, OutputFormat};

use super::Failure;
use super::sql::quiet_end;

/// Follow a view: its rows, then every change.
#[derive(Debug, clap::Args)]
pub struct Subscribe {
    /// The view's name.
    view: String,
    /// Where the lake listens.
    #[arg(long, default_value = client::DEFAULT_URL)]
    url: String,
    /// Changed rows as a table, or one JSON message a line.
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Begin after this timestamp (microseconds since 1970 UTC).
    #[arg(long, value_name = "T")]
    as_of: Option<u64>,
    /// Leave out the rows that are there already.
    #[arg(long)]
    no_snapshot: bool,
}

impl Subscribe {
    /// Follows until the subscription ends.
    pub fn run(self) -> Result<(), Failure> {
        let format = if self.format == "json" { OutputFormat::Json } else { OutputFormat::Table };
        quiet_end(client::subscribe(&self.url, &self.view, format, self.as_of, self.no_snapshot, &mut std::io::stdout()))
    }
}
