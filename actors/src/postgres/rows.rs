//! Rows as PostgreSQL's data rows, in text or binary format by column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use bytes::{BufMut, BytesMut};
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldFormat, FieldInfo};
use pgwire::error::PgWireResult;
use pgwire::messages::data::DataRow;

use super::error::of_arrow;
use crate::encode::text::{Style, TextColumn, list_items, plain};

/// Days and microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The type a column has on the wire. What PostgreSQL has no type for goes as JSON.
pub(super) fn pg_type(data_type: &DataType) -> Type {
    match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        DataType::Int64 | DataType::UInt32 => Type::INT8,
        DataType::UInt64
        | DataType::Decimal32(_, _)
        | DataType::Decimal64(_, _)
        | DataType::Decimal128(_, _)
        | DataType::Decimal256(_, _) => Type::NUMERIC,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Type::TEXT,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        DataType::Dictionary(_, value) => pg_type(value),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => match pg_type(item.data_type()) {
            Type::BOOL => Type::BOOL_ARRAY,
            Type::INT2 => Type::INT2_ARRAY,
            Type::INT4 => Type::INT4_ARRAY,
            Type::INT8 => Type::INT8_ARRAY,
            Type::NUMERIC => Type::NUMERIC_ARRAY,
            Type::FLOAT4 => Type::FLOAT4_ARRAY,
            Type::FLOAT8 => Type::FLOAT8_ARRAY,
            Type::TEXT => Type::TEXT_ARRAY,
            Type::BYTEA => Type::BYTEA_ARRAY,
            Type::DATE => Type::DATE_ARRAY,
            Type::TIME => Type::TIME_ARRAY,
            Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
            Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
            Type::INTERVAL => Type::INTERVAL_ARRAY,
            _ => Type::JSON,
        },
        _ => Type::JSON,
    }
}

/// A type's fixed size in bytes; -1 if it varies.
pub(super) fn type_size(pg_type: &Type) -> i16 {
    match *pg_type {
        Type::BOOL => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME => 8,
        Type::INTERVAL => 16,
        _ => -1,
    }
}

/// `numeric(p,s)` packed as PostgreSQL packs it; -1 for types without such a modifier.
pub(super) fn type_modifier(data_type: &DataType) -> i32 {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *scale >= 0 =>
        {
            ((i32::from(*precision) << 16) | i32::from(*scale)) + 4
        }
        _ => -1,
    }
}

/// The format of a column; text where the client named too few.
fn format_of(format: &Format, column: usize) -> FieldFormat {
    match format {
        Format::UnifiedText => FieldFormat::Text,
        Format::UnifiedBinary => FieldFormat::Binary,
        Format::Individual(codes) => codes.get(column).map_or(FieldFormat::Text, |code| FieldFormat::from(*code)),
    }
}

/// The columns of an answer as the wire describes them.
pub(super) fn fields(schema: &Schema, format: &Format) -> Vec<FieldInfo> {
    let describe = |(column, field): (usize, &FieldRef)| {
        let pg_type = pg_type(field.data_type());
        let size = type_size(&pg_type);
        FieldInfo::new(field.name().clone(), None, None, pg_type, format_of(format, column))
            .with_type_size(size)
            .with_type_modifier(type_modifier(field.data_type()))
    };
    schema.fields().iter().enumerate().map(describe).collect()
}

/// Encodes batches of one schema.
pub(super) struct RowWriter {
    formats: Vec<FieldFormat>,
}

impl RowWriter {
    pub(super) fn new(schema: &Schema, format: &Format) -> Self {
        Self { formats: (0..schema.fields().len()).map(|column| format_of(format, column)).collect() }
    }

