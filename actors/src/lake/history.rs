//! Questions about the past: from memory as far as the engine's retention goes, beyond it from the Iceberg snapshots of an epoch.
//!
//! A snapshot shows an epoch's timestamp, not any other. So beyond the retention a question about a moment is answered as of the newest
//! epoch at or before it, all relations at that one epoch, and the answer says which timestamp that is.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, Scalar};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{and, filter_record_batch};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::Timestamp;
use livelake_queries::catalog::Catalog;
use livelake_queries::session::{ReadRequest, RelationReader};
use livelake_queries::statement::{AsOf, RelationKind};
use livelake_sinks::{EpochRecord, Lake as Tables, SinkMode, TableName};
use tokio::sync::mpsc;

use crate::lake::Lake;
use crate::lake::failure::internal;
use crate::lake::store::all_sinks;
use crate::service::LakeError;

/// When an answer is exact, and where its rows are.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The timestamp.
    pub as_of: Timestamp,
    /// The rows are in this epoch's snapshots; absent: in memory.
    pub epoch: Option<u64>,
}

fn gone(message: String) -> LakeError {
    LakeError {
        code: "no_longer_kept",
        sqlstate: "58P01",
        http_status: 410,
        message,
        hint: Some("SHOW EPOCHS lists what is kept; epochs.keep and engine.retention say for how long".to_owned()),
    }
}

impl Lake {
    /// The moment that a query asks about: the newest complete one unless it says.
    ///
    /// # Errors
    /// No such epoch, or none so long ago.
    pub(crate) async fn moment(&self, as_of: Option<AsOf>) -> Result<Moment, LakeError> {
        let past = self.0.sinks.get().map(|sinks| &sinks.past);
        let record: EpochRecord = match (as_of, past) {
            (None, _) => return Ok(Moment { as_of: self.newest(), epoch: None }),
            (Some(AsOf::Timestamp(as_of)), None) => return Ok(Moment { as_of, epoch: None }),
            (Some(AsOf::Timestamp(as_of)), Some(past)) => {
                if as_of >= past.oldest(self.engine().last_tick()) {
                    return Ok(Moment { as_of, epoch: None });
                }
                let found = past.tables.epoch_at(as_of).await.map_err(internal)?;
                found.ok_or_else(|| gone(format!("there is no epoch at or before {as_of}")))?
            }
            (Some(AsOf::Epoch(number)), past) => {
                let found = match past {
                    Some(past) => past.tables.epoch(number).await.map_err(internal)?,
                    None => None,
                };
                found.ok_or_else(|| gone(format!("there is no epoch {number}")))?
            }
        };
        let in_memory = past.is_some_and(|past| record.timestamp >= past.oldest(self.engine().last_tick()));
        Ok(Moment { as_of: record.timestamp, epoch: (!in_memory).then_some(record.number) })
    }

    /// What reads an epoch's snapshots.
    pub(crate) fn history(&self, epoch: u64) -> Result<HistoryReader, LakeError> {
        let definitions = self.definitions();
        let sinks = self.0.sinks.get().ok_or_else(|| gone("the lake has no tables".to_owned()))?;
        let plans = all_sinks(&definitions, &self.0.path)?;
        // a table with an interval of its own shows another moment than its epoch
        let exact = plans.into_iter().filter(|plan| plan.mode == SinkMode::Snapshot && plan.every.is_none());
        Ok(HistoryReader {
            tables: sinks.past.tables.clone(),
            epoch,
            shown: exact.map(|plan| (plan.relation, plan.table)).collect(),
            catalog: definitions.catalog,
        })
    }
}

/// What is known of the time before the engine's.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    /// The tables.
    pub(crate) tables: Tables,
    /// The timestamp at which this run began.
    pub(crate) begin: Timestamp,
    /// `engine.retention`, microseconds.
    pub(crate) retention: u64,
}

impl Past {
    /// The oldest timestamp at which memory answers.
    fn oldest(&self, last_tick: Timestamp) -> Timestamp {
        self.begin.max(last_tick.saturating_sub(self.retention))
    }
}

/// Reads relations from the snapshots of one epoch.
#[derive(Debug)]
pub(crate) struct HistoryReader {
    tables: Tables,
    epoch: u64,
    /// The table that shows a relation's rows.
    shown: HashMap<RelationId, TableName>,
    catalog: Arc<Catalog>,
}

#[async_trait]
impl RelationReader for HistoryReader {
    async fn read(&self, relation: RelationId, _: Timestamp, request: ReadRequest) -> Result<Vec<RecordBatch>> {
        let found = self.catalog.by_id(relation).ok_or_else(|| DataFusionError::Execution(format!("{relation} was dropped")))?;
        // an index has the rows of what it is on
        let of = if found.kind == RelationKind::Index { found.reads.first().unwrap_or(&relation) } else { &relation };
        let name = &found.name;
        let Some(table) = self.shown.get(of).filter(|_| request.projection.iter().all(|column| *column < found.visible)) else {
            return Err(DataFusionError::Execution(format!(
                "{name} has no table of its rows at every epoch, so its past is kept for engine.retention only: CREATE SINK makes one"
            )));
        };
        // a key is compared before columns are left out
        let mut columns = request.projection.clone();
        let keys = request.key.as_ref().map(|key| key.schema().fields().iter().map(|field| field.name().clone()).collect());
        let keys: Vec<String> = keys.unwrap_or_default();
        for key in &keys {
            let place = found.schema.index_of(key)?;
            if !columns.contains(&place) {
                columns.push(place);
            }
        }
        let schema = Arc::new(found.schema.project(&columns)?);
        let (send, mut receive) = mpsc::channel(4);
        let (tables, table, epoch) = (self.tables.clone(), table.clone(), self.epoch);
        let reading = tokio::spawn(async move { tables.read_at(&table, epoch, schema, send).await });
        let (mut batches, mut rows) = (Vec::new(), 0);
        let wanted: Vec<usize> = (0..request.projection.len()).collect();
        while let Some(batch) = receive.recv().await {
            let batch = match &request.key {
                Some(key) => only(&batch, key, &keys)?,
                None => batch,
            };
            rows += batch.num_rows();
            batches.push(batch.project(&wanted)?);
            if request.limit.is_some_and(|limit| rows >= limit) {
                break;
            }
        }
        drop(receive);
        let read = reading.await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        read.map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(batches)
    }
}

/// The rows whose key is the wanted one.
fn only(batch: &RecordBatch, key: &RecordBatch, names: &[String]) -> Result<RecordBatch> {
    let mut chosen: Option<BooleanArray> = None;
    for (name, value) in names.iter().zip(key.columns()) {
        let column = batch.column_by_name(name).ok_or_else(|| DataFusionError::Internal(format!("{name} was not read")))?;
        let equal = eq(column, &Scalar::new(value))?;
        chosen = Some(match chosen {
            Some(chosen) => and(&chosen, &equal)?,
            None => equal,
        });
    }
    Ok(match chosen {
        Some(chosen) => filter_record_batch(batch, &chosen)?,
        None => batch.clone(),
    })
}
