//! Comparing a view with its recomputation in batch, at one timestamp, while the lake runs.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use livelake_dataflow::protocol::{PeekRequest, Timestamp};
use livelake_queries::catalog::Relation;
use livelake_queries::verify::{Difference, compare, expected};

use crate::lake::Lake;
use crate::lake::failure::internal;
use crate::lake::reader::{EngineReader, peek};
use crate::service::LakeError;

/// A view compared.
#[derive(Debug)]
pub struct Verdict {
    /// `schema.name`.
    pub view: String,
    /// When.
    pub as_of: Timestamp,
    /// Rows that it has.
    pub rows: usize,
    /// What differs; nothing, if all is well.
    pub differences: Vec<Difference>,
}

impl Lake {
    /// Recomputes a materialized view from its base relations and compares.
    ///
    /// # Errors
    /// A base relation whose rows are not kept, or a query that fails in batch.
    pub async fn verify(&self, view: &Relation, as_of: Timestamp) -> Result<Verdict, LakeError> {
        let definitions = self.definitions();
        let reader =
            EngineReader { engine: self.engine().clone(), catalog: Arc::clone(&definitions.catalog), stored: definitions.stored };
        let request = PeekRequest { id: view.id, as_of, key: None, limit: None, projection: None };
        let actual: Vec<RecordBatch> = peek(self.engine(), request).await?;
        let wanted = expected(&definitions.catalog, Arc::new(reader), as_of, view.id).await?;
        let differences = compare(&view.schema, &wanted, &actual).map_err(internal)?;
        Ok(Verdict { view: view.name.to_string(), as_of, rows: actual.iter().map(RecordBatch::num_rows).sum(), differences })
    }
}
