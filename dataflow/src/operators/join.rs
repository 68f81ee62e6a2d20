//! Inner equi-joins of two arrangements.
//!
//! What comes from a side is matched against what the other side had acknowledged before, so every pair of updates meets exactly once; the
//! pair counts from the later of the two times on. Neither side is scanned: a changed key costs a seek in each of the other side's batches.
//! A side that is not arranged for others too is kept in a [`Backlog`], which sorts it only when the other side changes.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use differential_dataflow::trace::TraceReader;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::InputCapability;
use timely::dataflow::operators::generic::OperatorInfo;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map as _;
use timely::progress::frontier::AntichainRef;
use timely::progress::{Antichain, Timestamp as _};

use crate::batch::RowBatch;
use crate::chunk::Chunk;
use crate::delta::{Delta, DeltaStream, record_batch};
use crate::errors::ErrorLog;
use crate::lanes::Lanes;
use crate::operators::arrange::{ArrangedRows, ChunkStream, RowSpan, RowTrace, batches_before, seal};
use crate::operators::backlog::{Backlog, collect};
use crate::plan::JoinRange;
use crate::protocol::Timestamp;
use crate::rows::RowCodec;

/// Pairs are put out in batches of about this many rows.
const OUTPUT_ROWS: usize = 16 * 1024;
/// With at most this many keys on the other side (they fit into a core's cache) unsorted rows are looked up as they come; with more it is
/// cheaper to sort them first and walk along.
const PROBED_KEYS_MAX: usize = 16 * 1024;

/// Where an output column comes from: a part of the matched rows and the column within it.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// The common key.
    Key(usize),
    /// The left side's other columns.
    Left(usize),
    /// The right side's other columns.
    Right(usize),
}

/// How matched rows become columns.
#[derive(Debug)]
pub struct JoinOutput {
    /// Decodes the key.
    pub keys: RowCodec,
    /// Decodes the left side's values.
    pub left: RowCodec,
    /// Decodes the right side's values.
    pub right: RowCodec,
    /// Sources of the output columns.
    pub parts: Vec<Part>,
    /// Which of the other side's rows a row is paired with, where that is not all.
    pub run: Option<Run>,
    /// Names and types of the output columns.
    pub schema: SchemaRef,
}

/// The values of both sides begin with a column of one type and width, and a row is paired only with values on one side of its own.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Bytes of the column.
    width: usize,
    /// Whether the left's is at least the right's; else it is at most that.
    left_is_greater: bool,
}

impl Run {
    /// The run of a range whose columns come first in the values; `left` is the left side's schema.
    ///
    /// # Errors
    /// The column's type cannot be encoded.
    pub fn new(left: &SchemaRef, range: JoinRange) -> Result<Run, ArrowError> {
        let column = arrow::array::new_null_array(left.field(range.left).data_type(), 1);
        let columns: Vec<ArrayRef> = left.fields().iter().map(|_| Arc::clone(&column)).collect();
        let width = RowCodec::new(left, &[range.left])?.encode(&columns, 1)?.byte_len();
        Ok(Run { width, left_is_greater: range.left_is_greater })
    }

    /// Which of a key's values on the other side a value is paired with; `is_right` says that the value is the right side's.
    fn of(&self, vals: Range<usize>, other: &RowBatch, val: &[u8], is_right: bool) -> Range<usize> {
        let own = &val[..self.width];
        let count_while = |is_before: &dyn Fn(&[u8]) -> bool| {
            let (mut low, mut high) = (vals.start, vals.end);
            while low < high {
                let middle = low + (high - low) / 2;
                if is_before(&other.val(middle)[..self.width]) { low = middle + 1 } else { high = middle }
            }
            low
        };
        // the other's is to be at least the own one, or at most
        if self.left_is_greater == is_right {
            count_while(&|bytes| bytes < own)..vals.end
        } else {
            vals.start..count_while(&|bytes| bytes <= own)
        }
    }
}

/// Matched rows of one time that have not been put out.
#[derive(Debug, Default)]
struct Pairs<'a> {
    keys: Vec<&'a [u8]>,
    left: Vec<&'a [u8]>,
    right: Vec<&'a [u8]>,
    diffs: Vec<i64>,
}

impl Pairs<'_> {
    /// Nothing again, with the room that there was.
    fn clear(&mut self) {
        self.keys.clear();
        self.left.clear();
        self.right.clear();
        self.diffs.clear();
    }
}

