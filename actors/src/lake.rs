//! A running lake: the catalog, the engine that maintains it, the clock and the sources.
//!
//! ```text
//!   folder (SQL files) ─▶ catalog ─▶ engine relations ◀── feeders, by way of the clock
//!                            │              │
//!                            └─ statements at run time (service)
//!                                           └─▶ answers at one timestamp (reader)
//! ```

pub mod answer;
pub mod connect;
mod copy_to_file;
pub mod failure;
pub mod folder;
pub mod history;
pub mod hydration;
mod metrics;
pub mod once;
pub mod reader;
mod rereading;
pub mod service;
pub mod statements;
pub mod store;
mod subscriptions;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod upkeep;
pub mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use actix::{Actor, Addr};
use livelake_dataflow::errors::RowError;
use livelake_dataflow::handle::{EngineConfig, EngineHandle};
use livelake_dataflow::plan::{Plan, RelationId};
use livelake_dataflow::protocol::{Envelope, SourceSpec, Timestamp, ViewSpec};
use livelake_queries::catalog::{Catalog, Relation};
use livelake_queries::plan::{StoredColumns, columns_read, view_plan};
use livelake_queries::statement::RelationKind;
use tokio::sync::watch;

use crate::clock::{AllPositions, Clock, ClosedTicks, Flush, MemoryGuard};
use crate::config::Config;
use crate::feeder::{Feeder, Outcome, Progress, StopFeeding};
use crate::lake::connect::{Connection, ReadMode};
use crate::lake::failure::internal;
use crate::lake::folder::LakeFolder;
use crate::lake::history::Past;
use crate::lake::hydration::Hydration;
use crate::service::LakeError;
use crate::sink_driver::{CommitNow, EpochList, Settle, SinkDriver, Upkeep};

/// How to run a lake.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Read every source to its present end, then stop.
    pub once: bool,
    /// With `once`: relations that will be asked for beside the views, and are kept for that.
    pub asked_for: Vec<RelationId>,
}

/// What a relation could not compute.
#[derive(Clone, Debug, Default)]
pub struct ViewErrors {
    /// How many errors there are now.
    pub present: i64,
    /// The last one that came, in words.
    pub last: Option<String>,
}

impl ViewErrors {
    /// The last one, and how many more there are; where they can be read, if they are `kept`. Nothing if there are none.
    fn words(&self, kept: Option<&Arc<Relation>>) -> Option<String> {
        let last = self.last.as_deref().unwrap_or_default();
        Some(match (self.present, kept) {
            (..=0, _) => return None,
            (1, None) => last.to_owned(),
            (more, None) => format!("{last}, and {} more", more - 1),
            (1, Some(kept)) => format!("1 row could not be computed, see {}: {last}", kept.name),
            (more, Some(kept)) => format!("{more} rows could not be computed, see {}: {last}", kept.name),
        })
    }

    /// Takes in errors that came and went; each call is logged once, whatever their number.
    fn note(&mut self, relation: RelationId, errors: &[RowError]) {
        self.present += errors.iter().map(|error| error.diff).sum::<i64>();
        let Some(last) = errors.iter().rfind(|error| error.diff > 0) else { return };
        let row = if last.row.is_empty() { String::new() } else { format!(" ({})", last.row) };
        let words = format!("{}{row}", last.reason);
        let came = errors.iter().map(|error| error.diff.max(0)).sum::<i64>();
        tracing::warn!(%relation, came, present = self.present, words, "errors of data");
        self.last = Some(words);
    }
}

/// A source at work.
#[derive(Debug)]
struct RunningSource {
    connection: Connection,
    progress: Arc<Progress>,
    outcome: watch::Receiver<Outcome>,
    feeder: Option<Addr<Feeder>>,
}

/// What the catalog says and the engine has: read together, so that nobody sees one without the other.
#[derive(Clone, Debug)]
pub struct Definitions {
    /// All relations.
    pub catalog: Arc<Catalog>,
    /// Which columns of base relations the engine has.
    pub stored: StoredColumns,
}

