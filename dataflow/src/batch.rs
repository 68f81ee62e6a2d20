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

use std::ops::Range;
use std::rc::Rc;

use differential_dataflow::trace::implementations::spine_fueled::Spine;

use crate::diffs::Diffs;
use crate::lanes::Lanes;
use crate::protocol::Timestamp;
use crate::rows::Rows;
use crate::times::Times;

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
    diffs: Diffs,
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
    fn range(&self, index: usize) -> Range<usize> {
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

    /// Appends a range of another's; what these ends end at begins at `from` there and at `to` here.
    fn extend(&mut self, other: &Ends, range: Range<usize>, from: usize, to: usize) {
        match (&mut *self, other) {
            (Ends::Single(count), Ends::Single(_)) => *count += range.len(),
            (Ends::Listed(ends), Ends::Single(_)) => ends.extend((0..range.len() as u32).map(|at| to as u32 + at + 1)),
            (Ends::Listed(ends), Ends::Listed(others)) => {
                ends.extend(others[range].iter().map(|end| end - from as u32 + to as u32));
            }
            (Ends::Single(_), Ends::Listed(others)) => {
                others[range].iter().for_each(|end| self.push(*end as usize - from + to));
            }
        }
    }

    fn heap_size(&self) -> usize {
        match self {
            Ends::Single(_) => 0,
            Ends::Listed(ends) => ends.capacity() * 4,
        }
    }

    fn shrink(&mut self) {
        if let Ends::Listed(ends) = self {
            ends.shrink_to_fit();
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

    /// Whether every value has exactly one update, so that no two of one value can ever meet in time.
    #[inline]
    pub fn one_update_each(&self) -> bool {
        matches!(self.val_ends, Ends::Single(_))
    }

    /// A key by its position, if there are that many.
    #[inline]
    pub fn key_at(&self, index: usize) -> Option<&[u8]> {
        (index < self.keys.len()).then(|| self.keys.get(index))
    }

    /// A key by its position.
    #[inline]
    pub fn key(&self, index: usize) -> &[u8] {
        self.keys.get(index)
    }

    /// Positions of a key's values.
    #[inline]
    pub fn vals_of(&self, key: usize) -> Range<usize> {
        self.key_ends.range(key)
    }

    /// A value by its position.
    #[inline]
    pub fn val(&self, index: usize) -> &[u8] {
        self.vals.get(index)
    }

    /// Positions of a value's updates.
    #[inline]
    pub fn updates_of(&self, val: usize) -> Range<usize> {
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
        self.diffs.get(update, self.lanes.stride())
    }

    /// Number of updates.
    #[inline]
    pub fn update_count(&self) -> usize {
        self.diffs.len(self.lanes.stride())
    }

    /// Sum of the diffs: with plain multiplicities, how many rows more there are by these updates.
    #[inline]
    pub fn row_count(&self) -> i64 {
        self.rows
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        self.keys.heap_size()
            + self.vals.heap_size()
            + self.key_ends.heap_size()
            + self.val_ends.heap_size()
            + self.times.heap_size()
            + self.diffs.heap_size()
    }

    /// Position of the first key that is not less than `key`, by bisection.
    #[inline]
    pub fn find(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.keys.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.keys.get(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Position of the first key at or after `from` that is not less than `key`. Galloping from `from`, so that a sorted series of
    /// look-ups costs the logarithm of the distances; a key beyond the last costs one comparison.
    #[inline]
    pub fn seek(&self, from: usize, key: &[u8]) -> usize {
        let count = self.keys.len();
        if from >= count || self.keys.get(count - 1) < key {
            return count;
        }
        if self.keys.get(from) >= key { from } else { self.run_end(from, key) }
    }

    /// The distinct times in the batch, ascending.
    pub fn distinct_times(&self) -> Vec<Timestamp> {
        self.times.distinct()
    }

    /// The end of the run of keys from `from` on that are less than `bound`; `from`'s key is. Galloping.
    #[inline]
    pub fn run_end(&self, from: usize, bound: &[u8]) -> usize {
        let count = self.keys.len();
        let (mut low, mut step) = (from, 1);
        while low + step < count && self.keys.get(low + step) < bound {
            low += step;
            step *= 2;
        }
        let mut high = (low + step).min(count);
        // invariant: keys[low] < bound <= keys[high]
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if self.keys.get(middle) < bound {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
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
        let diffs = Diffs::with_capacity(lanes.stride(), updates);
        RowBatchBuilder {
            batch: RowBatch {
                keys: Rows::default(),
                key_ends: Ends::Single(0),
                vals: Rows::default(),
                val_ends: Ends::Single(0),
                times: Times::One(0),
                diffs,
                lanes,
                rows: 0,
            },
            open_key: false,
            open_val: false,
        }
    }

    /// An empty builder with room for all of two batches. Growing instead would copy what is there again and again.
    pub fn for_merge(left: &RowBatch, right: &RowBatch) -> RowBatchBuilder {
        let mut builder = RowBatchBuilder::new(left.lanes.clone(), left.update_count() + right.update_count());
        builder.reserve_exact(left.keys.byte_len() + right.keys.byte_len(), left.vals.byte_len() + right.vals.byte_len());
        builder
    }

    /// Makes room for so many more bytes of keys and of values.
    pub fn reserve_exact(&mut self, keys: usize, vals: usize) {
        self.batch.keys.reserve_exact(keys);
        self.batch.vals.reserve_exact(vals);
    }

    /// Appends a range of another batch's keys, which are greater than the ones before, with their values and updates, times before `since`
    /// as of `since`. The other batch has one update for each value. Returns the number of updates.
    pub fn extend(&mut self, other: &RowBatch, keys: Range<usize>, since: Timestamp) -> usize {
        debug_assert!(other.one_update_each());
        self.end_key();
        if keys.is_empty() {
            return 0;
        }
        let vals = other.key_ends.range(keys.start).start..other.key_ends.range(keys.end - 1).end;
        let batch = &mut self.batch;
        let (vals_before, updates_before) = (batch.vals.len(), batch.update_count());
        batch.keys.extend(&other.keys, keys.clone());
        batch.key_ends.extend(&other.key_ends, keys, vals.start, vals_before);
        batch.vals.extend(&other.vals, vals.clone());
        batch.val_ends.extend(&other.val_ends, vals.clone(), vals.start, updates_before);
        for (at, update) in vals.clone().enumerate() {
            batch.times.push(other.times.get(update).max(since), updates_before + at);
        }
        batch.diffs.extend(&other.diffs, vals.clone(), batch.lanes.stride());
        vals.len()
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
        self.batch.diffs.push(diff);
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
        if self.batch.diffs.is_empty() {
            return None;
        }
        self.batch.keys.shrink();
        self.batch.vals.shrink();
        self.batch.key_ends.shrink();
        self.batch.val_ends.shrink();
        self.batch.times.shrink();
        self.batch.diffs.shrink();
        self.batch.rows = self.batch.diffs.row_count(self.batch.lanes.stride());
        Some(self.batch)
    }
}
