//! Following an arrangement on one worker: a snapshot at one timestamp, then its batches as they are sealed.
//!
//! It reads the arrangement's own batches, consolidated as they are, and holds back their merging only beyond what it has sent.

use std::rc::Rc;

use arrow::error::ArrowError;
use differential_dataflow::trace::TraceReader;
use timely::progress::Antichain;

use crate::delta::Delta;
use crate::layout::{Layout, diff_array};
use crate::operators::arrange::{RowTrace, element};
use crate::peek::Scan;
use crate::plan::RelationId;
use crate::protocol::{Changes, Timestamp};
use crate::relation::Arrangement;
use crate::rows::Rows;

/// Rows in one message.
const MESSAGE_ROWS: usize = 64 * 1024;

/// A subscription's part on one worker.
#[allow(missing_debug_implementations)]
pub struct Follower {
    /// What identifies it to the caller.
    pub number: u64,
    /// What it follows.
    pub relation: RelationId,
    trace: RowTrace,
    layout: Rc<Layout>,
    as_of: Timestamp,
    /// Batches before this have been sent; `None` until the snapshot was.
    sent: Option<Antichain<Timestamp>>,
}

impl Follower {
    /// Follows an arrangement from a snapshot at `as_of` on.
    pub fn new(number: u64, relation: RelationId, arrangement: &Arrangement, as_of: Timestamp) -> Follower {
        let mut trace = arrangement.trace.clone();
        trace.set_logical_compaction(Antichain::from_elem(as_of).borrow());
        Follower { number, relation, trace, layout: Rc::clone(&arrangement.layout), as_of, sent: None }
    }

    /// What is new since the last call, with the frontier it reaches; `None` if nothing is.
    ///
    /// # Errors
    /// The arrangement's bytes are not of its layout.
    pub fn poll(&mut self) -> Result<Option<(Vec<Changes>, Timestamp)>, ArrowError> {
        let mut upper = Antichain::new();
        self.trace.read_upper(&mut upper);
        let reached = element(upper.borrow()).unwrap_or(Timestamp::MAX);
        let mut changes = Vec::new();
        match &self.sent {
            Some(sent) if *sent == upper => return Ok(None),
            None if reached <= self.as_of => return Ok(None),
            None => self.snapshot(&upper, &mut changes)?,
            Some(sent) => {
                let begin = element(sent.borrow()).unwrap_or(Timestamp::MAX);
                let mut fresh = Vec::new();
                self.trace.map_spans(|span| {
                    if let Some(batch) = &span.inner
                        && element(span.lower().borrow()).is_some_and(|lower| lower >= begin)
                    {
                        fresh.push(Rc::clone(batch));
                    }
                });
                for batch in fresh {
                    self.send(self.layout.deltas(&batch, begin, MESSAGE_ROWS)?, &mut changes);
                }
            }
        }
        self.trace.set_logical_compaction(upper.borrow());
        self.trace.set_physical_compaction(upper.borrow());
        self.sent = Some(upper);
        Ok(Some((changes, reached)))
    }

    /// Everything up to `as_of` as of then, and what already came after it.
    fn snapshot(&mut self, upper: &Antichain<Timestamp>, changes: &mut Vec<Changes>) -> Result<(), ArrowError> {
        let batches = self.trace.batches_through(upper.borrow()).unwrap_or_default();
        let mut scan = Scan::new(batches.clone(), self.as_of, None);
        let mut more = true;
        while more {
            let (mut keys, mut vals, mut diffs) = (Rows::default(), Rows::default(), Vec::new());
            while more && diffs.len() < MESSAGE_ROWS {
                more = scan.next_key(|key, val, count| {
                    keys.push(key);
                    vals.push(val);
                    diffs.push(count);
                });
            }
            if !diffs.is_empty() {
                let rows = self.layout.decode(&keys, &vals)?;
                self.send(vec![(self.as_of, Delta { rows, diffs: Some(diffs.into()) })], changes);
            }
        }
        for batch in batches {
            let late = self.layout.deltas(&batch, self.as_of, MESSAGE_ROWS)?;
            self.send(late.into_iter().filter(|(time, _)| *time > self.as_of).collect(), changes);
        }
        Ok(())
    }

    fn send(&self, deltas: Vec<(Timestamp, Delta)>, changes: &mut Vec<Changes>) {
        changes.extend(deltas.into_iter().map(|(as_of, delta)| Changes { as_of, diffs: diff_array(&delta), rows: delta.rows }));
    }
}
