//! One wanted column: a growing buffer that values are written into and that can be cut back when its row turns out bad.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::array::{BooleanBufferBuilder, NullBufferBuilder};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use arrow::error::ArrowError;

use super::spec::SpecError;

/// What a column's buffer holds. Types that have no buffer of their own are made of a wider one when the batch is finished.
#[derive(Debug)]
pub(crate) enum Values {
    Bool(BooleanBufferBuilder),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>),
    /// Days since 1970.
    Date(Vec<i32>),
    /// Microseconds since midnight.
    Time(Vec<i64>),
    /// Microseconds since 1970.
    Stamp(Vec<i64>),
    Text(Bytes),
    Binary(Bytes),
}

/// Values of changing length, one after the other.
#[derive(Debug)]
pub(crate) struct Bytes {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl Bytes {
    fn with_capacity(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Bytes { offsets, bytes: Vec::with_capacity(bytes) }
    }

    /// Appends a value; `false` if the batch would hold more than 2 GiB in this column.
    #[inline]
    #[must_use]
    pub(crate) fn push(&mut self, value: &[u8]) -> bool {
        let Ok(end) = i32::try_from(self.bytes.len() + value.len()) else { return false };
        self.bytes.extend_from_slice(value);
        self.offsets.push(end);
        true
    }

    fn get(&self, row: usize) -> &[u8] {
        let at = |row: usize| usize::try_from(self.offsets[row]).unwrap_or(0);
        &self.bytes[at(row)..at(row + 1)]
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        // There is always the first offset, 0.
        self.bytes.truncate(self.offsets.last().map_or(0, |end| usize::try_from(*end).unwrap_or(0)));
    }
}

/// A wanted column while rows are gathered.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) field: FieldRef,
    pub(crate) values: Values,
    nulls: NullBufferBuilder,
}

