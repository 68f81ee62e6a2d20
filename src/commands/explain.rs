//! `livelake explain DIR VIEW`.

use std::path::PathBuf;

use livelake_actors::lake::folder::LakeFolder;
use livelake_queries::explain::view_text;
use livelake_queries::plan::{StoredColumns, view_plan};
use livelake_queries::{Position, RelationName};

use super::Failure;

/// Show a view's logical plan, dataflow and state.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// The lake's folder.
    dir: PathBuf,
    /// The view, as schema.name.
    view: String,
}

impl Explain {
    /// Prints the text.
    pub fn run(self) -> Result<(), Failure> {
        let folder = LakeFolder::load(&self.dir)?;
        let relation =
            folder.catalog.expect(&RelationName::parse(&self.view), &Position::default()).map_err(|error| vec![error])?;
        let plan = view_plan(&folder.catalog, relation.id, &StoredColumns::default()).map_err(|error| vec![error])?;
        println!("{}", view_text(&plan, &folder.catalog));
        Ok(())
    }
}
