//! Which ticks are closed, so that answers carry the timestamp of one.
//!
//! A relation may be complete up to a moment between two ticks: rows that leave by themselves are due at any moment and show at the first tick
//! after it. An answer for such a moment would still have rows that `now()` in the same answer says are gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use livelake_dataflow::protocol::Timestamp;

/// The closed ticks from the newest complete one on. Clones are the same list.
#[derive(Clone, Debug)]
pub struct ClosedTicks(Arc<Mutex<VecDeque<Timestamp>>>);

impl ClosedTicks {
    /// Nothing closed yet after `begin`.
    pub(super) fn new(begin: Timestamp) -> ClosedTicks {
        ClosedTicks(Arc::new(Mutex::new(VecDeque::from([begin]))))
    }

    /// A tick was closed.
    pub(super) fn close(&self, tick: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(tick);
    }

    /// The newest tick below a frontier. It never goes back, though the frontier does when a relation is made: who reads that relation waits.
    pub fn newest_below(&self, frontier: Timestamp) -> Timestamp {
        let mut ticks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while ticks.get(1).is_some_and(|next| *next < frontier) {
            ticks.pop_front();
        }
        ticks.front().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_at_a_tick_and_never_goes_back() {
        let ticks = ClosedTicks::new(5);
        assert_eq!(ticks.newest_below(0), 5);
        for tick in [10, 20, 30] {
            ticks.close(tick);
        }
        assert_eq!(ticks.newest_below(10), 5);
        assert_eq!(ticks.newest_below(27), 20, "27 is between two ticks");
        assert_eq!(ticks.newest_below(21), 20);
        assert_eq!(ticks.newest_below(3), 20);
        assert_eq!(ticks.newest_below(31), 30);
    }
}
