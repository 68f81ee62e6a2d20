//! One key's values over several batches, in order: what the operators read that need a group's rows and not their sum.

use std::ops::Range;
use std::rc::Rc;

use crate::batch::RowBatch;
use crate::protocol::Timestamp;

/// A key that the last of some batches has changed.
#[derive(Debug)]
pub struct Group<'a> {
    /// The key.
    pub key: &'a [u8],
    batches: &'a [Rc<RowBatch>],
    /// Positions of the key's values in each batch.
    ranges: Vec<Range<usize>>,
    /// What is older than this counts as of it.
    earliest: Timestamp,
}

impl<'a> Group<'a> {
    /// The key at `key_at` of the last batch. `positions` are where the search in the other batches goes on: keys are asked for in
    /// ascending order.
    pub fn seek(batches: &'a [Rc<RowBatch>], positions: &mut [usize], key_at: usize, earliest: Timestamp) -> Group<'a> {
        let fresh_at = batches.len() - 1;
        let key = batches[fresh_at].key(key_at);
        let mut ranges = Vec::with_capacity(batches.len());
        for (batch, position) in batches[..fresh_at].iter().zip(positions) {
            *position = batch.seek(*position, key);
            let found = *position < batch.key_count() && batch.key(*position) == key;
            ranges.push(if found { batch.vals_of(*position) } else { 0..0 });
        }
        ranges.push(batches[fresh_at].vals_of(key_at));
        Group { key, batches, ranges, earliest }
    }

    /// The times at which the last batch changes the group, ascending.
    pub fn times(&self) -> Vec<Timestamp> {
        let Some((fresh, vals)) = self.batches.last().zip(self.ranges.last()) else { return Vec::new() };
        let mut times: Vec<Timestamp> =
            vals.clone().flat_map(|val| fresh.updates_of(val)).map(|update| fresh.time(update).max(self.earliest)).collect();
        times.sort_unstable();
        times.dedup();
        times
    }

    /// Reads the values as they were before the last batch, or as they are at one of its times.
    pub fn reader(&self, until: Option<Timestamp>) -> GroupReader<'_> {
        let mut ranges = self.ranges.clone();
        if let (None, Some(fresh)) = (until, ranges.last_mut()) {
            *fresh = 0..0;
        }
        GroupReader { batches: self.batches, ranges, until: until.unwrap_or(Timestamp::MAX), earliest: self.earliest }
    }
}

/// A group's values in order.
#[derive(Debug)]
pub struct GroupReader<'a> {
    batches: &'a [Rc<RowBatch>],
    /// Remaining value positions per batch.
    ranges: Vec<Range<usize>>,
    /// Updates of the last batch count up to here.
    until: Timestamp,
    earliest: Timestamp,
}

impl GroupReader<'_> {
    /// The next value's batch and position, and how often it is there: not 0, but less than that where more were taken away than there were.
    pub fn next_value(&mut self) -> Option<(usize, usize, i64)> {
        loop {
            let mut least: Option<(usize, usize)> = None;
            for (at, range) in self.ranges.iter().enumerate() {
                if range.start >= range.end {
                    continue;
                }
                let candidate = self.batches[at].val(range.start);
                if least.is_none_or(|(best, val)| candidate < self.batches[best].val(val)) {
                    least = Some((at, range.start));
                }
            }
            let (at, val) = least?;
            let fresh = self.ranges.len() - 1;
            let mut count = 0i64;
            for (other, range) in self.ranges.iter_mut().enumerate() {
                let batch = &self.batches[other];
                if range.start < range.end && batch.val(range.start) == self.batches[at].val(val) {
                    for update in batch.updates_of(range.start) {
                        if other != fresh || batch.time(update).max(self.earliest) <= self.until {
                            count += batch.diff(update)[0] as i64;
                        }
                    }
                    range.start += 1;
                }
            }
            if count != 0 {
                return Some((at, val, count));
            }
        }
    }
}