impl JoinOutput {
    fn delta(&self, pairs: &Pairs<'_>) -> Result<Delta, ArrowError> {
        let decode = |codec: &RowCodec, rows: &[&[u8]]| codec.decode(rows.iter().copied());
        let keys = decode(&self.keys, &pairs.keys)?;
        let (left, right) = (decode(&self.left, &pairs.left)?, decode(&self.right, &pairs.right)?);
        let columns: Vec<ArrayRef> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Key(column) => Arc::clone(&keys[*column]),
                Part::Left(column) => Arc::clone(&left[*column]),
                Part::Right(column) => Arc::clone(&right[*column]),
            })
            .collect();
        let rows = record_batch(Arc::clone(&self.schema), columns, pairs.diffs.len())?;
        let ones = pairs.diffs.iter().all(|diff| *diff == 1);
        Ok(Delta { rows, diffs: (!ones).then(|| pairs.diffs.as_slice().into()) })
    }
}

/// One side of a join.
#[allow(missing_debug_implementations)]
pub enum Side<'scope> {
    /// Arranged already, for others too.
    Shared(ArrangedRows<'scope>),
    /// Read by this join alone.
    Own(ChunkStream<'scope>),
}

/// What comes from a side: an interval of its arrangement, or the rows of a complete time in any order.
#[derive(Clone)]
enum Arrival {
    Sorted(RowSpan),
    Loose(Vec<Chunk>),
}

type Arrivals<'scope> = Stream<'scope, Timestamp, Vec<Arrival>>;

/// Where a side's acknowledged rows are.
enum Store {
    Shared { trace: RowTrace, done: Antichain<Timestamp> },
    Own(Backlog),
}

impl<'scope> Side<'scope> {
    fn split(self) -> (Arrivals<'scope>, Option<RowTrace>) {
        match self {
            Side::Shared(arranged) => (arranged.stream.map(Arrival::Sorted), Some(arranged.trace)),
            Side::Own(chunks) => (collect(chunks).map(Arrival::Loose), None),
        }
    }
}

impl Store {
    fn new(trace: Option<RowTrace>, info: &OperatorInfo) -> Store {
        match trace {
            Some(trace) => Store::Shared { trace, done: Antichain::from_elem(Timestamp::minimum()) },
            None => Store::Own(Backlog::new(info.clone())),
        }
    }

    /// Everything acknowledged.
    fn batches(&mut self) -> Vec<Rc<RowBatch>> {
        match self {
            Store::Shared { trace, done } => batches_before(trace, done),
            Store::Own(backlog) => backlog.batches(),
        }
    }

    /// What is acknowledged may merge; times before all that the other side can still send may coalesce.
    fn release(&mut self, frontier: AntichainRef<'_, Timestamp>, other_frontier: AntichainRef<'_, Timestamp>) {
        match self {
            Store::Shared { trace, done } => {
                trace.advance_upper(done);
                trace.set_physical_compaction(done.borrow());
                trace.set_logical_compaction(other_frontier);
            }
            Store::Own(backlog) => backlog.rest(frontier, other_frontier),
        }
    }

    /// Matches what came with what the other side had acknowledged before, and acknowledges it.
    fn receive(&mut self, arrival: Arrival, other: &mut Store, pairing: &mut Pairing<'_>) {
        match (arrival, &mut *self) {
            (Arrival::Sorted(span), Store::Shared { done, .. }) => {
                if let Some(batch) = &span.inner {
                    Matcher::new(pairing).sorted(batch, &other.batches());
                }
                done.clone_from(span.upper());
            }
            (Arrival::Loose(chunks), Store::Own(backlog)) => {
                let others = other.batches();
                if others.iter().map(|batch| batch.key_count()).sum::<usize>() <= PROBED_KEYS_MAX {
                    Matcher::new(pairing).loose(&chunks, &others);
                    backlog.lay_aside(chunks);
                } else if let Some(batch) = seal(&chunks, &Lanes::multiplicity()) {
                    Matcher::new(pairing).sorted(&batch, &others);
                    backlog.insert(Rc::new(batch));
                }
            }
            // `split` pairs them
            _ => unreachable!("a side's arrivals are of its own kind"),
        }
    }
}

/// How rows that came are paired, and where the pairs go.
struct Pairing<'a> {
    /// The rows that came are the right side's.
    swapped: bool,
    /// Pairs count from this time on at the earliest.
    earliest: Timestamp,
    run: Option<Run>,
    put_out: &'a mut dyn FnMut(Timestamp, &Pairs<'_>),
}

/// Pairs the rows of one arrival up and puts them out in batches.
struct Matcher<'p, 'a, 'rows> {
    pairing: &'p mut Pairing<'a>,
    open: Vec<(Timestamp, Pairs<'rows>)>,
}

impl<'p, 'a, 'rows> Matcher<'p, 'a, 'rows> {
    fn new(pairing: &'p mut Pairing<'a>) -> Self {
        Matcher { pairing, open: Vec::new() }
    }

