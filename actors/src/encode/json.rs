//! Rows as JSON objects. arrow-json's column encoders do the work; the types whose text livelake promises otherwise (floats that are no
//! numbers, timestamps with a zone) are written here.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::writer::{NullableEncoder, make_encoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions};
use arrow::record_batch::RecordBatch;
use livelake_queries::text::json::floats;
pub use livelake_queries::text::json::{write_float, write_string};

use super::text::timestamp_values;
use livelake_queries::text::time::write_timestamp;

/// The options every JSON text of livelake is written with: NULL is `null`, never left out.
pub fn options() -> EncoderOptions {
    EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Overrides))
}

/// Writes the rows of one batch as objects, one call a row.
pub struct JsonRows<'a> {
    columns: Vec<(Vec<u8>, NullableEncoder<'a>)>,
}

impl std::fmt::Debug for JsonRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JsonRows").field("columns", &self.columns.len()).finish()
    }
}

impl<'a> JsonRows<'a> {
    /// Prepares all columns of `batch`.
    ///
    /// # Errors
    /// A column of a type that has no JSON text (a union, a map whose keys are no strings).
    pub fn new(batch: &'a RecordBatch, options: &'a EncoderOptions) -> Result<Self, ArrowError> {
        let fields = batch.schema_ref().fields();
        Self::of_columns(fields.iter().zip(batch.columns()).map(|(field, column)| (field, column.as_ref())), options)
    }

    /// Prepares chosen columns.
    ///
    /// # Errors
    /// As for [`JsonRows::new`].
    pub fn of_columns(
        chosen: impl Iterator<Item = (&'a FieldRef, &'a dyn Array)>,
        options: &'a EncoderOptions,
    ) -> Result<Self, ArrowError> {
        let mut columns = Vec::new();
        for (field, array) in chosen {
            let mut prefix = vec![if columns.is_empty() { b'{' } else { b',' }];
            write_string(field.name(), &mut prefix);
            prefix.push(b':');
            columns.push((prefix, make_encoder(field, array, options)?));
        }
        Ok(Self { columns })
    }

    /// Appends row `row` as an object.
    pub fn write(&mut self, row: usize, out: &mut Vec<u8>) {
        if self.columns.is_empty() {
            out.push(b'{');
        }
        for (prefix, encoder) in &mut self.columns {
            out.extend_from_slice(prefix);
            if encoder.is_null(row) {
                out.extend_from_slice(b"null");
            } else {
                encoder.encode(row, out);
            }
        }
        out.push(b'}');
    }
}

#[derive(Debug)]
struct Overrides;

impl EncoderFactory for Overrides {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let DataType::Timestamp(unit, zone) = array.data_type() else { return Ok(floats(array)) };
        let stamps = Timestamps { values: timestamp_values(array, *unit), unit: *unit, zoned: zone.is_some() };
        Ok(Some(NullableEncoder::new(Box::new(stamps), array.nulls().cloned())))
    }
}

struct Timestamps<'a> {
    values: &'a [i64],
    unit: TimeUnit,
    zoned: bool,
}

impl Encoder for Timestamps<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        write_timestamp(self.values[row], self.unit, b'T', out);
        if self.zoned {
            out.push(b'Z');
        }
        out.push(b'"');
    }
}