/// A running lake. Clones are the same lake.
#[derive(Clone, Debug)]
pub struct Lake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    options: RunOptions,
    threads: usize,
    engine: EngineHandle,
    clock: Addr<Clock>,
    ticks: ClosedTicks,
    definitions: RwLock<Definitions>,
    sources: Mutex<BTreeMap<String, RunningSource>>,
    view_errors: Arc<Mutex<BTreeMap<RelationId, ViewErrors>>>,
    /// One statement that changes the lake at a time.
    changing: tokio::sync::Mutex<()>,
    /// The committed epochs, newest first.
    epochs: EpochList,
    /// Who commits, where the lake has tables.
    sinks: OnceLock<Sinks>,
    /// How far the newest epoch had read the sources that a start reads anew.
    rereads: OnceLock<AllPositions>,
    /// How far the base relations have been read back from their tables.
    hydration: Hydration,
    /// Whether everything is whole: views answer only then.
    ready: std::sync::atomic::AtomicBool,
    begun: Instant,
    memory: Arc<MemoryGuard>,
    /// Between two epochs.
    interval: Duration,
    temporary: std::sync::atomic::AtomicU64,
}

/// The sink driver and what it last complained of.
#[derive(Debug)]
struct Sinks {
    driver: Addr<SinkDriver>,
    failure: Arc<Mutex<Option<String>>>,
    upkeep: Arc<Mutex<Upkeep>>,
    past: Past,
}

impl Lake {
    /// Builds everything that the folder defines. Nothing is read until [`Lake::start_sources`].
    ///
    /// # Errors
    /// An option that makes no sense, or something that the engine cannot do.
    pub fn build(
        folder: LakeFolder,
        config: &Config,
        options: RunOptions,
        begin: Timestamp,
        positions: AllPositions,
    ) -> Result<Lake, LakeError> {
        let workers = config.workers();
        let retention_us = if options.once { 0 } else { config.engine.retention.as_micros() as Timestamp };
        let engine = EngineHandle::start(&EngineConfig { workers, retention_us }).map_err(internal)?;
        let view_errors: Arc<Mutex<BTreeMap<RelationId, ViewErrors>>> = Arc::default();
        let noted = Arc::clone(&view_errors);
        engine.listen_to_errors(Box::new(move |id, errors| {
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.entry(id).or_default().note(id, &errors);
        }));
        let stored = stored_columns(&folder.catalog, &options);
        let memory = Arc::new(MemoryGuard::new(config.engine.memory_limit));
        let clock = Clock::new(engine.clone(), config.engine.tick, options.once, begin, positions, Arc::clone(&memory));
        let ticks = clock.closed_ticks();
        let clock = clock.start();
        let lake = Lake(Arc::new(Inner {
            path: folder.path,
            options,
            threads: workers,
            engine,
            clock,
            ticks,
            definitions: RwLock::new(Definitions { catalog: Arc::new(folder.catalog), stored }),
            sources: Mutex::default(),
            view_errors,
            changing: tokio::sync::Mutex::new(()),
            epochs: EpochList::default(),
            sinks: OnceLock::new(),
            rereads: OnceLock::new(),
            hydration: Hydration::default(),
            ready: std::sync::atomic::AtomicBool::new(false),
            begun: Instant::now(),
            memory,
            interval: config.epochs.interval,
            temporary: std::sync::atomic::AtomicU64::new(1 << 48),
        }));
        let catalog = lake.definitions().catalog;
        for relation in catalog.iter() {
            lake.install(relation)?;
        }
        Ok(lake)
    }

    /// The engine.
    pub fn engine(&self) -> &EngineHandle {
        &self.0.engine
    }

    /// The clock.
    pub fn clock(&self) -> &Addr<Clock> {
        &self.0.clock
    }

    /// `engine.memory_limit` in bytes, if it is set.
    pub fn memory_limit(&self) -> Option<u64> {
        self.0.memory.limit()
    }

    /// The lake's folder.
    pub fn path(&self) -> &std::path::Path {
        &self.0.path
    }

