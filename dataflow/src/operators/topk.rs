//! The first rows of each group in an order, maintained: ORDER BY … LIMIT, row numbers, and MIN and MAX as the first row.
//!
//! The arrangement's values begin with the ordering columns, encoded so that bytes compare as the order asks. So the first rows of a
//! group are a prefix of its values, and a change costs a read of that prefix before and after, not of the group: one hot group is
//! as cheap as a small one.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use differential_dataflow::trace::TraceReader;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::{Antichain, Timestamp as _};

use crate::batch::RowBatch;
use crate::delta::{Delta, DeltaStream, record_batch};
use crate::errors::{ErrorLog, describe_key};
use crate::operators::arrange::{ArrangedRows, batches_before, release_before};
use crate::operators::group::Group;
use crate::protocol::Timestamp;
use crate::rows::RowCodec;

/// Which rows to keep, and how to put them out.
#[derive(Debug)]
pub struct TopKOutput {
    /// Rows to leave out first.
    pub offset: u64,
    /// Rows to keep; absent: all.
    pub limit: Option<u64>,
    /// Whether the row's number is the last output column.
    pub row_number: bool,
    /// Decodes the partition columns.
    pub keys: RowCodec,
    /// Decodes the values: ordering columns first, then the others.
    pub vals: RowCodec,
    /// For each output column (but the number): (in the key?, its position there).
    pub parts: Vec<(bool, usize)>,
    /// Names and types of the output.
    pub schema: SchemaRef,
}

/// A value of the kept prefix, how many of it are kept, and the number of the first of them.
pub(crate) type Kept<'a> = (&'a [u8], i64, u64);

impl TopKOutput {
    /// The kept prefix: values with multiplicity and first row number; and whether on the way to its end there was less than nothing of one.
    pub(crate) fn kept<'a>(&self, mut next: impl FnMut() -> Option<(&'a [u8], i64)>) -> (Vec<Kept<'a>>, bool) {
        let mut negative = false;
        let end = self.limit.map(|limit| self.offset.saturating_add(limit));
        let mut seen = 0u64;
        let mut kept = Vec::new();
        while end.is_none_or(|end| seen < end)
            && let Some((val, count)) = next()
        {
            if count < 0 {
                negative = true;
                continue;
            }
            let first = seen.max(self.offset);
            let last = end.map_or(seen + count as u64, |end| end.min(seen + count as u64));
            if last > first {
                kept.push((val, (last - first) as i64, first + 1));
            }
            seen += count as u64;
        }
        (kept, negative)
    }

    fn describe(&self, key: &[u8]) -> String {
        describe_key(&self.keys, self.keys.columns().iter().map(|column| &self.schema.fields()[*column]), key)
    }

    pub(crate) fn delta(&self, changed: Changed<'_>) -> Result<Delta, ArrowError> {
        let Changed { keys, vals, numbers, diffs } = changed;
        let (key_columns, val_columns) = (self.keys.decode(keys)?, self.vals.decode(vals)?);
        let mut columns: Vec<ArrayRef> = self
            .parts
            .iter()
            .map(|(in_key, position)| Arc::clone(if *in_key { &key_columns[*position] } else { &val_columns[*position] }))
            .collect();
        if self.row_number {
            columns.push(Arc::new(Int64Array::from(numbers)));
        }
        Ok(Delta { rows: record_batch(Arc::clone(&self.schema), columns, diffs.len())?, diffs: Some(diffs.into()) })
    }
}

/// Output rows of one time that have not been put out.
#[derive(Debug, Default)]
pub(crate) struct Changed<'a> {
    keys: Vec<&'a [u8]>,
    vals: Vec<&'a [u8]>,
    numbers: Vec<i64>,
    diffs: Vec<i64>,
}

