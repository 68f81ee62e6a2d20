//! Inner equi-joins of two arrangements.
//!
//! Each side's new batch is matched against what the other side had acknowledged before, so every pair of updates meets exactly once; the
//! pair counts from the later of the two times on. Neither side is scanned: a changed key costs a seek in each of the other side's batches.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use differential_dataflow::trace::TraceReader;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::{Antichain, Timestamp as _};

use crate::batch::RowBatch;
use crate::delta::{Delta, DeltaStream, record_batch};
use crate::errors::ErrorLog;
use crate::operators::arrange::{ArrangedRows, RowTrace, batches_before};
use crate::protocol::Timestamp;
use crate::rows::{RowCodec, Rows};

/// Pairs are put out in batches of about this many rows.
const OUTPUT_ROWS: usize = 16 * 1024;

/// Where an output column comes from: a part of the matched rows and the column within it.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// The common key.
    Key(usize),
    /// The left side's other columns.
    Left(usize),
    /// The right side's other columns.
    Right(usize),
}

/// How matched rows become columns.
#[derive(Debug)]
pub struct JoinOutput {
    /// Decodes the key.
    pub keys: RowCodec,
    /// Decodes the left side's values.
    pub left: RowCodec,
    /// Decodes the right side's values.
    pub right: RowCodec,
    /// Sources of the output columns.
    pub parts: Vec<Part>,
    /// Names and types of the output columns.
    pub schema: SchemaRef,
}

/// Matched rows of one time that have not been put out.
#[derive(Debug, Default)]
struct Pairs {
    keys: Rows,
    left: Rows,
    right: Rows,
    diffs: Vec<i64>,
}

impl JoinOutput {
    fn delta(&self, pairs: Pairs) -> Result<Delta, ArrowError> {
        let (keys, left, right) =
            (self.keys.decode(pairs.keys.iter())?, self.left.decode(pairs.left.iter())?, self.right.decode(pairs.right.iter())?);
        let columns: Vec<ArrayRef> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Key(column) => Arc::clone(&keys[*column]),
                Part::Left(column) => Arc::clone(&left[*column]),
                Part::Right(column) => Arc::clone(&right[*column]),
            })
            .collect();
        let rows = record_batch(Arc::clone(&self.schema), columns, pairs.diffs.len())?;
        let ones = pairs.diffs.iter().all(|diff| *diff == 1);
        Ok(Delta { rows, diffs: (!ones).then(|| pairs.diffs.into()) })
    }
}

/// Matches one batch against the other side's batches. `swapped`: the new batch is the right side's.
fn match_batch(
    new: &RowBatch,
    others: &[Rc<RowBatch>],
    swapped: bool,
    earliest: Timestamp,
    put_out: &mut dyn FnMut(Timestamp, Pairs),
) {
    let mut positions = vec![0usize; others.len()];
    let mut open: BTreeMap<Timestamp, Pairs> = BTreeMap::new();
    for key_at in 0..new.key_count() {
        let key = new.key(key_at);
        for (other, position) in others.iter().zip(&mut positions) {
            *position = other.seek(*position, key);
            if *position >= other.key_count() || other.key(*position) != key {
                continue;
            }
            for new_val in new.vals_of(key_at) {
                for other_val in other.vals_of(*position) {
                    for new_update in new.updates_of(new_val) {
                        for other_update in other.updates_of(other_val) {
                            let time = new.time(new_update).max(other.time(other_update)).max(earliest);
                            let diff = (new.diff(new_update)[0] as i64).wrapping_mul(other.diff(other_update)[0] as i64);
                            let pairs = open.entry(time).or_default();
                            let (left, right) = if swapped {
                                (other.val(other_val), new.val(new_val))
                            } else {
                                (new.val(new_val), other.val(other_val))
                            };
                            pairs.keys.push(key);
                            pairs.left.push(left);
                            pairs.right.push(right);
                            pairs.diffs.push(diff);
                            if pairs.diffs.len() >= OUTPUT_ROWS {
                                put_out(time, std::mem::take(pairs));
                            }
                        }
                    }
                }
            }
        }
    }
    for (time, pairs) in open {
        if !pairs.diffs.is_empty() {
            put_out(time, pairs);
        }
    }
}

/// Joins two arrangements with the same key encoding. Updates before `as_of` count as of `as_of`.
pub fn join<'scope>(
    left: ArrangedRows<'scope>,
    right: ArrangedRows<'scope>,
    result: JoinOutput,
    as_of: Timestamp,
    errors: ErrorLog,
    name: &str,
) -> DeltaStream<'scope> {
    let (mut left_trace, mut right_trace) = (left.trace, right.trace);
    left.stream.binary_frontier(right.stream, Pipeline, Pipeline, name, move |initial, _| {
        drop(initial);
        let mut left_done = Antichain::from_elem(Timestamp::minimum());
        let mut right_done = Antichain::from_elem(Timestamp::minimum());
        move |(left_input, left_frontier), (right_input, right_frontier), output| {
            let report = |time: Timestamp, error: ArrowError| errors.push(time, error.to_string(), String::new(), 1);
            left_input.for_each(|capability, spans| {
                let Some(least) = capability.least().copied() else { return };
                for span in spans.drain(..) {
                    if let Some(batch) = &span.inner {
                        let others = batches_before(&mut right_trace, &right_done);
                        match_batch(batch, &others, false, as_of.max(least), &mut |time, pairs| match result.delta(pairs) {
                            Ok(delta) => output.session(&capability.delayed(&time, 0)).give(delta),
                            Err(error) => report(time, error),
                        });
                    }
                    left_done.clone_from(span.upper());
                }
            });
            right_input.for_each(|capability, spans| {
                let Some(least) = capability.least().copied() else { return };
                for span in spans.drain(..) {
                    if let Some(batch) = &span.inner {
                        let others = batches_before(&mut left_trace, &left_done);
                        match_batch(batch, &others, true, as_of.max(least), &mut |time, pairs| match result.delta(pairs) {
                            Ok(delta) => output.session(&capability.delayed(&time, 0)).give(delta),
                            Err(error) => report(time, error),
                        });
                    }
                    right_done.clone_from(span.upper());
                }
            });
            left_trace.advance_upper(&mut left_done);
            right_trace.advance_upper(&mut right_done);
            release(&mut left_trace, &left_done, right_frontier.frontier().to_owned());
            release(&mut right_trace, &right_done, left_frontier.frontier().to_owned());
        }
    })
}

/// What is acknowledged may merge; times before all that the other side can still send may coalesce.
fn release(trace: &mut RowTrace, done: &Antichain<Timestamp>, other_frontier: Antichain<Timestamp>) {
    trace.set_physical_compaction(done.borrow());
    trace.set_logical_compaction(other_frontier.borrow());
}
