//! An epoch that was made and is not known to be in the catalog: sent, as it is, until that is known.

use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use livelake_dataflow::handle::EngineHandle;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::{PeekRequest, Timestamp};
use livelake_sinks::{CommitReport, Epoch, RowReader, SinkError, SinkMode, TableChange, TableDrop};
use tokio::sync::mpsc;

use super::{Driver, EPOCHS_KEPT};
use crate::clock::AllPositions;
use crate::lake::failure::internal;
use crate::lake::reader::peek;
use crate::service::{EpochStatus, LakeError};

/// See the module.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) epoch: Epoch,
    pub(super) positions: AllPositions,
    pub(super) changes: Vec<TableChange>,
    pub(super) drops: Vec<TableDrop>,
}

impl Driver {
    /// Commits the pending epoch, if there is one; its number once it is there.
    pub(super) async fn send(&mut self) -> Result<Option<u64>, LakeError> {
        let began = Instant::now();
        let report = loop {
            let Some(pending) = &mut self.pending else { return Ok(None) };
            let columns = pending.changes.iter().map(|change| (change.relation, change.schema.fields().len())).collect();
            let rows = Arc::new(EngineRows { engine: self.engine.clone(), columns });
            let error = match self.writer.commit(&pending.epoch, pending.changes.clone(), &pending.drops, rows).await {
                Ok(report) => break report,
                Err(error) => error,
            };
            // A relation from which rows were taken that it did not have is short of them: they are missing in its changes, not in its
            // rows, until they come. So from now on the table gets its rows as they are.
            let table = match &error {
                SinkError::Mismatch { table, .. } => Some(table),
                _ => None,
            };
            let short = pending.changes.iter_mut().find(|change| Some(&change.table) == table);
            if let Some(change) = short.filter(|change| change.mode == SinkMode::Snapshot && !change.replace) {
                tracing::warn!(epoch = pending.epoch.number, %error, "all of the table's rows are written, now and with each change");
                change.replace = true;
                let table = &change.table;
                self.outlets.iter_mut().filter(|outlet| outlet.plan.table == *table).for_each(|outlet| outlet.replaces = true);
                continue;
            }
            // Rows are read only after the catalog was asked for the epoch and did not have it: so it is not there, and where the
            // engine has no rows of its time any more (or the relation was dropped) it never will be. Its changes are still
            // carried and go with the next cut.
            if matches!(error, SinkError::Reader { .. }) {
                tracing::warn!(epoch = pending.epoch.number, %error, "the epoch is cut anew");
                self.pending = None;
                self.outlets.iter_mut().for_each(|outlet| outlet.taken = None);
            }
            return Err(internal(error));
        };
        let status = self.status(&report, began).await;
        let Some(pending) = self.pending.take() else { return Ok(None) };
        self.next_epoch = pending.epoch.number + 1;
        self.last_positions = pending.positions;
        for outlet in &mut self.outlets {
            if pending.changes.iter().any(|change| change.table == outlet.plan.table) {
                outlet.carried.clear();
                outlet.made = true;
                outlet.reshaped = false;
            }
        }
        self.drops.retain(|drop| pending.drops.iter().all(|done| done.table != drop.table));
        let status = EpochStatus { epoch: pending.epoch.number, as_of: pending.epoch.timestamp, ..status };
        tracing::info!(
            epoch = status.epoch,
            as_of = status.as_of,
            tables = status.tables.len(),
            milliseconds = status.milliseconds,
            found = report.already,
            "epoch committed"
        );
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.push_front(status);
        epochs.truncate(EPOCHS_KEPT);
        Ok(Some(pending.epoch.number))
    }

    /// What is told of a commit. One that was found to be there already is described by the catalog.
    async fn status(&self, report: &CommitReport, began: Instant) -> EpochStatus {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as Timestamp);
        let mut status = EpochStatus {
            epoch: report.epoch,
            as_of: 0,
            committed_at: now,
            milliseconds: began.elapsed().as_millis() as u64,
            tables: report.tables.iter().map(|table| (table.table.to_string(), table.snapshot.unwrap_or(-1))).collect(),
            rows: report.tables.iter().map(|table| (table.table.to_string(), table.changed)).collect(),
        };
        if report.already {
            match self.store.tables.newest().await {
                Ok(Some(record)) if record.number == report.epoch => {
                    status.committed_at = record.committed_at.max(0) as Timestamp;
                    status.tables = record.tables.into_iter().collect();
                    status.rows = record.rows;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, epoch = report.epoch, "what the epoch changed is not shown"),
            }
        }
        status
    }
}

/// The engine's rows for partitions that have to be written anew.
#[derive(Debug)]
struct EngineRows {
    engine: EngineHandle,
    /// How many columns of each relation are written.
    columns: Vec<(RelationId, usize)>,
}

#[async_trait]
impl RowReader for EngineRows {
    async fn read(
        &self,
        relation: RelationId,
        as_of: Timestamp,
        rows: mpsc::Sender<arrow::record_batch::RecordBatch>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let projection = self.columns.iter().find(|(id, _)| *id == relation).map(|(_, count)| (0..*count).collect());
        for batch in peek(&self.engine, PeekRequest { id: relation, as_of, key: None, limit: None, projection }).await? {
            if rows.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}
