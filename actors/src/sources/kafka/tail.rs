//! Whether a partition's rows may be handed out, or its last transaction may still go on.
//!
//! Rows that were decoded wait as long as the next message may belong to the last one's transaction: until a message of another
//! transaction comes, the partition's end is reached, nothing has come for a while, or the transaction is too long to be held.

use std::time::{Duration, Instant};

use crate::sources::transaction::{TRANSACTION_MAX, transaction_of};

/// How long the next message of a transaction is waited for.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tail {
    open: Option<Open>,
    /// All that the partition has was read.
    at_end: bool,
}

/// A transaction that may go on.
#[derive(Debug)]
struct Open {
    transaction: Vec<u8>,
    last: Instant,
    bytes: u64,
}

impl Tail {
    /// A message comes: whether the rows before it must be handed out first. A tombstone goes with the delete before it.
    pub(super) fn message(&mut self, value: Option<&[u8]>, now: Instant) -> bool {
        self.at_end = false;
        let Some(open) = &mut self.open else { return false };
        let goes_on = value.is_none_or(|value| transaction_of(value) == Some(&open.transaction));
        open.bytes += value.map_or(0, <[u8]>::len) as u64;
        open.last = now;
        if goes_on && open.bytes <= TRANSACTION_MAX {
            return false;
        }
        self.open = None;
        true
    }

    /// The partition's end is reached: whether rows were waiting for that.
    pub(super) fn end(&mut self) -> bool {
        self.at_end = true;
        self.open.take().is_some()
    }

    /// Rows could be handed out, the last of which came with `last` (absent: none came since the last time): whether they may be.
    pub(super) fn settle(&mut self, last: Option<&[u8]>, now: Instant) -> bool {
        if let Some(open) = &self.open {
            if now.duration_since(open.last) < PATIENCE {
                return false;
            }
            self.open = None;
            return true;
        }
        match last.and_then(transaction_of) {
            Some(transaction) if !self.at_end => {
                self.open = Some(Open { transaction: transaction.to_vec(), last: now, bytes: 0 });
                false
            }
            _ => true,
        }
    }

    /// How long at most nothing need come for the rows to be handed out; `None` if none wait.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        self.open.as_ref().map(|open| PATIENCE.saturating_sub(now.duration_since(open.last)))
    }

    /// Rows are handed out whatever may come.
    pub(super) fn forget(&mut self) {
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(transaction: u32) -> Vec<u8> {
        format!(r#"{{"after":{{}},"source":{{"txId":{transaction}}},"op":"c"}}"#).into_bytes()
    }

    #[test]
    fn rows_wait_for_the_end_of_their_transaction() {
        let now = Instant::now();
        let (one, two) = (message(1), message(2));
        let mut tail = Tail::default();
        assert!(!tail.message(Some(&one), now), "nothing waits yet");
        assert!(!tail.settle(Some(&one), now), "the next may belong to it");
        assert!(!tail.message(Some(&one), now) && !tail.message(None, now), "it does, and so does a tombstone");
        assert!(!tail.settle(Some(&one), now));
        assert!(tail.message(Some(&two), now), "another one begins");
        assert!(!tail.settle(Some(&two), now));
        assert!(tail.end(), "no more can come now");
        assert!(!tail.message(Some(&two), now) && !tail.end());
        assert!(tail.settle(Some(&two), now));
    }

    #[test]
    fn patience_and_room_end() {
        let now = Instant::now();
        let mut tail = Tail::default();
        assert!(!tail.settle(Some(&message(1)), now));
        assert_eq!(tail.patience(now), Some(PATIENCE));
        assert!(!tail.settle(None, now + PATIENCE / 2));
        assert!(tail.settle(None, now + PATIENCE));
        assert_eq!(tail.patience(now), None);
        let mut long = message(1);
        long.splice(1..1, std::iter::repeat_n(b' ', (TRANSACTION_MAX / 2) as usize));
        assert!(!tail.settle(Some(&message(1)), now));
        assert!(!tail.message(Some(&long), now) && tail.message(Some(&long), now));
        assert!(tail.settle(Some(b"{}"), now), "without a transaction nothing waits");
    }
}
