//! A function of each group's rows, maintained: when a group changes, its result is computed anew and only what differs is put out.
//!
//! The arrangement's values are in the order that the function wants, so a group is read in order without sorting. The result before
//! the change is computed again rather than kept: a second copy of the view would cost memory for ever, computing costs only where
//! something changes. A change costs as much as its group has rows, and nothing for other groups; many changed groups are computed in one call.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion_common::DataFusionError;
use differential_dataflow::trace::TraceReader;
use hashbrown::HashMap;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::{Antichain, Timestamp as _};

use crate::batch::RowBatch;
use crate::chunk::owner;
use crate::delta::{Delta, DeltaStream, record_batch};
use crate::errors::{ErrorLog, describe_key, guarded, reason};
use crate::function::{GroupFunction, GroupRows};
use crate::operators::arrange::{ArrangedRows, batches_before, release_before};
use crate::operators::group::Group;
use crate::protocol::Timestamp;
use crate::rows::{RowCodec, Rows};

/// Changed groups are computed together until they have about this many rows.
const CALL_ROWS: usize = 32 * 1024;

/// How groups become rows.
#[derive(Debug)]
pub struct EachGroupOutput {
    /// What is computed.
    pub function: Arc<dyn GroupFunction>,
    /// Decodes the partition columns.
    pub keys: RowCodec,
    /// Decodes the values: ordering columns first, then the others.
    pub vals: RowCodec,
    /// For each column of the input: (in the key?, its position there).
    pub parts: Vec<(bool, usize)>,
    /// The input's columns.
    pub input: SchemaRef,
    /// Encodes all columns of the output, to find out what differs.
    pub rows: RowCodec,
    /// There is one group without key, and it has a result over no rows, too, from this time on.
    pub always_from: Option<Timestamp>,
}

/// Groups before and after a change, collected for one time.
#[derive(Debug, Default)]
struct Changes<'a> {
    keys: Vec<&'a [u8]>,
    vals: Vec<&'a [u8]>,
    /// For each key where its rows before the change end in `vals`, and where those after it do.
    ends: Vec<(usize, usize)>,
}

impl Changes<'_> {
    fn clear(&mut self) {
        self.keys.clear();
        self.vals.clear();
        self.ends.clear();
    }
}

/// What a function gave for the groups before and after the change of each of some keys.
struct Results {
    rows: Vec<GroupRows>,
    encoded: Vec<Rows>,
    /// For each key the place of its result (which of the batches, first and last row) before and after the change.
    places: Vec<[(usize, usize, usize); 2]>,
}

