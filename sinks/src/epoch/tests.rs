//! Epochs against a model, faults at every step, fencing, and other people's readers.

mod crashes;
mod damage;
mod faults;
mod history;
mod long;
mod maintenance;
mod model;
mod network;
mod readers;
mod remote;
mod rest;
mod speed;

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{Array, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::Timestamp;
use tokio::sync::mpsc;

use super::*;
use crate::storage::files::local_path;
use crate::{PartitionBy, SinkMode};

impl Lake {
    /// The folder of the tables.
    fn warehouse_path(&self) -> PathBuf {
        local_path(&self.storage().warehouse)
    }
}

/// The SQLite file of a lake that has one.
fn catalog_file(lake: &Lake) -> PathBuf {
    lake.storage().catalog.file().expect("this test's lake is in a file").to_path_buf()
}

/// Makes a commit fail at a step: 0 before any file, 1 after the tables' files, 2 before the flip, 3 after it (a lost answer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) usize);

pub(crate) fn strike(fault: &std::sync::Mutex<Option<Fault>>, step: usize) -> Result<(), SinkError> {
    let mut armed = fault.lock().unwrap();
    if *armed == Some(Fault(step)) {
        *armed = None;
        return Err(match step {
            3 => SinkError::Unknown { epoch: 0, source: sqlx::Error::Protocol("the answer got lost".into()).into() },
            _ => SinkError::Thread(format!("stopped by the test at step {step}")),
        });
    }
    Ok(())
}

/// Rows of the test's relation: by id, when, where and how much (cents).
pub(super) type Contents = BTreeMap<i64, (Option<i64>, Option<String>, i64)>;

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("seen_at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("borough", DataType::Utf8, true),
        Field::new("amount", DataType::Decimal128(12, 2), true),
    ]))
}

pub(super) fn batch<'a>(rows: impl Iterator<Item = (&'a i64, &'a (Option<i64>, Option<String>, i64))>) -> RecordBatch {
    let rows: Vec<_> = rows.collect();
    let amounts = Decimal128Array::from_iter_values(rows.iter().map(|(_, r)| i128::from(r.2)));
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, _)| **id))),
            Arc::new(rows.iter().map(|(_, r)| r.0).collect::<TimestampMicrosecondArray>()),
            Arc::new(rows.iter().map(|(_, r)| r.1.as_deref()).collect::<StringArray>()),
            Arc::new(amounts.with_precision_and_scale(12, 2).unwrap()),
        ],
    )
    .unwrap()
}

/// What changed from one state to the next, as net changes.
pub(super) fn difference(before: &Contents, after: &Contents) -> Vec<(RecordBatch, Int64Array)> {
    let gone: Contents = before.iter().filter(|(k, v)| after.get(k) != Some(v)).map(|(k, v)| (*k, v.clone())).collect();
    let came: Contents = after.iter().filter(|(k, v)| before.get(k) != Some(v)).map(|(k, v)| (*k, v.clone())).collect();
    vec![
        (batch(gone.iter()), Int64Array::from(vec![-1; gone.len()])),
        (batch(came.iter()), Int64Array::from(vec![1; came.len()])),
    ]
}

/// A relation's rows, in batches of a few.
#[derive(Debug, Default)]
pub(super) struct Rows(pub(super) Contents);

#[async_trait]
impl RowReader for Rows {
    async fn read(
        &self,
        _relation: RelationId,
        _as_of: Timestamp,
        rows: mpsc::Sender<RecordBatch>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let whole = batch(self.0.iter());
        for from in (0..whole.num_rows()).step_by(7) {
            if rows.send(whole.slice(from, 7.min(whole.num_rows() - from))).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

pub(super) fn change(name: &str, partition_by: &str, mode: SinkMode, changes: Vec<(RecordBatch, Int64Array)>) -> TableChange {
    TableChange {
        table: TableName::parse(name),
        relation: RelationId(1),
        schema: schema(),
        partition_by: PartitionBy::parse(partition_by, &schema()).unwrap(),
        mode,
        changes,
        replace: false,
        key: Vec::new(),
        derived: name.ends_with("view"),
        comment: None,
    }
}

pub(super) fn epoch(number: u64) -> Epoch {
    Epoch { number, timestamp: number * 1_000_000, positions: serde_json::json!({"orders": {"0": number * 10}}) }
}

/// A lake in a folder, or where [`remote`] says.
pub(super) fn options(folder: &Path) -> LakeOptions {
    let local = LakeOptions { keep: 4, writer: "test".into(), ..LakeOptions::new(folder) };
    match remote::places(folder) {
        Some((catalog, warehouse)) => LakeOptions { catalog, warehouse, ..local },
        None => local,
    }
}

/// All rows of a table in the wanted columns, in the order of the first.
pub(super) async fn rows_of(lake: &Lake, table: &str, schema: &SchemaRef) -> RecordBatch {
    let (sender, mut receiver) = mpsc::channel(2);
    let name = TableName::parse(table);
    let read = lake.read(&name, Arc::clone(schema), sender);
    let collect = async {
        let mut batches = Vec::new();
        while let Some(batch) = receiver.recv().await {
            batches.push(batch);
        }
        batches
    };
    let (count, batches) = tokio::join!(read, collect);
    let whole = concat_batches(schema, &batches).unwrap();
    assert_eq!(count.unwrap(), whole.num_rows() as u64);
    let by: Vec<_> = whole.columns().iter().map(|c| arrow::compute::SortColumn { values: c.clone(), options: None }).collect();
    let order = lexsort_to_indices(&by, None).unwrap();
    take_record_batch(&whole, &order).unwrap()
}

/// Paths of all files below a folder.
pub(super) fn files_below(folder: &Path) -> std::collections::BTreeSet<PathBuf> {
    let mut found = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => drop(found.insert(path)),
        }
    }
    found
}

/// Locations of all files of a lake's tables, those of tables that are gone included.
pub(super) async fn all_files(lake: &Lake) -> std::collections::BTreeSet<String> {
    let (files, mut found) = (lake.files(), std::collections::BTreeSet::new());
    for namespace in files.folders(&lake.storage().warehouse).await.unwrap() {
        for table in files.folders(&namespace).await.unwrap() {
            let listed = files.list(&table, &["data", "metadata"]).await.unwrap();
            found.extend(listed.into_iter().map(|found| files.same(&found.location)));
        }
    }
    found
}