    /// Pairs a row with all updates of a key of the other side.
    #[inline]
    fn pair(
        &mut self,
        (key, val, time, diff): (&'rows [u8], &'rows [u8], Timestamp, i64),
        other: &'rows RowBatch,
        other_key: usize,
    ) {
        let vals = match &self.pairing.run {
            Some(run) => run.of(other.vals_of(other_key), other, val, self.pairing.swapped),
            None => other.vals_of(other_key),
        };
        for other_val in vals {
            for other_update in other.updates_of(other_val) {
                let time = time.max(other.time(other_update)).max(self.pairing.earliest);
                let at = match self.open.iter().rposition(|(known, _)| *known == time) {
                    Some(at) => at,
                    None => {
                        self.open.push((time, Pairs::default()));
                        self.open.len() - 1
                    }
                };
                let pairs = &mut self.open[at].1;
                let (left, right) = if self.pairing.swapped { (other.val(other_val), val) } else { (val, other.val(other_val)) };
                pairs.keys.push(key);
                pairs.left.push(left);
                pairs.right.push(right);
                pairs.diffs.push(diff.wrapping_mul(other.diff(other_update)[0] as i64));
                if pairs.diffs.len() >= OUTPUT_ROWS {
                    (self.pairing.put_out)(time, pairs);
                    pairs.clear();
                }
            }
        }
    }

    /// Matches a sorted batch: the other side's positions move on with the keys.
    fn sorted(mut self, new: &'rows RowBatch, others: &'rows [Rc<RowBatch>]) {
        let mut positions = vec![0usize; others.len()];
        for key_at in 0..new.key_count() {
            let key = new.key(key_at);
            for (other, position) in others.iter().zip(&mut positions) {
                *position = other.seek(*position, key);
                if other.key_at(*position) != Some(key) {
                    continue;
                }
                for val in new.vals_of(key_at) {
                    for update in new.updates_of(val) {
                        self.pair((key, new.val(val), new.time(update), new.diff(update)[0] as i64), other, *position);
                    }
                }
            }
        }
        self.flush();
    }

    /// Matches rows in any order: each key is looked up from the start, unless it is the one before again.
    fn loose(mut self, chunks: &'rows [Chunk], others: &'rows [Rc<RowBatch>]) {
        let mut found: Vec<Option<usize>> = vec![None; others.len()];
        let mut before: Option<&[u8]> = None;
        for new in chunks {
            for row in new.share.rows() {
                let key = new.key(row);
                if before != Some(key) {
                    for (other, found) in others.iter().zip(&mut found) {
                        let position = other.find(key);
                        *found = (other.key_at(position) == Some(key)).then_some(position);
                    }
                    before = Some(key);
                }
                for (other, found) in others.iter().zip(&found) {
                    if let Some(position) = found {
                        self.pair((key, new.val(row), new.time, new.count(row)), other, *position);
                    }
                }
            }
        }
        self.flush();
    }

    fn flush(self) {
        for (time, pairs) in &self.open {
            if !pairs.diffs.is_empty() {
                (self.pairing.put_out)(*time, pairs);
            }
        }
    }
}

/// Joins two sides with the same key encoding. Updates before `as_of` count as of `as_of`.
pub fn join<'scope>(
    left: Side<'scope>,
    right: Side<'scope>,
    result: JoinOutput,
    as_of: Timestamp,
    errors: ErrorLog,
    name: &str,
) -> DeltaStream<'scope> {
    let ((left, left_trace), (right, right_trace)) = (left.split(), right.split());
    left.binary_frontier::<_, CapacityContainerBuilder<Vec<Delta>>, _, _, _, _>(
        right,
        Pipeline,
        Pipeline,
        name,
        move |initial, info| {
            drop(initial);
            let (mut left_store, mut right_store) = (Store::new(left_trace, &info), Store::new(right_trace, &info));
            move |(left_input, left_frontier), (right_input, right_frontier), output| {
                let mut give =
                    |capability: &InputCapability<Timestamp>, time: Timestamp, pairs: &Pairs<'_>| match result.delta(pairs) {
                        Ok(delta) => output.session(&capability.delayed(&time, 0)).give(delta),
                        Err(error) => errors.push(time, error.to_string(), String::new(), 1),
                    };
                let mut receive = |capability: InputCapability<Timestamp>,
                                   arrivals: &mut Vec<Arrival>,
                                   swapped: bool,
                                   own: &mut Store,
                                   other: &mut Store| {
                    let Some(least) = capability.least().copied() else { return };
                    let mut put_out = |time: Timestamp, pairs: &Pairs<'_>| give(&capability, time, pairs);
                    let mut pairing = Pairing { swapped, earliest: as_of.max(least), run: result.run, put_out: &mut put_out };
                    arrivals.drain(..).for_each(|arrival| own.receive(arrival, other, &mut pairing));
                };
                left_input
                    .for_each(|capability, arrivals| receive(capability, arrivals, false, &mut left_store, &mut right_store));
                right_input
                    .for_each(|capability, arrivals| receive(capability, arrivals, true, &mut right_store, &mut left_store));
                left_store.release(left_frontier.frontier(), right_frontier.frontier());
                right_store.release(right_frontier.frontier(), left_frontier.frontier());
            }
        },
    )
}
