//! Opening a lake: engine, tables, and the rows that tables hold, which base relations get back before anything is read.
//!
//! That takes a while for a large lake, so it is a step of its own: servers can be up meanwhile and say how far it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Instant;

use actix::Actor;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::{InputBatch, Timestamp};
use livelake_queries::catalog::Relation;
use livelake_queries::plan::StoredColumns;
use livelake_queries::statement::RelationKind;
use serde::Serialize;
use tokio::sync::mpsc;

use super::connect::{Connection, ReadMode};
use super::failure::internal;
use super::folder::LakeFolder;
use super::history::Past;
use super::store::{SinkPlan, Store, check_intervals, known_epochs, sink_plans};
use super::{Lake, RunOptions, Sinks, stored_columns};
use crate::clock::AllPositions;
use crate::config::Config;
use crate::service::LakeError;
use crate::sink_driver::SinkDriver;

/// How far reading back is; shared with whoever shows it.
#[derive(Debug, Default)]
pub(crate) struct Hydration {
    /// Rows to read; not set before it begins.
    total: OnceLock<(u64, Instant)>,
    done: AtomicU64,
    ended: std::sync::atomic::AtomicBool,
}

/// Reading back, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HydrationStatus {
    /// Rows that were read back.
    pub rows: u64,
    /// Rows to read back.
    pub total: u64,
    /// Seconds until it is done, if it goes on as so far; absent at the beginning.
    pub seconds_left: Option<f64>,
}

impl Hydration {
    /// How far it is; `None` before it begins and once it is done.
    pub(crate) fn status(&self) -> Option<HydrationStatus> {
        let (total, begun) = self.total.get()?;
        if self.ended.load(Ordering::Acquire) {
            return None;
        }
        let rows = self.done.load(Ordering::Relaxed);
        let rate = begun.elapsed().as_secs_f64() / rows as f64;
        let seconds_left = (rows > 0).then(|| rate * total.saturating_sub(rows) as f64);
        Some(HydrationStatus { rows, total: (*total).max(rows), seconds_left })
    }
}

/// A lake whose base relations have no rows yet.
#[derive(Debug)]
pub struct Opening {
    lake: Lake,
    /// Absent where there are no tables.
    tables: Option<OpenTables>,
}

#[derive(Debug)]
struct OpenTables {
    store: Store,
    plans: Vec<SinkPlan>,
    /// How far the newest epoch had read the sources that are read anew.
    rereads: AllPositions,
    /// The newest epoch's timestamp; 0 for a new lake.
    begin: Timestamp,
    config: Config,
}

impl Opening {
    /// The lake: it says how it is, and answers nothing yet.
    pub fn lake(&self) -> &Lake {
        &self.lake
    }

    /// Gives base relations the rows that their tables have, and makes the sink driver. Sources are not read yet.
    ///
    /// # Errors
    /// A table that cannot be read.
    pub async fn hydrate(self) -> Result<Lake, LakeError> {
        let Opening { lake, tables } = self;
        let Some(OpenTables { store, plans, rereads, begin, config }) = tables else { return Ok(lake) };
        let hydrated = lake.read_back(&store, &plans).await?;
        if begin > 0 {
            lake.engine().advance_to(begin);
        }
        let same: Vec<RelationId> = {
            let catalog = lake.definitions().catalog;
            hydrated
                .iter()
                .filter_map(|name| catalog.get(&livelake_queries::RelationName::parse(name)).map(|relation| relation.id))
                .collect()
        };
        let known = known_epochs(&store).await?;
        lake.0.epochs.lock().unwrap_or_else(PoisonError::into_inner).extend(known);
        let retention = config.engine.retention.as_micros() as Timestamp;
        let past = Past { tables: store.tables.clone(), begin, retention };
        let driver = SinkDriver::new(
            lake.engine().clone(),
            lake.clock().clone(),
            store,
            plans,
            &same,
            (&config.epochs, &config.maintenance),
            Arc::clone(&lake.0.epochs),
        )?;
        let (failure, upkeep) = (driver.failure(), driver.upkeep());
        // they are set here only, once
        let _ = lake.0.rereads.set(rereads);
        let _ = lake.0.sinks.set(Sinks { driver: driver.start(), failure, upkeep, past });
        Ok(lake)
    }
}

impl Lake {
    /// Opens everything that a run needs: engine, tables, the rows that tables hold, the sink driver. Sources are not read yet.
    ///
    /// # Errors
    /// What [`Lake::begin_opening`] and [`Opening::hydrate`] say.
    pub async fn open(folder: LakeFolder, config: &Config, options: RunOptions) -> Result<Lake, LakeError> {
        Lake::begin_opening(folder, config, options).await?.hydrate().await
    }

