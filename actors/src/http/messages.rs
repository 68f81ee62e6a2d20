//! Subscription messages, whoever carries them: `{"as_of": T, "changes": [{"diff": 1, "row": {…}}, …]}` and
//! `{"as_of": T, "progress": true}`. With the upsert envelope a change is `{"op": "upsert", "row": {…}}` or `{"op": "delete", "row": {key}}`.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use livelake_dataflow::protocol::{Changes, Timestamp};

use crate::encode::json::{self, JsonRows};

/// Appends a message of changes with their multiplicities.
///
/// # Errors
/// A column of a type that has no JSON text.
pub fn write_changes(changes: &Changes, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let options = json::options();
    let mut rows = JsonRows::new(&changes.rows, &options)?;
    begin(changes.as_of, out);
    for row in 0..changes.rows.num_rows() {
        if row > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!("{{\"diff\":{},\"row\":", changes.diffs.value(row)).as_bytes());
        rows.write(row, out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

/// Appends a progress mark: everything before `timestamp` has been sent.
pub fn write_progress(timestamp: Timestamp, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"as_of\":{timestamp},\"progress\":true}}").as_bytes());
}

fn begin(as_of: Timestamp, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"as_of\":{as_of},\"changes\":[").as_bytes());
}

/// Turns changes into upserts and deletes by key. Rows of one timestamp may come in several pieces, so they are held until the timestamp is
/// complete (a progress mark or a later change says so).
#[derive(Debug)]
pub struct Upserts {
    schema: SchemaRef,
    key: Vec<usize>,
    converter: RowConverter,
    held: Vec<Changes>,
}

impl Upserts {
    /// For rows of `schema` identified by the columns `key` (by position, not empty).
    ///
    /// # Errors
    /// A key column whose values cannot be compared.
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Result<Self, ArrowError> {
        let fields = key.iter().map(|column| SortField::new(schema.field(*column).data_type().clone())).collect();
        Ok(Self { schema, key, converter: RowConverter::new(fields)?, held: Vec::new() })
    }

    /// Takes changes in; appends a message if they complete an earlier timestamp. Returns whether one was written.
    ///
    /// # Errors
    /// As for [`write_changes`].
    pub fn changes(&mut self, changes: Changes, out: &mut Vec<u8>) -> Result<bool, ArrowError> {
        let earlier = self.held.first().is_some_and(|held| held.as_of < changes.as_of);
        let written = if earlier { self.complete(out)? } else { false };
        self.held.push(changes);
        Ok(written)
    }

    /// Everything before `timestamp` is known: appends a message for what was held below it. Returns whether one was written.
    ///
    /// # Errors
    /// As for [`write_changes`].
    pub fn progress(&mut self, timestamp: Timestamp, out: &mut Vec<u8>) -> Result<bool, ArrowError> {
        if self.held.first().is_some_and(|held| held.as_of < timestamp) { self.complete(out) } else { Ok(false) }
    }

    fn complete(&mut self, out: &mut Vec<u8>) -> Result<bool, ArrowError> {
        let held = std::mem::take(&mut self.held);
        let Some(as_of) = held.first().map(|changes| changes.as_of) else { return Ok(false) };
        let rows = concat_batches(&self.schema, held.iter().map(|changes| &changes.rows))?;
        let diffs: Int64Array = held.iter().flat_map(|changes| changes.diffs.values().iter().copied()).collect::<Vec<_>>().into();
        let key_columns: Vec<ArrayRef> = self.key.iter().map(|column| Arc::clone(rows.column(*column))).collect();
        let keys = self.converter.convert_columns(&key_columns)?;
        let added: HashSet<&[u8]> =
            (0..rows.num_rows()).filter(|row| diffs.value(*row) > 0).map(|row| keys.row(row).data()).collect();
        let gone: Vec<u64> = (0..rows.num_rows())
            .filter(|row| diffs.value(*row) < 0 && !added.contains(keys.row(*row).data()))
            .map(|row| row as u64)
            .collect();
        let came: Vec<u64> = (0..rows.num_rows()).filter(|row| diffs.value(*row) > 0).map(|row| row as u64).collect();
        begin(as_of, out);
        let gone_rows = take_record_batch(&rows.project(&self.key)?, &UInt64Array::from(gone))?;
        let written = write_operations("delete", &gone_rows, false, out)?;
        write_operations("upsert", &take_record_batch(&rows, &UInt64Array::from(came))?, written, out)?;
        out.extend_from_slice(b"]}");
        Ok(true)
    }
}

fn write_operations(operation: &str, rows: &RecordBatch, mut continued: bool, out: &mut Vec<u8>) -> Result<bool, ArrowError> {
    let options = json::options();
    let mut writer = JsonRows::new(rows, &options)?;
    for row in 0..rows.num_rows() {
        if continued {
            out.push(b',');
        }
        continued = true;
        out.extend_from_slice(format!("{{\"op\":\"{operation}\",\"row\":").as_bytes());
        writer.write(row, out);
        out.push(b'}');
    }
    Ok(continued)
}
