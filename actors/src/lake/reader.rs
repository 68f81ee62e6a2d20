//! Queries' way into the engine: peeks at one timestamp.

use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use livelake_dataflow::handle::EngineHandle;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::{EngineError, PeekRequest, Timestamp};
use livelake_queries::catalog::Catalog;
use livelake_queries::plan::StoredColumns;
use livelake_queries::session::{ReadRequest, RelationReader};
use tokio::sync::oneshot;

/// Reads the engine's relations by the catalog's column numbers.
#[derive(Clone, Debug)]
pub struct EngineReader {
    /// The engine.
    pub engine: EngineHandle,
    /// What the numbers mean.
    pub catalog: Arc<Catalog>,
    /// Which columns the engine has.
    pub stored: StoredColumns,
}

/// A peek as a future.
///
/// # Errors
/// The engine's.
pub async fn peek(engine: &EngineHandle, request: PeekRequest) -> Result<Vec<RecordBatch>, EngineError> {
    let (send, receive) = oneshot::channel();
    engine.peek(
        request,
        Box::new(move |answer| {
            // whoever asked may have gone meanwhile
            let _ = send.send(answer);
        }),
    );
    receive.await.unwrap_or(Err(EngineError::Stopped))
}

#[async_trait]
impl RelationReader for EngineReader {
    async fn read(&self, relation: RelationId, as_of: Timestamp, request: ReadRequest) -> Result<Vec<RecordBatch>> {
        let found = self
            .catalog
            .by_id(relation)
            .ok_or_else(|| DataFusionError::Execution(format!("relation {relation} has been dropped meanwhile")))?;
        let columns = self.stored.of(found);
        let projection = request
            .projection
            .iter()
            .map(|wanted| {
                columns.iter().position(|column| column == wanted).ok_or_else(|| {
                    let name = found.schema.field(*wanted).name();
                    DataFusionError::Execution(format!("column {name} of {} is not kept in memory", found.name))
                })
            })
            .collect::<Result<Vec<usize>>>()?;
        let key = request.key.map(|key| conform(&key)).transpose()?;
        let request = PeekRequest { id: relation, as_of, key, limit: request.limit, projection: Some(projection) };
        peek(&self.engine, request).await.map_err(|error| match error {
            EngineError::NotArranged(_) => {
                DataFusionError::Execution(format!("the rows of {} are not kept in memory", found.name))
            }
            other => DataFusionError::External(Box::new(other)),
        })
    }
}

/// Dictionaries, if a planner made some, as plain columns: the engine's keys are encoded from plain ones.
fn conform(key: &RecordBatch) -> Result<RecordBatch> {
    let schema = key.schema();
    let columns = key.columns().iter().zip(schema.fields()).map(|(column, field)| {
        let plain = match field.data_type() {
            DataType::Dictionary(_, values) => arrow::compute::cast(column, values)?,
            _ => Arc::clone(column),
        };
        Ok((field.name().clone(), plain))
    });
    Ok(RecordBatch::try_from_iter(columns.collect::<Result<Vec<_>>>()?)?)
}
