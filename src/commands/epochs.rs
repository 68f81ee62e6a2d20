//! `livelake epochs DIR|URL`.

use std::path::PathBuf;

use livelake_actors::client::{self, OutputFormat};
use livelake_actors::config::Config;
use livelake_actors::lake::store::table_options;
use livelake_actors::lake::upkeep::epochs_batch;
use livelake_actors::service::EpochStatus;
use livelake_sinks::Lake as Tables;

use super::{Failure, output, refused, running};

/// List epochs, the newest first: a line for each table that one changed.
#[derive(Debug, clap::Args)]
pub struct Epochs {
    /// The lake's folder, or the URL of a running lake.
    lake: String,
    /// At most so many epochs.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// How they are written.
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
    /// Override a setting, as section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl Epochs {
    /// Lists them.
    pub fn run(self) -> Result<(), Failure> {
        if output::is_url(&self.lake) {
            let sql = format!("SHOW EPOCHS LIMIT {}", self.limit);
            return client::sql(&self.lake, &sql, self.format, &mut std::io::stdout()).map_err(refused);
        }
        let dir = PathBuf::from(&self.lake);
        let config = Config::load(&dir, &|| std::env::vars().collect(), &self.sets)
            .map_err(|error| Failure::Usage(vec![error.to_string()]))?;
        super::run::in_system(async move {
            let tables = Tables::open_reader(&table_options(&dir, &config)).await.map_err(running)?;
            let epochs: Vec<EpochStatus> =
                tables.epochs(self.limit).await.map_err(running)?.into_iter().map(EpochStatus::from).collect();
            output::print(&epochs_batch(&epochs)?, self.format)
        })
    }
}
