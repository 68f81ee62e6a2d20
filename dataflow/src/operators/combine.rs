//! Combining before a stateful operator: all rows of a tick that share a key become one update.
//!
//! A hash table from encoded key to a row of words (the aggregates' sums, or just a count) is kept per time until that time is
//! complete, then dealt to the workers that own the keys. So differential sorts, merges and looks up one update per distinct
//! key and tick instead of one per event.

use std::collections::BTreeMap;

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use hashbrown::HashTable;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use crate::aggregate::Aggregates;
use crate::delta::{Delta, DeltaStream};
use crate::diffs::Diffs;
use crate::errors::{ErrorLog, isolate};
use crate::lanes::Lanes;
use crate::operators::arrange::{Chunk, ChunkStream};
use crate::operators::distribute::owner;
use crate::protocol::Timestamp;
use crate::rows::{RowCodec, Rows, hash_row};

/// Groups of one time.
#[derive(Debug)]
struct GroupTable {
    table: HashTable<u32>,
    keys: Rows,
    hashes: Vec<u64>,
    words: Vec<u64>,
    stride: usize,
}

impl GroupTable {
    fn new(stride: usize) -> Self {
        GroupTable { table: HashTable::new(), keys: Rows::default(), hashes: Vec::new(), words: Vec::new(), stride }
    }

    /// The number of the key's group, new ones with zero words.
    #[inline]
    fn group(&mut self, key: &[u8]) -> u32 {
        let hash = hash_row(key);
        let GroupTable { table, keys, hashes, words, stride } = self;
        let entry = table.entry(hash, |group| keys.get(*group as usize) == key, |group| hashes[*group as usize]);
        *entry
            .or_insert_with(|| {
                keys.push(key);
                hashes.push(hash);
                words.resize(words.len() + *stride, 0);
                (hashes.len() - 1) as u32
            })
            .get()
    }

    /// One chunk per worker; groups whose words are all zero again are left out.
    fn into_chunks(self, time: Timestamp, lanes: &Lanes, peers: usize) -> Vec<Chunk> {
        let GroupTable { table, keys, hashes, words, stride } = self;
        drop((table, hashes));
        let zero = |group: &[u64]| lanes.is_zero(group);
        if peers == 1 && stride > 1 && !words.chunks_exact(stride).any(zero) {
            let vals = Rows::empty_rows(keys.len());
            return vec![Chunk { time, keys, vals, diffs: Diffs::Words(words) }];
        }
        let mut chunks: Vec<Chunk> = (0..peers)
            .map(|_| Chunk { time, keys: Rows::default(), vals: Rows::default(), diffs: Diffs::with_capacity(stride, 0) })
            .collect();
        for (key, words) in keys.iter().zip(words.chunks_exact(stride)) {
            if !zero(words) {
                let chunk = &mut chunks[owner(key, peers) as usize];
                chunk.keys.push(key);
                chunk.diffs.push(words);
            }
        }
        for chunk in &mut chunks {
            chunk.vals = Rows::empty_rows(chunk.keys.len());
        }
        chunks
    }
}

/// How the rows of a stream contribute: as a branch of some aggregates. Plain counting is aggregates without functions.
#[derive(Debug)]
pub struct Contribution {
    /// What is added up.
    pub aggregates: Aggregates,
    /// Which branch the stream is.
    pub branch: usize,
    /// For each input column that the branch's aggregates read, its position in the stream: `(input column, position)`.
    pub columns: Vec<(usize, usize)>,
    /// The grouping columns of the stream.
    pub keys: RowCodec,
}

impl Contribution {
    fn add(&self, delta: &Delta, groups: &mut GroupTable) -> Result<(), ArrowError> {
        let encoded = self.keys.encode(delta.rows.columns(), delta.len())?;
        let numbers: Vec<u32> = (0..delta.len()).map(|row| groups.group(encoded.get(row))).collect();
        let column = |wanted: usize| -> ArrayRef {
            let position = self.columns.iter().find(|(column, _)| *column == wanted).map_or(wanted, |(_, position)| *position);
            std::sync::Arc::clone(delta.rows.column(position))
        };
        self.aggregates.accumulate(self.branch, &column, &numbers, &|row| delta.diff(row), &mut groups.words)
    }
}

/// Combines a stream into chunks with the aggregates' words.
pub fn combine<'scope>(stream: DeltaStream<'scope>, contribution: Contribution, errors: ErrorLog) -> ChunkStream<'scope> {
    let peers = stream.scope().peers();
    stream.unary_frontier(Pipeline, "Combine", move |initial, _| {
        drop(initial);
        let lanes = contribution.aggregates.lanes().clone();
        let mut open: BTreeMap<Timestamp, (Capability<Timestamp>, GroupTable)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|capability, deltas| {
                let Some(time) = capability.least().copied() else { return };
                let (_, groups) =
                    open.entry(time).or_insert_with(|| (capability.delayed(&time, 0), GroupTable::new(lanes.stride())));
                for delta in deltas.drain(..) {
                    isolate(&delta, time, &errors, &mut |delta| Ok(contribution.add(delta, groups)?), &mut |()| {});
                }
            });
            while let Some(entry) = open.first_entry()
                && !frontier.less_equal(entry.key())
            {
                let (time, (capability, groups)) = entry.remove_entry();
                let mut session = output.session(&capability);
                for (target, chunk) in groups.into_chunks(time, &lanes, peers).into_iter().enumerate() {
                    if !chunk.keys.is_empty() {
                        session.give((target as u64, chunk));
                    }
                }
            }
        }
    })
}
