//! The rows that a decoder gathers: columns, operations, errors and counts, and the way back when a row turns out bad.

use std::sync::Arc;

use arrow::array::{AsArray as _, Int64Array};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use livelake_dataflow::protocol::{InputBatch, Op};

use super::column::{Column, Values};
use super::cursor::{Cursor, Fault, Token};
use super::errors::{ErrorRows, Place};
use super::number::{short_decimal_prefix, short_float_prefix, short_integer_prefix};
use super::reading::Reading;
use super::shape::{Found, KNOWN, Shape, Target, UNKNOWN};
use super::spec::{DecodeSpec, EnvelopeMode, ErrorPolicy, SpecError};
use super::{Counters, DecodeError, Decoded};

mod metadata;

use metadata::Meta;
pub(crate) use metadata::Metadata;

/// How a field of the row at hand was found.
const ABSENT: u8 = 0;
const LOOSE: u8 = 1;
const EXACT: u8 = 2;

/// See the module.
pub(crate) struct Rows {
    pub(crate) spec: Arc<DecodeSpec>,
    pub(crate) columns: Vec<Column>,
    pub(crate) readings: Vec<Reading>,
    /// Places in `columns` of the columns that come from fields.
    pub(crate) data: Vec<usize>,
    metadata: Vec<(usize, Meta)>,
    /// Places of the key's columns, in the key's order.
    pub(crate) key: Vec<usize>,
    /// Names of columns that are NOT NULL and not read: looked at for being there. Their targets follow those of the columns.
    watched: Vec<String>,
    /// How each column and watched field of the row at hand was found.
    seen: Vec<u8>,
    /// One operation per row.
    ops: Vec<u8>,
    /// The operation that an absent list of operations means.
    usual_op: Op,
    done: Vec<InputBatch>,
    pub(crate) errors: ErrorRows,
    pub(crate) counters: Counters,
    scratch: Vec<u8>,
}

impl Rows {
    pub(crate) fn new(spec: &Arc<DecodeSpec>) -> Result<Self, SpecError> {
        const ROWS: usize = 1 << 10; // the buffers grow to what is needed and keep that size
        let fields = spec.schema.fields();
        let columns = fields.iter().map(|field| Column::new(field, ROWS)).collect::<Result<Vec<_>, _>>()?;
        let mut readings = Vec::with_capacity(fields.len());
        let (mut data, mut metadata) = (Vec::new(), Vec::new());
        for (place, field) in fields.iter().enumerate() {
            // The declaration knows more about the type (its metadata) than the planner's schema may.
            let declared = spec.declared.field_with_name(field.name()).unwrap_or(field);
            readings.push(Reading::new(declared, spec)?);
            match Meta::of(field.name()) {
                Some(meta) if spec.is_metadata(field) => metadata.push((place, meta)),
                _ => data.push(place),
            }
        }
        let watched: Vec<String> = spec
            .declared
            .fields()
            .iter()
            .filter(|field| !field.is_nullable() && spec.schema.column_with_name(field.name()).is_none())
            .map(|field| field.name().clone())
            .collect();
        let key = spec.key.iter().filter_map(|name| spec.schema.index_of(name).ok()).collect();
        let seen = vec![ABSENT; columns.len() + watched.len()];
        let usual_op = if spec.envelope == EnvelopeMode::Upsert { Op::Upsert } else { Op::Insert };
        Ok(Rows {
            spec: Arc::clone(spec),
            columns,
            readings,
            data,
            metadata,
            key,
            watched,
            seen,
            ops: Vec::with_capacity(ROWS),
            usual_op,
            done: Vec::new(),
            errors: ErrorRows::default(),
            counters: Counters::default(),
            scratch: Vec::new(),
        })
    }

    /// The shape of an object that holds a row.
    pub(crate) fn row_shape(&self) -> Shape {
        let schema = &self.spec.schema;
        let target = |name: &str| -> Target {
            let wanted = self.data.iter().find(|place| schema.field(**place).name() == name).copied();
            let watched = || self.watched.iter().position(|watched| watched == name).map(|at| at + self.columns.len());
            // A table of 65,000 columns exists nowhere; its last ones would be looked up as known and stay NULL.
            wanted.or_else(watched).and_then(|target| Target::try_from(target).ok()).unwrap_or(KNOWN)
        };
        Shape::new(self.spec.declared.fields().iter().map(|field| (field.name().as_str(), target(field.name()))), true)
    }

