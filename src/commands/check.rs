//! `livelake check DIR`.

use std::path::PathBuf;

use livelake_actors::lake::folder::LakeFolder;

use super::Failure;

/// Plan a lake without running it.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The lake's folder.
    dir: PathBuf,
}

impl Check {
    /// Prints how many relations there are, or every error as `file:line:column: message`.
    pub fn run(self) -> Result<(), Failure> {
        let folder = LakeFolder::load(&self.dir)?;
        let errors = livelake_actors::lake::connect_all(&folder);
        if !errors.is_empty() {
            return Err(errors.into());
        }
        println!("{}: {} relations, no errors", self.dir.display(), folder.catalog.iter().count());
        Ok(())
    }
}