    /// Opens engine and tables.
    ///
    /// # Errors
    /// What [`Lake::build`] and [`Store::open`] say.
    pub async fn begin_opening(folder: LakeFolder, config: &Config, mut options: RunOptions) -> Result<Opening, LakeError> {
        let mode = ReadMode { once: options.once, threads: 1 };
        let repeatable = |relation: &Relation| {
            Connection::new(relation, &StoredColumns::default(), &folder.path, mode)
                .map_or(true, |connection| connection.is_repeatable())
        };
        let plans = sink_plans(&folder.catalog, &stored_columns(&folder.catalog, &options), &repeatable)?;
        if plans.is_empty() && options.once {
            let lake = Lake::build(folder, config, options, 0, AllPositions::new())?;
            return Ok(Opening { lake, tables: None });
        }
        check_intervals(&plans, config.epochs.interval)?;
        options.asked_for.extend(plans.iter().map(|plan| plan.relation));
        let store = Store::open(&folder.path, config).await?;
        // a source goes on where its table ends; one whose table is not there yet has everything to read
        let existing = store.tables.tables().await.map_err(internal)?;
        let hydrating: Vec<String> = plans
            .iter()
            .filter(|plan| plan.hydrates && existing.iter().any(|table| table.table == plan.table))
            .filter_map(|plan| folder.catalog.by_id(plan.relation).map(|relation| relation.name.to_string()))
            .collect();
        let (positions, rereads): (AllPositions, AllPositions) =
            store.positions().into_iter().partition(|(source, _)| hydrating.contains(source));
        let begin = store.newest.as_ref().map_or(0, |epoch| epoch.timestamp);
        let lake = Lake::build(folder, config, options, begin, positions)?;
        Ok(Opening { lake, tables: Some(OpenTables { store, plans, rereads, begin, config: config.clone() }) })
    }

    /// Gives base relations the rows that their tables have; the names of those that were found.
    async fn read_back(&self, store: &Store, plans: &[SinkPlan]) -> Result<Vec<String>, LakeError> {
        let mut found = Vec::new();
        if store.newest.is_none() {
            return Ok(found);
        }
        let existing = store.tables.tables().await.map_err(internal)?;
        let definitions = self.definitions();
        let rows_of = |plan: &SinkPlan| existing.iter().find(|table| table.table == plan.table).map(|table| table.rows);
        let total = plans.iter().filter(|plan| plan.hydrates).filter_map(rows_of).flatten().sum();
        // it is begun once
        let _ = self.0.hydration.total.set((total, Instant::now()));
        for plan in plans.iter().filter(|plan| plan.hydrates) {
            let Some(relation) = definitions.catalog.by_id(plan.relation) else { continue };
            if rows_of(plan).is_none() {
                // a source whose table was never written had nothing durable; its errors may simply never have happened
                if relation.kind == RelationKind::Errors {
                    found.push(relation.name.to_string());
                }
                continue;
            }
            let schema = definitions.stored.schema(relation);
            let (send, mut receive) = mpsc::channel(4);
            let (tables, table, wanted) = (store.tables.clone(), plan.table.clone(), Arc::clone(&schema));
            let reading = tokio::spawn(async move { tables.read(&table, wanted, send).await });
            while let Some(rows) = receive.recv().await {
                self.0.hydration.done.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
                self.engine().push(plan.relation, InputBatch::Rows { rows, ops: None })?;
            }
            reading.await.map_err(internal)?.map_err(internal)?;
            found.push(relation.name.to_string());
        }
        if let Some((_, begun)) = self.0.hydration.total.get() {
            let rows = self.0.hydration.done.load(Ordering::Relaxed);
            tracing::info!(rows, seconds = begun.elapsed().as_secs_f64(), "rows were read back from the tables");
        }
        self.0.hydration.ended.store(true, Ordering::Release);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_while_it_lasts() {
        let hydration = Hydration::default();
        assert_eq!(hydration.status(), None);
        hydration.total.set((1_000, Instant::now())).unwrap();
        assert_eq!(hydration.status(), Some(HydrationStatus { rows: 0, total: 1_000, seconds_left: None }));
        hydration.done.store(1_000, Ordering::Relaxed);
        assert_eq!(hydration.status(), Some(HydrationStatus { rows: 1_000, total: 1_000, seconds_left: Some(0.0) }));
        hydration.ended.store(true, Ordering::Relaxed);
        assert_eq!(hydration.status(), None);
    }
}