impl Column {
    pub(crate) fn new(field: &FieldRef, rows: usize) -> Result<Self, SpecError> {
        let values = match field.data_type() {
            DataType::Boolean => Values::Bool(BooleanBufferBuilder::new(rows)),
            DataType::Int16 => Values::Int16(Vec::with_capacity(rows)),
            DataType::Int32 => Values::Int32(Vec::with_capacity(rows)),
            DataType::Int8 | DataType::Int64 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Values::Int64(Vec::with_capacity(rows))
            }
            DataType::Float32 => Values::Float32(Vec::with_capacity(rows)),
            DataType::Float64 => Values::Float64(Vec::with_capacity(rows)),
            DataType::Decimal128(_, _) => Values::Decimal(Vec::with_capacity(rows)),
            DataType::Date32 => Values::Date(Vec::with_capacity(rows)),
            DataType::Time64(_) | DataType::Time32(_) => Values::Time(Vec::with_capacity(rows)),
            DataType::Timestamp(_, _) => Values::Stamp(Vec::with_capacity(rows)),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Values::Text(Bytes::with_capacity(rows, rows * 8)),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                Values::Binary(Bytes::with_capacity(rows, rows * 8))
            }
            other => {
                return Err(SpecError::new(format!(
                    "column {} has type {other}, which no source can fill: declare it TEXT and cast it in a view",
                    field.name()
                )));
            }
        };
        Ok(Column { field: Arc::clone(field), values, nulls: NullBufferBuilder::new(rows) })
    }

    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Says that a value has been written into `values`.
    #[inline]
    pub(crate) fn wrote(&mut self) {
        self.nulls.append_non_null();
    }

    /// Appends NULL, whether or not the column may hold it: that is the caller's to know.
    pub(crate) fn push_null(&mut self) {
        self.push_default();
        self.nulls.truncate(self.nulls.len() - 1);
        self.nulls.append_null();
    }

    /// Appends what stands in a row that only its key counts of: NULL, or nothing in particular where NULL is not allowed.
    pub(crate) fn push_filler(&mut self) {
        if self.field.is_nullable() { self.push_null() } else { self.push_default() }
    }

    fn push_default(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.append(false),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values) | Values::Time(values) | Values::Stamp(values) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal(values) => values.push(0),
            // An empty value adds no bytes, so it always fits.
            Values::Text(values) | Values::Binary(values) => _ = values.push(b""),
        }
        self.nulls.append_non_null();
    }

    /// Appends an integer to a column of metadata; others take it as their default.
    pub(crate) fn push_integer(&mut self, value: i64) {
        match &mut self.values {
            Values::Int64(values) | Values::Stamp(values) => values.push(value),
            Values::Int32(values) => values.push(i32::try_from(value).unwrap_or(i32::MAX)),
            _ => return self.push_default(),
        }
        self.wrote();
    }

    /// Appends a text to a column of metadata; others take NULL.
    pub(crate) fn push_text(&mut self, value: &str) {
        let pushed = match &mut self.values {
            Values::Text(values) => values.push(value.as_bytes()),
            _ => false,
        };
        if pushed {
            self.wrote();
        } else {
            self.push_null();
        }
    }

    /// Takes back all rows from `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Bool(values) => values.truncate(rows),
            Values::Int16(values) => values.truncate(rows),
            Values::Int32(values) | Values::Date(values) => values.truncate(rows),
            Values::Int64(values) | Values::Time(values) | Values::Stamp(values) => values.truncate(rows),
            Values::Float32(values) => values.truncate(rows),
            Values::Float64(values) => values.truncate(rows),
            Values::Decimal(values) => values.truncate(rows),
            Values::Text(values) | Values::Binary(values) => values.truncate(rows),
        }
        self.nulls.truncate(rows);
    }

    /// Whether two rows hold the same value (NULL equals NULL).
    pub(crate) fn same(&self, one: usize, other: usize) -> bool {
        let null = |row: usize| !self.nulls.is_valid(row);
        if null(one) || null(other) {
            return null(one) && null(other);
        }
        match &self.values {
            Values::Bool(values) => values.get_bit(one) == values.get_bit(other),
            Values::Int16(values) => values[one] == values[other],
            Values::Int32(values) | Values::Date(values) => values[one] == values[other],
            Values::Int64(values) | Values::Time(values) | Values::Stamp(values) => values[one] == values[other],
            Values::Float32(values) => values[one].to_bits() == values[other].to_bits(),
            Values::Float64(values) => values[one].to_bits() == values[other].to_bits(),
            Values::Decimal(values) => values[one] == values[other],
            Values::Text(values) | Values::Binary(values) => values.get(one) == values.get(other),
        }
    }

    /// Hands out the column and starts anew.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = self.len();
        let nulls = self.nulls.finish();
        let array: ArrayRef = match &mut self.values {
            Values::Bool(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int16(values) => Arc::new(Int16Array::new(taken(values), nulls)),
            Values::Int32(values) => Arc::new(Int32Array::new(taken(values), nulls)),
            Values::Int64(values) => Arc::new(Int64Array::new(taken(values), nulls)),
            Values::Float32(values) => Arc::new(Float32Array::new(taken(values), nulls)),
            Values::Float64(values) => Arc::new(Float64Array::new(taken(values), nulls)),
            Values::Decimal(values) => {
                Arc::new(Decimal128Array::new(taken(values), nulls).with_data_type(self.field.data_type().clone()))
            }
            Values::Date(values) => Arc::new(Date32Array::new(taken(values), nulls)),
            Values::Time(values) => Arc::new(Time64MicrosecondArray::new(taken(values), nulls)),
            Values::Stamp(values) => {
                let zone = match self.field.data_type() {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                let array = TimestampMicrosecondArray::new(taken(values), nulls).with_timezone_opt(zone);
                if matches!(self.field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
                    return Ok(Arc::new(array));
                }
                Arc::new(array)
            }
            Values::Text(values) => {
                let done = std::mem::replace(values, Bytes::with_capacity(rows, values.bytes.len()));
                let offsets = OffsetBuffer::new(done.offsets.into());
                Arc::new(StringArray::try_new(offsets, Buffer::from_vec(done.bytes), nulls)?)
            }
            Values::Binary(values) => {
                let done = std::mem::replace(values, Bytes::with_capacity(rows, values.bytes.len()));
                let offsets = OffsetBuffer::new(done.offsets.into());
                Arc::new(BinaryArray::try_new(offsets, Buffer::from_vec(done.bytes), nulls)?)
            }
        };
        if array.data_type() == self.field.data_type() {
            Ok(array)
        } else {
            cast_with_options(&array, self.field.data_type(), &CastOptions { safe: false, ..CastOptions::default() })
        }
    }
}

/// The buffer's values, leaving an empty one of the same capacity behind.
fn taken<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    let rows = values.len();
    ScalarBuffer::from(std::mem::replace(values, Vec::with_capacity(rows)))
}
