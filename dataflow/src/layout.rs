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
        self.decode_rows(keys.iter(), vals.iter(), keys.len())
    }

    /// Positions of keys and values in a batch, with multiplicities.
    fn delta(&self, batch: &RowBatch, rows: &[(usize, usize, i64)]) -> Result<Delta, ArrowError> {
        let (keys, vals) = (rows.iter().map(|(key, _, _)| batch.key(*key)), rows.iter().map(|(_, val, _)| batch.val(*val)));
        let decoded = self.decode_rows(keys, vals, rows.len())?;
        let ones = rows.iter().all(|(_, _, diff)| *diff == 1);
        Ok(Delta { rows: decoded, diffs: (!ones).then(|| rows.iter().map(|(_, _, diff)| *diff).collect()) })
    }

    fn decode_rows<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
        vals: impl Iterator<Item = &'a [u8]>,
        len: usize,
    ) -> Result<RecordBatch, ArrowError> {
        let (key_columns, val_columns) = (self.keys.decode(keys)?, self.vals.decode(vals)?);
        let columns: Vec<ArrayRef> = self
            .parts
            .iter()
            .map(|(in_key, at)| Arc::clone(if *in_key { &key_columns[*at] } else { &val_columns[*at] }))
            .collect();
        record_batch(Arc::clone(&self.schema), columns, len)
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
            let mut open = Vec::new();
            for key in 0..batch.key_count() {
                for val in batch.vals_of(key) {
                    let diff: i64 = batch
                        .updates_of(val)
                        .filter(|update| batch.time(*update).max(earliest) == wanted)
                        .map(|update| batch.diff(update)[0] as i64)
                        .sum();
                    if diff != 0 {
                        open.push((key, val, diff));
                        if open.len() >= rows_max {
                            deltas.push((wanted, self.delta(batch, &open)?));
                            open.clear();
                        }
                    }
                }
            }
            if !open.is_empty() {
                deltas.push((wanted, self.delta(batch, &open)?));
            }
        }
        Ok(deltas)
    }
}

/// Diffs as an Arrow array.
pub fn diff_array(delta: &Delta) -> Int64Array {
    (0..delta.len()).map(|row| Some(delta.diff(row))).collect()
}
