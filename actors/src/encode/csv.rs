//! Rows as CSV: fields are quoted only where they must be; NULL is an empty field, the empty string `""`.

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::text::{Style, TextColumn, plain};

/// Appends the header line.
pub fn write_header(schema: &SchemaRef, out: &mut Vec<u8>) {
    for (index, field) in schema.fields().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_field(field.name().as_bytes(), b',', out);
    }
    out.push(b'\n');
}

/// Appends a line per row.
///
/// # Errors
/// A column of a type that has no text.
pub fn write_rows(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let arrays = batch.columns().iter().map(plain).collect::<Result<Vec<_>, _>>()?;
    let columns = arrays.iter().map(|column| TextColumn::new(column, Style::Iso)).collect::<Result<Vec<_>, _>>()?;
    let nulls: Vec<_> = arrays.iter().map(|column| column.logical_nulls()).collect();
    let mut value = Vec::new();
    for row in 0..batch.num_rows() {
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if nulls[index].as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            value.clear();
            column.write(row, &mut value);
            write_field(&value, b',', out);
        }
        out.push(b'\n');
    }
    Ok(())
}

/// Appends one field, quoted if it is empty (to tell it from NULL) or holds a delimiter, a quote or a line end.
pub fn write_field(value: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    let plain =
        !value.is_empty() && memchr::memchr3(b'"', b'\n', b'\r', value).is_none() && memchr::memchr(delimiter, value).is_none();
    if plain {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for byte in value {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
