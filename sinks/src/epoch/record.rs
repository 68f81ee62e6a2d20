//! What is said about an epoch: before it, in the database, and after it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use iceberg::spec::TableMetadata;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::Timestamp;

use crate::error::SinkError;
use crate::mode::{SinkMode, TableChange};
use crate::partition::PartitionBy;
use crate::producer::Staged;
use crate::schema::{COMMENT_KEY, file_schema};
use crate::storage::TableName;

/// What a caller commits.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Greater than all before.
    pub number: u64,
    /// The timestamp at which the tables show their relations.
    pub timestamp: Timestamp,
    /// From where the sources go on after it; whatever the caller will understand again.
    pub positions: serde_json::Value,
}

/// A committed epoch.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EpochRecord {
    /// Its number.
    pub number: u64,
    /// The timestamp at which the tables show their relations.
    pub timestamp: Timestamp,
    /// When it became visible, microseconds since 1970 UTC by the computer's clock.
    pub committed_at: i64,
    /// From where the sources go on.
    pub positions: serde_json::Value,
    /// Who committed it.
    pub token: String,
    /// The tables that it changed, with their new snapshots (-1: no snapshot yet, only columns).
    pub tables: BTreeMap<String, i64>,
    /// Rows that came to and went from each of them. Empty for an epoch of a version that did not note it.
    pub rows: BTreeMap<String, RowCounts>,
}

/// How many rows an epoch added to a table and removed from it. An update is one of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RowCounts {
    /// Rows that came.
    pub added: u64,
    /// Rows that went.
    pub removed: u64,
}

/// The Iceberg table of epochs.
pub(crate) fn epochs_table() -> TableName {
    TableName::new("livelake", "_epochs")
}

impl EpochRecord {
    /// The columns of `livelake._epochs`.
    pub(crate) fn schema() -> SchemaRef {
        let field = |name: &str, data_type: DataType, comment: &str| {
            Field::new(name, data_type, false).with_metadata([(COMMENT_KEY.to_string(), comment.to_string())].into())
        };
        Arc::new(Schema::new(vec![
            field("epoch", DataType::Int64, "number of the epoch"),
            field("timestamp", DataType::Int64, "microseconds since 1970 UTC: what the tables show is the state at this moment"),
            field("committed_at", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), "when it became visible"),
            field("positions", DataType::Utf8, "JSON: from where the sources go on"),
            field("tables", DataType::Utf8, "JSON: the tables that changed, with their snapshot ids"),
            field("rows", DataType::Utf8, "JSON: how many rows came to and went from each of them"),
        ]))
    }

    /// The epochs that rows of `livelake._epochs` speak of.
    ///
    /// # Errors
    /// JSON that is none: another program wrote the row.
    pub(crate) fn of(rows: &RecordBatch) -> Result<Vec<EpochRecord>, SinkError> {
        let numbers = |column: usize| rows.column(column).as_primitive::<Int64Type>();
        let texts = |column: usize| rows.column(column).as_string::<i32>();
        let committed_at = rows.column(2).as_primitive::<TimestampMicrosecondType>();
        let record = |row: usize| {
            Ok(EpochRecord {
                number: numbers(0).value(row).cast_unsigned(),
                timestamp: numbers(1).value(row).cast_unsigned(),
                committed_at: committed_at.value(row),
                positions: serde_json::from_str(texts(3).value(row))?,
                token: String::new(),
                tables: serde_json::from_str(texts(4).value(row))?,
                rows: serde_json::from_str(texts(5).value(row))?,
            })
        };
        let records: serde_json::Result<Vec<EpochRecord>> = (0..rows.num_rows()).map(record).collect();
        records
            .map_err(|error| SinkError::Rows { table: epochs_table(), reason: format!("a row that is not an epoch's: {error}") })
    }

    /// The row for `livelake._epochs`, as a change of that table.
    pub(crate) fn as_change(&self) -> Result<TableChange, SinkError> {
        let schema = EpochRecord::schema();
        let row = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new(Int64Array::from(vec![self.number.cast_signed()])),
                Arc::new(Int64Array::from(vec![self.timestamp.cast_signed()])),
                Arc::new(TimestampMicrosecondArray::from(vec![self.committed_at]).with_timezone("+00:00")),
                Arc::new(StringArray::from(vec![self.positions.to_string()])),
                Arc::new(StringArray::from(vec![serde_json::json!(self.tables).to_string()])),
                Arc::new(StringArray::from(vec![serde_json::json!(self.rows).to_string()])),
            ],
        );
        let row = row.map_err(SinkError::arrow("note the epoch"))?;
        Ok(TableChange {
            table: epochs_table(),
            relation: RelationId(0),
            schema,
            partition_by: PartitionBy::default(),
            mode: SinkMode::Append,
            changes: vec![(row, Int64Array::from(vec![1]))],
            replace: false,
            key: Vec::new(),
            derived: false,
            comment: Some("the epochs of the lake: all tables at one moment each".into()),
        })
    }
}

