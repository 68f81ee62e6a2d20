//! GROUP BY over aggregates that live in the diff, and DISTINCT, which is the same without aggregates.
//!
//! The arrangement's diffs are the groups' sums. For every key that changed, the sum before is looked up, the change added, and the old
//! result row replaced by the new one: O(log n) a changed group, whatever its size.

use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::{Antichain, Timestamp as _};

use crate::aggregate::Aggregates;
use crate::batch::RowBatch;
use crate::chunk::owner;
use crate::delta::{Delta, DeltaStream, record_batch};
use crate::errors::{ErrorLog, describe_key};
use crate::operators::arrange::{ArrangedRows, batches_before, release_before};
use crate::protocol::Timestamp;
use crate::rows::RowCodec;
use differential_dataflow::trace::TraceReader;

/// Changed groups are put out in batches of about this many rows.
const OUTPUT_ROWS: usize = 16 * 1024;

/// What a reduce puts out.
#[derive(Debug)]
pub struct ReduceOutput {
    /// The aggregates, none for DISTINCT.
    pub aggregates: Aggregates,
    /// Decodes the key columns.
    pub keys: RowCodec,
    /// Keys, then aggregates.
    pub schema: SchemaRef,
    /// There are no keys: exactly one row, even over nothing, from this time on.
    pub global_from: Option<Timestamp>,
}

/// Rows before and after, collected for one time.
#[derive(Debug, Default)]
struct Changed<'a> {
    keys: Vec<&'a [u8]>,
    words: Vec<u64>,
    diffs: Vec<i64>,
}

impl<'a> Changed<'a> {
    fn push(&mut self, key: &'a [u8], words: &[u64], diff: i64) {
        self.keys.push(key);
        self.words.extend_from_slice(words);
        self.diffs.push(diff);
    }

    /// Nothing again, with the room that there was.
    fn clear(&mut self) {
        self.keys.clear();
        self.words.clear();
        self.diffs.clear();
    }
}

/// Sums of one key over batches whose positions move on as keys ascend.
struct Lookup {
    batches: Vec<(Rc<RowBatch>, usize)>,
}

impl Lookup {
    fn sum(&mut self, key: &[u8], into: &mut [u64]) {
        into.fill(0);
        for (batch, position) in &mut self.batches {
            *position = batch.seek(*position, key);
            if *position < batch.key_count() && batch.key(*position) == key {
                for val in batch.vals_of(*position) {
                    for update in batch.updates_of(val) {
                        batch.lanes().add(into, batch.diff(update));
                    }
                }
            }
        }
    }
}

impl ReduceOutput {
    fn exists(&self, words: &[u64]) -> bool {
        self.global_from.is_some() || (words[0] as i64) > 0
    }

    fn delta(&self, changed: &Changed<'_>) -> Result<Delta, ArrowError> {
        let mut columns = self.keys.decode(changed.keys.iter().copied())?;
        columns.extend(self.aggregates.finish(&changed.words)?);
        Ok(Delta {
            rows: record_batch(Arc::clone(&self.schema), columns, changed.diffs.len())?,
            diffs: Some(changed.diffs.as_slice().into()),
        })
    }

    /// The result as deltas; groups whose result cannot be shown (a sum that does not fit) go to the errors.
    fn deltas(&self, changed: &Changed<'_>, time: Timestamp, errors: &ErrorLog) -> Vec<Delta> {
        if changed.diffs.is_empty() {
            return Vec::new();
        }
        if let Ok(delta) = self.delta(changed) {
            return vec![delta];
        }
        let stride = self.aggregates.lanes().stride();
        let mut deltas = Vec::new();
        for (index, diff) in changed.diffs.iter().enumerate() {
            let mut one = Changed::default();
            one.push(changed.keys[index], &changed.words[index * stride..(index + 1) * stride], *diff);
            match self.delta(&one) {
                Ok(delta) => deltas.push(delta),
                Err(error) => errors.push(time, error.to_string(), self.describe(changed.keys[index]), *diff),
            }
        }
        deltas
    }

    fn describe(&self, key: &[u8]) -> String {
        describe_key(&self.keys, self.schema.fields()[..self.keys.columns().len()].iter(), key)
    }
}