impl<'a> Changed<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.diffs.is_empty()
    }

    fn push(&mut self, result: &TopKOutput, key: &'a [u8], val: &'a [u8], count: i64, first: u64, sign: i64) {
        if !result.row_number {
            self.keys.push(key);
            self.vals.push(val);
            self.numbers.push(0);
            self.diffs.push(sign * count);
            return;
        }
        for number in first..first + count as u64 {
            self.keys.push(key);
            self.vals.push(val);
            self.numbers.push(number as i64);
            self.diffs.push(sign);
        }
    }
}

/// Turns an arrangement by partition, ordered within, into the first rows. Updates before `as_of` count as of `as_of`.
pub fn top_k<'scope>(
    arranged: ArrangedRows<'scope>,
    result: TopKOutput,
    as_of: Timestamp,
    errors: ErrorLog,
    name: &str,
) -> DeltaStream<'scope> {
    let mut trace = arranged.trace;
    arranged.stream.unary_frontier(Pipeline, name, move |initial, _| {
        drop(initial);
        let mut done = Antichain::from_elem(Timestamp::minimum());
        move |(input, _), output| {
            input.for_each(|capability, spans| {
                let Some(least) = capability.least().copied() else { return };
                let earliest = as_of.max(least);
                for span in spans.drain(..) {
                    let Some(fresh) = &span.inner else { continue };
                    let mut batches = batches_before(&mut trace, span.lower());
                    let mut positions = vec![0usize; batches.len()];
                    batches.push(Rc::clone(fresh));
                    let mut out: BTreeMap<Timestamp, Changed<'_>> = BTreeMap::new();
                    for key_at in 0..fresh.key_count() {
                        change_of_key(&result, &batches, &mut positions, key_at, earliest, &mut out, &errors);
                    }
                    for (time, changed) in out {
                        match result.delta(changed) {
                            Ok(delta) => output.session(&capability.delayed(&time, 0)).give(delta),
                            Err(error) => errors.push(time, error.to_string(), String::new(), 1),
                        }
                    }
                    done.clone_from(span.upper());
                    release_before(&mut trace, &done);
                }
            });
            trace.advance_upper(&mut done);
            release_before(&mut trace, &done);
        }
    })
}

/// What the changes of one key, in the last of the batches, do to its kept prefix, time by time.
fn change_of_key<'a>(
    result: &TopKOutput,
    batches: &'a [Rc<RowBatch>],
    positions: &mut [usize],
    key_at: usize,
    earliest: Timestamp,
    out: &mut BTreeMap<Timestamp, Changed<'a>>,
    errors: &ErrorLog,
) {
    let group = Group::seek(batches, positions, key_at, earliest);
    let (key, times) = (group.key, group.times());

    let read = |until: Option<Timestamp>| {
        let mut reader = group.reader(until);
        result.kept(|| reader.next_value().map(|(at, val, count)| (batches[at].val(val), count)))
    };
    let (mut before, mut was_below) = read(None);
    for time in times {
        let (after, is_below) = read(Some(time));
        let changed = out.entry(time).or_default();
        diff_kept(result, key, &before, &after, changed);
        if was_below != is_below {
            errors.push_below_zero(time, result.describe(key), if is_below { 1 } else { -1 });
        }
        (before, was_below) = (after, is_below);
    }
}

/// Puts out what differs between two kept prefixes; both are in the order of values.
pub(crate) fn diff_kept<'a>(
    result: &TopKOutput,
    key: &'a [u8],
    before: &[Kept<'a>],
    after: &[Kept<'a>],
    changed: &mut Changed<'a>,
) {
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(left), Some(right)) => left.0.cmp(right.0),
        };
        let gone = if order.is_le() { old.next() } else { None };
        let come = if order.is_ge() { new.next() } else { None };
        if let (Some(gone), Some(come)) = (gone, come)
            && gone.1 == come.1
            && (gone.2 == come.2 || !result.row_number)
        {
            continue;
        }
        if let Some(gone) = gone {
            changed.push(result, key, gone.0, gone.1, gone.2, -1);
        }
        if let Some(come) = come {
            changed.push(result, key, come.0, come.1, come.2, 1);
        }
    }
}
