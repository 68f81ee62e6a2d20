//! Upsert sources: one row a key, the latest one pushed.
//!
//! What a message says about the old row is not believed (under PostgreSQL's default replica identity it is not a row at all); the old row
//! comes from the arrangement itself. Keys are looked up in sorted order, and a key beyond a batch's last one costs a single
//! comparison, so the usual stream of new, growing ids hardly pays for its look-ups.

use std::collections::BTreeMap;
use std::rc::Rc;

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::{Description, Span, Trace};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::{Antichain, Stamp, Timestamp as _};

use crate::batch::{RowBatch, RowBatchBuilder, RowSpine};
use crate::chunk::{Share, common_width, deal, owner};
use crate::errors::ErrorLog;
use crate::lanes::Lanes;
use crate::operators::arrange::{ArrangedRows, RowSpan, batches_before};
use crate::order::KeyOrder;
use crate::protocol::{Op, Timestamp};
use crate::rows::{RowCodec, Rows};

/// Encoded upserts and deletes of one pushed batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Upserts {
    keys: Rows,
    vals: Rows,
    /// Op codes, one a row; absent: no row deletes its key.
    ops: Option<Vec<u8>>,
}

/// A worker's share of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpsertChunk {
    /// Position of the batch in the order of pushing: later ones win.
    sequence: u64,
    /// Absent: a truncation, everything pushed before it is gone.
    upserts: Option<Share<Upserts>>,
}

impl Upserts {
    /// The value that a row gives its key, unless it deletes it.
    fn val(&self, row: u32) -> Option<&[u8]> {
        let delete = self.ops.as_ref().is_some_and(|ops| ops[row as usize] == Op::Delete as u8);
        (!delete).then(|| self.vals.get(row as usize))
    }
}

/// What a worker feeds into an upsert source: pushed rows with their place in the order.
#[derive(Clone, Debug)]
pub struct PushedBatch {
    /// Position in the order of pushing.
    pub sequence: u64,
    /// Rows and op codes; absent: a truncation.
    pub rows: Option<(RecordBatch, Option<Vec<u8>>)>,
}

/// A stream of pushed batches.
pub type PushedStream<'scope> = Stream<'scope, Timestamp, Vec<PushedBatch>>;

/// The shares of all workers that have one, each with the worker's number.
fn split(pushed: PushedBatch, keys: &RowCodec, vals: &RowCodec, peers: usize) -> Result<Vec<(u64, UpsertChunk)>, ArrowError> {
    let sequence = pushed.sequence;
    let Some((rows, ops)) = pushed.rows else {
        return Ok((0..peers as u64).map(|worker| (worker, UpsertChunk { sequence, upserts: None })).collect());
    };
    let keys = keys.encode(rows.columns(), rows.num_rows())?;
    let vals = vals.encode(rows.columns(), rows.num_rows())?;
    let picks = deal(keys.len(), peers, |row| owner(keys.get(row), peers));
    let shares = Share::of_workers(Upserts { keys, vals, ops }, picks);
    Ok(shares.map(|(worker, share)| (worker, UpsertChunk { sequence, upserts: Some(share) })).collect())
}

/// Arranges an upsert source by its key.
pub fn upsert<'scope>(
    stream: PushedStream<'scope>,
    keys: RowCodec,
    vals: RowCodec,
    errors: ErrorLog,
    name: &str,
) -> ArrangedRows<'scope> {
    let peers = stream.scope().peers();
    let encoded =
        stream.unary::<CapacityContainerBuilder<Vec<(u64, UpsertChunk)>>, _, _, _>(Pipeline, "EncodeUpserts", move |_, _| {
            move |input, output| {
                input.for_each(|capability, batches| {
                    let mut session = output.session(&capability);
                    for pushed in batches.drain(..) {
                        match split(pushed, &keys, &vals, peers) {
                            Ok(chunks) => session.give_iterator(chunks.into_iter()),
                            Err(error) => {
                                errors.push(capability.least().copied().unwrap_or(0), error.to_string(), String::new(), 1)
                            }
                        }
                    }
                });
            }
        });
    if peers == 1 {
        arrange_upserts(encoded, Pipeline, name)
    } else {
        arrange_upserts(encoded, Exchange::new(|chunk: &(u64, UpsertChunk)| chunk.0), name)
    }
}

