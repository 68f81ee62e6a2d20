//! `livelake restore DIR --epoch N`.

use std::path::PathBuf;

use livelake_actors::config::Config;
use livelake_actors::lake::store::table_options;
use livelake_sinks::Lake as Tables;

use super::{Failure, running};

/// Make a new epoch that shows all tables as they were at an earlier one. The lake must not run; its next start reads its sources on from
/// where that epoch had them.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// The lake's folder.
    dir: PathBuf,
    /// The epoch to go back to: `livelake epochs` lists them.
    #[arg(long, value_name = "N")]
    epoch: u64,
    /// Override a setting, as section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl Restore {
    /// Restores, and says what each table lost and got.
    pub fn run(self) -> Result<(), Failure> {
        let config = Config::load(&self.dir, &|| std::env::vars().collect(), &self.sets)
            .map_err(|error| Failure::Usage(vec![error.to_string()]))?;
        super::run::in_system(async move {
            let tables = Tables::open(&table_options(&self.dir, &config)).await.map_err(running)?;
            let report = tables.restore(self.epoch).await.map_err(running)?;
            tables.settle().await;
            for table in report.tables.iter().filter(|table| table.table.to_string() != "livelake._epochs") {
                println!("{}: {} rows, as at epoch {} (it had {})", table.table, table.rows, self.epoch, table.changed.removed);
            }
            println!("epoch {} shows the lake as it was at epoch {}", report.epoch, self.epoch);
            Ok(())
        })
    }
}
