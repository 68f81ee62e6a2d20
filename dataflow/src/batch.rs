//! An immutable, sorted, consolidated set of updates `(key, value, time, diff)`: what arrangements are made of.
//!
//! ```text
//!   keys     k0 ──────────┐  k1 ─────┐            distinct, ascending, flat bytes
//!   values   v0  v1  v2   │  v3  v4  │            distinct within a key, ascending
//!   updates  t d  t d  …                          one (time, diff) or more for each value
//! ```
//! Offsets are left out where every key has one value, or every value one update, and the times where all are equal, which is
//! what compaction makes of old batches. A diff is one or more 64-bit words (see [`Lanes`]): one word for plain multiplicity, more
//! for aggregates that live in the diff. So one batch type serves every arrangement, and differential's spine, its
//! progressive merging and its shared traces work on it as they are.

use std::rc::Rc;

use differential_dataflow::trace::implementations::spine_fueled::{Merger, Spine, SpineBatch};
use timely::progress::frontier::AntichainRef;

use crate::lanes::Lanes;
use crate::protocol::Timestamp;
use crate::rows::Rows;

/// The trace of an arrangement.
pub type RowSpine = Spine<Rc<RowBatch>>;

/// See the module's text.
#[derive(Debug)]
pub struct RowBatch {
    keys: Rows,
    key_ends: Ends,
    vals: Rows,
    val_ends: Ends,
    times: Times,
    words: Vec<u64>,
    lanes: Lanes,
    /// Sum of the diffs' first lanes.
    rows: i64,
}

/// Ends of consecutive ranges; not stored while each range has one element.
#[derive(Debug)]
enum Ends {
    /// Range `i` is `i..i + 1`, for this many ranges.
    Single(usize),
    /// The end of each range.
    Listed(Vec<u32>),
}

impl Ends {
    #[inline]
    fn range(&self, index: usize) -> std::ops::Range<usize> {
        match self {
            Ends::Single(_) => index..index + 1,
            Ends::Listed(ends) => {
                let begin = if index == 0 { 0 } else { ends[index - 1] as usize };
                begin..ends[index] as usize
            }
        }
    }

    /// Closes the next range at `end`.
    #[inline]
    fn push(&mut self, end: usize) {
        match self {
            Ends::Single(count) if *count + 1 == end => *count = end,
            Ends::Single(count) => {
                let mut ends: Vec<u32> = (1..=*count as u32).collect();
                ends.push(end as u32);
                *self = Ends::Listed(ends);
            }
            Ends::Listed(ends) => ends.push(end as u32),
        }
    }

    fn heap_size(&self) -> usize {
        match self {
            Ends::Single(_) => 0,
            Ends::Listed(ends) => ends.capacity() * 4,
        }
    }
}

/// Times of updates; stored once while all are equal.
#[derive(Debug)]
enum Times {
    One(Timestamp),
    Each(Vec<Timestamp>),
}

impl Times {
    #[inline]
    fn get(&self, index: usize) -> Timestamp {
        match self {
            Times::One(time) => *time,
            Times::Each(times) => times[index],
        }
    }

    #[inline]
    fn push(&mut self, time: Timestamp, index: usize) {
        match self {
            Times::One(only) if index == 0 => *only = time,
            Times::One(only) if *only == time => {}
            Times::One(only) => {
                let mut times = vec![*only; index];
                times.push(time);
                *self = Times::Each(times);
            }
            Times::Each(times) => times.push(time),
        }
    }
}

impl RowBatch {
    /// How the diffs are laid out.
    #[inline]
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Number of distinct keys.
    #[inline]
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Number of distinct (key, value) pairs.
    pub fn val_count(&self) -> usize {
        self.vals.len()
    }

    /// A key by its position.
    #[inline]
    pub fn key(&self, index: usize) -> &[u8] {
        self.keys.get(index)
    }

    /// Positions of a key's values.
    #[inline]
    pub fn vals_of(&self, key: usize) -> std::ops::Range<usize> {
        self.key_ends.range(key)
    }

    /// A value by its position.
    #[inline]
    pub fn val(&self, index: usize) -> &[u8] {
        self.vals.get(index)
    }

    /// Positions of a value's updates.
    #[inline]
    pub fn updates_of(&self, val: usize) -> std::ops::Range<usize> {
        self.val_ends.range(val)
    }

    /// Time of an update.
    #[inline]
    pub fn time(&self, update: usize) -> Timestamp {
        self.times.get(update)
    }

    /// Diff of an update.
    #[inline]
    pub fn diff(&self, update: usize) -> &[u64] {
        let stride = self.lanes.stride();
        &self.words[update * stride..(update + 1) * stride]
    }

    /// Number of updates.
    #[inline]
    pub fn update_count(&self) -> usize {
        self.words.len() / self.lanes.stride()
    }

