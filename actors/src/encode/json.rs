//! Rows as JSON objects. arrow-json's column encoders do the work; the types whose text livelake promises otherwise (floats that are no
//! numbers, timestamps with a zone) are written here.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::writer::{NullableEncoder, make_encoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions};
use arrow::record_batch::RecordBatch;

use super::text::timestamp_values;
use livelake_queries::text::float::float_name;
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

/// Appends a JSON string with its quotes.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(&mut *out, text);
}

/// Appends a float as the shortest number that reads back the same, or its name where it is no number.
pub fn write_float(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        // Writing a number into memory cannot fail.
        let _ = serde_json::to_writer(&mut *out, &value);
    } else {
        write_string(float_name(value), out);
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
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float64 => Box::new(Floats64(array.as_primitive::<Float64Type>().values())),
            DataType::Float32 => Box::new(Floats32(array.as_primitive::<Float32Type>().values())),
            DataType::Timestamp(unit, zone) => {
                Box::new(Timestamps { values: timestamp_values(array, *unit), unit: *unit, zoned: zone.is_some() })
            }
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Floats64<'a>(&'a [f64]);

impl Encoder for Floats64<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        write_float(self.0[row], out);
    }
}

struct Floats32<'a>(&'a [f32]);

impl Encoder for Floats32<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.0[row];
        if value.is_finite() {
            // Writing a number into memory cannot fail; as f32 it has fewer digits than its f64 would.
            let _ = serde_json::to_writer(&mut *out, &value);
        } else {
            write_string(float_name(f64::from(value)), out);
        }
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
