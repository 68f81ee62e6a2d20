//! A commit of one table between two epochs: its rows stay as they are, its files do not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::{Lake, expiry, pointer_of};
use crate::compaction::FileRules;
use crate::error::SinkError;
use crate::maintenance::Seen;
use crate::producer::expiry::Keep;
use crate::producer::{EPOCH_KEY, STAMP_KEYS, Staged, TableState};
use crate::storage::TableName;
use crate::storage::files::Files;

/// The right to commit, held until it is dropped: no epoch is committed meanwhile.
pub(crate) struct TableCommit<'l> {
    tables: MutexGuard<'l, HashMap<TableName, Arc<TableState>>>,
    table: TableName,
}

impl Lake {
    /// Waits for a commit that is going on, and holds up the next.
    ///
    /// # Errors
    /// The lake was opened for reading.
    pub(crate) async fn begin(&self, table: &TableName) -> Result<TableCommit<'_>, SinkError> {
        if self.inner.fence.is_none() {
            return Err(SinkError::Option("the lake was opened for reading: its tables cannot be changed".into()));
        }
        Ok(TableCommit { tables: self.inner.tables.lock().await, table: table.clone() })
    }

    /// As [`Lake::begin`], for no table in particular.
    pub(crate) async fn begin_any(&self) -> Result<TableCommit<'_>, SinkError> {
        self.begin(&super::epochs_table()).await
    }

    /// All tables and where they point.
    pub(crate) async fn pointers(&self) -> Result<Vec<(TableName, String)>, SinkError> {
        self.inner.catalog.lock().await.pointers().await
    }

    /// A table as it is.
    pub(crate) async fn state(&self, table: &TableName) -> Result<Arc<TableState>, SinkError> {
        // a commit that is going on is not waited for: the table is read as it is
        let known = self.inner.tables.try_lock().ok().and_then(|tables| tables.get(table).cloned());
        self.current(table, known).await?.ok_or_else(|| SinkError::NoTable(table.clone()))
    }

    /// A table as the catalog has it; `known` if that is still so.
    async fn current(&self, table: &TableName, known: Option<Arc<TableState>>) -> Result<Option<Arc<TableState>>, SinkError> {
        let Some(location) = self.inner.catalog.lock().await.pointer(table).await? else { return Ok(None) };
        if let Some(known) = known.filter(|known| known.location == location) {
            return Ok(Some(known));
        }
        let loaded = TableState::load(&self.inner.storage.files, table, &location).await;
        loaded.map(|state| Some(Arc::new(state))).map_err(SinkError::table("read the metadata", table))
    }

    pub(crate) fn files(&self) -> &Files {
        &self.inner.storage.files
    }

    pub(crate) fn rules(&self) -> FileRules {
        self.inner.rules
    }

    pub(crate) fn keep(&self) -> Keep {
        self.inner.keep
    }

    pub(crate) fn seen(&self) -> &Mutex<Seen> {
        &self.inner.seen
    }
}

impl TableCommit<'_> {
    /// The table as it is now; `None` if it is gone.
    pub(crate) async fn state(&self, lake: &Lake) -> Result<Option<Arc<TableState>>, SinkError> {
        lake.current(&self.table, self.tables.get(&self.table).cloned()).await
    }

    /// Makes the table's next state visible.
    ///
    /// # Errors
    /// Another writer has the lake now, or moved the table: nothing was changed. [`SinkError::Unknown`].
    pub(crate) async fn publish(&mut self, lake: &Lake, mut staged: Staged) -> Result<(), SinkError> {
        let Some(fence) = &lake.inner.fence else { return Ok(()) };
        let moved = lake.inner.catalog.lock().await.move_pointer(&fence.token, &pointer_of(&staged)).await;
        let mut moved = match moved {
            Ok(moved) => moved,
            Err(error) => {
                self.tables.remove(&self.table);
                return Err(error);
            }
        };
        let garbage = expiry::garbage(&lake.files().io, &mut staged).await;
        match moved.apply(staged.state) {
            Ok(state) => self.tables.insert(self.table.clone(), Arc::new(state)),
            Err(name) => self.tables.remove(&name),
        };
        lake.sweep(garbage).await;
        Ok(())
    }
}

impl TableState {
    /// Whether livelake made the table.
    pub(crate) fn is_ours(&self) -> bool {
        self.metadata.properties().contains_key(EPOCH_KEY)
    }

    /// What the table says about its last epoch: goes on to a snapshot that does not change its rows.
    pub(crate) fn stamp(&self) -> BTreeMap<String, String> {
        let properties = self.metadata.properties().iter();
        properties
            .filter(|(key, _)| STAMP_KEYS.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}
