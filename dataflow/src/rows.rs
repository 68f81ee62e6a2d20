//! Rows as bytes: the one encoding behind grouping, join keys, ordering and equality.
//!
//! Columns are encoded with `arrow::row`: comparing two encodings byte by byte is comparing the rows. What SQL calls equal must
//! encode equally, so floats are normalised first: -0.0 becomes 0.0 and every NaN the same NaN (which is greater than all
//! other numbers, as in PostgreSQL). NULL encodes as a value of its own.
//!
//! [`Rows`] keeps many encoded rows in one flat buffer. Rows of fixed width (numbers, dates, stamps) need no offsets at all.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use differential_dataflow::trace::implementations::OffsetList;
use serde::{Deserialize, Serialize};

/// Many byte rows in one buffer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rows {
    bytes: Vec<u8>,
    len: usize,
    shape: Shape,
}

/// Where a row begins and ends in the buffer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Shape {
    /// No row yet.
    #[default]
    Empty,
    /// All rows have this many bytes.
    Fixed(usize),
    /// The end of each row. 32 bits an entry until the buffer passes 4 GiB.
    Ends(OffsetList),
}

impl Rows {
    /// No rows, with room for so many bytes of them.
    pub fn with_capacity(bytes: usize) -> Rows {
        Rows { bytes: Vec::with_capacity(bytes), len: 0, shape: Shape::Empty }
    }

    /// `len` rows without bytes, for sets that have keys and no values.
    pub fn empty_rows(len: usize) -> Rows {
        Rows { bytes: Vec::new(), len, shape: if len == 0 { Shape::Empty } else { Shape::Fixed(0) } }
    }

    /// Arrow's rows, whose bytes are taken over as they are.
    fn of_arrow(rows: arrow::row::Rows) -> Result<Rows, ArrowError> {
        let len = rows.num_rows();
        let mut lengths = rows.lengths();
        let Some(width) = lengths.next() else { return Ok(Rows::default()) };
        let shape = if lengths.all(|length| length == width) {
            Shape::Fixed(width)
        } else {
            let (mut ends, mut end) = (OffsetList::with_capacity(len), 0);
            for length in rows.lengths() {
                end += length;
                ends.push(end);
            }
            Shape::Ends(ends)
        };
        if rows.lengths().sum::<usize>() > i32::MAX as usize {
            let mut copied = Rows::default();
            rows.iter().for_each(|row| copied.push(row.data()));
            return Ok(copied);
        }
        let (_, bytes, _) = rows.try_into_binary()?.into_parts();
        let bytes = bytes.into_vec().unwrap_or_else(|shared| shared.to_vec());
        Ok(Rows { bytes, len, shape })
    }

    /// How many rows.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all rows together.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The width of all rows, if they have one.
    #[inline]
    pub fn fixed_width(&self) -> Option<usize> {
        match &self.shape {
            Shape::Fixed(width) => Some(*width),
            Shape::Empty => Some(0),
            Shape::Ends(_) => None,
        }
    }

    /// Makes room for so many more bytes at once, so that growing never copies.
    pub fn reserve_exact(&mut self, bytes: usize) {
        self.bytes.reserve_exact(bytes);
    }

    /// Bytes that the buffer and offsets take.
    pub fn heap_size(&self) -> usize {
        self.bytes.capacity()
            + match &self.shape {
                Shape::Ends(ends) => ends.len() * 4,
                _ => 0,
            }
    }

    /// Appends a row.
    #[inline]
    pub fn push(&mut self, row: &[u8]) {
        match &mut self.shape {
            Shape::Fixed(width) if *width == row.len() => {}
            Shape::Ends(ends) => ends.push(self.bytes.len() + row.len()),
            Shape::Empty => self.shape = Shape::Fixed(row.len()),
            Shape::Fixed(width) => {
                let mut ends = OffsetList::with_capacity(self.len + 1);
                for index in 1..=self.len {
                    ends.push(index * *width);
                }
                ends.push(self.bytes.len() + row.len());
                self.shape = Shape::Ends(ends);
            }
        }
        self.bytes.extend_from_slice(row);
        self.len += 1;
    }

