//! One side's rows within a join, sorted only when the other side changes.
//!
//! A join looks a side up only where the other one changes. Facts stream in by the million while the dimensions they are joined with stand
//! still, so sorting every fact by each dimension's key as it comes is work that may never be asked for. Rows of a side that nothing else
//! reads are therefore only laid aside, as they came; when the other side changes, or when enough of them have been retracted again, or in
//! quiet times a little at each tick, they are sorted into the batches of a spine, which merges them as usual. Looking up then costs what
//! it costs in an arrangement, and what was laid aside has been sorted once, later, together.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use differential_dataflow::trace::{Description, Span, Trace, TraceReader};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, ParallelizationContract, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OperatorInfo;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::frontier::AntichainRef;
use timely::progress::{Antichain, Timestamp as _};

use crate::batch::{RowBatch, RowSpine};
use crate::chunk::Chunk;
use crate::lanes::Lanes;
use crate::operators::arrange::{ChunkStream, seal};
use crate::protocol::Timestamp;

/// Retractions laid aside from which on it is looked whether sorting would free memory.
const RETRACTIONS_MIN: usize = 32 * 1024;
/// A tick that brings fewer rows is a quiet one.
const QUIET_ROWS: usize = 4 * 1024;
/// About how many rows are sorted in a quiet tick.
const DRAIN_ROWS: usize = 16 * 1024;

/// The chunks of one complete time, on the worker that owns their keys.
pub type LooseStream<'scope> = Stream<'scope, Timestamp, Vec<Vec<Chunk>>>;

/// Deals chunks to their workers and holds them until their time is complete.
pub fn collect<'scope>(stream: ChunkStream<'scope>) -> LooseStream<'scope> {
    if stream.scope().peers() == 1 {
        collect_by(stream, Pipeline)
    } else {
        collect_by(stream, Exchange::new(|chunk: &(u64, Chunk)| chunk.0))
    }
}

fn collect_by<'scope, P>(stream: ChunkStream<'scope>, pact: P) -> LooseStream<'scope>
where
    P: ParallelizationContract<Timestamp, Vec<(u64, Chunk)>>,
{
    stream.unary_frontier::<CapacityContainerBuilder<Vec<Vec<Chunk>>>, _, _, _>(pact, "Collect", move |initial, _| {
        drop(initial);
        let mut open: BTreeMap<Timestamp, (Capability<Timestamp>, Vec<Chunk>)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|capability, chunks| {
                let Some(time) = capability.least().copied() else { return };
                let (_, held) = open.entry(time).or_insert_with(|| (capability.delayed(&time, 0), Vec::new()));
                held.extend(chunks.drain(..).map(|(_, chunk)| chunk));
            });
            while let Some(entry) = open.first_entry()
                && !frontier.less_equal(entry.key())
            {
                let (_, (capability, chunks)) = entry.remove_entry();
                output.session(&capability).give(chunks);
            }
        }
    })
}

/// See the module's text.
#[allow(missing_debug_implementations)]
pub struct Backlog {
    lanes: Lanes,
    loose: VecDeque<Chunk>,
    loose_rows: usize,
    loose_retractions: usize,
    /// Rows laid aside since the frontier moved last, and between that and the time before. It moves twice a tick: when the tick begins
    /// and when it ends.
    arrived: [usize; 2],
    /// Where it was.
    frontier: Antichain<Timestamp>,
    runs: RowSpine,
    /// The spine wants its batches as intervals of time that follow each other. Nobody else reads this one, so they are numbered.
    sealed: Timestamp,
}

impl Backlog {
    /// Nothing yet.
    pub fn new(info: OperatorInfo) -> Backlog {
        let runs = RowSpine::new(info, None, None);
        Backlog {
            lanes: Lanes::multiplicity(),
            loose: VecDeque::new(),
            loose_rows: 0,
            loose_retractions: 0,
            arrived: [0, 0],
            frontier: Antichain::from_elem(Timestamp::minimum()),
            runs,
            sealed: Timestamp::minimum(),
        }
    }

    /// Lays chunks aside.
    pub fn lay_aside(&mut self, chunks: Vec<Chunk>) {
        for chunk in chunks {
            self.loose_rows += chunk.share.len();
            self.arrived[0] += chunk.share.len();
            self.loose_retractions += chunk.negatives();
            self.loose.push_back(chunk);
        }
        // each retraction may cancel another row: sort when half of what lies here may be gone
        if self.loose_retractions >= RETRACTIONS_MIN && self.loose_retractions * 4 >= self.loose_rows {
            self.seal(usize::MAX);
        }
    }

    /// Takes rows that are sorted already.
    pub fn insert(&mut self, batch: Rc<RowBatch>) {
        let (lower, upper) = (Antichain::from_elem(self.sealed), Antichain::from_elem(self.sealed + 1));
        self.sealed += 1;
        self.runs
            .insert(Span::new(Description::new(lower, upper.clone(), Antichain::from_elem(Timestamp::minimum())), Some(batch)));
        self.runs.set_physical_compaction(upper.borrow());
    }

    /// Sorts at least so many of the rows laid aside, oldest first, or all.
    fn seal(&mut self, rows: usize) {
        let (mut taken, mut count) = (Vec::new(), 0);
        while count < rows
            && let Some(chunk) = self.loose.pop_front()
        {
            count += chunk.share.len();
            self.loose_retractions -= chunk.negatives();
            taken.push(chunk);
        }
        self.loose_rows -= count;
        if let Some(batch) = seal(&taken, &self.lanes) {
            self.insert(Rc::new(batch));
        }
    }

    /// Everything that came, sorted.
    pub fn batches(&mut self) -> Vec<Rc<RowBatch>> {
        self.seal(usize::MAX);
        let mut batches = Vec::new();
        self.runs.map_spans(|span| batches.extend(span.inner.clone()));
        batches
    }

    /// Times before all of `since` may count as one; nobody will ask again if it is empty. When another tick has ended, that is, when
    /// `frontier`, before which all rows have come, has moved, and it brought little, a little is sorted.
    pub fn rest(&mut self, frontier: AntichainRef<'_, Timestamp>, since: AntichainRef<'_, Timestamp>) {
        if since.is_empty() {
            self.loose.clear();
            (self.loose_rows, self.loose_retractions) = (0, 0);
            return;
        }
        self.runs.set_logical_compaction(since);
        if self.frontier.borrow() != frontier {
            if self.arrived.iter().sum::<usize>() < QUIET_ROWS && !self.loose.is_empty() {
                self.seal(DRAIN_ROWS);
            }
            self.arrived = [0, self.arrived[0]];
            self.frontier = frontier.to_owned();
        }
        self.runs.exert();
    }
}
