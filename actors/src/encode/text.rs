//! A column as text, value by value: what CSV, COPY and PostgreSQL's text format share. The column is downcast once per batch.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, FixedSizeBinaryArray, LargeBinaryArray,
    LargeStringArray, StringArray, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::json;
use livelake_queries::text::float::{float_name, postgres_float};
use livelake_queries::text::time::{write_date, write_time, write_timestamp};

/// Whose conventions the text follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// RFC 3339 and JSON: `true`, `2021-01-01T00:00:00Z`, nested values as JSON.
    Iso,
    /// PostgreSQL's text output: `t`, `2021-01-01 00:00:00+00`, `\x…`, `{1,2}`; structs and maps as JSON.
    Postgres,
}

/// One column, ready to be written.
pub struct TextColumn<'a> {
    values: Values<'a>,
    style: Style,
}

impl std::fmt::Debug for TextColumn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextColumn").field("style", &self.style).finish_non_exhaustive()
    }
}

enum Values<'a> {
    Null,
    Boolean(&'a BooleanArray),
    Int8(&'a [i8]),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    UInt8(&'a [u8]),
    UInt16(&'a [u16]),
    UInt32(&'a [u32]),
    UInt64(&'a [u64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Utf8(&'a StringArray),
    LargeUtf8(&'a LargeStringArray),
    Utf8View(&'a StringViewArray),
    Binary(&'a BinaryArray),
    LargeBinary(&'a LargeBinaryArray),
    BinaryView(&'a BinaryViewArray),
    FixedBinary(&'a FixedSizeBinaryArray),
    Date32(&'a [i32]),
    Date64(&'a [i64]),
    /// Values and nanoseconds per unit.
    Time32(&'a [i32], i64),
    Time64(&'a [i64], i64),
    Timestamp(&'a [i64], TimeUnit, bool),
    /// Intervals as PostgreSQL's `intervalstyle = postgres` writes them.
    Interval(&'a [IntervalMonthDayNano]),
    /// An array literal of PostgreSQL, each list's items being a column of their own.
    List(&'a dyn Array),
    /// Anything nested, as JSON.
    Json(&'a dyn Array),
    /// Decimals, intervals, durations: arrow's own text.
    Formatted(ArrayFormatter<'a>),
}

impl<'a> TextColumn<'a> {
    /// Prepares a column.
    ///
    /// # Errors
    /// A type that has no text (a union).
    pub fn new(array: &'a ArrayRef, style: Style) -> Result<Self, ArrowError> {
        Ok(Self { values: values(array.as_ref(), style)?, style })
    }

    /// Appends the value of `row`, which must not be NULL.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        let postgres = self.style == Style::Postgres;
        match &self.values {
            Values::Null => {}
            Values::Boolean(array) => out.extend_from_slice(match (array.value(row), postgres) {
                (true, true) => b"t".as_slice(),
                (false, true) => b"f",
                (true, false) => b"true",
                (false, false) => b"false",
            }),
            Values::Int8(values) => integer(values[row], out),
            Values::Int16(values) => integer(values[row], out),
            Values::Int32(values) => integer(values[row], out),
            Values::Int64(values) => integer(values[row], out),
            Values::UInt8(values) => integer(values[row], out),
            Values::UInt16(values) => integer(values[row], out),
            Values::UInt32(values) => integer(values[row], out),
            Values::UInt64(values) => integer(values[row], out),
            Values::Float32(values) => {
                let value = values[row];
                match (value.is_finite(), postgres) {
                    (false, _) => out.extend_from_slice(float_name(f64::from(value)).as_bytes()),
                    (true, true) => postgres_float(&format!("{value:e}"), 6, out),
                    // Writing a number into memory cannot fail.
                    (true, false) => drop(serde_json::to_writer(&mut *out, &value)),
                }
            }
            Values::Float64(values) => {
                let value = values[row];
                match (value.is_finite(), postgres) {
                    (false, _) => out.extend_from_slice(float_name(value).as_bytes()),
                    (true, true) => postgres_float(&format!("{value:e}"), 15, out),
                    (true, false) => drop(serde_json::to_writer(&mut *out, &value)),
                }
            }
            Values::Utf8(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::LargeUtf8(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::Utf8View(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::Binary(array) => hex(array.value(row), postgres, out),
            Values::LargeBinary(array) => hex(array.value(row), postgres, out),
            Values::BinaryView(array) => hex(array.value(row), postgres, out),
            Values::FixedBinary(array) => hex(array.value(row), postgres, out),
            Values::Date32(values) => write_date(i64::from(values[row]), out),
            Values::Date64(values) => write_date(values[row].div_euclid(86_400_000), out),
            Values::Time32(values, nanos) => write_time(i64::from(values[row]) * nanos, out),
            Values::Time64(values, nanos) => write_time(values[row] * nanos, out),
            Values::Timestamp(values, unit, zoned) => {
                write_timestamp(values[row], *unit, if postgres { b' ' } else { b'T' }, out);
                if *zoned {
                    out.extend_from_slice(if postgres { b"+00" } else { b"Z" });
                }
            }
            Values::Interval(values) => interval(values[row], out),
            Values::List(array) => array_literal(*array, row, out),
            Values::Json(array) => nested_json(*array, row, out),
            // Writing into memory cannot fail.
            Values::Formatted(formatter) => drop(write!(out, "{}", formatter.value(row))),
        }
    }
}

/// The raw values of a timestamp column, whatever its unit.
pub fn timestamp_values(array: &dyn Array, unit: TimeUnit) -> &[i64] {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
    }
}

/// Dictionaries and half floats as plain columns of a type that is written directly; other columns as they are.
pub fn plain(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Dictionary(_, value) => cast(array, value),
        DataType::RunEndEncoded(_, value) => cast(array, value.data_type()),
        DataType::Float16 => cast(array, &DataType::Float32),
        _ => Ok(Arc::clone(array)),
    }
}

fn values(array: &dyn Array, style: Style) -> Result<Values<'_>, ArrowError> {
    Ok(match array.data_type() {
        DataType::Null => Values::Null,
        DataType::Boolean => Values::Boolean(array.as_boolean()),
        DataType::Int8 => Values::Int8(array.as_primitive::<Int8Type>().values()),
        DataType::Int16 => Values::Int16(array.as_primitive::<Int16Type>().values()),
        DataType::Int32 => Values::Int32(array.as_primitive::<Int32Type>().values()),
        DataType::Int64 => Values::Int64(array.as_primitive::<Int64Type>().values()),
        DataType::UInt8 => Values::UInt8(array.as_primitive::<UInt8Type>().values()),
        DataType::UInt16 => Values::UInt16(array.as_primitive::<UInt16Type>().values()),
        DataType::UInt32 => Values::UInt32(array.as_primitive::<UInt32Type>().values()),
        DataType::UInt64 => Values::UInt64(array.as_primitive::<UInt64Type>().values()),
        DataType::Float32 => Values::Float32(array.as_primitive::<Float32Type>().values()),
        DataType::Float64 => Values::Float64(array.as_primitive::<Float64Type>().values()),
        DataType::Utf8 => Values::Utf8(array.as_string()),
        DataType::LargeUtf8 => Values::LargeUtf8(array.as_string()),
        DataType::Utf8View => Values::Utf8View(array.as_string_view()),
        DataType::Binary => Values::Binary(array.as_binary()),
        DataType::LargeBinary => Values::LargeBinary(array.as_binary()),
        DataType::BinaryView => Values::BinaryView(array.as_binary_view()),
        DataType::FixedSizeBinary(_) => Values::FixedBinary(array.as_fixed_size_binary()),
        DataType::Date32 => Values::Date32(array.as_primitive::<Date32Type>().values()),
        DataType::Date64 => Values::Date64(array.as_primitive::<Date64Type>().values()),
        DataType::Time32(TimeUnit::Second) => Values::Time32(array.as_primitive::<Time32SecondType>().values(), 1_000_000_000),
        DataType::Time32(_) => Values::Time32(array.as_primitive::<Time32MillisecondType>().values(), 1_000_000),
        DataType::Time64(TimeUnit::Microsecond) => Values::Time64(array.as_primitive::<Time64MicrosecondType>().values(), 1_000),
        DataType::Time64(_) => Values::Time64(array.as_primitive::<Time64NanosecondType>().values(), 1),
        DataType::Timestamp(unit, zone) => Values::Timestamp(timestamp_values(array, *unit), *unit, zone.is_some()),
        DataType::Interval(IntervalUnit::MonthDayNano) if style == Style::Postgres => {
            Values::Interval(array.as_primitive::<IntervalMonthDayNanoType>().values())
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) if style == Style::Postgres => {
            Values::List(array)
        }
        DataType::Union(_, _) => return Err(ArrowError::NotYetImplemented("a union column has no text".to_owned())),
        nested if nested.is_nested() => Values::Json(array),
        _ => Values::Formatted(ArrayFormatter::try_new(array, text_options())?),
    })
}

fn text_options() -> &'static FormatOptions<'static> {
    static OPTIONS: FormatOptions<'static> = FormatOptions::new().with_display_error(true);
    &OPTIONS
}

fn integer(value: impl serde::Serialize, out: &mut Vec<u8>) {
    // An integer's JSON is its digits, and writing into memory cannot fail.
    let _ = serde_json::to_writer(out, &value);
}

fn hex(value: &[u8], postgres: bool, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if postgres {
        out.extend_from_slice(b"\\x");
    }
    for byte in value {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// `1 year 2 mons -3 days 04:05:06.7`; `00:00:00` for none.
fn interval(value: IntervalMonthDayNano, out: &mut Vec<u8>) {
    let start = out.len();
    for (count, one) in [(value.months / 12, "year"), (value.months % 12, "mon"), (value.days, "day")] {
        if count != 0 {
            let space = if out.len() > start { " " } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            // Writing into memory cannot fail.
            let _ = write!(out, "{space}{count} {one}{plural}");
        }
    }
    if value.nanoseconds != 0 || out.len() == start {
        if out.len() > start {
            out.push(b' ');
        }
        if value.nanoseconds < 0 {
            out.push(b'-');
        }
        // Microseconds are as fine as PostgreSQL's intervals go.
        let micros = value.nanoseconds.unsigned_abs() / 1_000;
        write_time((micros * 1_000) as i64, out);
    }
}

/// The items of one list.
pub fn list_items(array: &dyn Array, row: usize) -> Option<ArrayRef> {
    match array.data_type() {
        DataType::List(_) => Some(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(_, _) => Some(array.as_fixed_size_list().value(row)),
        _ => None,
    }
}

fn array_literal(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    let Some(items) = list_items(array, row) else { return };
    let Ok(items) = plain(&items) else { return };
    let Ok(column) = TextColumn::new(&items, Style::Postgres) else { return };
    let nested = matches!(column.values, Values::List(_));
    let nulls = items.logical_nulls();
    let mut item = Vec::new();
    out.push(b'{');
    for index in 0..items.len() {
        if index > 0 {
            out.push(b',');
        }
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(index)) {
            out.extend_from_slice(b"NULL");
            continue;
        }
        item.clear();
        column.write(index, &mut item);
        let quoted = !nested
            && (item.is_empty()
                || item.eq_ignore_ascii_case(b"null")
                || item.iter().any(|byte| matches!(byte, b'{' | b'}' | b',' | b'"' | b'\\') || byte.is_ascii_whitespace()));
        if !quoted {
            out.extend_from_slice(&item);
            continue;
        }
        out.push(b'"');
        for byte in &item {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
    }
    out.push(b'}');
}

fn nested_json(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    let options = json::options();
    let field = Arc::new(Field::new("value", array.data_type().clone(), true));
    if let Ok(mut encoder) = arrow::json::writer::make_encoder(&field, array, &options) {
        encoder.encode(row, out);
    }
}

/// The SQL name of a type, as PostgreSQL spells it.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".to_owned(),
        DataType::Int32 | DataType::UInt16 => "integer".to_owned(),
        DataType::Int64 | DataType::UInt32 => "bigint".to_owned(),
        DataType::UInt64 => "numeric(20,0)".to_owned(),
        DataType::Float16 | DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytea".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone".to_owned(),
        DataType::Timestamp(_, None) => "timestamp without time zone".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".to_owned(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("{}[]", type_name(item.data_type()))
        }
        DataType::Dictionary(_, value) => type_name(value),
        DataType::Struct(_) | DataType::Map(_, _) => "json".to_owned(),
        other => other.to_string(),
    }
}
