//! Going back: all tables together as they were at an earlier epoch.
//!
//! Nothing is rewritten and nothing is forgotten: a new epoch whose snapshots list the old one's files, with the old one's positions. So readers
//! see one change from one cut to another, sources are read on from where they were then, and what was left can be restored again as long
//! as its snapshots are kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::Timestamp;
use tokio::sync::mpsc;

use super::{CommitReport, Epoch, Lake, RowCounts, Work, epochs_table, failed};
use crate::error::SinkError;
use crate::mode::RowReader;
use crate::producer::turnover::Settled;
use crate::producer::{Change, Staged, TableState, stage};
use crate::storage::TableName;

/// There are no rows to read: the files are there.
struct NoRows;

#[async_trait]
impl RowReader for NoRows {
    async fn read(
        &self,
        _: RelationId,
        _: Timestamp,
        _: mpsc::Sender<RecordBatch>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err("a restored epoch has its files".into())
    }
}

impl Lake {
    /// Makes a new epoch that shows all tables as they were at epoch `number`, and from which sources go on as from that one. Tables that
    /// came later are empty then.
    ///
    /// # Errors
    /// No such epoch; a table whose rows of then are no longer kept: nothing is changed. Otherwise as [`Lake::commit`].
    pub async fn restore(&self, number: u64) -> Result<CommitReport, SinkError> {
        let inner = &self.inner;
        let Some(fence) = &inner.fence else {
            return Err(SinkError::Option("the lake was opened for reading: it cannot be restored".into()));
        };
        let (started, tables) = (Instant::now(), inner.tables.lock().await);
        let known = self.epoch(number).await?.zip(self.newest().await?);
        let Some((wanted, newest)) = known else {
            return Err(SinkError::Option(format!("there is no epoch {number}: livelake epochs lists those that are known")));
        };
        let now = Timestamp::try_from(chrono::Utc::now().timestamp_micros()).unwrap_or(0);
        let epoch =
            Epoch { number: newest.number + 1, timestamp: now.max(newest.timestamp + 1), positions: wanted.positions.clone() };
        let pointers: HashMap<TableName, String> = self.pointers().await?.into_iter().collect();
        let context = Arc::new(self.context(&epoch, Arc::new(NoRows)));
        let mut staged = Vec::new();
        let mut names: Vec<&TableName> = pointers.keys().filter(|name| **name != epochs_table()).collect();
        names.sort();
        for name in names {
            match self.stage_restored(&context, name, number).await {
                Ok(table) => staged.extend(table),
                Err(error) => return Err(failed(context, error).await),
            }
        }
        self.seal(fence, Work { started, tables, pointers, context }, &epoch, staged, Vec::new()).await
    }

    /// A table's next state with the files of an epoch; `None` if it has them.
    async fn stage_restored(
        &self,
        context: &crate::mode::Context,
        name: &TableName,
        number: u64,
    ) -> Result<Option<Staged>, SinkError> {
        let now = self.state(name).await?;
        if !now.is_ours() {
            return Ok(None);
        }
        let then = self.state_at(name, number).await?;
        let files = |state: &TableState| -> HashSet<String> {
            state.manifests.iter().flat_map(|manifest| manifest.live.iter().map(|file| file.path.clone())).collect()
        };
        if files(&now) == files(&then) {
            return Ok(None);
        }
        let rows = RowCounts { added: then.records(), removed: now.records() };
        let settled =
            Settled { added: Vec::new(), removed: HashSet::new(), deletes: Arc::clone(&then.deletes), records: then.records() };
        let change = Change { schema: None, spec: None, settled, rows, is_rearranged: false, is_restored: true };
        let base = TableState { manifests: then.manifests, deletes: then.deletes, ..now.as_ref().clone() };
        let staged = stage(&context.attempt, &base, change, &context.stamp, context.keep).await;
        staged.map(Some).map_err(SinkError::table("prepare the next snapshot", name))
    }
}
