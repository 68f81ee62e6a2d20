//! Arrangements: updates sorted by key and value into shared, mergeable batches.
//!
//! Updates travel as [`Chunk`]s of encoded rows, already dealt to the worker that owns their keys. When a time is complete the batcher
//! sorts and consolidates everything that came for it into one [`RowBatch`], and differential's spine keeps and merges those.

use std::rc::Rc;

use differential_dataflow::batcher::{Batcher, Extract};
use differential_dataflow::operators::arrange::{Arranged, TraceAgent, arrangement::arrange_core};
use differential_dataflow::trace::{Span, TraceReader};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use crate::batch::{RowBatch, RowBatchBuilder, RowSpine};
use crate::chunk::{Chunk, Updates, common_width};
use crate::lanes::Lanes;
use crate::order::{Entry, KeyOrder, Within};
use crate::protocol::Timestamp;
use crate::rows::Rows;

/// A shared arrangement's trace.
pub type RowTrace = TraceAgent<RowSpine>;
/// An arrangement within a dataflow.
pub type ArrangedRows<'scope> = Arranged<'scope, RowTrace>;
/// An interval of an arrangement's history, as it travels behind it.
pub type RowSpan = Span<Timestamp, Rc<RowBatch>>;

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

/// Sorts and consolidates chunks into a batch; nothing if all cancels.
pub fn seal(chunks: &[Chunk], lanes: &Lanes) -> Option<RowBatch> {
    let total = chunks.iter().map(|chunk| chunk.share.len()).sum();
    let width = common_width(chunks.iter().map(|chunk| &chunk.share.all.keys));
    let chunk = |entry: &Entry| &chunks[entry.1 as usize];
    let key = |list: u32, row: u32| chunks[list as usize].key(row);
    let val = |entry: &Entry| chunk(entry).val(entry.2);
    let rows = chunks.iter().enumerate().flat_map(|(list, chunk)| chunk.share.rows().map(move |row| (list as u32, row)));
    let order = KeyOrder::new(total, width, rows, key);

    let mut builder = RowBatchBuilder::new(lanes.clone(), total);
    let bytes = |rows: fn(&Updates) -> &Rows| chunks.iter().map(|chunk| chunk.share.byte_len(rows(&chunk.share.all))).sum();
    builder.reserve_exact(bytes(|updates| &updates.keys), bytes(|updates| &updates.vals));
    let mut sum = vec![0u64; lanes.stride()];
    let by_val = |left: &Entry, right: &Entry| val(left).cmp(val(right)).then_with(|| chunk(left).time.cmp(&chunk(right).time));
    let alike = chunks.windows(2).all(|pair| pair[0].time == pair[1].time) && chunks.iter().all(Chunk::has_no_vals);
    let within: Option<Within<'_>> = if alike { None } else { Some(&by_val) };
    order.for_each_key(key, within, |key, mut rows| {
        let (mut has_key, mut open_val) = (false, None);
        while let Some(first) = rows.first() {
            let (this_val, this_time) = (val(first), chunk(first).time);
            sum.fill(0);
            let same = rows.iter().take_while(|entry| alike || chunk(entry).time == this_time && val(entry) == this_val);
            let count = same.map(|entry| chunk(entry).add_diff(entry.2, lanes, &mut sum)).count();
            rows = &rows[count..];
            if lanes.is_zero(&sum) {
                continue;
            }
            if !has_key {
                builder.begin_key(key);
                has_key = true;
            }
            if open_val != Some(this_val) {
                builder.begin_val(this_val);
                open_val = Some(this_val);
            }
            builder.push(this_time, &sum);
        }
    });
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
