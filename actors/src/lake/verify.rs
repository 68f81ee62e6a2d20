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
    /// How many errors its `$errors` has then.
    pub errors: usize,
}

impl Verdict {
    /// In a line.
    pub fn summary(&self) -> String {
        let errors = if self.errors > 0 { format!(", {} in {}$errors", self.errors, self.view) } else { String::new() };
        format!("{}: {} rows, {} differ{errors}", self.view, self.rows, self.differences.len())
    }
}

fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

impl Lake {
    /// Recomputes a materialized view from its base relations and compares.
    ///
    /// # Errors
    /// A base relation whose rows are not kept, or a query that fails in batch.
    pub async fn verify(&self, view: &Relation, as_of: Timestamp) -> Result<Verdict, LakeError> {
        let definitions = self.definitions();
        let all = |id| PeekRequest { id, as_of, key: None, limit: None, projection: None };
        let errors = match definitions.catalog.get(&view.name.errors()) {
            Some(kept) => rows(&peek(self.engine(), all(kept.id)).await?),
            None => 0,
        };
        let reader =
            EngineReader { engine: self.engine().clone(), catalog: Arc::clone(&definitions.catalog), stored: definitions.stored };
        let actual: Vec<RecordBatch> = peek(self.engine(), all(view.id)).await?;
        let wanted = expected(&definitions.catalog, Arc::new(reader), as_of, view.id).await.map_err(|error| {
            let error = LakeError::from(error);
            match errors {
                0 => error,
                _ => LakeError {
                    hint: Some(format!("in batch an error of data fails the whole query: see {}", view.name.errors())),
                    ..error
                },
            }
        })?;
        let differences = compare(&view.schema, &wanted, &actual).map_err(internal)?;
        Ok(Verdict { view: view.name.to_string(), as_of, rows: rows(&actual), differences, errors })
    }
}
