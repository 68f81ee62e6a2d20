//! Rows that come as Arrow batches already (Parquet files): each column is cast to its declared type, and rows whose values the cast
//! would change or lose are put aside.
//!
//! Month files of one origin drift: integers become wider or narrower, counts become floats, a column without any value has no type.
//! All of that is fine as long as the values fit. A float becomes a decimal by way of its shortest decimal text, as everywhere here.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Decimal128Array, Int32Array, Int64Array, StringArray,
    new_null_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::cursor::Fault;
use super::errors::Place;
use super::number;
use super::rows::Rows;
use super::spec::{DecodeSpec, ErrorPolicy, SpecError, Zone};
use super::{DecodeError, Decoded, Decoder, Input};

/// See the module.
pub(crate) struct BatchDecoder {
    rows: Rows,
}

/// Rows of a batch that cannot be taken, with the first reason for each.
struct BadRows {
    good: BooleanBufferBuilder,
    reasons: Vec<(usize, String)>,
}

impl BadRows {
    fn add(&mut self, row: usize, reason: impl FnOnce() -> String) {
        if self.good.get_bit(row) {
            self.good.set_bit(row, false);
            self.reasons.push((row, reason()));
        }
    }
}

impl BatchDecoder {
    pub(crate) fn new(spec: &Arc<DecodeSpec>) -> Result<Self, SpecError> {
        Ok(BatchDecoder { rows: Rows::new(spec)? })
    }

    fn batch(&mut self, file: &Arc<str>, first_row: u64, input: &RecordBatch) -> Result<(), DecodeError> {
        let count = input.num_rows();
        self.rows.counters.inputs += count as u64;
        let spec = Arc::clone(&self.rows.spec);
        let mut good = BooleanBufferBuilder::new(count);
        good.append_n(count, true);
        let mut bad = BadRows { good, reasons: Vec::new() };
        let mut columns = Vec::with_capacity(spec.schema.fields().len());
        for field in spec.schema.fields() {
            let column = if spec.is_metadata(field) {
                metadata(field, file, first_row, count)
            } else {
                match column_named(input, field.name()) {
                    Some(column) => self.column(field, column, &mut bad, spec.zone),
                    None if field.is_nullable() => new_null_array(field.data_type(), count),
                    None => return self.refuse_all(file, first_row, count, field.name()),
                }
            };
            columns.push(column);
        }
        for field in spec.declared.fields().iter().filter(|field| !field.is_nullable()) {
            if spec.schema.column_with_name(field.name()).is_some() {
                continue;
            }
            match column_named(input, field.name()) {
                Some(column) => require_values(column, field.name(), &mut bad),
                None => return self.refuse_all(file, first_row, count, field.name()),
            }
        }
        self.put_aside(file, first_row, input, &mut bad)?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let schema = if bad.reasons.is_empty() { Arc::clone(&spec.schema) } else { nullable(&spec.schema) };
        let made = RecordBatch::try_new_with_options(schema, columns, &options).and_then(|batch| {
            if bad.reasons.is_empty() {
                return Ok(batch);
            }
            let kept = filter_record_batch(&batch, &BooleanArray::new(bad.good.finish(), None))?;
            let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
            RecordBatch::try_new_with_options(Arc::clone(&spec.schema), kept.columns().to_vec(), &options)
        });
        match made {
            Ok(batch) if batch.num_rows() > 0 => self.rows.push_batch(batch),
            Ok(_) => {}
            Err(error) => {
                let fault = Fault::new(format!("{count} rows do not fit the declaration: {error}"));
                self.rows.counters.errors += (count as u64).saturating_sub(1);
                self.rows.refuse(self.rows.len(), Place::File(Arc::clone(file), first_row), None, fault)?;
            }
        }
        Ok(())
    }