    /// Sum of the diffs: with plain multiplicities, how many rows more there are by these updates.
    #[inline]
    pub fn row_count(&self) -> i64 {
        self.rows
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        let times = match &self.times {
            Times::One(_) => 0,
            Times::Each(times) => times.capacity() * 8,
        };
        self.keys.heap_size()
            + self.vals.heap_size()
            + self.key_ends.heap_size()
            + self.val_ends.heap_size()
            + times
            + self.words.capacity() * 8
    }

    /// Position of the first key at or after `from` that is not less than `key`. Galloping from `from`, so that a sorted series of
    /// look-ups costs the logarithm of the distances; a key beyond the last costs one comparison.
    #[inline]
    pub fn seek(&self, from: usize, key: &[u8]) -> usize {
        let count = self.keys.len();
        if from >= count || self.keys.get(count - 1) < key {
            return count;
        }
        let (mut low, mut step) = (from, 1);
        while low + step < count && self.keys.get(low + step) < key {
            low += step;
            step *= 2;
        }
        let mut high = (low + step).min(count);
        if self.keys.get(low) >= key {
            return low;
        }
        // invariant: keys[low] < key <= keys[high]
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if self.keys.get(middle) < key {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }

    /// The distinct times in the batch, ascending.
    pub fn distinct_times(&self) -> Vec<Timestamp> {
        match &self.times {
            Times::One(time) => vec![*time],
            Times::Each(times) => {
                let mut times = times.clone();
                times.sort_unstable();
                times.dedup();
                times
            }
        }
    }
}

/// Builds a batch from updates that come in the order (key, value, time), each triple once at most.
#[derive(Debug)]
pub struct RowBatchBuilder {
    batch: RowBatch,
    open_key: bool,
    open_val: bool,
}

impl RowBatchBuilder {
    /// An empty builder with room for `updates`.
    pub fn new(lanes: Lanes, updates: usize) -> RowBatchBuilder {
        let words = Vec::with_capacity(updates * lanes.stride());
        RowBatchBuilder {
            batch: RowBatch {
                keys: Rows::default(),
                key_ends: Ends::Single(0),
                vals: Rows::default(),
                val_ends: Ends::Single(0),
                times: Times::One(0),
                words,
                lanes,
                rows: 0,
            },
            open_key: false,
            open_val: false,
        }
    }

    /// Begins a key; it must be greater than the one before.
    #[inline]
    pub fn begin_key(&mut self, key: &[u8]) {
        self.end_key();
        debug_assert!(self.batch.keys.is_empty() || self.batch.keys.get(self.batch.keys.len() - 1) < key);
        self.batch.keys.push(key);
        self.open_key = true;
    }

    /// Begins a value of the key; it must be greater than the one before in this key.
    #[inline]
    pub fn begin_val(&mut self, val: &[u8]) {
        self.end_val();
        self.batch.vals.push(val);
        self.open_val = true;
    }

    /// Adds an update of the value.
    #[inline]
    pub fn push(&mut self, time: Timestamp, diff: &[u64]) {
        let index = self.batch.update_count();
        self.batch.times.push(time, index);
        self.batch.words.extend_from_slice(diff);
    }

    #[inline]
    fn end_val(&mut self) {
        if self.open_val {
            let end = self.batch.update_count();
            self.batch.val_ends.push(end);
            self.open_val = false;
        }
    }

    #[inline]
    fn end_key(&mut self) {
        self.end_val();
        if self.open_key {
            let end = self.batch.vals.len();
            self.batch.key_ends.push(end);
            self.open_key = false;
        }
    }

    /// The batch; nothing if no update was pushed.
    pub fn done(mut self) -> Option<RowBatch> {
        self.end_key();
        if self.batch.words.is_empty() {
            return None;
        }
        self.batch.keys.shrink();
        self.batch.vals.shrink();
        self.batch.words.shrink_to_fit();
        self.batch.rows =
            self.batch.words.iter().step_by(self.batch.lanes.stride()).fold(0, |sum, word| sum.wrapping_add(*word as i64));
        Some(self.batch)
    }
}

impl SpineBatch for RowBatch {
    type Time = Timestamp;
    type Merger = RowMerger;

    fn len(&self) -> usize {
        self.update_count()
    }
}

/// A merge in progress: two positions among keys, and what came out so far.
#[derive(Debug)]
pub struct RowMerger {
    since: Option<Timestamp>,
    left: usize,
    right: usize,
    builder: RowBatchBuilder,
    updates: Vec<(Timestamp, usize, bool)>,
    sum: Vec<u64>,
    pending_key: bool,
}

impl RowMerger {
    /// Copies one key of one side.
    fn copy_key(&mut self, batch: &RowBatch, key: usize) -> usize {
        self.pending_key = true;
        let vals = batch.vals_of(key);
        let work = vals.len();
        for val in vals {
            self.copy_val(batch, key, val);
        }
        work
    }

