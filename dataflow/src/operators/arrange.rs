//! Arrangements: updates sorted by key and value into shared, mergeable batches.
//!
//! Updates travel as [`Chunk`]s of encoded rows, already dealt to the worker that owns their keys. When a time is complete the batcher
//! sorts and consolidates everything that came for it into one [`RowBatch`], and differential's spine keeps and merges those.

use std::rc::Rc;

use differential_dataflow::batcher::{Batcher, Extract};
use differential_dataflow::operators::arrange::{Arranged, TraceAgent, arrangement::arrange_core};
use differential_dataflow::trace::{Span, TraceReader};
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use crate::batch::{RowBatch, RowBatchBuilder, RowSpine};
use crate::diffs::Diffs;
use crate::lanes::Lanes;
use crate::protocol::Timestamp;
use crate::rows::Rows;

/// A shared arrangement's trace.
pub type RowTrace = TraceAgent<RowSpine>;
/// An arrangement within a dataflow.
pub type ArrangedRows<'scope> = Arranged<'scope, RowTrace>;
/// An interval of an arrangement's history, as it travels behind it.
pub type RowSpan = Span<Timestamp, Rc<RowBatch>>;

/// Updates of one time, in any order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chunk {
    /// When.
    pub time: Timestamp,
    /// Keys, one per update.
    pub keys: Rows,
    /// Values, one per update.
    pub vals: Rows,
    /// Diffs, one per update.
    pub diffs: Diffs,
}

/// Chunks with the worker that each is for.
pub type ChunkStream<'scope> = Stream<'scope, Timestamp, Vec<(u64, Chunk)>>;

/// Arranges chunks. `name` should say what and by which key, for logs.
pub fn arrange<'scope>(stream: ChunkStream<'scope>, lanes: Lanes, name: &str) -> ArrangedRows<'scope> {
    if stream.scope().peers() == 1 {
        arrange_core(stream, Pipeline, name, |_, _| ChunkBatcher::new(lanes))
    } else {
        arrange_core(stream, Exchange::new(|chunk: &(u64, Chunk)| chunk.0), name, |_, _| ChunkBatcher::new(lanes))
    }
}

/// Collects chunks until their time is complete.
struct ChunkBatcher {
    lanes: Lanes,
    chunks: Vec<Chunk>,
    retained: Antichain<Timestamp>,
}

impl ChunkBatcher {
    fn new(lanes: Lanes) -> Self {
        ChunkBatcher { lanes, chunks: Vec::new(), retained: Antichain::new() }
    }
}

impl Extract for ChunkBatcher {
    type Time = Timestamp;
    type Output = Rc<RowBatch>;

    fn extract<'a>(&'a mut self, upper: AntichainRef<'_, Timestamp>) -> (Option<Rc<RowBatch>>, AntichainRef<'a, Timestamp>) {
        let (ready, kept): (Vec<_>, Vec<_>) = self.chunks.drain(..).partition(|chunk| !upper.less_equal(&chunk.time));
        self.chunks = kept;
        self.retained = self.chunks.iter().map(|chunk| chunk.time).collect();
        (seal(&ready, &self.lanes).map(Rc::new), self.retained.borrow())
    }
}

impl Batcher<Vec<(u64, Chunk)>> for ChunkBatcher {
    fn insert(&mut self, container: &mut Vec<(u64, Chunk)>) {
        self.chunks.extend(container.drain(..).map(|(_, chunk)| chunk));
    }
}

/// The first 16 bytes of a row as a number that orders like the row.
#[inline]
pub fn prefix(row: &[u8]) -> u128 {
    let mut bytes = [0u8; 16];
    let length = row.len().min(16);
    bytes[..length].copy_from_slice(&row[..length]);
    u128::from_be_bytes(bytes)
}

/// Sorts and consolidates chunks into a batch; nothing if all cancels.
pub fn seal(chunks: &[Chunk], lanes: &Lanes) -> Option<RowBatch> {
    let total = chunks.iter().map(|chunk| chunk.keys.len()).sum();
    let mut order: Vec<(u128, u32, u32)> = Vec::with_capacity(total);
    for (at, chunk) in chunks.iter().enumerate() {
        order.extend(chunk.keys.iter().enumerate().map(|(row, key)| (prefix(key), at as u32, row as u32)));
    }
    let key = |entry: &(u128, u32, u32)| chunks[entry.1 as usize].keys.get(entry.2 as usize);
    let val = |entry: &(u128, u32, u32)| chunks[entry.1 as usize].vals.get(entry.2 as usize);
    let time = |entry: &(u128, u32, u32)| chunks[entry.1 as usize].time;
    order.sort_unstable_by(|left, right| {
        left.0
            .cmp(&right.0)
            .then_with(|| key(left).cmp(key(right)))
            .then_with(|| val(left).cmp(val(right)))
            .then_with(|| time(left).cmp(&time(right)))
    });
    let stride = lanes.stride();
    let diff = |entry: &(u128, u32, u32)| chunks[entry.1 as usize].diffs.get(entry.2 as usize, stride);
    let mut builder = RowBatchBuilder::new(lanes.clone(), total);
    let bytes = |rows: fn(&Chunk) -> &Rows| chunks.iter().map(|chunk| rows(chunk).byte_len()).sum();
    builder.reserve_exact(bytes(|chunk| &chunk.keys), bytes(|chunk| &chunk.vals));
    let mut sum = vec![0u64; stride];
    let mut open: Option<(&[u8], Option<&[u8]>)> = None;
    let mut at = 0;
    while at < order.len() {
        let entry = &order[at];
        let (this_key, this_val, this_time) = (key(entry), val(entry), time(entry));
        sum.copy_from_slice(diff(entry));
        at += 1;
        while at < order.len()
            && order[at].0 == entry.0
            && time(&order[at]) == this_time
            && key(&order[at]) == this_key
            && val(&order[at]) == this_val
        {
            lanes.add(&mut sum, diff(&order[at]));
            at += 1;
        }
        if lanes.is_zero(&sum) {
            continue;
        }
        match &mut open {
            Some((open_key, open_val)) if *open_key == this_key => {
                if *open_val != Some(this_val) {
                    builder.begin_val(this_val);
                    *open_val = Some(this_val);
                }
            }
            _ => {
                builder.begin_key(this_key);
                builder.begin_val(this_val);
                open = Some((this_key, Some(this_val)));
            }
        }
        builder.push(this_time, &sum);
    }
    builder.done()
}

/// The one element of a totally ordered frontier; `None` when it is empty, that is, at the end of time.
#[inline]
pub fn element(frontier: AntichainRef<'_, Timestamp>) -> Option<Timestamp> {
    frontier.iter().copied().next()
}

/// All batches of a trace before `upper`.
///
/// The caller holds the trace's physical compaction at or before `upper`.
pub fn batches_before(trace: &mut RowTrace, upper: &Antichain<Timestamp>) -> Vec<Rc<RowBatch>> {
    trace.batches_through(upper.borrow()).unwrap_or_default()
}

/// Gives up the right to see anything before `upper` apart.
pub fn release_before(trace: &mut RowTrace, upper: &Antichain<Timestamp>) {
    trace.set_logical_compaction(upper.borrow());
    trace.set_physical_compaction(upper.borrow());
}
