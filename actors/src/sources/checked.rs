//! CHECK: rows for which a declared condition is false are put aside, like rows that cannot be decoded.
//!
//! The reader below decodes some columns more than the lake wants (those that conditions read, and where a row stood); they are taken off
//! here. A row whose condition is NULL is fine, as in SQL. Of a source that takes rows back, a row that was put aside is not
//! taken back either.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, UInt8Array};
use arrow::compute::{concat_batches, filter, filter_record_batch};
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use livelake_dataflow::protocol::{InputBatch, Op};

use super::{Budget, SourceError, SourceEvent, SourceReader};
use crate::decode::{DecodeError, Decoded, ErrorPolicy, ErrorRows, Place};
use crate::encode::json;

/// Columns that say where a row stood.
pub const POSITION_COLUMNS: [&str; 5] = ["_file", "_row_number", "_topic", "_partition", "_offset"];

/// The conditions of one source.
#[derive(Clone, Debug)]
pub struct Checks {
    /// The source.
    pub name: String,
    /// Names of the constraints and their conditions, over the decoded columns.
    pub conditions: Vec<(String, Arc<dyn PhysicalExpr>)>,
    /// The declared columns, for the payload of an error.
    pub declared: Vec<String>,
    /// How many of the decoded columns the lake wants: the first ones.
    pub wanted: usize,
    /// What happens to a row that is not fine. Nothing can be made NULL here, so that policy puts it aside too.
    pub policy: ErrorPolicy,
}

/// A reader whose rows are checked.
pub struct Checked {
    inner: Box<dyn SourceReader>,
    checks: Checks,
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checked").field("checks", &self.checks).finish_non_exhaustive()
    }
}

impl Checked {
    /// Checks what a reader brings.
    pub fn new(inner: Box<dyn SourceReader>, checks: Checks) -> Checked {
        Checked { inner, checks }
    }
}

impl SourceReader for Checked {
    fn next(&mut self, budget: Budget) -> Result<SourceEvent, SourceError> {
        Ok(match self.inner.next(budget)? {
            SourceEvent::Batch { partition, decoded, position, bytes } => {
                let decoded = self.checks.apply(decoded)?;
                SourceEvent::Batch { partition, decoded, position, bytes }
            }
            other => other,
        })
    }

    fn lag(&self) -> Option<u64> {
        self.inner.lag()
    }
}

impl Checks {
    /// Takes the rows out that are not fine, and the columns off that nobody wants.
    fn apply(&self, mut decoded: Decoded) -> Result<Decoded, SourceError> {
        let mut aside = ErrorRows::default();
        for input in &mut decoded.inputs {
            let InputBatch::Rows { rows, ops } = input else { continue };
            let fine = self.fine(rows, ops.as_deref(), &mut aside)?;
            let visible: Vec<usize> = (0..self.wanted).collect();
            let kept = rows.project(&visible).map_err(|error| self.broken(&error))?;
            *rows = match &fine {
                None => kept,
                Some(fine) => {
                    decoded.counters.rows -= (kept.num_rows() - fine.true_count()) as u64;
                    if let Some(codes) = ops {
                        let array = UInt8Array::from(std::mem::take(codes));
                        let left = filter(&array, fine).map_err(|error| self.broken(&error))?;
                        *codes = left.as_primitive::<arrow::datatypes::UInt8Type>().values().to_vec();
                    }
                    filter_record_batch(&kept, fine).map_err(|error| self.broken(&error))?
                }
            };
        }
        decoded.inputs.retain(|input| !matches!(input, InputBatch::Rows { rows, .. } if rows.num_rows() == 0));
        if let Some(errors) = aside.finish(&self.name).map_err(|error| self.broken(&error))? {
            decoded.counters.errors += errors.num_rows() as u64;
            let schema: SchemaRef = errors.schema();
            let all = decoded.errors.iter().chain([&errors]);
            decoded.errors = Some(concat_batches(&schema, all).map_err(|error| self.broken(&error))?);
        }
        Ok(decoded)
    }

    /// Which rows are fine; `None` if all are. Rows that come and are not are noted.
    fn fine(&self, rows: &RecordBatch, ops: Option<&[u8]>, aside: &mut ErrorRows) -> Result<Option<BooleanArray>, SourceError> {
        let mut violated: Vec<(usize, &str)> = Vec::new();
        for (name, condition) in &self.conditions {
            let value = condition.evaluate(rows).and_then(|value| value.into_array(rows.num_rows()));
            let value = value.map_err(|error| {
                SourceError::Options(format!(
                    "{}: the constraint {name} cannot be evaluated: {}",
                    self.name,
                    error.strip_backtrace()
                ))
            })?;
            let value = value.as_boolean();
            // a delete has its key only
            let looked_at = |row: &usize| ops.is_none_or(|ops| ops[*row] != Op::Delete as u8);
            let failing = (0..rows.num_rows()).filter(|row| value.is_valid(*row) && !value.value(*row));
            violated.extend(failing.filter(looked_at).map(|row| (row, name.as_str())));
        }
        if violated.is_empty() {
            return Ok(None);
        }
        violated.sort_unstable();
        violated.dedup_by_key(|(row, _)| *row);
        let options = json::options();
        let schema = rows.schema();
        let shown = schema.fields().iter().zip(rows.columns());
        let shown =
            shown.filter(|(field, _)| self.declared.contains(field.name())).map(|(field, column)| (field, column.as_ref()));
        let mut payloads = json::JsonRows::of_columns(shown, &options).map_err(|error| self.broken(&error))?;
        let mut fine = vec![true; rows.num_rows()];
        for (row, name) in violated {
            fine[row] = false;
            if ops.is_some_and(|ops| ops[row] == Op::Retract as u8) {
                continue;
            }
            let reason = format!("violates check constraint \"{name}\"");
            if self.policy == ErrorPolicy::Fail {
                let position = place(rows, row).map_or_else(String::new, |place| place.to_string());
                return Err(DecodeError { source_name: self.name.clone(), position, reason }.into());
            }
            let mut payload = Vec::new();
            payloads.write(row, &mut payload);
            let place = place(rows, row).unwrap_or_else(|| Place::File(Arc::from(self.name.as_str()), 0));
            aside.push(place, Some(&payload), reason);
        }
        Ok(Some(BooleanArray::from(fine)))
    }

    fn broken(&self, error: &ArrowError) -> SourceError {
        SourceError::Options(format!("{}: its rows cannot be checked: {error}", self.name))
    }
}

/// Where a row stood, as its hidden columns say.
fn place(rows: &RecordBatch, row: usize) -> Option<Place> {
    let text = |name: &str| {
        let column = rows.column_by_name(name)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| Arc::<str>::from(column.value(row)))
    };
    let number = |name: &str| {
        let column = rows.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
        column.is_valid(row).then(|| column.value(row))
    };
    if let (Some(file), Some(line)) = (text("_file"), number("_row_number")) {
        return Some(Place::File(file, u64::try_from(line).unwrap_or(0)));
    }
    let partition = rows.column_by_name("_partition")?.as_primitive_opt::<Int32Type>()?;
    Some(Place::Message(text("_topic")?, partition.is_valid(row).then(|| partition.value(row))?, number("_offset")?))
}
