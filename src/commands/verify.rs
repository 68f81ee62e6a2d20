//! `livelake verify DIR|URL [VIEW]`.

use std::path::PathBuf;

use livelake_actors::client::{self, OutputFormat};
use livelake_actors::config::Config;
use livelake_actors::lake::folder::LakeFolder;
use livelake_actors::lake::{Lake, RunOptions};
use livelake_queries::statement::RelationKind;
use livelake_queries::{Position, RelationName};

use super::{Failure, refused, running};

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

/// The rows that a running lake answers with.
fn ask(url: &str, sql: &str) -> Result<Vec<serde_json::Value>, Failure> {
    let mut answer = Vec::new();
    client::sql(url, sql, OutputFormat::Ndjson, &mut answer).map_err(refused)?;
    serde_json::Deserializer::from_slice(&answer).into_iter().collect::<Result<_, _>>().map_err(running)
}

fn text<'a>(row: &'a serde_json::Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_default()
}

impl Verify {
    /// Asks a running lake to compare, each view at a timestamp of its own; nothing stops meanwhile.
    fn of_running(self) -> Result<(), Failure> {
        let views = match self.view {
            Some(view) => vec![view],
            None => {
                let views = ask(&self.lake, "SHOW MATERIALIZED VIEWS")?;
                views.iter().map(|view| RelationName::new(text(view, "schema"), text(view, "name")).quoted()).collect()
            }
        };
        let mut differing = Vec::new();
        for view in views {
            let verdict = ask(&self.lake, &format!("VERIFY MATERIALIZED VIEW {view}"))?;
            let mut lines = verdict.iter().map(|line| text(line, "verdict"));
            println!("{}", lines.next().unwrap_or_default());
            differing.extend(lines.map(|line| format!("{view}: {line}")));
        }
        if differing.is_empty() { Ok(()) } else { Err(Failure::Differs(differing)) }
    }

    /// Prints a line per view, and the rows that differ.
    pub fn run(self) -> Result<(), Failure> {
        if super::output::is_url(&self.lake) {
            return self.of_running();
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
