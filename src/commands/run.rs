//! `livelake run DIR`.

use std::path::PathBuf;

use livelake_actors::config::Config;
use livelake_actors::lake::folder::LakeFolder;
use livelake_actors::lake::{Lake, RunOptions, relations_of};
use livelake_queries::statement::{StatementKind, parse_statement};

use super::{Failure, running};

/// Run a lake.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The lake's folder.
    dir: PathBuf,
    /// Read every source to its present end, commit one last epoch, report, and exit.
    #[arg(long)]
    once: bool,
    /// With --once: answer this at the last timestamp.
    #[arg(long, requires = "once", value_name = "SQL")]
    query: Option<String>,
    /// How the answer is written.
    #[arg(long, default_value = "table", value_parser = ["table", "csv", "json", "ndjson", "arrow", "parquet"])]
    format: String,
    /// Where the answer is written; standard output if absent.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write figures about the run as JSON.
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Timely worker threads; by default one per core.
    #[arg(long)]
    workers: Option<usize>,
    /// Override a setting, as section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl Run {
    /// Runs it.
    pub fn run(self) -> Result<(), Failure> {
        let mut sets = self.sets.clone();
        sets.extend(self.workers.map(|workers| format!("engine.workers={workers}")));
        let config = Config::load(&self.dir, &|| std::env::vars().collect(), &sets).map_err(|error| Failure::Usage(vec![error.to_string()]))?;
        let folder = LakeFolder::load(&self.dir)?;
        let system = actix::System::with_tokio_rt(runtime);
        system.block_on(async move { if self.once { self.once(folder, &config).await } else { Err(running("not here")) } })
    }

    async fn once(&self, folder: LakeFolder, config: &Config) -> Result<(), Failure> {
        let statement = self.query.as_deref().map(parse_statement).transpose().map_err(|error| vec![error])?;
        let select = match statement.as_ref().map(|statement| (&statement.kind, &statement.position)) {
            None => None,
            Some((StatementKind::Query(select), position)) => Some((select, position)),
            Some(_) => return Err(Failure::Usage(vec!["--query takes a SELECT".to_owned()])),
        };
        let asked_for = select.as_ref().map_or_else(Vec::new, |(select, _)| relations_of(&folder.catalog, &select.query));
        let options = RunOptions { once: true, asked_for };
        let lake = Lake::open(folder, config, options).await?;
        let seconds = lake.read_all().await?;
        lake.commit().await?;
        let stats = lake.stats(seconds).await;
        if let Some((select, position)) = select {
            let answer = lake.answer(select, position, Vec::new()).await?;
            super::output::write(answer, &self.format, self.output.as_deref()).await?;
        }
        if let Some(path) = &self.stats {
            let stats = lake.stats(seconds).await;
            let text = serde_json::to_string(&stats).map_err(running)?;
            std::fs::write(path, text).map_err(|error| running(format!("cannot write {}: {error}", path.display())))?;
        }
        report(&stats);
        lake.engine().shutdown();
        Ok(())
    }
}

/// What was read and what there is, on standard error so that answers can be piped.
fn report(stats: &livelake_actors::lake::once::RunStats) {
    eprintln!("read {} rows ({} bytes) in {:.3} s: {:.0} a second, {} ticks", stats.events, stats.bytes, stats.seconds, stats.events_per_second, stats.ticks);
    for (name, rows) in &stats.relations {
        eprintln!("  {name}: {rows} rows");
    }
}

/// Actors and servers on few threads; the heavy work is the engine's and the readers'.
pub fn runtime() -> tokio::runtime::Runtime {
    // without a runtime there is nothing to run and nobody to tell but this
    #[allow(clippy::expect_used)]
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the operating system gives no threads for the runtime")
}