    /// A batch's rows.
    pub(super) fn encode(&self, batch: &RecordBatch) -> PgWireResult<Vec<DataRow>> {
        let arrays = batch.columns().iter().map(wire_array).collect::<Result<Vec<_>, _>>().map_err(|error| of_arrow(&error))?;
        let columns = arrays
            .iter()
            .zip(&self.formats)
            .map(|(array, format)| Column::new(array, *format))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| of_arrow(&error))?;
        let mut text = Vec::new();
        let mut rows = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let mut data = BytesMut::with_capacity(columns.len() * 12);
            for column in &columns {
                column.write(row, &mut text, &mut data);
            }
            rows.push(DataRow::new(data, i16::try_from(columns.len()).unwrap_or(i16::MAX)));
        }
        Ok(rows)
    }
}

/// A column in the few shapes that are written: no dictionaries, intervals of one unit.
fn wire_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => Ok(Arc::clone(array)),
        DataType::Interval(_) | DataType::Duration(_) => cast(array, &DataType::Interval(IntervalUnit::MonthDayNano)),
        _ => plain(array),
    }
}

struct Column<'a> {
    array: &'a ArrayRef,
    nulls: Option<arrow::buffer::NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Text(TextColumn<'a>),
    Binary(Type),
}

impl<'a> Column<'a> {
    fn new(array: &'a ArrayRef, format: FieldFormat) -> Result<Self, ArrowError> {
        let pg_type = pg_type(array.data_type());
        let style = if pg_type == Type::JSON { Style::Iso } else { Style::Postgres };
        let as_text = format == FieldFormat::Text || matches!(pg_type, Type::JSON | Type::TEXT);
        let values = if as_text { Values::Text(TextColumn::new(array, style)?) } else { Values::Binary(pg_type) };
        Ok(Self { array, nulls: array.logical_nulls(), values })
    }

    fn write(&self, row: usize, text: &mut Vec<u8>, out: &mut BytesMut) {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            out.put_i32(-1);
            return;
        }
        let at = out.len();
        out.put_i32(0);
        match &self.values {
            Values::Text(column) => {
                text.clear();
                column.write(row, text);
                out.put_slice(text);
            }
            Values::Binary(pg_type) => write_binary(self.array, row, pg_type, out),
        }
        let length = out.len() - at - 4;
        out[at..at + 4].copy_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
    }
}