    /// What exists now.
    pub fn definitions(&self) -> Definitions {
        self.0.definitions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sources_now(&self) -> MutexGuard<'_, BTreeMap<String, RunningSource>> {
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What views could not compute.
    pub fn view_errors(&self, id: RelationId) -> ViewErrors {
        self.0.view_errors.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned().unwrap_or_default()
    }

    fn forget_errors(&self, id: RelationId) {
        self.0.view_errors.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// The newest tick at which every relation is complete.
    pub fn newest(&self) -> Timestamp {
        self.0.ticks.newest_below(self.0.engine.least_frontier())
    }

    /// Creates in the engine what a relation of the catalog needs there.
    fn install(&self, relation: &Relation) -> Result<(), LakeError> {
        let Definitions { catalog, stored } = self.definitions();
        let keep = !self.0.options.once || self.0.options.asked_for.contains(&relation.id);
        match relation.kind {
            RelationKind::Source => {
                let mode = ReadMode { once: self.0.options.once, threads: self.0.threads };
                let connection = Connection::new(relation, &stored, &self.0.path, mode)?;
                let envelope = connection.envelope();
                let key = if envelope == Envelope::Upsert { stored.key(relation) } else { Vec::new() };
                let spec = SourceSpec {
                    id: relation.id,
                    name: relation.name.to_string(),
                    schema: stored.schema(relation),
                    key,
                    envelope,
                    keep,
                    only_inserts: connection.only_inserts(),
                };
                self.0.engine.create_source(spec).map_err(internal)?;
                let (_, outcome) = watch::channel(Outcome::Running);
                let source = RunningSource { connection, progress: Arc::default(), outcome, feeder: None };
                self.sources_now().insert(relation.name.to_string(), source);
            }
            // a view's came with the view
            RelationKind::Errors if !relation.is_base() => {}
            RelationKind::Errors | RelationKind::Table => {
                let envelope = if relation.key.is_empty() { Envelope::Append } else { Envelope::Upsert };
                let key = stored.key(relation);
                let spec = SourceSpec {
                    id: relation.id,
                    name: relation.name.to_string(),
                    schema: stored.schema(relation),
                    key,
                    envelope,
                    keep,
                    only_inserts: false,
                };
                self.0.engine.create_source(spec).map_err(internal)?;
            }
            RelationKind::MaterializedView => {
                let view = view_plan(&catalog, relation.id, &stored)?;
                let errors = catalog.get(&relation.name.errors()).map(|errors| errors.id);
                let spec = ViewSpec { id: relation.id, name: relation.name.to_string(), plan: view.plan, key: view.key, errors };
                self.0.engine.create_view(spec).map_err(internal)?;
            }
            RelationKind::Index => {
                let get = relation.reads.first().map(|of| Plan::Get { relation: *of, schema: stored.schema(relation) });
                let plan = get.ok_or_else(|| internal(format!("index {} is on nothing", relation.name)))?;
                let (name, key) = (relation.name.to_string(), stored.key(relation));
                self.0.engine.create_view(ViewSpec { id: relation.id, name, plan, key, errors: None }).map_err(internal)?;
            }
            RelationKind::View | RelationKind::Sink => {}
        }
        Ok(())
    }

    /// Commits an epoch now; its number, or `None` if nothing changed or the lake has no tables.
    ///
    /// # Errors
    /// Why it could not be committed.
    pub async fn commit(&self) -> Result<Option<u64>, LakeError> {
        self.commit_now(false).await
    }

    /// Commits an epoch now in which every table is up to date, also those with an interval of their own: at the end of a run.
    ///
    /// # Errors
    /// Why it could not be committed.
    pub async fn commit_all(&self) -> Result<Option<u64>, LakeError> {
        self.commit_now(true).await
    }

    async fn commit_now(&self, all: bool) -> Result<Option<u64>, LakeError> {
        match self.0.sinks.get() {
            None => Ok(None),
            Some(sinks) => sinks.driver.send(CommitNow { all }).await.map_err(internal)?,
        }
    }

    /// Everything that the newest epoch held is in the views: they answer from now on, and epochs are committed.
    ///
    /// # Errors
    /// The lake is stopping.
    pub async fn set_ready(&self) -> Result<(), LakeError> {
        self.0.ready.store(true, std::sync::atomic::Ordering::Release);
        self.begin_epochs().await
    }

    /// Begins to read all sources that are not being read.
    pub fn start_sources(&self) {
        let catalog = self.definitions().catalog;
        for (name, source) in self.sources_now().iter_mut().filter(|(_, source)| source.feeder.is_none()) {
            let parsed = livelake_queries::RelationName::parse(name);
            let (Some(relation), Some(errors)) = (catalog.get(&parsed), catalog.get(&parsed.errors())) else { continue };
            let (outcome, told) = watch::channel(Outcome::Running);
            source.outcome = told;
            let feeder = Feeder::new(
                Arc::new(source.connection.clone()),
                (relation.id, errors.id),
                self.0.clock.clone(),
                Arc::clone(&source.progress),
                outcome,
                self.0.options.once,
            );
            source.feeder = Some(feeder.start());
        }
    }

    /// Waits until every source has read all there is.
    ///
    /// # Errors
    /// The first source that failed, in words.
    pub async fn sources_done(&self) -> Result<(), LakeError> {
        let outcomes: Vec<(String, watch::Receiver<Outcome>)> =
            self.sources_now().iter().map(|(name, source)| (name.clone(), source.outcome.clone())).collect();
        for (name, mut outcome) in outcomes {
            // an actor that is gone without a word has stopped reading
            let told = outcome.wait_for(|outcome| *outcome != Outcome::Running).await.map(|told| told.clone());
            if let Ok(Outcome::Failed(reason)) = told {
                return Err(internal(format!("source {name}: {reason}")));
            }
        }
        Ok(())
    }

    /// Closes a tick and waits until everything before it is visible; its timestamp.
    ///
    /// # Errors
    /// The engine has stopped.
    pub async fn flush(&self) -> Result<Timestamp, LakeError> {
        let time = self.0.clock.send(Flush).await.ok().flatten();
        time.ok_or_else(|| internal(self.0.engine.failure().unwrap_or_else(|| "the lake is stopping".to_owned())))
    }

    /// Stops reading; what was read stays.
    pub async fn stop_sources(&self) {
        let feeders: Vec<Addr<Feeder>> = self.sources_now().values_mut().filter_map(|source| source.feeder.take()).collect();
        for feeder in feeders {
            // one that is gone has stopped
            let _ = feeder.send(StopFeeding).await;
        }
    }

    /// Stops the engine once what was committed has been tidied up.
    pub async fn close(&self) {
        if let Some(sinks) = self.0.sinks.get() {
            // a driver that is gone has nothing to tidy up
            let _ = sinks.driver.send(Settle).await;
        }
        self.0.engine.shutdown();
    }

    /// Messages, lines and rows that all sources have read, and their bytes.
    pub fn inputs(&self) -> (u64, u64) {
        self.sources_now()
            .values()
            .fold((0, 0), |sum, source| (sum.0 + source.progress.inputs(), sum.1 + source.progress.bytes()))
    }

    /// How the sources are doing.
    pub fn source_statuses(&self) -> Vec<crate::service::SourceStatus> {
        self.sources_now().values().map(|source| source.progress.status(&source.connection)).collect()
    }
}

/// With an end, only what is read is decoded and stored; a lake that goes on stores all declared columns, for views and queries to come.
fn stored_columns(catalog: &Catalog, options: &RunOptions) -> StoredColumns {
    let mut readers: Vec<RelationId> = catalog
        .iter()
        .filter(|relation| matches!(relation.kind, RelationKind::MaterializedView | RelationKind::Sink | RelationKind::Index))
        .map(|relation| relation.id)
        .collect();
    if options.once {
        readers.extend(&options.asked_for);
    } else {
        readers.extend(catalog.iter().filter(|relation| relation.is_base()).map(|relation| relation.id));
    }
    let mut stored = columns_read(catalog, &readers);
    for errors in catalog.of_kind(RelationKind::Errors) {
        // they are made as whole rows
        stored.0.insert(errors.id, (0..errors.visible).collect());
    }
    stored
}

/// Checks the options of all sources without opening anything.
pub fn connect_all(folder: &LakeFolder) -> Vec<livelake_queries::SqlError> {
    let mode = ReadMode { once: false, threads: 1 };
    let stored = StoredColumns::default();
    let sources = folder.catalog.of_kind(RelationKind::Source);
    sources.filter_map(|source| Connection::new(source, &stored, &folder.path, mode).err()).collect()
}