/// Turns an arrangement of sums into result rows. Updates before `as_of` count as of `as_of`.
pub fn reduce<'scope>(
    arranged: ArrangedRows<'scope>,
    result: ReduceOutput,
    as_of: Timestamp,
    errors: ErrorLog,
    name: &str,
) -> DeltaStream<'scope> {
    let mut trace = arranged.trace;
    let scope = arranged.stream.scope();
    let owns_empty_key = owner(&[], scope.peers()) == scope.index() as u64;
    arranged.stream.unary_frontier(Pipeline, name, move |initial, _| {
        let stride = result.aggregates.lanes().stride();
        let mut first = (owns_empty_key && result.global_from.is_some()).then(|| initial.delayed(&as_of));
        drop(initial);
        let mut done = Antichain::from_elem(Timestamp::minimum());
        move |(input, _), output| {
            if let Some(capability) = first.take() {
                let mut initial_row = Changed::default();
                initial_row.push(&[], &vec![0; stride], 1);
                output.session(&capability).give_iterator(result.deltas(&initial_row, as_of, &errors).into_iter());
            }
            input.for_each(|capability, spans| {
                let Some(least) = capability.least().copied() else { return };
                for span in spans.drain(..) {
                    let Some(batch) = &span.inner else { continue };
                    let older = batches_before(&mut trace, span.lower());
                    let times: Vec<Timestamp> = batch.distinct_times();
                    let mut out: Vec<(Timestamp, Changed<'_>)> = Vec::new();
                    for time in &times {
                        let shown = (*time).max(as_of).max(least);
                        if out.last().is_none_or(|(last, _)| *last != shown) {
                            out.push((shown, Changed::default()));
                        }
                    }
                    let mut lookup = Lookup { batches: older.into_iter().map(|batch| (batch, 0)).collect() };
                    let (mut before, mut after) = (vec![0u64; stride], vec![0u64; stride]);
                    let mut put_out = |(time, changed): &mut (Timestamp, Changed<'_>), at_least: usize| {
                        if changed.diffs.len() >= at_least {
                            let delayed = capability.delayed(time, 0);
                            output.session(&delayed).give_iterator(result.deltas(changed, *time, &errors).into_iter());
                            changed.clear();
                        }
                    };
                    for position in 0..batch.key_count() {
                        let key = batch.key(position);
                        lookup.sum(key, &mut before);
                        let updates = batch.vals_of(position).flat_map(|val| batch.updates_of(val));
                        if let [only] = out.as_mut_slice() {
                            after.copy_from_slice(&before);
                            updates.for_each(|update| batch.lanes().add(&mut after, batch.diff(update)));
                            emit(&result, key, &before, &after, &mut only.1, only.0, &errors);
                            put_out(only, OUTPUT_ROWS);
                            continue;
                        }
                        let mut updates: Vec<(Timestamp, usize)> =
                            updates.map(|update| (batch.time(update).max(as_of).max(least), update)).collect();
                        updates.sort_unstable();
                        for same_time in updates.chunk_by(|left, right| left.0 == right.0) {
                            after.copy_from_slice(&before);
                            same_time.iter().for_each(|(_, update)| batch.lanes().add(&mut after, batch.diff(*update)));
                            if let Ok(slot) = out.binary_search_by_key(&same_time[0].0, |(time, _)| *time) {
                                emit(&result, key, &before, &after, &mut out[slot].1, same_time[0].0, &errors);
                                put_out(&mut out[slot], OUTPUT_ROWS);
                            }
                            before.copy_from_slice(&after);
                        }
                    }
                    out.iter_mut().for_each(|changed| put_out(changed, 1));
                    done.clone_from(span.upper());
                    release_before(&mut trace, &done);
                }
            });
            // intervals without updates are not sent along; the trace knows how far they reach
            trace.advance_upper(&mut done);
            release_before(&mut trace, &done);
        }
    })
}

/// The old result out, the new one in.
fn emit<'a>(
    result: &ReduceOutput,
    key: &'a [u8],
    before: &[u64],
    after: &[u64],
    changed: &mut Changed<'a>,
    time: Timestamp,
    errors: &ErrorLog,
) {
    let below_zero = |words: &[u64]| (words[0] as i64) < 0;
    if below_zero(before) != below_zero(after) {
        errors.push_below_zero(time, result.describe(key), if below_zero(after) { 1 } else { -1 });
    }
    let (was, is) = (result.exists(before), result.exists(after));
    // without aggregates the row is its key, and only its coming or going shows
    if was && is && (before == after || result.aggregates.is_empty()) {
        return;
    }
    if was {
        changed.push(key, before, -1);
    }
    if is {
        changed.push(key, after, 1);
    }
}
