//! Updates on their way to the workers that own their keys.
//!
//! The rows of a message are encoded once and never copied before they are sorted: every worker is given the same [`Updates`] and the
//! positions that are its own. What is sealed at the end of a tick is read from there in order.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::diffs::Diffs;
use crate::lanes::Lanes;
use crate::protocol::Timestamp;
use crate::rows::{Rows, hash_row};

/// Encoded updates of one message, in any order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Updates {
    /// Keys, one per update.
    pub keys: Rows,
    /// Values, one per update.
    pub vals: Rows,
    /// Diffs, one per update: a part of the arrangement's words, beginning at `diffs_at`.
    pub diffs: Diffs,
    /// Words a diff.
    pub stride: usize,
    /// The first of the arrangement's words that the diffs are of; all others are zero.
    pub diffs_at: usize,
}

/// A worker's share of the rows of a message that all workers are given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Share<T> {
    /// The message's rows, those of other workers too.
    #[serde(serialize_with = "pointed_at", deserialize_with = "pointer_to")]
    #[serde(bound(serialize = "T: Serialize", deserialize = "T: Deserialize<'de>"))]
    pub all: Arc<T>,
    picks: Picks,
}

/// Positions among a message's rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Picks {
    /// All of so many.
    All(usize),
    /// These.
    Some(Vec<u32>),
}

/// Where memory is not shared, what a pointer points at travels.
fn pointed_at<S: Serializer, T: Serialize>(pointer: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    T::serialize(pointer, serializer)
}

fn pointer_to<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Arc<T>, D::Error> {
    T::deserialize(deserializer).map(Arc::new)
}

impl<T> Share<T> {
    /// The shares of all workers that have one, each with the worker's number.
    pub fn of_workers(all: T, picks: Vec<Picks>) -> impl Iterator<Item = (u64, Share<T>)> {
        let all = Arc::new(all);
        let shares = picks.into_iter().map(move |picks| Share { all: Arc::clone(&all), picks });
        (0..).zip(shares).filter(|(_, share)| !share.is_empty())
    }

    /// How many rows.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.picks {
            Picks::All(count) => *count,
            Picks::Some(picks) => picks.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions among the message's rows, ascending.
    pub fn rows(&self) -> impl Iterator<Item = u32> {
        (0..self.len()).map(|at| match &self.picks {
            Picks::All(_) => at as u32,
            Picks::Some(picks) => picks[at],
        })
    }

    /// About how many bytes the share has of these rows of the message.
    pub fn byte_len(&self, rows: &Rows) -> usize {
        rows.byte_len() / rows.len().max(1) * self.len() + rows.byte_len() % rows.len().max(1)
    }
}

/// The width of all keys of several messages, if they have one.
pub fn common_width<'a>(keys: impl Iterator<Item = &'a Rows>) -> Option<usize> {
    let mut widths = keys.map(Rows::fixed_width);
    let first = widths.next()?;
    widths.all(|width| width == first).then_some(first).flatten()
}

/// Which worker of `peers` owns a key.
#[inline]
pub fn owner(key: &[u8], peers: usize) -> u64 {
    if peers == 1 { 0 } else { owner_of_hash(hash_row(key), peers) }
}

/// Which worker of `peers` owns the keys of a hash.
#[inline]
pub fn owner_of_hash(hash: u64, peers: usize) -> u64 {
    hash % peers as u64
}

/// For each worker the positions that it owns of `count`.
pub fn deal(count: usize, peers: usize, owner: impl Fn(usize) -> u64) -> Vec<Picks> {
    if peers == 1 { vec![Picks::All(count)] } else { deal_some(0..count, count, peers, owner) }
}

/// For each worker the positions that it owns among `rows`, which are about `count`.
pub fn deal_some(rows: impl Iterator<Item = usize>, count: usize, peers: usize, owner: impl Fn(usize) -> u64) -> Vec<Picks> {
    let mut picks: Vec<Vec<u32>> = (0..peers).map(|_| Vec::with_capacity(count / peers + count / 8)).collect();
    rows.for_each(|row| picks[owner(row) as usize].push(row as u32));
    picks.into_iter().map(Picks::Some).collect()
}

/// A worker's share of some updates of one time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chunk {
    /// When.
    pub time: Timestamp,
    /// Which updates.
    pub share: Share<Updates>,
}

impl Chunk {
    /// The shares of all workers that have one, each with the worker's number.
    pub fn of_workers(time: Timestamp, updates: Updates, picks: Vec<Picks>) -> impl Iterator<Item = (u64, Chunk)> {
        Share::of_workers(updates, picks).map(move |(worker, share)| (worker, Chunk { time, share }))
    }

    /// The key at a position among the message's updates.
    #[inline]
    pub fn key(&self, row: u32) -> &[u8] {
        self.share.all.keys.get(row as usize)
    }

    /// The value at a position among the message's updates.
    #[inline]
    pub fn val(&self, row: u32) -> &[u8] {
        self.share.all.vals.get(row as usize)
    }

    /// The multiplicity at a position among the message's updates; for arrangements whose diffs are that.
    #[inline]
    pub fn count(&self, row: u32) -> i64 {
        self.share.all.diffs.get(row as usize, 1)[0] as i64
    }

    /// Adds the diff at a position among the message's updates.
    #[inline]
    pub fn add_diff(&self, row: u32, lanes: &Lanes, sum: &mut [u64]) {
        let updates = &self.share.all;
        lanes.add_at(sum, updates.diffs_at, updates.diffs.get(row as usize, updates.stride));
    }

    /// How many multiplicities are below zero.
    pub fn negatives(&self) -> usize {
        match (&self.share.picks, self.share.all.diffs.negatives()) {
            (Picks::All(_), negatives) => negatives,
            (_, 0) => 0,
            (Picks::Some(picks), _) => picks.iter().filter(|row| self.count(**row) < 0).count(),
        }
    }

    /// Whether there are keys only.
    pub fn has_no_vals(&self) -> bool {
        self.share.all.vals.fixed_width() == Some(0)
    }
}
