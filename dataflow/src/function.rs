//! What the engine can be given to compute that is more than an expression: several rows from one, and functions of a whole group, which
//! neither a sum in a diff nor a prefix of an order can answer.
//!
//! Window functions, medians, lists and the like look at all rows of a group in an order. The engine keeps the groups and finds those that
//! changed; what is computed of one is the function's business, which `livelake-queries` makes of DataFusion's.

use std::fmt::Debug;

use arrow::array::UInt32Array;
use arrow::record_batch::RecordBatch;
use datafusion_common::DataFusionError;

/// Computes rows from the rows of a group. It must be a function: the same rows give the same result, bit for bit, whenever they are
/// asked for, since the rows that it gave before a change are computed again to be taken back.
pub trait GroupFunction: Debug + Send + Sync {
    /// All that the result depends on beside the rows, in words: two functions of one name are the same.
    fn name(&self) -> &str;

    /// Whether it gives one row for each group, with the group's key in front; otherwise it gives each row of the input with more columns
    /// behind some of the first ones.
    fn one_row_each(&self) -> bool;

    /// Computes several groups at once. `rows` holds one group's rows after the other's, each in its order, duplicates as often as they are
    /// there; `ends` is where each group ends.
    ///
    /// # Errors
    /// A group's result cannot be computed; the engine finds out which one's.
    fn apply(&self, rows: &RecordBatch, ends: &[usize]) -> Result<GroupRows, DataFusionError>;
}

impl PartialEq for dyn GroupFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

/// What a [`GroupFunction`] gives.
#[derive(Clone, Debug)]
pub struct GroupRows {
    /// The rows of one group after the other's.
    pub rows: RecordBatch,
    /// Where each group's rows end; as many as groups were asked for.
    pub ends: Vec<usize>,
}

/// Computes any number of rows from each row by itself.
pub trait RowFunction: Debug + Send + Sync {
    /// All that the result depends on beside the rows, in words: two functions of one name are the same.
    fn name(&self) -> &str;

    /// The rows computed from a batch, and for each of them the row that it comes from.
    ///
    /// # Errors
    /// It cannot be computed for some row; the engine finds out which.
    fn apply(&self, rows: &RecordBatch) -> Result<(RecordBatch, UInt32Array), DataFusionError>;
}

impl PartialEq for dyn RowFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}
