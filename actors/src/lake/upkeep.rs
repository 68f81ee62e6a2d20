//! What SHOW EPOCHS and VACUUM answer, for a lake that runs and for the command line on one that does not.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use livelake_queries::RelationName;
use livelake_sinks::{TableMaintenance, TableName};

use crate::lake::Lake;
use crate::lake::failure::{internal, not_supported};
use crate::service::{EpochStatus, LakeError};
use crate::sink_driver::{Upkeep, Vacuum};

impl Lake {
    /// Looks after an Iceberg table, or all of them; what was done.
    ///
    /// # Errors
    /// There is no such table, or its files cannot be read or written.
    pub async fn vacuum(&self, table: Option<&RelationName>) -> Result<Vec<TableMaintenance>, LakeError> {
        let sinks = self.0.sinks.get().ok_or_else(|| not_supported("this lake has no tables"))?;
        let table = table.map(|name| TableName::new(&name.schema, &name.name));
        sinks.driver.send(Vacuum { table }).await.map_err(internal)?
    }

    /// What maintenance has done since the start, where the lake has tables.
    pub(crate) fn upkeep(&self) -> Option<Upkeep> {
        self.0.sinks.get().map(|sinks| *sinks.upkeep.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn instants(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(values.map(|value| Some(value.cast_signed())).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(values.map(u64::cast_signed).collect::<Int64Array>())
}

/// Epochs, a row for each table that they changed, or one without a table.
///
/// # Errors
/// None that can be met.
pub fn epochs_batch(epochs: &[EpochStatus]) -> Result<RecordBatch, LakeError> {
    let mut rows = Vec::new();
    for epoch in epochs {
        let of = |table: &str| epoch.rows.get(table).copied().unwrap_or_default();
        rows.extend(epoch.tables.iter().map(|(table, _)| (epoch, Some(table.as_str()), of(table))));
        if epoch.tables.is_empty() {
            rows.push((epoch, None, Default::default()));
        }
    }
    let columns: [(&str, ArrayRef); 6] = [
        ("epoch", numbers(rows.iter().map(|(epoch, ..)| epoch.epoch))),
        ("as_of", instants(rows.iter().map(|(epoch, ..)| epoch.as_of))),
        ("committed_at", instants(rows.iter().map(|(epoch, ..)| epoch.committed_at))),
        ("table", Arc::new(rows.iter().map(|(_, table, _)| *table).collect::<StringArray>())),
        ("rows_added", numbers(rows.iter().map(|(.., rows)| rows.added))),
        ("rows_removed", numbers(rows.iter().map(|(.., rows)| rows.removed))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).map_err(internal)
}

/// What was done for each table.
///
/// # Errors
/// None that can be met.
pub fn maintenance_batch(tables: &[TableMaintenance]) -> Result<RecordBatch, LakeError> {
    let count = |of: &dyn Fn(&TableMaintenance) -> usize| numbers(tables.iter().map(|table| of(table) as u64));
    let columns: [(&str, ArrayRef); 7] = [
        ("table", Arc::new(tables.iter().map(|table| Some(table.table.as_str())).collect::<StringArray>())),
        ("files_rewritten", count(&|table| table.files_rewritten)),
        ("files_written", count(&|table| table.files_written)),
        ("bytes_rewritten", numbers(tables.iter().map(|table| table.bytes_rewritten))),
        ("deletes_removed", count(&|table| table.deletes_removed)),
        ("orphans_removed", count(&|table| table.orphans_removed)),
        ("orphan_bytes", numbers(tables.iter().map(|table| table.orphan_bytes))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).map_err(internal)
}
