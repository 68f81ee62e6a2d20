//! `livelake run DIR`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use livelake_actors::config::Config;
use livelake_actors::lake::folder::LakeFolder;
use livelake_actors::lake::once::RunStats;
use livelake_actors::lake::{Lake, RunOptions};
use livelake_actors::service::LakeService;
use livelake_actors::{http, postgres};
use livelake_queries::statement::{StatementKind, parse_statement};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, progress, running};

/// How long shutting down may take before it is given up.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Run a lake.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The lake's folder.
    pub dir: PathBuf,
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
    /// A run without an end of a folder, as `demo` does it.
    pub fn of(dir: PathBuf, sets: Vec<String>) -> Run {
        Run { dir, once: false, query: None, format: "table".to_owned(), output: None, stats: None, workers: None, sets }
    }

    /// Runs it.
    pub fn run(self) -> Result<(), Failure> {
        let mut sets = self.sets.clone();
        sets.extend(self.workers.map(|workers| format!("engine.workers={workers}")));
        let config = Config::load(&self.dir, &|| std::env::vars().collect(), &sets)
            .map_err(|error| Failure::Usage(vec![error.to_string()]))?;
        let folder = LakeFolder::load(&self.dir)?;
        in_system(async move { if self.once { self.once(folder, &config).await } else { serve(folder, &config).await } })
    }

    async fn once(&self, folder: LakeFolder, config: &Config) -> Result<(), Failure> {
        let statement = self.query.as_deref().map(parse_statement).transpose().map_err(|error| vec![error])?;
        let select = match statement.as_ref().map(|statement| (&statement.kind, &statement.position)) {
            None => None,
            Some((StatementKind::Query(select), position)) => Some((select, position)),
            Some(_) => return Err(Failure::Usage(vec!["--query takes a SELECT".to_owned()])),
        };
        let asked_for = select.as_ref().map_or_else(Vec::new, |(select, _)| folder.catalog.reads_of(&select.query));
        let lake = Lake::open(folder, config, RunOptions { once: true, asked_for }).await?;
        let bar = progress::show(&lake);
        let seconds = lake.read_all().await?;
        bar.finish();
        lake.commit_all().await?;
        let answer = match select {
            Some((select, position)) => Some(lake.answer(select, position, Vec::new()).await?),
            None => None,
        };
        if let Some(answer) = answer {
            super::output::write(answer, &self.format, self.output.as_deref()).await?;
        }
        let stats = lake.stats(seconds).await;
        if let Some(path) = &self.stats {
            let text = serde_json::to_string(&stats).map_err(running)?;
            std::fs::write(path, text).map_err(|error| running(format!("cannot write {}: {error}", path.display())))?;
        }
        report(&lake, &stats);
        lake.close().await;
        Ok(())
    }
}

/// Runs until a signal: then drains, commits a last epoch and returns. A second signal ends the process at once.
async fn serve(folder: LakeFolder, config: &Config) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let opening = Lake::begin_opening(folder, config, RunOptions { once: false, asked_for: Vec::new() }).await?;
    let lake = opening.lake().clone();
    let service: Arc<dyn LakeService> = Arc::new(lake.clone());
    let web = http::serve(Arc::clone(&service), &config.http.bind, config.http.port).await.map_err(running)?;
    println!("http http://{}", web.address());
    let wire = postgres::serve(Arc::clone(&service), &config.postgres.bind, config.postgres.port).await.map_err(running)?;
    println!("postgres {}", wire.url());
    let whole = async {
        let lake = opening.hydrate().await?;
        lake.start_sources();
        lake.caught_up().await
    };
    let is_whole = tokio::select! {
        outcome = whole => { outcome?; true }
        () = signals.next() => false
    };
    if is_whole {
        lake.flush().await?;
        lake.set_ready().await?;
        signals.next().await;
    }
    eprintln!("stopping{}; a second signal stops at once", if is_whole { ": the last epoch is being committed" } else { "" });
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(130);
    });
    let drain = async {
        lake.stop_sources().await;
        // views that are not whole yet are not committed: the newest epoch stays what it is
        if is_whole {
            lake.flush().await?;
            lake.commit_all().await?;
        }
        web.stop().await.map_err(running)?;
        wire.stop().await;
        lake.close().await;
        Ok::<(), Failure>(())
    };
    match tokio::time::timeout(DRAIN_MAX, drain).await {
        Ok(outcome) => outcome,
        Err(_) => {
            Err(running(format!("stopping took longer than {} s: the next start goes on at the last epoch", DRAIN_MAX.as_secs())))
        }
    }
}

/// SIGINT and SIGTERM, which no longer end the process by themselves once this is made.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Failure> {
        let listen = |kind| signal(kind).map_err(running);
        Ok(Signals { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What was read and what there is, on standard error so that answers can be piped.
fn report(lake: &Lake, stats: &RunStats) {
    for source in lake.source_statuses() {
        let aside =
            if source.errors > 0 { format!(", {} put aside in {}$errors", source.errors, source.name) } else { String::new() };
        eprintln!("{}: {} rows in{aside}", source.name, source.rows);
    }
    // that a view has no errors goes without saying
    for (name, rows) in stats.relations.iter().filter(|(name, rows)| **rows > 0 || !name.ends_with("$errors")) {
        eprintln!("{name}: {rows} rows kept");
    }
    eprintln!(
        "{} inputs, {} bytes, {:.3} s, {:.0} a second, {} ticks",
        stats.events, stats.bytes, stats.seconds, stats.events_per_second, stats.ticks
    );
}

/// Runs a future in an actor system of its own.
///
/// The system is not taken down afterwards: actors that still have timers cannot be dropped outside of it, and the process ends here.
pub fn in_system(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let system = actix::System::with_tokio_rt(runtime);
    let outcome = system.block_on(work);
    std::mem::forget(system);
    outcome
}

/// Actors and servers on few threads; the heavy work is the engine's and the readers'.
fn runtime() -> tokio::runtime::Runtime {
    // without a runtime there is nothing to run and nobody to tell but this
    #[allow(clippy::expect_used)]
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the operating system gives no threads for the runtime")
}