    /// A whole batch lacks a column that must be there: one error row says so for all.
    fn refuse_all(&mut self, file: &Arc<str>, first_row: u64, count: usize, column: &str) -> Result<(), DecodeError> {
        let last = first_row + (count as u64).saturating_sub(1);
        let fault =
            Fault::new(format!("the file has no column {column}, which is NOT NULL: rows {first_row} to {last} are not taken"));
        self.rows.counters.errors += (count as u64).saturating_sub(1);
        self.rows.refuse(self.rows.len(), Place::File(Arc::clone(file), first_row), None, fault)
    }

    fn put_aside(&mut self, file: &Arc<str>, first_row: u64, input: &RecordBatch, bad: &mut BadRows) -> Result<(), DecodeError> {
        bad.reasons.sort_by_key(|(row, _)| *row);
        for (row, reason) in &bad.reasons {
            let payload = as_json(&input.slice(*row, 1));
            let place = Place::File(Arc::clone(file), first_row + *row as u64);
            self.rows.refuse(self.rows.len(), place, payload.as_deref(), Fault::new(reason.as_str()))?;
        }
        Ok(())
    }

    /// Casts a column to its declared type.
    fn column(&mut self, field: &Field, column: &ArrayRef, bad: &mut BadRows, zone: Zone) -> ArrayRef {
        let target = field.data_type();
        let cast_column = match (column.data_type(), target) {
            (from, to) if from == to => Arc::clone(column),
            (DataType::Null, _) => new_null_array(target, column.len()),
            (from, DataType::Decimal128(precision, scale)) if from.is_floating() => decimals(column, *precision, *scale),
            (from, to) if from.is_floating() && to.is_integer() => whole_numbers(column, to),
            (DataType::Timestamp(_, None), DataType::Timestamp(unit, Some(_))) => local_stamps(column, *unit, target, zone),
            (from, DataType::Timestamp(_, _) | DataType::Date32) if from.is_integer() => new_null_array(target, column.len()),
            _ => cast_with_options(column, target, &CastOptions { safe: true, ..CastOptions::default() })
                .unwrap_or_else(|_| new_null_array(target, column.len())),
        };
        if cast_column.null_count() > column.logical_null_count() {
            let lenient =
                self.rows.spec.errors == ErrorPolicy::Null && field.is_nullable() && !self.rows.spec.key.contains(field.name());
            for row in (0..column.len()).filter(|row| cast_column.is_null(*row) && !is_null(column, *row)) {
                if lenient {
                    self.rows.counters.nulled_fields += 1;
                } else {
                    bad.add(row, || format!("column {}: {} does not fit {target}", field.name(), shown(column, row)));
                }
            }
        }
        if !field.is_nullable() {
            require_values(&cast_column, field.name(), bad);
        }
        cast_column
    }
}

impl Decoder for BatchDecoder {
    fn decode(&mut self, input: Input<'_>) -> Result<usize, DecodeError> {
        if let Input::Rows { file, first_row, rows } = input {
            self.batch(file, first_row, rows)?;
        }
        Ok(0)
    }

    fn take(&mut self) -> Decoded {
        self.rows.take()
    }

    fn pending_rows(&self) -> usize {
        self.rows.pending()
    }

    fn shift_lines(&mut self, _lines: u64) {}
}

/// A batch's column by its name, exact first, else without regard to case.
pub(crate) fn column_named<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a ArrayRef> {
    batch.column_by_name(name).or_else(|| {
        let folded = name.to_lowercase();
        let at = batch.schema_ref().fields().iter().position(|field| field.name().to_lowercase() == folded)?;
        Some(batch.column(at))
    })
}

fn nullable(schema: &arrow::datatypes::Schema) -> arrow::datatypes::SchemaRef {
    Arc::new(arrow::datatypes::Schema::new(
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
    ))
}

fn is_null(column: &ArrayRef, row: usize) -> bool {
    column.data_type() == &DataType::Null || column.is_null(row)
}

fn require_values(column: &ArrayRef, name: &str, bad: &mut BadRows) {
    if column.logical_null_count() > 0 {
        for row in (0..column.len()).filter(|row| is_null(column, *row)) {
            bad.add(row, || format!("column {name} is NULL, which it must not be"));
        }
    }
}

