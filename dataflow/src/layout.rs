//! How a relation's columns are split into the key and the value of its arrangement, and put together again.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use crate::batch::RowBatch;
use crate::delta::{Delta, record_batch};
use crate::protocol::Timestamp;
use crate::rows::{RowCodec, Rows};

/// Key columns first, all others as the value.
#[derive(Debug)]
pub struct Layout {
    schema: SchemaRef,
    key: Vec<usize>,
    keys: RowCodec,
    vals: RowCodec,
    /// For each column: whether it is in the key, and where.
    parts: Vec<(bool, usize)>,
}

impl Layout {
    /// The layout of a relation with these key columns; none means that the whole row is the key.
    ///
    /// # Errors
    /// A column's type cannot be kept in an arrangement.
    pub fn new(schema: &SchemaRef, key: &[usize]) -> Result<Layout, ArrowError> {
        let key: Vec<usize> = if key.is_empty() { (0..schema.fields().len()).collect() } else { key.to_vec() };
        let rest: Vec<usize> = (0..schema.fields().len()).filter(|column| !key.contains(column)).collect();
        let place = |column: usize| match key.iter().position(|k| *k == column) {
            Some(at) => (true, at),
            None => (false, rest.iter().position(|r| *r == column).unwrap_or(0)),
        };
        let parts = (0..schema.fields().len()).map(place).collect();
        Ok(Layout {
            schema: Arc::clone(schema),
            keys: RowCodec::new(schema, &key)?,
            vals: RowCodec::new(schema, &rest)?,
            key,
            parts,
        })
    }

    /// Another one of the same.
    ///
    /// # Errors
    /// None that the first did not have.
    pub fn again(&self) -> Result<Layout, ArrowError> {
        Layout::new(&self.schema, &self.key)
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The key's columns.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// Encodes keys.
    pub fn keys(&self) -> &RowCodec {
        &self.keys
    }

    /// The two codecs.
    pub fn into_codecs(self) -> (RowCodec, RowCodec) {
        (self.keys, self.vals)
    }

    /// Whether each column is in the key, and where there or in the value.
    pub fn parts(&self) -> &[(bool, usize)] {
        &self.parts
    }

    /// Encoded rows as a batch.
    ///
    /// # Errors
    /// The rows are not of this layout.
    pub fn decode(&self, keys: &Rows, vals: &Rows) -> Result<RecordBatch, ArrowError> {
        let (key_columns, val_columns) = (self.keys.decode(keys.iter())?, self.vals.decode(vals.iter())?);
        let columns: Vec<ArrayRef> = self
            .parts
            .iter()
            .map(|(in_key, at)| Arc::clone(if *in_key { &key_columns[*at] } else { &val_columns[*at] }))
            .collect();
        record_batch(Arc::clone(&self.schema), columns, keys.len())
    }

    /// The updates of a batch as deltas, by time; times before `earliest` count as `earliest`. At most `rows_max` rows a delta.
    ///
    /// # Errors
    /// The batch is not of this layout.
    pub fn deltas(&self, batch: &RowBatch, earliest: Timestamp, rows_max: usize) -> Result<Vec<(Timestamp, Delta)>, ArrowError> {
        let mut times: Vec<Timestamp> = batch.distinct_times().into_iter().map(|time| time.max(earliest)).collect();
        times.dedup();
        let mut deltas = Vec::new();
        for wanted in times {
            let mut open = (Rows::default(), Rows::default(), Vec::new());
            let mut flush = |open: &mut (Rows, Rows, Vec<i64>)| -> Result<(), ArrowError> {
                let (keys, vals, diffs) = std::mem::take(open);
                if !diffs.is_empty() {
                    deltas.push((wanted, Delta { rows: self.decode(&keys, &vals)?, diffs: Some(diffs.into()) }));
                }
                Ok(())
            };
            for key in 0..batch.key_count() {
                for val in batch.vals_of(key) {
                    let diff: i64 = batch
                        .updates_of(val)
                        .filter(|update| batch.time(*update).max(earliest) == wanted)
                        .map(|update| batch.diff(update)[0] as i64)
                        .sum();
                    if diff != 0 {
                        open.0.push(batch.key(key));
                        open.1.push(batch.val(val));
                        open.2.push(diff);
                        if open.2.len() >= rows_max {
                            flush(&mut open)?;
                        }
                    }
                }
            }
            flush(&mut open)?;
        }
        Ok(deltas)
    }
}

/// Diffs as an Arrow array.
pub fn diff_array(delta: &Delta) -> Int64Array {
    (0..delta.len()).map(|row| Some(delta.diff(row))).collect()
}