    /// The shape of an object of which only the key is read.
    pub(crate) fn key_shape(&self) -> Shape {
        let schema = &self.spec.schema;
        let key =
            self.key.iter().filter_map(|place| Some((schema.field(*place).name().as_str(), Target::try_from(*place).ok()?)));
        Shape::new(key, true)
    }

    /// Whether a metadata column is wanted that only a message's `source` can fill.
    pub(crate) fn wants_source_metadata(&self) -> bool {
        self.metadata.iter().any(|(_, meta)| matches!(meta, Meta::SourceTs | Meta::Lsn | Meta::TxId))
    }

    /// Rows gathered since the last truncation or hand-out.
    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Rows gathered since the last hand-out.
    pub(crate) fn pending(&self) -> usize {
        let done: usize =
            self.done.iter().map(|batch| if let InputBatch::Rows { rows, .. } = batch { rows.num_rows() } else { 0 }).sum();
        done + self.len()
    }

    /// Begins a row: nothing of it is there yet.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.seen.fill(ABSENT);
    }

    /// Writes the value at the cursor into the row at hand, or passes over it.
    #[inline]
    pub(crate) fn field(&mut self, cursor: &mut Cursor<'_>, found: Found) -> Result<(), Fault> {
        let target = usize::from(found.target);
        if target >= self.columns.len() {
            return self.unread(cursor, found);
        }
        if self.seen[target] != ABSENT && !self.again(target, found.loose) {
            return cursor.skip();
        }
        self.seen[target] = if found.loose { LOOSE } else { EXACT };
        let (column, reading) = (&mut self.columns[target], &self.readings[target]);
        let rest = cursor.rest();
        // The usual forms of numbers go straight into the buffer; everything else takes the long way.
        let length = match &mut column.values {
            Values::Int64(values) => match short_integer_prefix(rest) {
                Some((value, length)) if reading.in_range(value) => {
                    values.push(value);
                    length
                }
                _ => 0,
            },
            Values::Int32(values) => match short_integer_prefix(rest) {
                Some((value, length)) if reading.in_range(value) => {
                    values.push(i32::try_from(value).unwrap_or_default());
                    length
                }
                _ => 0,
            },
            Values::Int16(values) => match short_integer_prefix(rest) {
                Some((value, length)) if reading.in_range(value) => {
                    values.push(i16::try_from(value).unwrap_or_default());
                    length
                }
                _ => 0,
            },
            Values::Stamp(values) => match (short_integer_prefix(rest), reading.plain_unit()) {
                (Some((value, length)), Some(unit)) => match unit.to_micros(value) {
                    Some(micros) => {
                        values.push(micros);
                        length
                    }
                    None => 0,
                },
                _ => 0,
            },
            Values::Decimal(values) => match short_decimal_prefix(rest, reading.scale) {
                Some((value, length)) if reading.fits_precision(value) => {
                    values.push(value);
                    length
                }
                _ => 0,
            },
            Values::Float64(values) => match short_float_prefix(rest) {
                Some((value, length)) => {
                    values.push(value);
                    length
                }
                None => 0,
            },
            _ => 0,
        };
        if length > 0 {
            column.wrote();
            cursor.pass(length);
            return Ok(());
        }
        self.field_slowly(cursor, target)
    }

    /// A field that is seen a second time in its row: whether it replaces what was written. An exact name counts more than one in
    /// another case, and of two equal ones the later counts, as everywhere in JSON.
    fn again(&mut self, target: usize, loose: bool) -> bool {
        if loose && self.seen[target] == EXACT {
            return false;
        }
        let rows = self.len();
        self.columns[target].truncate(rows);
        true
    }

    #[inline]
    fn unread(&mut self, cursor: &mut Cursor<'_>, found: Found) -> Result<(), Fault> {
        match found.target {
            KNOWN => {}
            UNKNOWN => self.counters.ignored_fields += 1,
            watched => {
                if cursor.null() {
                    return Ok(()); // stays absent, which the end of the row complains about
                }
                if let Some(seen) = self.seen.get_mut(usize::from(watched)) {
                    *seen = EXACT;
                }
            }
        }
        cursor.skip()
    }

    fn field_slowly(&mut self, cursor: &mut Cursor<'_>, target: usize) -> Result<(), Fault> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let (column, reading) = (&mut self.columns[target], &self.readings[target]);
        let before = column.len();
        let outcome = match cursor.token(&mut scratch)? {
            Token::Null => {
                if !column.field.is_nullable() {
                    return Err(Fault::new(format!("column {} is NULL, which it must not be", column.field.name())));
                }
                column.push_null();
                Ok(())
            }
            Token::Truth(value) => reading.truth(column, value),
            Token::Number(text) => reading.number(column, text),
            Token::Text(text) => reading.text(column, text),
            Token::Nested(json) => reading.nested(column, json),
        };
        self.scratch = scratch;
        match outcome {
            Ok(()) => Ok(()),
            Err(reason) => self.bad_value(target, before, &reason),
        }
    }

    /// Applies the policy to a value that cannot be taken: NULL, or the whole row is refused.
    pub(crate) fn bad_value(&mut self, target: usize, rows: usize, reason: &str) -> Result<(), Fault> {
        let column = &mut self.columns[target];
        column.truncate(rows);
        if self.spec.errors == ErrorPolicy::Null && column.field.is_nullable() && !self.key.contains(&target) {
            column.push_null();
            self.counters.nulled_fields += 1;
            Ok(())
        } else {
            Err(Fault::new(format!("column {}: {reason}", column.field.name())))
        }
    }

    /// Whether a target is a column of text.
    pub(crate) fn is_text(&self, target: Target) -> bool {
        self.columns.get(usize::from(target)).is_some_and(|column| matches!(column.values, Values::Text(_)))
    }

    /// Writes a CSV field into the row at hand; absent is NULL.
    pub(crate) fn text_field(&mut self, target: Target, text: Option<&str>) -> Result<(), Fault> {
        let target = usize::from(target);
        let Some(column) = self.columns.get_mut(target) else {
            if let (Some(seen), true) = (self.seen.get_mut(target), text.is_some()) {
                *seen = EXACT;
            }
            return Ok(());
        };
        let Some(text) = text else { return Ok(()) }; // the end of the row makes it NULL, or complains
        let rows = column.len();
        self.seen[target] = EXACT;
        match self.readings[target].field(column, text) {
            Ok(()) => Ok(()),
            Err(reason) => self.bad_value(target, rows, &reason),
        }
    }

    /// Ends the row at hand: what the input lacks is NULL, or the row is refused.
    #[inline]
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        let rows = self.len();
        for place in &self.data {
            let column = &mut self.columns[*place];
            if self.seen[*place] == ABSENT && column.len() == rows {
                if !column.field.is_nullable() {
                    return Err(Fault::new(format!("column {} is missing or NULL, which it must not be", column.field.name())));
                }
                column.push_null();
            }
        }
        if let Some(at) = self.seen[self.columns.len()..].iter().position(|seen| *seen == ABSENT) {
            return Err(Fault::new(format!("column {} is missing or NULL, which it must not be", self.watched[at])));
        }
        Ok(())
    }

    /// Ends a row of which only the key is known.
    pub(crate) fn end_of_key(&mut self) -> Result<(), Fault> {
        let rows = self.len();
        for place in &self.key {
            if self.columns[*place].len() == rows {
                return Err(Fault::new(format!(
                    "the message does not say column {} of the key",
                    self.columns[*place].field.name()
                )));
            }
        }
        for place in &self.data {
            let column = &mut self.columns[*place];
            if column.len() == rows {
                column.push_filler();
            }
        }
        Ok(())
    }

    /// Adds a row without values (a truncation in an event log).
    pub(crate) fn end_of_nothing(&mut self) -> Result<(), Fault> {
        for place in &self.data {
            let column = &mut self.columns[*place];
            if !column.field.is_nullable() {
                return Err(Fault::new(format!("a TRUNCATE has no values, and column {} is NOT NULL", column.field.name())));
            }
            column.push_null();
        }
        Ok(())
    }

    /// Takes the ended row in.
    #[inline]
    pub(crate) fn commit(&mut self, op: Op, metadata: &Metadata<'_>) {
        for (place, meta) in &self.metadata {
            meta.write(&mut self.columns[*place], metadata);
        }
        self.ops.push(op as u8);
        self.counters.rows += 1;
    }

    /// Takes back everything from this row on, ended or not.
    pub(crate) fn roll_back(&mut self, rows: usize) {
        for column in &mut self.columns {
            if column.len() > rows {
                column.truncate(rows);
            }
        }
        self.counters.rows -= (self.ops.len() - rows) as u64;
        self.ops.truncate(rows);
    }

    /// Whether two rows have the same key.
    pub(crate) fn same_key(&self, one: usize, other: usize) -> bool {
        self.key.iter().all(|place| self.columns[*place].same(one, other))
    }

    /// Refuses a piece of input, which began at this row.
    #[cold]
    pub(crate) fn refuse(&mut self, rows: usize, place: Place, payload: Option<&[u8]>, fault: Fault) -> Result<(), DecodeError> {
        self.roll_back(rows);
        let reason = fault.into_reason();
        if self.spec.errors == ErrorPolicy::Fail {
            return Err(DecodeError { source_name: self.spec.name.clone(), position: place.to_string(), reason });
        }
        self.errors.push(place, payload, reason);
        self.counters.errors += 1;
        Ok(())
    }

    /// Puts the rows so far into a batch.
    fn close_batch(&mut self) {
        let count = self.ops.len();
        if count == 0 {
            return;
        }
        match self.batch(count) {
            Ok(rows) => {
                let usual = self.usual_op as u8;
                let next = Vec::with_capacity(count);
                let ops = std::mem::replace(&mut self.ops, next);
                let ops = ops.iter().any(|op| *op != usual).then_some(ops);
                self.done.push(InputBatch::Rows { rows, ops });
            }
            Err(error) => {
                // Only a cast to a type without a buffer of its own can fail, and only for values that `Reading` let pass.
                tracing::error!(source = self.spec.name, %error, "rows that do not fit their declared types are lost");
                self.counters.rows -= count as u64;
                self.counters.errors += count as u64;
                self.errors.push(Place::File(self.spec.name.as_str().into(), 0), None, error.to_string());
                self.ops.clear();
            }
        }
    }

    fn batch(&mut self, count: usize) -> Result<RecordBatch, arrow::error::ArrowError> {
        let arrays =
            self.columns.iter_mut().map(Column::finish).collect::<Vec<_>>().into_iter().collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.spec.schema), arrays, &options)
    }

    /// All rows so far are gone from the relation.
    pub(crate) fn truncate_relation(&mut self) {
        self.close_batch();
        self.done.push(InputBatch::Truncate);
    }

    /// Adds a batch that was made elsewhere.
    pub(crate) fn push_batch(&mut self, rows: RecordBatch) {
        self.close_batch();
        self.counters.rows += rows.num_rows() as u64;
        self.done.push(InputBatch::Rows { rows, ops: None });
    }

    /// Adds to all line numbers gathered so far.
    pub(crate) fn shift_lines(&mut self, lines: u64) {
        self.errors.shift_lines(lines);
        for (place, meta) in &self.metadata {
            if let (Meta::RowNumber, Values::Int64(values)) = (meta, &mut self.columns[*place].values) {
                for value in values {
                    *value = value.saturating_add_unsigned(lines);
                }
            }
        }
        for batch in &mut self.done {
            let InputBatch::Rows { rows, .. } = batch else { continue };
            for (place, _) in self.metadata.iter().filter(|(_, meta)| *meta == Meta::RowNumber) {
                let Some(numbers) = rows.column(*place).as_primitive_opt::<Int64Type>() else { continue };
                let shifted: Int64Array = numbers.unary(|number| number.saturating_add_unsigned(lines));
                let mut columns = rows.columns().to_vec();
                columns[*place] = Arc::new(shifted);
                if let Ok(shifted) = RecordBatch::try_new(rows.schema(), columns) {
                    *rows = shifted;
                }
            }
        }
    }

    /// Hands out everything.
    pub(crate) fn take(&mut self) -> Decoded {
        self.close_batch();
        let errors = self.errors.finish(&self.spec.name).unwrap_or_else(|error| {
            tracing::error!(source = self.spec.name, %error, "error rows cannot be put into a batch");
            None
        });
        Decoded { inputs: std::mem::take(&mut self.done), errors, counters: std::mem::take(&mut self.counters) }
    }
}