impl EachGroupOutput {
    /// The input rows of some groups.
    fn rows_of(
        &self,
        keys: &[&[u8]],
        group_of_row: &UInt32Array,
        vals: &[&[u8]],
    ) -> Result<arrow::record_batch::RecordBatch, DataFusionError> {
        let key_columns = self.keys.decode(keys.iter().copied())?;
        let val_columns = self.vals.decode(vals.iter().copied())?;
        let columns = self.parts.iter().map(|(in_key, position)| match in_key {
            true => take(&key_columns[*position], group_of_row, None),
            false => Ok(Arc::clone(&val_columns[*position])),
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
        Ok(record_batch(Arc::clone(&self.input), columns, vals.len())?)
    }

    /// Computes both sides of changes `range`.
    fn compute(
        &self,
        changes: &Changes<'_>,
        range: std::ops::Range<usize>,
    ) -> Result<(GroupRows, Vec<[usize; 2]>), DataFusionError> {
        let begin = if range.start == 0 { 0 } else { changes.ends[range.start - 1].1 };
        let (mut at, mut ends, mut group_of_row, mut numbers) = (begin, Vec::new(), Vec::new(), Vec::new());
        for (key, (before, after)) in changes.ends[range.clone()].iter().enumerate() {
            let mut number = |end: usize| {
                if end == at && self.always_from.is_none() {
                    return usize::MAX;
                }
                group_of_row.extend(std::iter::repeat_n(key as u32, end - at));
                at = end;
                ends.push(end - begin);
                ends.len() - 1
            };
            numbers.push([number(*before), number(*after)]);
        }
        let rows = self.rows_of(&changes.keys[range], &UInt32Array::from(group_of_row), &changes.vals[begin..at])?;
        Ok((self.function.apply(&rows, &ends)?, numbers))
    }

    /// As [`Self::compute`], but a group whose result cannot be computed has none, and says so in the errors.
    fn results(
        &self,
        changes: &Changes<'_>,
        range: std::ops::Range<usize>,
        time: Timestamp,
        errors: &ErrorLog,
        into: &mut Results,
    ) {
        match guarded(|| self.compute(changes, range.clone())) {
            Ok((rows, numbers)) => {
                let batch = into.rows.len();
                let place = |number: usize| match number {
                    usize::MAX => (batch, 0, 0),
                    0 => (batch, 0, rows.ends[0]),
                    number => (batch, rows.ends[number - 1], rows.ends[number]),
                };
                into.places.extend(numbers.into_iter().map(|pair| pair.map(place)));
                match self.rows.encode(rows.rows.columns(), rows.rows.num_rows()) {
                    Ok(encoded) => into.encoded.push(encoded),
                    Err(error) => {
                        errors.push(time, error.to_string(), String::new(), 1);
                        into.places.iter_mut().rev().take(range.len()).for_each(|pair| *pair = [(batch, 0, 0); 2]);
                        into.encoded.push(Rows::default());
                    }
                }
                into.rows.push(rows);
            }
            Err(_) if range.len() > 1 => {
                let half = range.start + range.len() / 2;
                self.results(changes, range.start..half, time, errors, into);
                self.results(changes, half..range.end, time, errors, into);
            }
            Err(_) => self.one_result(changes, range.start, time, errors, into),
        }
    }

    /// One key's groups, each by itself, as one of the two fails.
    fn one_result(&self, changes: &Changes<'_>, at: usize, time: Timestamp, errors: &ErrorLog, into: &mut Results) {
        let begin = if at == 0 { 0 } else { changes.ends[at - 1].1 };
        let (before, after) = changes.ends[at];
        let mut places = [(0, 0, 0); 2];
        for (side, (range, diff)) in [(begin..before, -1), (before..after, 1)].into_iter().enumerate() {
            if range.is_empty() && self.always_from.is_none() {
                continue;
            }
            let computed = self
                .rows_of(&changes.keys[at..=at], &UInt32Array::from(vec![0; range.len()]), &changes.vals[range.clone()])
                .and_then(|rows| guarded(|| self.function.apply(&rows, &[range.len()])))
                .and_then(|rows| Ok((self.rows.encode(rows.rows.columns(), rows.rows.num_rows())?, rows)));
            match computed {
                Ok((encoded, rows)) => {
                    places[side] = (into.rows.len(), 0, rows.rows.num_rows());
                    into.encoded.push(encoded);
                    into.rows.push(rows);
                }
                Err(error) => errors.push(time, reason(&error), self.describe(changes.keys[at]), diff),
            }
        }
        into.places.push(places);
    }

    fn describe(&self, key: &[u8]) -> String {
        describe_key(&self.keys, self.keys.columns().iter().map(|column| &self.input.fields()[*column]), key)
    }

    /// What changes do to the output.
    fn deltas(&self, changes: &Changes<'_>, time: Timestamp, errors: &ErrorLog) -> Vec<Delta> {
        let mut results = Results { rows: Vec::new(), encoded: Vec::new(), places: Vec::new() };
        self.results(changes, 0..changes.keys.len(), time, errors, &mut results);
        let mut positions: Vec<(Vec<u32>, Vec<i64>)> = vec![Default::default(); results.rows.len()];
        let mut counts = HashMap::new();
        for [old, new] in &results.places {
            results.difference(*old, *new, &mut counts, &mut |(batch, row), diff| {
                positions[batch].0.push(row as u32);
                positions[batch].1.push(diff);
            });
        }
        let mut deltas = Vec::with_capacity(positions.len());
        for (result, (rows, diffs)) in results.rows.iter().zip(positions) {
            if rows.is_empty() {
                continue;
            }
            match take_record_batch(&result.rows, &UInt32Array::from(rows)) {
                Ok(rows) => deltas.push(Delta { rows, diffs: Some(diffs.into()) }),
                Err(error) => errors.push(time, error.to_string(), String::new(), 1),
            }
        }
        deltas
    }
}

type Place = (usize, usize, usize);
type Counts<'a> = HashMap<&'a [u8], (i64, (usize, usize))>;

impl Results {
    /// The rows by which one result differs from another, with how many more there are.
    fn difference<'a>(&'a self, old: Place, new: Place, counts: &mut Counts<'a>, give: &mut impl FnMut((usize, usize), i64)) {
        let ((old_batch, mut old_from, mut old_to), (new_batch, mut new_from, mut new_to)) = (old, new);
        let row = |batch: usize, at: usize| self.encoded[batch].get(at);
        while old_from < old_to && new_from < new_to && row(old_batch, old_from) == row(new_batch, new_from) {
            (old_from, new_from) = (old_from + 1, new_from + 1);
        }
        while old_from < old_to && new_from < new_to && row(old_batch, old_to - 1) == row(new_batch, new_to - 1) {
            (old_to, new_to) = (old_to - 1, new_to - 1);
        }
        if old_from == old_to || new_from == new_to {
            (old_from..old_to).for_each(|at| give((old_batch, at), -1));
            (new_from..new_to).for_each(|at| give((new_batch, at), 1));
            return;
        }
        counts.clear();
        for (batch, range, diff) in [(old_batch, old_from..old_to, -1), (new_batch, new_from..new_to, 1)] {
            for at in range {
                counts.entry(row(batch, at)).or_insert((0, (batch, at))).0 += diff;
            }
        }
        counts.values().filter(|(count, _)| *count != 0).for_each(|(count, place)| give(*place, *count));
    }
}

/// Turns an arrangement by group, ordered within, into what the function gives. Updates before `as_of` count as of `as_of`.
pub fn each_group<'scope>(
    arranged: ArrangedRows<'scope>,
    result: EachGroupOutput,
    as_of: Timestamp,
    errors: ErrorLog,
    name: &str,
) -> DeltaStream<'scope> {
    let mut trace = arranged.trace;
    let scope = arranged.stream.scope();
    let owns_empty_key = owner(&[], scope.peers()) == scope.index() as u64;
    arranged.stream.unary_frontier(Pipeline, name, move |initial, _| {
        let mut first = (owns_empty_key && result.always_from.is_some()).then(|| initial.delayed(&as_of));
        drop(initial);
        let mut done = Antichain::from_elem(Timestamp::minimum());
        move |(input, _), output| {
            if let Some(capability) = first.take() {
                let rows = result.rows_of(&[&[]], &UInt32Array::from(Vec::<u32>::new()), &[]);
                match rows.and_then(|rows| result.function.apply(&rows, &[0])) {
                    Ok(made) => output.session(&capability).give(Delta { rows: made.rows, diffs: None }),
                    Err(error) => errors.push(as_of, reason(&error), String::new(), 1),
                }
            }
            input.for_each(|capability, spans| {
                let Some(least) = capability.least().copied() else { return };
                let earliest = as_of.max(least);
                for span in spans.drain(..) {
                    let Some(fresh) = &span.inner else { continue };
                    let mut batches: Vec<Rc<RowBatch>> = batches_before(&mut trace, span.lower());
                    let mut positions = vec![0usize; batches.len()];
                    batches.push(Rc::clone(fresh));
                    let mut pending: BTreeMap<Timestamp, Changes<'_>> = BTreeMap::new();
                    let mut put_out = |time: Timestamp, changes: &mut Changes<'_>| {
                        let mut deltas = result.deltas(changes, time, &errors);
                        output.session(&capability.delayed(&time, 0)).give_iterator(deltas.drain(..));
                        changes.clear();
                    };
                    for key_at in 0..fresh.key_count() {
                        let group = Group::seek(&batches, &mut positions, key_at, earliest);
                        // whether of some row there is less than nothing
                        let read = |until: Option<Timestamp>, into: &mut Vec<_>| {
                            let mut reader = group.reader(until);
                            let mut negative = false;
                            while let Some((batch, val, count)) = reader.next_value() {
                                negative |= count < 0;
                                into.extend(std::iter::repeat_n(batches[batch].val(val), count.max(0) as usize));
                            }
                            negative
                        };
                        let mut before = None;
                        for time in group.times() {
                            let changes = pending.entry(time).or_default();
                            changes.keys.push(group.key);
                            let was_below = read(before, &mut changes.vals);
                            let end = changes.vals.len();
                            let is_below = read(Some(time), &mut changes.vals);
                            if was_below != is_below {
                                errors.push_below_zero(time, result.describe(group.key), if is_below { 1 } else { -1 });
                            }
                            changes.ends.push((end, changes.vals.len()));
                            before = Some(time);
                            if changes.vals.len() >= CALL_ROWS {
                                put_out(time, changes);
                            }
                        }
                    }
                    pending
                        .iter_mut()
                        .filter(|(_, changes)| !changes.keys.is_empty())
                        .for_each(|(time, changes)| put_out(*time, changes));
                    done.clone_from(span.upper());
                    release_before(&mut trace, &done);
                }
            });
            trace.advance_upper(&mut done);
            release_before(&mut trace, &done);
        }
    })
}
