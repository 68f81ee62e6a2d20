//! `livelake maintain DIR|URL [TABLE]`.

use std::path::PathBuf;
use std::time::Duration;

use livelake_actors::client::{self, OutputFormat};
use livelake_actors::config::Config;
use livelake_actors::lake::store::table_options;
use livelake_actors::lake::upkeep::maintenance_batch;
use livelake_queries::RelationName;
use livelake_sinks::{Lake as Tables, MaintainOptions, TableName};

use super::{Failure, output, refused, running};

/// Look after the Iceberg tables now; a running lake does so by itself every `maintenance.interval`.
#[derive(Debug, clap::Args)]
pub struct Maintain {
    /// The folder of a lake that does not run, or the URL of one that does.
    lake: String,
    /// Only this table, as namespace.name.
    table: Option<String>,
    /// Delete files that nobody reaches once they are this old (with a folder; by default `maintenance.orphans_after`).
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    orphans_after: Option<Duration>,
    /// Override a setting, as section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl Maintain {
    /// Looks after them and prints what was done.
    pub fn run(self) -> Result<(), Failure> {
        if output::is_url(&self.lake) {
            let table = self.table.as_deref().map(|table| format!(" {}", RelationName::parse(table).quoted()));
            let sql = format!("VACUUM{}", table.unwrap_or_default());
            return client::sql(&self.lake, &sql, OutputFormat::Table, &mut std::io::stdout()).map_err(refused);
        }
        let dir = PathBuf::from(&self.lake);
        let config = Config::load(&dir, &|| std::env::vars().collect(), &self.sets)
            .map_err(|error| Failure::Usage(vec![error.to_string()]))?;
        super::run::in_system(async move {
            let tables = Tables::open(&table_options(&dir, &config)).await.map_err(running)?;
            let options = MaintainOptions {
                table: self.table.as_deref().map(TableName::parse),
                busy: true,
                orphans_after: self.orphans_after.unwrap_or(config.maintenance.orphans_after),
            };
            let done = tables.maintain(&options).await;
            tables.settle().await;
            output::print(&maintenance_batch(&done.map_err(running)?)?, OutputFormat::Table)
        })
    }
}
