//! What flows between operators: a batch of rows with how many of each came or went, all at the message's timestamp.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{filter, filter_record_batch, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use timely::dataflow::Stream;

use crate::protocol::Timestamp;

/// Rows with multiplicities. Rows need not be distinct; what counts is the sum.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The rows.
    pub rows: RecordBatch,
    /// One per row; absent: all 1.
    pub diffs: Option<Arc<[i64]>>,
}

/// A stream of them, between the operators of one dataflow.
pub type DeltaStream<'scope> = Stream<'scope, Timestamp, Vec<Delta>>;

impl Delta {
    /// How often row `index` is in it.
    #[inline]
    pub fn diff(&self, index: usize) -> i64 {
        self.diffs.as_ref().map_or(1, |diffs| diffs[index])
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Only the entries for which the mask is true (NULL is not).
    pub fn filter(&self, mask: &BooleanArray) -> Result<Delta, ArrowError> {
        let rows = filter_record_batch(&self.rows, mask)?;
        let diffs = match &self.diffs {
            None => None,
            Some(diffs) => {
                let kept = filter(&Int64Array::from(diffs.to_vec()), mask)?;
                Some(arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&kept).values().to_vec().into())
            }
        };
        Ok(Delta { rows, diffs })
    }

    /// The entries at these positions, in this order.
    pub fn take(&self, positions: &UInt32Array) -> Result<Delta, ArrowError> {
        let rows = take_record_batch(&self.rows, positions)?;
        let diffs = self.diffs.as_ref().map(|diffs| positions.values().iter().map(|at| diffs[*at as usize]).collect());
        Ok(Delta { rows, diffs })
    }

    /// A part of it, without copying rows.
    pub fn slice(&self, offset: usize, length: usize) -> Delta {
        Delta {
            rows: self.rows.slice(offset, length),
            diffs: self.diffs.as_ref().map(|diffs| diffs[offset..offset + length].into()),
        }
    }

    /// The same entries with multiplicities of the other sign.
    pub fn negate(mut self) -> Delta {
        let diffs = (0..self.len()).map(|index| -self.diff(index)).collect();
        self.diffs = Some(diffs);
        self
    }
}

/// A batch of these columns; also right for no columns at all.
pub fn record_batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}
