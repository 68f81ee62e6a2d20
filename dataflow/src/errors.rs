//! Errors of data are data: a row for which an expression fails goes to the view's errors instead of stopping the view.
//!
//! An error has a multiplicity like a row: when the row that caused it is retracted, the error is retracted, so a view's errors
//! are always those of its present input.

use std::cell::RefCell;
use std::rc::Rc;

use arrow::array::AsArray;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_common::DataFusionError;

use crate::delta::Delta;
use crate::protocol::Timestamp;

/// An error that came (diff above zero) or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// When.
    pub as_of: Timestamp,
    /// What failed, in words.
    pub reason: String,
    /// The row, as `column = value` pairs.
    pub row: String,
    /// How many of it.
    pub diff: i64,
}

/// Where a dataflow's operators put errors; the worker takes them out after each step.
#[derive(Clone, Debug, Default)]
pub struct ErrorLog(Rc<RefCell<Vec<RowError>>>);

impl ErrorLog {
    /// Puts one in.
    pub fn push(&self, as_of: Timestamp, reason: String, row: String, diff: i64) {
        self.0.borrow_mut().push(RowError { as_of, reason, row, diff });
    }

    /// Takes all out.
    pub fn take(&self) -> Vec<RowError> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

/// Applies `compute` to a delta; where it fails, finds the rows that make it fail by halving, logs those and goes on with the others.
pub fn isolate<T>(
    delta: &Delta,
    as_of: Timestamp,
    log: &ErrorLog,
    compute: &mut dyn FnMut(&Delta) -> Result<T, DataFusionError>,
    give: &mut dyn FnMut(T),
) {
    match compute(delta) {
        Ok(result) => give(result),
        Err(error) if delta.len() == 1 => log.push(as_of, reason(&error), describe(delta, 0), delta.diff(0)),
        Err(_) => {
            let half = delta.len() / 2;
            isolate(&delta.slice(0, half), as_of, log, compute, give);
            isolate(&delta.slice(half, delta.len() - half), as_of, log, compute, give);
        }
    }
}

/// The innermost message, without the chain's prefixes.
pub fn reason(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(inner, _) => inner.to_string(),
        other => other.to_string(),
    }
}

/// A row in words.
pub fn describe(delta: &Delta, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let mut text = String::new();
    for (field, column) in delta.rows.schema().fields().iter().zip(delta.rows.columns()) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(field.name());
        text.push_str(" = ");
        match (column.as_string_opt::<i32>(), ArrayFormatter::try_new(column, &options)) {
            (Some(strings), _) if arrow::array::Array::is_valid(strings, row) => {
                text.extend(strings.value(row).chars().take(200));
            }
            (_, Ok(formatter)) => text.push_str(&formatter.value(row).to_string()),
            (_, Err(_)) => text.push('?'),
        }
    }
    text
}
