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
use crate::chunk::{Chunk, Updates, deal, deal_some, owner_of_hash};
use crate::delta::{Delta, DeltaStream};
use crate::diffs::Diffs;
use crate::errors::{ErrorLog, isolate};
use crate::operators::arrange::ChunkStream;
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
    /// No groups, with room for so many with so many bytes of keys.
    fn new(stride: usize, (groups, bytes): (usize, usize)) -> Self {
        GroupTable {
            table: HashTable::with_capacity(groups),
            keys: Rows::with_capacity(bytes),
            hashes: Vec::with_capacity(groups),
            words: Vec::with_capacity(groups * stride),
            stride,
        }
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

    /// Each worker's groups; those whose words are all zero again are left out.
    fn into_chunks(self, time: Timestamp, diffs_at: usize, peers: usize) -> impl Iterator<Item = (u64, Chunk)> {
        let GroupTable { table, keys, hashes, words, stride } = self;
        drop(table);
        let zero = |group: usize| words[group * stride..(group + 1) * stride].iter().all(|word| *word == 0);
        let count = hashes.len();
        let picks = if (0..count).any(zero) {
            deal_some((0..count).filter(|group| !zero(*group)), count, peers, |group| owner_of_hash(hashes[group], peers))
        } else {
            deal(count, peers, |group| owner_of_hash(hashes[group], peers))
        };
        let vals = Rows::empty_rows(count);
        Chunk::of_workers(time, Updates { keys, vals, diffs: Diffs::Words(words), stride, diffs_at }, picks)
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
        let numbers: Vec<u32> = encoded.iter().map(|key| groups.group(key)).collect();
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
        let words = contribution.aggregates.words_of_branch(contribution.branch);
        // a tick is about as large as the one before
        let mut expected = (0, 0);
        let mut open: BTreeMap<Timestamp, (Capability<Timestamp>, GroupTable)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|capability, deltas| {
                let Some(time) = capability.least().copied() else { return };
                let (_, groups) =
                    open.entry(time).or_insert_with(|| (capability.delayed(&time, 0), GroupTable::new(words.len(), expected)));
                for delta in deltas.drain(..) {
                    isolate(&delta, time, &errors, &mut |delta| Ok(contribution.add(delta, groups)?), &mut |()| {});
                }
            });
            while let Some(entry) = open.first_entry()
                && !frontier.less_equal(entry.key())
            {
                let (time, (capability, groups)) = entry.remove_entry();
                expected = (groups.hashes.len(), groups.keys.byte_len());
                output.session(&capability).give_iterator(groups.into_chunks(time, words.start, peers));
            }
        }
    })
}