/// What a commit did.
#[derive(Clone, Debug, Default)]
pub struct CommitReport {
    /// The epoch's number.
    pub epoch: u64,
    /// An earlier try had got through already; the rest is empty then.
    pub already: bool,
    /// The tables that changed, `livelake._epochs` included.
    pub tables: Vec<TableReport>,
    /// Until all files were written.
    pub written: Duration,
    /// The database transaction.
    pub flipped: Duration,
    /// Finding the files that nobody reaches any more (they are deleted in the background).
    pub swept: Duration,
}

/// What a commit did to one table.
#[derive(Clone, Debug)]
pub struct TableReport {
    /// Which table.
    pub table: TableName,
    /// Its new snapshot; `None` when only its columns changed.
    pub snapshot: Option<i64>,
    /// Rows that came and went.
    pub changed: RowCounts,
    /// Rows in the table now.
    pub rows: u64,
    /// Files that came.
    pub files_added: usize,
    /// Files that went.
    pub files_removed: usize,
}

impl TableReport {
    pub(crate) fn of(staged: &Staged) -> TableReport {
        TableReport {
            table: staged.state.name.clone(),
            snapshot: staged.state.metadata.current_snapshot_id(),
            changed: staged.changed,
            rows: staged.state.records(),
            files_added: staged.files_added,
            files_removed: staged.files_removed,
        }
    }
}

/// A table in the catalog.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// Its name.
    pub table: TableName,
    /// Its metadata file, a `file:///…` URL: what DuckDB's `iceberg_scan` takes.
    pub metadata_location: String,
    /// Its columns, as Arrow reads them.
    pub schema: SchemaRef,
    /// The epoch of its last change, if it is one of ours.
    pub epoch: Option<u64>,
    /// Rows in its newest snapshot, as the summary says.
    pub rows: Option<u64>,
    /// Bytes of its data files, as the summary says.
    pub bytes: Option<u64>,
    /// Data files, as the summary says.
    pub files: Option<u64>,
    /// Its comment.
    pub comment: Option<String>,
}

impl TableInfo {
    pub(crate) fn of(table: TableName, metadata_location: String, metadata: &TableMetadata) -> Result<TableInfo, SinkError> {
        let schema = file_schema(metadata.current_schema()).map_err(SinkError::table("read the columns", &table))?;
        let total = |key: &str| metadata.current_snapshot()?.summary().additional_properties.get(key)?.parse::<u64>().ok();
        // what a summary calls records are rows of data files, also those that are gone
        let gone = total("total-position-deletes").unwrap_or(0);
        Ok(TableInfo {
            schema,
            epoch: metadata.properties().get(crate::producer::EPOCH_KEY).and_then(|e| e.parse().ok()),
            rows: total("total-records").map(|records| records.saturating_sub(gone)),
            bytes: total("total-files-size"),
            files: total("total-data-files"),
            comment: metadata.properties().get("comment").cloned(),
            table,
            metadata_location,
        })
    }
}
