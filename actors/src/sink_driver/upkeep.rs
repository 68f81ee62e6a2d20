//! Looking after the tables beside the commits: by itself every `maintenance.interval`, and when asked (VACUUM).

use std::sync::{Arc, Mutex, PoisonError};

use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture, WrapFuture};
use livelake_sinks::{Lake as Tables, MaintainOptions, TableMaintenance, TableName};

use super::SinkDriver;
use crate::config::Maintenance;
use crate::lake::failure::internal;
use crate::service::LakeError;

/// What maintenance has done since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upkeep {
    /// Passes over all tables, or one that was asked for.
    pub passes: u64,
    /// Passes that failed for a table.
    pub failures: u64,
    /// Data files that were written anew.
    pub files_rewritten: u64,
    /// Their bytes.
    pub bytes_rewritten: u64,
    /// Files that nobody reached, deleted.
    pub orphans_removed: u64,
}

impl Upkeep {
    fn count(&mut self, outcome: &Result<Vec<TableMaintenance>, LakeError>) {
        self.passes += 1;
        self.failures += u64::from(outcome.is_err());
        for table in outcome.iter().flatten() {
            self.files_rewritten += table.files_rewritten as u64;
            self.bytes_rewritten += table.bytes_rewritten;
            self.orphans_removed += table.orphans_removed as u64;
        }
    }
}

/// The tables, what to do for them, and what was done.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) tables: Tables,
    pub(super) settings: Maintenance,
    pub(super) done: Arc<Mutex<Upkeep>>,
}

/// Look after a table now, or all: also after what is being written to; answered when it is done.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<TableMaintenance>, LakeError>")]
pub struct Vacuum {
    /// Only this one.
    pub table: Option<TableName>,
}

impl Handler<Vacuum> for SinkDriver {
    type Result = ResponseActFuture<Self, Result<Vec<TableMaintenance>, LakeError>>;

    fn handle(&mut self, Vacuum { table }: Vacuum, _: &mut Self::Context) -> Self::Result {
        self.look_after(table, true)
    }
}

impl SinkDriver {
    /// What maintenance has done; for whoever shows it.
    pub fn upkeep(&self) -> Arc<Mutex<Upkeep>> {
        Arc::clone(&self.keeper.done)
    }

    fn look_after(
        &self,
        table: Option<TableName>,
        busy: bool,
    ) -> ResponseActFuture<Self, Result<Vec<TableMaintenance>, LakeError>> {
        let options = MaintainOptions { table, busy, orphans_after: self.keeper.settings.orphans_after };
        let tables = self.keeper.tables.clone();
        // beside the commits, on a task of its own: a panic ends this pass and nothing else
        let work = tokio::spawn(async move { tables.maintain(&options).await });
        let outcome = async move { work.await.map_err(internal)?.map_err(internal) };
        Box::pin(outcome.into_actor(self).map(|outcome, driver, _| {
            driver.keeper.done.lock().unwrap_or_else(PoisonError::into_inner).count(&outcome);
            outcome
        }))
    }

    /// Begins to look after the tables by itself.
    pub(super) fn begin_upkeep(&mut self, context: &mut Context<Self>) {
        let interval = self.keeper.settings.interval;
        if !interval.is_zero() {
            context.run_later(interval, |driver, context| {
                let pass = driver.look_after(None, false);
                context.spawn(pass.map(|_, driver: &mut SinkDriver, context: &mut Context<SinkDriver>| {
                    driver.begin_upkeep(context);
                }));
            });
        }
    }
}
