//! Values as JSON text, for the SQL functions that make JSON and for servers: arrow-json's column encoders, with the names that floats
//! have which are no numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::{NullableEncoder, make_encoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions};

use super::float::float_name;

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

/// The encoder of a column of floats; nothing for other types. For [`EncoderFactory`]s: arrow's own writes `null` for NaN and infinities.
pub fn floats<'a>(array: &'a dyn Array) -> Option<NullableEncoder<'a>> {
    let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
        DataType::Float64 => Box::new(Floats64(array.as_primitive::<Float64Type>().values())),
        DataType::Float32 => Box::new(Floats32(array.as_primitive::<Float32Type>().values())),
        _ => return None,
    };
    Some(NullableEncoder::new(encoder, array.nulls().cloned()))
}

/// Each value of a column as PostgreSQL's `to_json` writes it; NULL where it is NULL.
///
/// # Errors
/// A type that has no JSON text (a union, a map whose keys are no strings).
pub(crate) fn texts(field: &FieldRef, values: &ArrayRef) -> Result<Vec<Option<String>>, ArrowError> {
    let options = EncoderOptions::default()
        .with_explicit_nulls(true)
        .with_timestamp_format("%Y-%m-%dT%H:%M:%S%.f".to_owned())
        .with_timestamp_tz_format("%Y-%m-%dT%H:%M:%S%.f%:z".to_owned())
        .with_encoder_factory(Arc::new(Floats));
    let mut encoder = make_encoder(field, values, &options)?;
    let mut out = Vec::new();
    let mut texts = Vec::with_capacity(values.len());
    for row in 0..values.len() {
        if values.is_null(row) || encoder.is_null(row) {
            texts.push(None);
            continue;
        }
        out.clear();
        encoder.encode(row, &mut out);
        texts.push(Some(String::from_utf8_lossy(&out).into_owned()));
    }
    Ok(texts)
}

#[derive(Debug)]
struct Floats;

impl EncoderFactory for Floats {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        Ok(floats(array))
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