fn arrange_upserts<'scope, P>(
    stream: Stream<'scope, Timestamp, Vec<(u64, UpsertChunk)>>,
    pact: P,
    name: &str,
) -> ArrangedRows<'scope>
where
    P: timely::dataflow::channels::pact::ParallelizationContract<Timestamp, Vec<(u64, UpsertChunk)>>,
{
    let mut reader = None;
    let reader_out = &mut reader;
    let scope = stream.scope();
    let stream = stream.unary_frontier::<CapacityContainerBuilder<Vec<RowSpan>>, _, _, _>(pact, name, move |initial, info| {
        drop(initial);
        let activator = scope.activator_for(Rc::clone(&info.address));
        let trace = RowSpine::new(info.clone(), None, Some(activator));
        let (agent, mut writer) = TraceAgent::new(trace, info, None);
        let mut own = agent.clone();
        *reader_out = Some(agent);
        let mut pending: BTreeMap<Timestamp, (Capability<Timestamp>, Vec<UpsertChunk>)> = BTreeMap::new();
        let mut done = Antichain::from_elem(Timestamp::minimum());
        move |(input, frontier), output| {
            input.for_each(|capability, chunks| {
                let Some(time) = capability.least().copied() else { return };
                let (_, held) = pending.entry(time).or_insert_with(|| (capability.delayed(&time, 0), Vec::new()));
                held.extend(chunks.drain(..).map(|(_, chunk)| chunk));
            });
            while let Some(entry) = pending.first_entry()
                && !frontier.less_equal(entry.key())
            {
                let (time, (capability, chunks)) = entry.remove_entry();
                let upper = Antichain::from_elem(time + 1);
                let batch = apply(chunks, &batches_before(&mut own, &done), time).map(Rc::new);
                let description = Description::new(done.clone(), upper.clone(), Antichain::from_elem(Timestamp::minimum()));
                let span = Span::new(description, batch);
                writer.insert(span.clone(), Stamp::from_elem(time));
                output.session(&capability).give(span);
                done = upper;
                own.set_physical(&done);
            }
            if done.borrow() != frontier.frontier() {
                done = frontier.frontier().to_owned();
                writer.seal(done.clone());
                own.set_physical(&done);
            }
            writer.exert();
        }
    });
    // the closure above ran when the operator was built and left the reader there
    #[allow(clippy::unwrap_used)]
    let trace = reader.unwrap();
    Arranged { stream, trace }
}

/// Both compactions at once, for a handle that only ever reads the whole past.
trait SetPhysical {
    fn set_physical(&mut self, upper: &Antichain<Timestamp>);
}

impl SetPhysical for crate::operators::arrange::RowTrace {
    fn set_physical(&mut self, upper: &Antichain<Timestamp>) {
        crate::operators::arrange::release_before(self, upper);
    }
}

/// The value of a key in some batches, if it has one; positions move on as keys ascend.
fn current<'a>(batches: &'a [Rc<RowBatch>], positions: &mut [usize], key: &[u8]) -> Option<&'a [u8]> {
    let mut found: Vec<(&'a [u8], i64)> = Vec::new();
    for (batch, position) in batches.iter().zip(positions) {
        *position = batch.seek(*position, key);
        if *position >= batch.key_count() || batch.key(*position) != key {
            continue;
        }
        for val in batch.vals_of(*position) {
            let count: i64 = batch.updates_of(val).map(|update| batch.diff(update)[0] as i64).sum();
            match found.iter_mut().find(|(known, _)| *known == batch.val(val)) {
                Some((_, total)) => *total += count,
                None => found.push((batch.val(val), count)),
            }
        }
    }
    found.into_iter().find(|(_, count)| *count > 0).map(|(val, _)| val)
}

/// The changes that one tick's upserts make to the present state.
fn apply(mut chunks: Vec<UpsertChunk>, state: &[Rc<RowBatch>], time: Timestamp) -> Option<RowBatch> {
    chunks.sort_by_key(|chunk| chunk.sequence);
    let cleared = chunks.iter().rposition(|chunk| chunk.upserts.is_none());
    let live: Vec<&Share<Upserts>> =
        chunks[cleared.map_or(0, |at| at + 1)..].iter().filter_map(|chunk| chunk.upserts.as_ref()).collect();
    let total = live.iter().map(|share| share.len()).sum();
    let width = common_width(live.iter().map(|share| &share.all.keys));
    let key = |list: u32, row: u32| live[list as usize].all.keys.get(row as usize);
    let rows = live.iter().enumerate().flat_map(|(list, share)| share.rows().map(move |row| (list as u32, row)));
    let order = KeyOrder::new(total, width, rows, key);
    let mut builder = RowBatchBuilder::new(Lanes::multiplicity(), total);
    let bytes = |rows: fn(&Upserts) -> &Rows| live.iter().map(|share| share.byte_len(rows(&share.all))).sum();
    builder.reserve_exact(bytes(|upserts| &upserts.keys), bytes(|upserts| &upserts.vals));
    let mut replace = |key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>| {
        if old == new {
            return;
        }
        builder.begin_key(key);
        let mut changes = [(old, u64::MAX), (new, 1)];
        changes.sort_by(|left, right| left.0.cmp(&right.0));
        for (val, diff) in changes {
            if let Some(val) = val {
                builder.begin_val(val);
                builder.push(time, &[diff]);
            }
        }
    };
    // after a truncation every key of the state changes, not only the pushed ones
    let mut state_keys = if cleared.is_some() { all_keys(state) } else { Vec::new() }.into_iter().peekable();
    let (mut positions, mut state_positions) = (vec![0usize; state.len()], vec![0usize; state.len()]);
    order.for_each_key(key, None, |this_key, rows| {
        while let Some(gone) = state_keys.next_if(|gone| *gone < this_key) {
            replace(gone, current(state, &mut state_positions, gone), None);
        }
        state_keys.next_if(|same| *same == this_key);
        // rows of one key are in the order of pushing, and the last one wins
        let new = rows.last().and_then(|(_, list, row)| live[*list as usize].all.val(*row));
        replace(this_key, current(state, &mut positions, this_key), new);
    });
    for gone in state_keys {
        replace(gone, current(state, &mut state_positions, gone), None);
    }
    builder.done()
}

/// All keys of some batches, ascending, each once.
fn all_keys(state: &[Rc<RowBatch>]) -> Vec<&[u8]> {
    let mut keys: Vec<&[u8]> = state.iter().flat_map(|batch| (0..batch.key_count()).map(|at| batch.key(at))).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
