//! Errors of data are data: a row for which an expression fails goes to the view's errors instead of stopping the view.
//!
//! An error has a multiplicity like a row: when the row that caused it is retracted, the error is retracted, so a view's errors
//! are always those of its present input. Operators put them into a log, with the time at which they count; what is complete is taken
//! out and kept as a relation of its own, which is read and followed like any other (`operators/errors.rs`).

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_common::DataFusionError;
use timely::progress::frontier::AntichainRef;

use crate::delta::{Delta, record_batch};
use crate::handle::panic_words;
use crate::protocol::Timestamp;
use crate::rows::RowCodec;

/// An error that came (diff above zero) or went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// The columns of a view's errors. One row an error rather than one with a count for each different one: an error comes and goes with a
/// row, so a bag of them needs no grouping to be maintained, and `GROUP BY reason` counts where that is wanted.
pub fn error_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![text("reason"), text("row")]))
}

/// Errors of one time as rows of [`error_schema`].
///
/// # Errors
/// Arrow's, for texts of more than two gigabytes.
pub fn error_rows(errors: &[RowError]) -> Result<Delta, ArrowError> {
    let texts = |text: fn(&RowError) -> &str| Arc::new(errors.iter().map(text).map(Some).collect::<StringArray>());
    let columns = vec![texts(|error| &error.reason) as _, texts(|error| &error.row) as _];
    let diffs = errors.iter().map(|error| error.diff).collect();
    Ok(Delta { rows: record_batch(error_schema(), columns, errors.len())?, diffs: Some(diffs) })
}

#[derive(Debug, Default)]
struct Log {
    errors: RefCell<Vec<RowError>>,
    /// Sources below of which more rows may be taken away than there were: those without a key.
    unkeyed: Vec<String>,
}

/// Where a dataflow's operators put errors, on one worker.
#[derive(Clone, Debug, Default)]
pub struct ErrorLog(Rc<Log>);

impl ErrorLog {
    /// The log of operators that read, directly or by way of views, these sources without a key.
    pub fn over(unkeyed: Vec<String>) -> ErrorLog {
        ErrorLog(Rc::new(Log { errors: RefCell::default(), unkeyed }))
    }

    /// Puts one in.
    pub fn push(&self, as_of: Timestamp, reason: String, row: String, diff: i64) {
        self.0.errors.borrow_mut().push(RowError { as_of, reason, row, diff });
    }

    /// Puts in that of a row or group (in words) there is less than nothing, `diff` times: above zero from this time on, below no longer.
    pub fn push_below_zero(&self, as_of: Timestamp, row: String, diff: i64) {
        let mut reason = "more rows were retracted than there were".to_owned();
        if !self.0.unkeyed.is_empty() {
            reason += &format!(" in {}", self.0.unkeyed.join(" or "));
        }
        self.push(as_of, reason, row, diff);
    }

    /// Puts others in.
    pub fn extend(&self, errors: Vec<RowError>) {
        self.0.errors.borrow_mut().extend(errors);
    }

    /// Takes all out.
    pub fn take(&self) -> Vec<RowError> {
        std::mem::take(&mut self.0.errors.borrow_mut())
    }

    /// Takes out the errors of times that are complete, by time, alike ones added up: a row that fails and is gone in one tick is none.
    /// What is older than `begin` counts as of then.
    pub fn take_complete(&self, frontier: AntichainRef<'_, Timestamp>, begin: Timestamp) -> Vec<RowError> {
        let mut complete = self.take();
        if complete.is_empty() {
            return complete;
        }
        complete.iter_mut().for_each(|error| error.as_of = error.as_of.max(begin));
        let (mut complete, open): (Vec<_>, Vec<_>) = complete.into_iter().partition(|error| !frontier.less_equal(&error.as_of));
        self.extend(open);
        complete.sort_unstable();
        complete.dedup_by(|next, kept| {
            let same = next.as_of == kept.as_of && next.reason == kept.reason && next.row == kept.row;
            if same {
                kept.diff += next.diff;
            }
            same
        });
        complete.retain(|error| error.diff != 0);
        complete
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
    match guarded(|| compute(delta)) {
        Ok(result) => give(result),
        Err(error) if delta.len() == 1 => log.push(as_of, reason(&error), describe(delta, 0), delta.diff(0)),
        Err(_) => {
            let half = delta.len() / 2;
            isolate(&delta.slice(0, half), as_of, log, compute, give);
            isolate(&delta.slice(half, delta.len() - half), as_of, log, compute, give);
        }
    }
}

/// What `compute` says; a panic in it is an error. Functions are other people's code, and one that panics at a row must not end the engine.
///
/// # Errors
/// `compute`'s, or what it panicked with.
pub fn guarded<T>(compute: impl FnOnce() -> Result<T, DataFusionError>) -> Result<T, DataFusionError> {
    // what a function leaves behind half done is dropped with its result
    catch_unwind(AssertUnwindSafe(compute))
        .unwrap_or_else(|panic| Err(DataFusionError::Execution(function_failed(panic.as_ref()))))
}

/// What a function that panicked is told.
pub fn function_failed(panic: &(dyn Any + Send)) -> String {
    format!("a function failed: {}", panic_words(panic))
}

/// The innermost message, without the chain's prefixes.
pub fn reason(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::CastError(words) => words.clone(),
            other => other.to_string(),
        },
        DataFusionError::Execution(words) => words.clone(),
        other => other.strip_backtrace(),
    }
}

