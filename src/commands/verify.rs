//! `livelake verify DIR|URL [VIEW]`.

use std::path::PathBuf;

use livelake_actors::config::Config;
use livelake_actors::lake::folder::LakeFolder;
use livelake_actors::lake::{Lake, RunOptions};
use livelake_queries::statement::RelationKind;
use livelake_queries::{Position, RelationName};

use super::{Failure, running};

/// Recompute views from their inputs in batch and compare.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The lake's folder, which is read anew, or the URL of a running lake.
    lake: String,
    /// Only this view.
    view: Option<String>,
    /// Override a setting, as section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl Verify {
    /// Prints a line per view, and the rows that differ.
    pub fn run(self) -> Result<(), Failure> {
        if self.lake.starts_with("http://") || self.lake.starts_with("https://") {
            return Err(Failure::Usage(vec!["ask a running lake by SQL: VERIFY MATERIALIZED VIEW name".to_owned()]));
        }
        let dir = PathBuf::from(&self.lake);
        let config = Config::load(&dir, &|| std::env::vars().collect(), &self.sets)
            .map_err(|error| Failure::Usage(vec![error.to_string()]))?;
        let folder = LakeFolder::load(&dir)?;
        let views: Vec<_> = match &self.view {
            Some(view) => {
                let relation =
                    folder.catalog.expect(&RelationName::parse(view), &Position::default()).map_err(|error| vec![error])?;
                vec![relation.clone()]
            }
            None => folder.catalog.of_kind(RelationKind::MaterializedView).cloned().collect(),
        };
        let asked_for = folder.catalog.iter().filter(|relation| relation.is_base()).map(|relation| relation.id).collect();
        super::run::in_system(async move {
            let lake = Lake::build(folder, &config, RunOptions { once: true, asked_for }, 0, Default::default())?;
            lake.read_all().await?;
            let as_of = lake.newest();
            let mut differing = Vec::new();
            for view in views {
                let verdict = lake.verify(&view, as_of).await?;
                println!("{}", verdict.summary());
                for difference in verdict.differences.iter().take(20) {
                    let row =
                        arrow::util::pretty::pretty_format_batches(std::slice::from_ref(&difference.row)).map_err(running)?;
                    differing.push(format!(
                        "{}: {}\n{row}",
                        verdict.view,
                        if difference.missing { "missing" } else { "should not be there" }
                    ));
                }
            }
            lake.engine().shutdown();
            if differing.is_empty() { Ok(()) } else { Err(Failure::Differs(differing)) }
        })
    }
}
