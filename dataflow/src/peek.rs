//! Reading an arrangement at one timestamp, a bounded number of rows at a time.
//!
//! A scan holds the batches it began with, which never change, so the dataflow goes on underneath, and yields after each portion, so a
//! large answer does not hold up small ones.

use std::rc::Rc;

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use differential_dataflow::trace::TraceReader;
use timely::progress::Antichain;

use crate::batch::RowBatch;
use crate::layout::Layout;
use crate::operators::arrange::element;
use crate::protocol::{EngineError, PeekRequest, Timestamp};
use crate::relation::{Arrangement, Relation};
use crate::rows::{RowCodec, Rows};

/// Rows read before others get a turn.
const PORTION_ROWS: usize = 32 * 1024;

/// A walk over batches in the order of keys and values.
#[derive(Debug)]
pub struct Scan {
    batches: Vec<Rc<RowBatch>>,
    positions: Vec<usize>,
    as_of: Timestamp,
    only: Option<Vec<u8>>,
}

impl Scan {
    /// A scan of all rows, or of one key's.
    pub fn new(batches: Vec<Rc<RowBatch>>, as_of: Timestamp, only: Option<Vec<u8>>) -> Scan {
        let positions = batches.iter().map(|batch| only.as_ref().map_or(0, |key| batch.seek(0, key))).collect();
        Scan { batches, positions, as_of, only }
    }

    /// Calls with every row of the next key and its multiplicity; false at the end.
    pub fn next_key(&mut self, mut row: impl FnMut(&[u8], &[u8], i64)) -> bool {
        let mut least: Option<&[u8]> = None;
        for (batch, position) in self.batches.iter().zip(&self.positions) {
            if *position < batch.key_count() && least.is_none_or(|known| batch.key(*position) < known) {
                least = Some(batch.key(*position));
            }
        }
        let Some(key) = least else { return false };
        if self.only.as_ref().is_some_and(|only| only != key) {
            return false;
        }
        let mut ranges: Vec<(&Rc<RowBatch>, std::ops::Range<usize>)> = Vec::new();
        for (batch, position) in self.batches.iter().zip(&mut self.positions) {
            if *position < batch.key_count() && batch.key(*position) == key {
                ranges.push((batch, batch.vals_of(*position)));
                *position += 1;
            }
        }
        loop {
            let mut least: Option<&[u8]> = None;
            for (batch, range) in &ranges {
                if range.start < range.end && least.is_none_or(|known| batch.val(range.start) < known) {
                    least = Some(batch.val(range.start));
                }
            }
            let Some(val) = least else { return true };
            let mut count = 0i64;
            for (batch, range) in &mut ranges {
                if range.start < range.end && batch.val(range.start) == val {
                    for update in batch.updates_of(range.start) {
                        if batch.time(update) <= self.as_of {
                            count += batch.diff(update)[0] as i64;
                        }
                    }
                    range.start += 1;
                }
            }
            if count != 0 {
                row(key, val, count);
            }
        }
    }
}

/// A peek under way on one worker.
#[derive(Debug)]
pub struct Peek {
    /// What identifies it to the caller.
    pub number: u64,
    request: PeekRequest,
    scan: Option<(Scan, Rc<Layout>)>,
    rows: Vec<RecordBatch>,
    found: usize,
}

impl Peek {
    /// A peek that has not begun.
    pub fn new(number: u64, request: PeekRequest) -> Peek {
        Peek { number, request, scan: None, rows: Vec::new(), found: 0 }
    }

    /// The relation that it reads.
    pub fn relation(&self) -> crate::plan::RelationId {
        self.request.id
    }

    /// Goes on with it; the answer when it is done, `None` when it has to wait or yielded.
    pub fn work(&mut self, relation: Option<&mut Relation>) -> Option<Result<Vec<RecordBatch>, EngineError>> {
        if self.scan.is_none() {
            let Some(relation) = relation else { return Some(Err(EngineError::UnknownRelation(self.request.id))) };
            let since = relation.since;
            let Some(arrangement) = &mut relation.arrangement else {
                return Some(Err(EngineError::NotArranged(self.request.id)));
            };
            if self.request.as_of < since {
                return Some(Err(EngineError::Compacted { as_of: self.request.as_of, since }));
            }
            match self.begin(arrangement) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(EngineError::ViewFailed(self.request.id, error.to_string()))),
            }
        }
        match self.portion() {
            Ok(true) => Some(Ok(std::mem::take(&mut self.rows))),
            Ok(false) => None,
            Err(error) => Some(Err(EngineError::ViewFailed(self.request.id, error.to_string()))),
        }
    }

    /// Takes the batches if the timestamp is complete.
    fn begin(&mut self, arrangement: &mut Arrangement) -> Result<bool, ArrowError> {
        let mut upper = Antichain::new();
        arrangement.trace.read_upper(&mut upper);
        if element(upper.borrow()).is_some_and(|upper| upper <= self.request.as_of) {
            return Ok(false);
        }
        let key = match &self.request.key {
            None => None,
            Some(key) => {
                let all: Vec<usize> = (0..key.num_columns()).collect();
                let codec = RowCodec::new(&key.schema(), &all)?;
                Some(codec.encode(key.columns(), key.num_rows())?.get(0).to_vec())
            }
        };
        let batches = arrangement.trace.batches_through(upper.borrow()).unwrap_or_default();
        self.scan = Some((Scan::new(batches, self.request.as_of, key), Rc::clone(&arrangement.layout)));
        Ok(true)
    }

    /// One portion; true at the end.
    fn portion(&mut self) -> Result<bool, ArrowError> {
        let Some((scan, layout)) = &mut self.scan else { return Ok(true) };
        let limit = self.request.limit.unwrap_or(usize::MAX);
        let (mut keys, mut vals) = (Rows::default(), Rows::default());
        let mut more = true;
        while more && keys.len() < PORTION_ROWS && self.found + keys.len() < limit {
            more = scan.next_key(|key, val, count| {
                for _ in 0..count.max(0) {
                    keys.push(key);
                    vals.push(val);
                }
            });
        }
        self.found += keys.len();
        if !keys.is_empty() {
            let mut rows = layout.decode(&keys, &vals)?;
            if let Some(projection) = &self.request.projection {
                rows = rows.project(projection)?;
            }
            self.rows.push(rows);
        }
        Ok(!more || self.found >= limit)
    }
}