    fn copy_val(&mut self, batch: &RowBatch, key: usize, val: usize) {
        let updates = batch.updates_of(val);
        if updates.len() == 1 {
            let time = self.advance(batch.time(updates.start));
            self.emit_header(batch.key(key), batch.val(val));
            self.builder.push(time, batch.diff(updates.start));
        } else {
            self.updates.clear();
            for update in updates {
                self.updates.push((self.advance(batch.time(update)), update, false));
            }
            self.flush_updates(batch, batch, batch.key(key), batch.val(val));
        }
    }

    #[inline]
    fn advance(&self, time: Timestamp) -> Timestamp {
        self.since.map_or(time, |since| time.max(since))
    }

    #[inline]
    fn emit_header(&mut self, key: &[u8], val: &[u8]) {
        if self.pending_key {
            self.builder.begin_key(key);
            self.pending_key = false;
        }
        self.builder.begin_val(val);
    }

    /// Sums equal times and emits what is not zero.
    fn flush_updates(&mut self, left: &RowBatch, right: &RowBatch, key: &[u8], val: &[u8]) {
        let mut updates = std::mem::take(&mut self.updates);
        updates.sort_unstable_by_key(|update| update.0);
        let lanes = left.lanes.clone();
        let mut header = false;
        let mut at = 0;
        while at < updates.len() {
            let time = updates[at].0;
            self.sum.clear();
            self.sum.resize(lanes.stride(), 0);
            while at < updates.len() && updates[at].0 == time {
                let (_, index, from_right) = updates[at];
                lanes.add(&mut self.sum, if from_right { right.diff(index) } else { left.diff(index) });
                at += 1;
            }
            if !lanes.is_zero(&self.sum) {
                if !header {
                    self.emit_header(key, val);
                    header = true;
                }
                self.builder.push(time, &self.sum);
            }
        }
        self.updates = updates;
    }

    /// Merges a key that both sides have.
    fn merge_key(&mut self, left: &RowBatch, right: &RowBatch) -> usize {
        self.pending_key = true;
        let (mut a, mut b) = (left.vals_of(self.left), right.vals_of(self.right));
        let work = a.len() + b.len();
        while !a.is_empty() && !b.is_empty() {
            match left.val(a.start).cmp(right.val(b.start)) {
                std::cmp::Ordering::Less => {
                    self.copy_val(left, self.left, a.start);
                    a.start += 1;
                }
                std::cmp::Ordering::Greater => {
                    self.copy_val(right, self.right, b.start);
                    b.start += 1;
                }
                std::cmp::Ordering::Equal => {
                    self.updates.clear();
                    for update in left.updates_of(a.start) {
                        self.updates.push((self.advance(left.time(update)), update, false));
                    }
                    for update in right.updates_of(b.start) {
                        self.updates.push((self.advance(right.time(update)), update, true));
                    }
                    self.flush_updates(left, right, left.key(self.left), left.val(a.start));
                    a.start += 1;
                    b.start += 1;
                }
            }
        }
        for val in a {
            self.copy_val(left, self.left, val);
        }
        for val in b {
            self.copy_val(right, self.right, val);
        }
        work
    }
}

impl Merger<RowBatch> for RowMerger {
    fn new(left: &RowBatch, right: &RowBatch, since: AntichainRef<Timestamp>) -> Self {
        debug_assert_eq!(left.lanes, right.lanes);
        RowMerger {
            // an empty frontier means that nobody will ever look at times again
            since: Some(since.iter().copied().next().unwrap_or(Timestamp::MAX)),
            left: 0,
            right: 0,
            builder: RowBatchBuilder::new(left.lanes.clone(), left.update_count() + right.update_count()),
            updates: Vec::new(),
            sum: Vec::new(),
            pending_key: false,
        }
    }

    fn work(&mut self, left: &RowBatch, right: &RowBatch, fuel: &mut isize) {
        while *fuel > 0 {
            let work = if self.left < left.key_count() && self.right < right.key_count() {
                match left.key(self.left).cmp(right.key(self.right)) {
                    std::cmp::Ordering::Less => {
                        self.left += 1;
                        self.copy_key(left, self.left - 1)
                    }
                    std::cmp::Ordering::Greater => {
                        self.right += 1;
                        self.copy_key(right, self.right - 1)
                    }
                    std::cmp::Ordering::Equal => {
                        let work = self.merge_key(left, right);
                        self.left += 1;
                        self.right += 1;
                        work
                    }
                }
            } else if self.left < left.key_count() {
                self.left += 1;
                self.copy_key(left, self.left - 1)
            } else if self.right < right.key_count() {
                self.right += 1;
                self.copy_key(right, self.right - 1)
            } else {
                return;
            };
            *fuel -= work as isize;
        }
    }

    fn done(self) -> Option<RowBatch> {
        self.builder.done()
    }
}
