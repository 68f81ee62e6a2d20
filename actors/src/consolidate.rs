//! Net changes: what is left of many changes of the same rows.

use arrow::array::{Int64Array, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use hashbrown::HashMap;
use livelake_dataflow::rows::RowCodec;

/// Changes that belong together, in no order.
pub type ChangeList = Vec<(RecordBatch, Int64Array)>;

/// The same changes with every row once at most and none that cancel.
///
/// # Errors
/// A column's type cannot be compared (maps).
pub fn consolidate(schema: &SchemaRef, changes: &ChangeList) -> Result<ChangeList, ArrowError> {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let codec = RowCodec::new(schema, &all)?;
    let mut encoded = Vec::with_capacity(changes.len());
    for (rows, _) in changes {
        encoded.push(codec.encode(rows.columns(), rows.num_rows())?);
    }
    let mut net: HashMap<&[u8], (i64, usize, usize), ahash::RandomState> = HashMap::default();
    for (batch, (_, diffs)) in changes.iter().enumerate() {
        for row in 0..diffs.len() {
            net.entry(encoded[batch].get(row)).or_insert((0, batch, row)).0 += diffs.value(row);
        }
    }
    let mut kept: Vec<(usize, usize, i64)> =
        net.into_values().filter(|(diff, _, _)| *diff != 0).map(|(diff, batch, row)| (batch, row, diff)).collect();
    kept.sort_unstable();
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let batches: Vec<&RecordBatch> = changes.iter().map(|(rows, _)| rows).collect();
    let positions: Vec<(usize, usize)> = kept.iter().map(|(batch, row, _)| (*batch, *row)).collect();
    let rows = interleave_record_batch(&batches, &positions)?;
    Ok(vec![(rows, kept.into_iter().map(|(_, _, diff)| diff).collect())])
}
