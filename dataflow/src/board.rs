//! How far everything is: frontiers and sizes of all relations on all workers, and who waits for them.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::plan::RelationId;
use crate::protocol::Timestamp;

/// A relation's size over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelationSize {
    /// Rows that there are at its newest complete timestamp, copies counted.
    pub rows: i64,
    /// Updates kept: rows, and what history is not compacted yet.
    pub updates: u64,
    /// Bytes of its arrangement.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    frontiers: HashMap<RelationId, Vec<Timestamp>>,
    sizes: HashMap<RelationId, Vec<RelationSize>>,
    failure: Option<String>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

impl Board {
    // a panic while the lock is held leaves plain numbers behind, which are still right
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A relation begins on all workers.
    pub fn add(&self, id: RelationId, workers: usize) {
        let mut state = self.lock();
        state.frontiers.insert(id, vec![0; workers]);
        state.sizes.insert(id, vec![RelationSize::default(); workers]);
    }

    /// A relation is gone.
    pub fn remove(&self, id: RelationId) {
        let mut state = self.lock();
        state.frontiers.remove(&id);
        state.sizes.remove(&id);
        self.changed.notify_all();
    }

    /// A worker reports.
    pub fn report(&self, id: RelationId, worker: usize, frontier: Timestamp, size: RelationSize) {
        let mut state = self.lock();
        if let Some(frontiers) = state.frontiers.get_mut(&id) {
            frontiers[worker] = frontier;
        }
        if let Some(sizes) = state.sizes.get_mut(&id) {
            sizes[worker] = size;
        }
        self.changed.notify_all();
    }

    /// The engine cannot go on.
    pub fn fail(&self, reason: String) {
        self.lock().failure.get_or_insert(reason);
        self.changed.notify_all();
    }

    /// Why the engine cannot go on, if so.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// All times below this are complete in a relation.
    pub fn frontier(&self, id: RelationId) -> Option<Timestamp> {
        self.lock().frontiers.get(&id).and_then(|frontiers| frontiers.iter().min().copied())
    }

    /// All times below this are complete in all relations.
    pub fn least_frontier(&self) -> Timestamp {
        self.lock().frontiers.values().flatten().min().copied().unwrap_or(Timestamp::MAX)
    }

    /// Blocks until the least frontier is another one than `known`, or `patience` is over; returns it.
    pub fn wait_beyond(&self, known: Timestamp, patience: Duration) -> Timestamp {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            let least = state.frontiers.values().flatten().min().copied().unwrap_or(Timestamp::MAX);
            let left = deadline.saturating_duration_since(Instant::now());
            if least != known || left.is_zero() {
                return least;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A relation's size.
    pub fn size(&self, id: RelationId) -> Option<RelationSize> {
        let state = self.lock();
        state.sizes.get(&id).map(|sizes| {
            sizes.iter().fold(RelationSize::default(), |sum, size| RelationSize {
                rows: sum.rows + size.rows,
                updates: sum.updates + size.updates,
                bytes: sum.bytes + size.bytes,
            })
        })
    }

    /// Blocks until all relations are complete through `time`; false if that took longer than `patience` or the engine failed.
    pub fn wait(&self, time: Timestamp, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if state.frontiers.values().flatten().all(|frontier| *frontier > time) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.failure.is_some() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
