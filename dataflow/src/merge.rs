//! Merging two batches a little at a time, as differential's spine asks for it.
//!
//! Sources mostly bring keys that grow, so one side's keys often follow each other without any of the other's between: such runs are found by
//! galloping and copied as blocks of bytes.

use differential_dataflow::trace::implementations::spine_fueled::{Merger, SpineBatch};
use timely::progress::frontier::AntichainRef;

use crate::batch::{RowBatch, RowBatchBuilder};
use crate::protocol::Timestamp;

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
    since: Timestamp,
    left: usize,
    right: usize,
    builder: RowBatchBuilder,
    updates: Vec<(Timestamp, usize, bool)>,
    sum: Vec<u64>,
    pending_key: bool,
}

impl RowMerger {
    /// Copies the keys of one side from a position on that are less than the other side's next, as far as the fuel goes. Returns the work.
    fn copy_run(&mut self, batch: &RowBatch, from: usize, bound: Option<&[u8]>, fuel: isize) -> (usize, usize) {
        if !batch.one_update_each() {
            return (1, self.copy_key(batch, from));
        }
        let end = bound.map_or(batch.key_count(), |bound| batch.run_end(from, bound)).min(from + fuel.max(1) as usize);
        (end - from, self.builder.extend(batch, from..end, self.since))
    }

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
        time.max(self.since)
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
        let lanes = left.lanes().clone();
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
        debug_assert_eq!(left.lanes(), right.lanes());
        RowMerger {
            // an empty frontier means that nobody will ever look at times again
            since: since.iter().copied().next().unwrap_or(Timestamp::MAX),
            left: 0,
            right: 0,
            builder: RowBatchBuilder::for_merge(left, right),
            updates: Vec::new(),
            sum: Vec::new(),
            pending_key: false,
        }
    }

    fn work(&mut self, left: &RowBatch, right: &RowBatch, fuel: &mut isize) {
        while *fuel > 0 {
            let (left_key, right_key) = (left.key_at(self.left), right.key_at(self.right));
            let work = match (left_key, right_key) {
                (None, None) => return,
                (Some(a), Some(b)) if a == b => {
                    let work = self.merge_key(left, right);
                    self.left += 1;
                    self.right += 1;
                    work
                }
                (Some(a), b) if b.is_none_or(|b| a < b) => {
                    let (keys, work) = self.copy_run(left, self.left, b, *fuel);
                    self.left += keys;
                    work
                }
                (a, _) => {
                    let (keys, work) = self.copy_run(right, self.right, a, *fuel);
                    self.right += keys;
                    work
                }
            };
            *fuel -= work as isize;
        }
    }

    fn done(self) -> Option<RowBatch> {
        self.builder.done()
    }
}
