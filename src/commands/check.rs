//! `livelake check DIR`.

use std::path::PathBuf;

use livelake_actors::config::Config;
use livelake_actors::lake::folder::LakeFolder;
use livelake_actors::lake::store::{table_options, wanted_tables};
use livelake_sinks::{Lake as Tables, SinkError};

use super::{Failure, running};

/// Plan a lake without running it, and tell what its next run does to the tables that are there.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The lake's folder.
    dir: PathBuf,
    /// Override a setting, as section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl Check {
    /// Prints how many relations there are and which tables change, or every error as `file:line:column: message`.
    pub fn run(self) -> Result<(), Failure> {
        let folder = LakeFolder::load(&self.dir)?;
        let errors = livelake_actors::lake::connect_all(&folder);
        if !errors.is_empty() {
            return Err(errors.into());
        }
        println!("{}: {} relations, no errors", self.dir.display(), folder.catalog.iter().count());
        let config = Config::load(&self.dir, &|| std::env::vars().collect(), &self.sets)
            .map_err(|error| Failure::Usage(vec![error.to_string()]))?;
        let wanted = wanted_tables(&folder).map_err(|error| vec![error])?;
        let dir = self.dir;
        super::run::in_system(async move {
            let tables = match Tables::open_reader(&table_options(&dir, &config)).await {
                // a lake that never ran has no tables to change
                Err(SinkError::NoLake(_)) => return Ok(()),
                opened => opened.map_err(running)?,
            };
            for outlook in tables.outlook(&wanted).await.map_err(running)? {
                println!("{outlook}");
            }
            Ok(())
        })
    }
}