/// A group in words: its key's columns.
pub fn describe_key<'a>(keys: &RowCodec, fields: impl Iterator<Item = &'a FieldRef>, key: &[u8]) -> String {
    let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
    let row = keys.decode([key]).and_then(|columns| record_batch(schema, columns, 1));
    row.map_or_else(|_| String::new(), |rows| describe(&Delta { rows, diffs: None }, 0))
}

/// A row in words, as `column = value` pairs; columns that planning made up, which begin with `__`, mean nothing to who reads it.
pub fn describe(delta: &Delta, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let mut pairs: Vec<String> = Vec::with_capacity(delta.rows.num_columns());
    for (field, column) in delta.rows.schema().fields().iter().zip(delta.rows.columns()) {
        if field.name().starts_with("__") {
            continue;
        }
        let value = match (column.as_string_opt::<i32>(), ArrayFormatter::try_new(column, &options)) {
            (Some(strings), _) if arrow::array::Array::is_valid(strings, row) => strings.value(row).chars().take(200).collect(),
            (_, Ok(formatter)) => formatter.value(row).to_string(),
            (_, Err(_)) => "?".to_owned(),
        };
        let pair = format!("{} = {value}", field.name());
        // both sides of a join have its key
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    pairs.join(", ")
}

#[cfg(test)]
mod tests {
    use timely::progress::Antichain;

    use super::*;

    #[test]
    fn complete_times_are_taken_and_what_cancels_is_none() {
        let log = ErrorLog::over(vec!["shop.orders".to_owned()]);
        let push = |as_of, row: &str, diff| log.push(as_of, "division by zero".to_owned(), row.to_owned(), diff);
        push(3, "a", 1);
        push(5, "a", 1);
        push(5, "b", 1);
        push(5, "b", -1);
        push(7, "a", -2);
        log.push_below_zero(9, "c".to_owned(), 1);
        let taken = log.take_complete(Antichain::from_elem(7).borrow(), 5);
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].as_of, taken[0].row.as_str(), taken[0].diff), (5, "a", 2));
        let taken = log.take_complete(Antichain::new().borrow(), 5);
        assert_eq!(taken.iter().map(|error| (error.as_of, error.diff)).collect::<Vec<_>>(), [(7, -2), (9, 1)]);
        assert_eq!(taken[1].reason, "more rows were retracted than there were in shop.orders");
        assert!(log.take().is_empty());
    }

    #[test]
    fn a_function_that_panics_at_a_row_is_an_error_of_that_row() {
        let schema = Arc::new(Schema::new(vec![Field::new("i", DataType::Int64, true)]));
        let values: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(0..10));
        let delta = Delta { rows: record_batch(schema, vec![values], 10).unwrap(), diffs: None };
        let (log, mut given) = (ErrorLog::default(), 0);
        let mut compute = |part: &Delta| {
            let rows = part.rows.column(0).as_primitive::<arrow::datatypes::Int64Type>();
            assert!(rows.values().iter().all(|value| *value != 7), "seven is too much");
            Ok(part.len())
        };
        isolate(&delta, 3, &log, &mut compute, &mut |rows| given += rows);
        let errors = log.take();
        assert_eq!((given, errors.len()), (9, 1));
        assert_eq!((errors[0].reason.as_str(), errors[0].row.as_str()), ("a function failed: seven is too much", "i = 7"));
    }
}
