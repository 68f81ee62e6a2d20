//! Reading tables: as they are, and as they were at an epoch whose snapshots are still kept.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use iceberg::spec::{Snapshot, TableMetadata};
use livelake_dataflow::protocol::Timestamp;
use tokio::sync::mpsc;

use super::{EpochRecord, Lake, epochs_table};
use crate::error::SinkError;
use crate::hydrate::{Scan, read_files};
use crate::producer::{EPOCH_KEY, TableState};
use crate::storage::TableName;
use crate::storage::catalog::Catalog;
use crate::storage::files::Files;

impl Lake {
    /// The newest epochs first, at most `limit`. Does not wait for a commit that is going on.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn epochs(&self, limit: usize) -> Result<Vec<EpochRecord>, SinkError> {
        if let Catalog::Sql(catalog) = &mut *self.inner.catalog.lock().await {
            return catalog.epochs(limit).await;
        }
        let mut records = self.recorded().await?;
        records.truncate(limit);
        Ok(records)
    }

    /// An epoch by its number, if it is still known.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn epoch(&self, number: u64) -> Result<Option<EpochRecord>, SinkError> {
        if let Catalog::Sql(catalog) = &mut *self.inner.catalog.lock().await {
            return catalog.epoch(number).await;
        }
        Ok(self.recorded().await?.into_iter().find(|record| record.number == number))
    }

    /// The newest epoch at or before a timestamp.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn epoch_at(&self, timestamp: Timestamp) -> Result<Option<EpochRecord>, SinkError> {
        if let Catalog::Sql(catalog) = &mut *self.inner.catalog.lock().await {
            return catalog.epoch_at(timestamp).await;
        }
        Ok(self.recorded().await?.into_iter().find(|record| record.timestamp <= timestamp))
    }

    /// All epochs that the table of epochs has, the newest first: for catalogs that note only that one themselves.
    async fn recorded(&self) -> Result<Vec<EpochRecord>, SinkError> {
        let newest = self.newest().await?;
        let (sender, mut receiver) = mpsc::channel(4);
        let (table, schema) = (epochs_table(), EpochRecord::schema());
        let read = self.read(&table, schema, sender);
        let collect = async {
            let mut records = Vec::new();
            while let Some(batch) = receiver.recv().await {
                records.extend(EpochRecord::of(&batch)?);
            }
            Ok(records)
        };
        let (_, mut records) = futures::try_join!(read, collect)?;
        records.sort_by_key(|record| std::cmp::Reverse(record.number));
        // its row does not say who wrote it
        if let (Some(first), Some(newest)) = (records.first_mut(), newest)
            && first.number == newest.number
        {
            *first = newest;
        }
        Ok(records)
    }

    /// Sends the rows of a table's newest snapshot into `rows`, as batches of `schema`'s columns: found by name, cast to the
    /// wanted type, NULL where the table has no such column. Several files are read at a time, so the order is not defined.
    /// Answers the number of rows. A closed channel ends the reading.
    ///
    /// # Errors
    /// No such table; row-level deletes of another program's of a kind that is not read here, whose rows would come back to life; values
    /// that do not fit.
    pub async fn read(&self, table: &TableName, schema: SchemaRef, rows: mpsc::Sender<RecordBatch>) -> Result<u64, SinkError> {
        let state = self.state(table).await?;
        read(self.files(), &state, schema, rows).await
    }

    /// As [`Lake::read`], with the rows that the table had at an epoch.
    ///
    /// # Errors
    /// The epoch's snapshot was expired; the table was made later.
    pub async fn read_at(
        &self,
        table: &TableName,
        epoch: u64,
        schema: SchemaRef,
        rows: mpsc::Sender<RecordBatch>,
    ) -> Result<u64, SinkError> {
        let state = self.state_at(table, epoch).await?;
        // without a file it was empty, or not there at all: its relation may have had rows that nobody wrote down
        if state.manifests.is_empty() && !self.was_there(table, epoch).await? {
            return Err(SinkError::NotYet { table: table.clone(), epoch });
        }
        read(self.files(), &state, schema, rows).await
    }

    /// Whether an epoch or one before it wrote the table.
    async fn was_there(&self, table: &TableName, epoch: u64) -> Result<bool, SinkError> {
        let (name, epochs) = (table.to_string(), self.epochs(usize::MAX).await?);
        Ok(epochs.iter().any(|record| record.number <= epoch && record.tables.contains_key(&name)))
    }

    /// A table with the files that it had at an epoch.
    pub(crate) async fn state_at(&self, table: &TableName, epoch: u64) -> Result<TableState, SinkError> {
        let failed = || SinkError::table("read the metadata", table);
        let now = self.state(table).await?;
        let snapshot =
            snapshot_at(&now.metadata, epoch).map_err(|oldest| SinkError::Expired { table: table.clone(), epoch, oldest })?;
        let metadata = now.metadata.as_ref().clone();
        TableState::at(self.files(), table, &now.location, metadata, snapshot).await.map_err(failed())
    }
}

/// The epoch that a snapshot belongs to.
fn epoch_of(snapshot: &Snapshot) -> Option<u64> {
    snapshot.summary().additional_properties.get(EPOCH_KEY)?.parse().ok()
}

/// A table's newest snapshot of an epoch or before; `None` if the table had no rows yet. If such a snapshot was expired: the oldest epoch
/// that is kept.
fn snapshot_at(metadata: &TableMetadata, epoch: u64) -> Result<Option<Arc<Snapshot>>, Option<u64>> {
    let mut snapshots: Vec<&Arc<Snapshot>> = metadata.snapshots().collect();
    snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
    if let Some(found) = snapshots.iter().rev().find(|snapshot| epoch_of(snapshot).is_some_and(|of| of <= epoch)) {
        return Ok(Some(Arc::clone(found)));
    }
    match snapshots.first() {
        // the first snapshot of all is kept, and came later
        Some(first) if first.sequence_number() > 1 => Err(epoch_of(first)),
        _ => Ok(None),
    }
}

async fn read(files: &Files, state: &TableState, schema: SchemaRef, rows: mpsc::Sender<RecordBatch>) -> Result<u64, SinkError> {
    if let Some(path) = &state.deletes.unreadable {
        let reason =
            format!("another program has put row-level deletes into it that are not read here ({path}): rewrite its files first");
        return Err(SinkError::Rows { table: state.name.clone(), reason });
    }
    let listed = state.live().map(|(_, file)| (file.path.clone(), state.deletes.of(&file.path).cloned())).collect();
    let scan = Arc::new(Scan { storage: files.clone(), files: listed, schema: Arc::clone(state.metadata.current_schema()) });
    // from a bucket most of the time goes by waiting for answers
    let at_once = std::thread::available_parallelism().map_or(1, |n| n.get()).max(if files.is_local() { 1 } else { 8 });
    let threads = at_once.min(scan.files.len().max(1));
    let next = Arc::new(AtomicUsize::new(0));
    let readers = (0..threads).map(|_| {
        let (scan, next, schema, rows) = (Arc::clone(&scan), Arc::clone(&next), Arc::clone(&schema), rows.clone());
        tokio::task::spawn_blocking(move || read_files(&scan, &next, &schema, &rows))
    });
    let mut count = 0;
    for reader in readers.collect::<Vec<_>>() {
        count += reader.await.map_err(|e| SinkError::Thread(e.to_string()))??;
    }
    Ok(count)
}