/// Appends the binary form of a value that is not NULL.
fn write_binary(array: &ArrayRef, row: usize, pg_type: &Type, out: &mut BytesMut) {
    match array.data_type() {
        DataType::Boolean => out.put_u8(u8::from(array.as_boolean().value(row))),
        DataType::Int8 => out.put_i16(i16::from(array.as_primitive::<Int8Type>().value(row))),
        DataType::UInt8 => out.put_i16(i16::from(array.as_primitive::<UInt8Type>().value(row))),
        DataType::Int16 => out.put_i16(array.as_primitive::<Int16Type>().value(row)),
        DataType::UInt16 => out.put_i32(i32::from(array.as_primitive::<UInt16Type>().value(row))),
        DataType::Int32 => out.put_i32(array.as_primitive::<Int32Type>().value(row)),
        DataType::UInt32 => out.put_i64(i64::from(array.as_primitive::<UInt32Type>().value(row))),
        DataType::Int64 => out.put_i64(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => out.put_f32(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => out.put_f64(array.as_primitive::<Float64Type>().value(row)),
        DataType::Date32 => out.put_i32(array.as_primitive::<Date32Type>().value(row) - EPOCH_DAYS),
        DataType::Date64 => {
            let days = array.as_primitive::<Date64Type>().value(row).div_euclid(86_400_000);
            out.put_i32(i32::try_from(days).unwrap_or(i32::MAX) - EPOCH_DAYS);
        }
        DataType::Time32(TimeUnit::Second) => {
            out.put_i64(i64::from(array.as_primitive::<Time32SecondType>().value(row)) * 1_000_000)
        }
        DataType::Time32(_) => out.put_i64(i64::from(array.as_primitive::<Time32MillisecondType>().value(row)) * 1_000),
        DataType::Time64(TimeUnit::Microsecond) => out.put_i64(array.as_primitive::<Time64MicrosecondType>().value(row)),
        DataType::Time64(_) => out.put_i64(array.as_primitive::<Time64NanosecondType>().value(row) / 1_000),
        DataType::Timestamp(unit, _) => {
            let value = crate::encode::text::timestamp_values(array.as_ref(), *unit)[row];
            let micros = match unit {
                TimeUnit::Second => value.saturating_mul(1_000_000),
                TimeUnit::Millisecond => value.saturating_mul(1_000),
                TimeUnit::Microsecond => value,
                TimeUnit::Nanosecond => value.div_euclid(1_000),
            };
            out.put_i64(micros.saturating_sub(EPOCH_MICROS));
        }
        DataType::Interval(_) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            out.put_i64(value.nanoseconds / 1_000);
            out.put_i32(value.days);
            out.put_i32(value.months);
        }
        DataType::Binary => out.put_slice(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => out.put_slice(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => out.put_slice(array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => out.put_slice(array.as_fixed_size_binary().value(row)),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) => write_array(array, row, out),
        _ if *pg_type == Type::NUMERIC => {
            let mut digits = Vec::new();
            if let Ok(column) = TextColumn::new(array, Style::Postgres) {
                column.write(row, &mut digits);
            }
            write_numeric(&digits, out);
        }
        // Every other type is sent as text (see `Column::new`).
        _ => {}
    }
}

fn write_array(array: &ArrayRef, row: usize, out: &mut BytesMut) {
    let Some(items) = list_items(array.as_ref(), row) else { return };
    let Ok(items) = wire_array(&items) else { return };
    let item_type = pg_type(items.data_type());
    let Ok(column) = Column::new(&items, FieldFormat::Binary) else { return };
    out.put_i32(i32::from(!items.is_empty()));
    out.put_i32(i32::from(items.null_count() > 0));
    out.put_u32(item_type.oid());
    if items.is_empty() {
        return;
    }
    out.put_i32(i32::try_from(items.len()).unwrap_or(i32::MAX));
    out.put_i32(1);
    let mut text = Vec::new();
    for item in 0..items.len() {
        column.write(item, &mut text, out);
    }
}

/// PostgreSQL's numeric from decimal digits (`-12.50`): groups of four digits around the point.
fn write_numeric(text: &[u8], out: &mut BytesMut) {
    let (negative, digits) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let (whole, fraction) = (&digits[..point], digits.get(point + 1..).unwrap_or_default());
    let mut groups: Vec<i16> = Vec::new();
    let lead = (4 - whole.len() % 4) % 4;
    let padded = std::iter::repeat_n(b'0', lead).chain(whole.iter().copied());
    let padded = padded.chain(fraction.iter().copied()).chain(std::iter::repeat_n(b'0', (4 - fraction.len() % 4) % 4));
    let padded: Vec<u8> = padded.collect();
    for group in padded.chunks(4) {
        groups.push(group.iter().fold(0, |value, digit| value * 10 + i16::from(digit - b'0')));
    }
    let mut weight = i16::try_from((whole.len() + lead) / 4).unwrap_or(i16::MAX) - 1;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= i16::try_from(leading).unwrap_or(0);
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    out.put_i16(i16::try_from(groups.len()).unwrap_or(i16::MAX));
    out.put_i16(weight);
    out.put_u16(if negative && !groups.is_empty() { 0x4000 } else { 0 });
    out.put_i16(i16::try_from(fraction.len()).unwrap_or(i16::MAX));
    for group in groups {
        out.put_i16(group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(text: &str) -> Vec<i16> {
        let mut out = BytesMut::new();
        write_numeric(text.as_bytes(), &mut out);
        out.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn numerics_are_groups_of_four_digits() {
        assert_eq!(numeric("12345.678"), [3, 1, 0, 3, 1, 2345, 6780]);
        assert_eq!(numeric("-0.05"), [1, -1, 0x4000, 2, 500]);
        assert_eq!(numeric("0.00"), [0, 0, 0, 2]);
        assert_eq!(numeric("10000"), [1, 1, 0, 0, 1]);
        assert_eq!(numeric("0.00001"), [1, -2, 0, 5, 1000]);
    }
}