    /// Appends a range of another's rows.
    ///
    /// # Panics
    /// Beyond the other's end.
    #[inline]
    pub fn extend(&mut self, other: &Rows, range: std::ops::Range<usize>) {
        match (&self.shape, &other.shape) {
            (Shape::Empty | Shape::Fixed(_), Shape::Fixed(theirs)) if self.is_empty() || self.shape == other.shape => {
                self.shape = Shape::Fixed(*theirs);
                self.bytes.extend_from_slice(&other.bytes[range.start * theirs..range.end * theirs]);
                self.len += range.len();
            }
            (Shape::Ends(_), Shape::Ends(theirs)) if !range.is_empty() => {
                let begin = if range.start == 0 { 0 } else { theirs.index(range.start - 1) };
                let before = self.bytes.len();
                self.bytes.extend_from_slice(&other.bytes[begin..theirs.index(range.end - 1)]);
                self.len += range.len();
                if let Shape::Ends(ends) = &mut self.shape {
                    range.for_each(|index| ends.push(before + theirs.index(index) - begin));
                }
            }
            _ => range.for_each(|index| self.push(other.get(index))),
        }
    }

    /// The row at a position.
    ///
    /// # Panics
    /// Beyond the end.
    #[inline]
    pub fn get(&self, index: usize) -> &[u8] {
        match &self.shape {
            Shape::Fixed(width) => {
                debug_assert!(index < self.len);
                &self.bytes[index * width..(index + 1) * width]
            }
            Shape::Ends(ends) => {
                let begin = if index == 0 { 0 } else { ends.index(index - 1) };
                &self.bytes[begin..ends.index(index)]
            }
            Shape::Empty => panic!("row {index} of no rows"),
        }
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len).map(|index| self.get(index))
    }

    /// Gives back memory that is not used.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }
}

/// Turns some columns of a batch into [`Rows`] and back.
#[derive(Debug)]
pub struct RowCodec {
    converter: Option<RowConverter>,
    columns: Vec<usize>,
    types: Vec<DataType>,
}

impl RowCodec {
    /// A codec for these columns of batches of that schema, each ascending with NULL first.
    ///
    /// # Errors
    /// A column's type cannot be encoded (maps).
    pub fn new(schema: &SchemaRef, columns: &[usize]) -> Result<RowCodec, ArrowError> {
        let fields = columns.iter().map(|c| SortField::new(schema.field(*c).data_type().clone())).collect();
        Self::with_fields(schema, columns, fields)
    }

    /// A codec whose byte order is the order asked for, column by column.
    ///
    /// # Errors
    /// A column's type cannot be encoded (maps).
    pub fn with_fields(schema: &SchemaRef, columns: &[usize], fields: Vec<SortField>) -> Result<RowCodec, ArrowError> {
        let types = columns.iter().map(|c| schema.field(*c).data_type().clone()).collect();
        let converter = if columns.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(RowCodec { converter, columns: columns.to_vec(), types })
    }

    /// The columns that it encodes, in order.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Encodes the codec's columns of a batch's `columns`.
    ///
    /// # Errors
    /// The columns are not of the codec's types.
    pub fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Rows, ArrowError> {
        let Some(converter) = &self.converter else { return Ok(Rows::empty_rows(rows)) };
        let picked: Vec<ArrayRef> = self.columns.iter().map(|c| normalise(&columns[*c])).collect();
        Rows::of_arrow(converter.convert_columns(&picked)?)
    }

    /// The columns of encoded rows, in the codec's order.
    ///
    /// # Errors
    /// A row does not come from a codec of the same types.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, ArrowError> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        converter.convert_rows(rows.into_iter().map(|row| parser.parse(row)))
    }

    /// The types of the columns, in the codec's order.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }
}

/// Floats with one zero and one NaN; all else as it is.
pub(crate) fn normalise(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            if values.values().iter().any(|v| v.is_nan() || (*v == 0.0 && v.is_sign_negative())) {
                Arc::new(values.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 }))
            } else {
                Arc::clone(column)
            }
        }
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            if values.values().iter().any(|v| v.is_nan() || (*v == 0.0 && v.is_sign_negative())) {
                Arc::new(values.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }))
            } else {
                Arc::clone(column)
            }
        }
        _ => Arc::clone(column),
    }
}

/// The hash that deals rows to workers and finds them in tables. Rows are already compact, so a fast hash over bytes does.
#[inline]
pub fn hash_row(row: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = HASHER.build_hasher();
    hasher.write(row);
    hasher.finish()
}

/// Fixed seeds: all workers, of all processes, must agree on where a key lives.
static HASHER: ahash::RandomState = ahash::RandomState::with_seeds(0x6c69, 0x7665, 0x6c61, 0x6b65);