/// Floats as decimals, NULL where they do not fit.
fn decimals(column: &ArrayRef, precision: u8, scale: i8) -> ArrayRef {
    let Ok(floats) = cast(column, &DataType::Float64) else {
        return new_null_array(&DataType::Decimal128(precision, scale), column.len());
    };
    let single = column.data_type() == &DataType::Float32;
    let factor = 10_f64.powi(i32::from(scale));
    let limit = number::POWERS_OF_TEN[usize::from(precision.min(38))];
    let convert = |float: f64| -> Option<i128> {
        let scaled = float * factor;
        let rounded = scaled.round();
        // Away from the middle between two decimals the binary fraction's error cannot matter.
        if !single && scaled.abs() < 1e15 && (scaled - rounded).abs() < 0.4 {
            #[expect(clippy::cast_possible_truncation, reason = "below 1e15")]
            let unscaled = i128::from(rounded as i64);
            return (unscaled.abs() < limit).then_some(unscaled);
        }
        #[expect(clippy::cast_possible_truncation, reason = "it was a float of this width")]
        let text = if single { (float as f32).to_string() } else { float.to_string() };
        number::decimal(text.as_bytes(), precision, scale).ok()
    };
    let decimals: Decimal128Array = floats.as_primitive::<Float64Type>().iter().map(|float| float.and_then(convert)).collect();
    Arc::new(decimals.with_data_type(DataType::Decimal128(precision, scale)))
}

/// Floats as integers, NULL where they have a fraction or do not fit.
fn whole_numbers(column: &ArrayRef, target: &DataType) -> ArrayRef {
    let integers = cast(column, &DataType::Float64).and_then(|floats| {
        let whole: Int64Array = floats
            .as_primitive::<Float64Type>()
            .iter()
            .map(|float| {
                let float = float.filter(|float| float.fract() == 0.0 && float.abs() < 9e18)?;
                #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
                Some(float as i64)
            })
            .collect();
        cast_with_options(&whole, target, &CastOptions { safe: true, ..CastOptions::default() })
    });
    integers.unwrap_or_else(|_| new_null_array(target, column.len()))
}

/// Local stamps as instants.
fn local_stamps(column: &ArrayRef, unit: TimeUnit, target: &DataType, zone: Zone) -> ArrayRef {
    let instants = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)).map(|local| {
        local.as_primitive::<TimestampMicrosecondType>().unary_opt::<_, TimestampMicrosecondType>(|micros| zone.to_utc(micros))
    });
    let DataType::Timestamp(_, name) = target else { return new_null_array(target, column.len()) };
    let zoned = instants.map(|instants| -> ArrayRef { Arc::new(instants.with_timezone_opt(name.clone())) });
    match (zoned, unit) {
        (Ok(zoned), TimeUnit::Microsecond) => zoned,
        (Ok(zoned), _) => cast(&zoned, target).unwrap_or_else(|_| new_null_array(target, column.len())),
        (Err(_), _) => new_null_array(target, column.len()),
    }
}

fn metadata(field: &Field, file: &Arc<str>, first_row: u64, count: usize) -> ArrayRef {
    let made: ArrayRef = match field.name().as_str() {
        "_file" => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(file.as_ref(), count))),
        "_row_number" => {
            let first = i64::try_from(first_row).unwrap_or(i64::MAX);
            Arc::new(arrow::array::PrimitiveArray::<Int64Type>::from_iter_values(
                (0_i64..).take(count).map(|row| first.saturating_add(row)),
            ))
        }
        "_partition" => Arc::new(Int32Array::new_null(count)),
        _ => return new_null_array(field.data_type(), count),
    };
    cast(&made, field.data_type()).unwrap_or(made)
}

fn shown(column: &ArrayRef, row: usize) -> String {
    arrow::util::display::array_value_to_string(column, row).unwrap_or_else(|_| "a value".into())
}

/// A row as a JSON object, for error rows.
fn as_json(row: &RecordBatch) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut text);
    writer.write(row).ok()?;
    writer.finish().ok()?;
    drop(writer);
    text.pop_if(|byte| *byte == b'\n');
    Some(text)
}
