//! The first rows of each group of an input that only grows: what is not among them now never will be, so nothing else is kept.
//!
//! Where rows can be retracted, the next one behind the first rows must be known, and all of a group stays in an arrangement (`topk.rs`). Here
//! a row that comes is compared with the last that is kept and is mostly gone at once: the state is as large as the answer, and a tick
//! costs a look-up a row and the groups that change.

use std::sync::Arc;

use hashbrown::HashMap;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::chunk::Chunk;
use crate::delta::DeltaStream;
use crate::errors::ErrorLog;
use crate::operators::arrange::ChunkStream;
use crate::operators::backlog::collect;
use crate::operators::topk::{Changed, Kept, TopKOutput, diff_kept};
use crate::protocol::Timestamp;

/// The first rows of a group, in order, each with how often it is there.
#[derive(Clone, Default)]
struct First {
    rows: Vec<(Arc<[u8]>, i64)>,
    /// All of them together.
    count: u64,
}

impl First {
    /// Takes a row in if it is among the first `end`; what is pushed out by it goes.
    fn insert(&mut self, val: &[u8], count: i64, end: u64) {
        let at = self.rows.partition_point(|(known, _)| known.as_ref() < val);
        match self.rows.get_mut(at) {
            Some((known, counted)) if known.as_ref() == val => *counted += count,
            _ => self.rows.insert(at, (Arc::from(val), count)),
        }
        self.count += count as u64;
        while let Some((_, last)) = self.rows.last()
            && self.count - *last as u64 >= end
        {
            self.count -= *last as u64;
            self.rows.pop();
        }
    }

    /// Whether a row would be behind all that is kept, of enough.
    fn is_behind(&self, val: &[u8], end: u64) -> bool {
        self.count >= end && self.rows.last().is_none_or(|(last, _)| last.as_ref() < val)
    }

    fn kept<'a>(&'a self, result: &TopKOutput) -> Vec<Kept<'a>> {
        let mut rows = self.rows.iter();
        result.kept(|| rows.next().map(|(row, count)| (row.as_ref(), *count))).0
    }
}

/// What there is, by the encoded partition columns.
#[derive(Default)]
struct Groups(HashMap<Box<[u8]>, First, ahash::RandomState>);

impl Groups {
    /// Takes in the rows of one time; returns what each group that changed was before.
    fn insert(&mut self, chunks: &[Chunk], end: u64, broken: &mut i64) -> HashMap<Box<[u8]>, First, ahash::RandomState> {
        let mut before: HashMap<Box<[u8]>, First, ahash::RandomState> = HashMap::default();
        for chunk in chunks {
            for row in chunk.share.rows() {
                let (key, val, count) = (chunk.key(row), chunk.val(row), chunk.count(row));
                if count <= 0 {
                    *broken += i64::from(count < 0);
                    continue;
                }
                let group = match self.0.get_mut(key) {
                    Some(group) => group,
                    None => self.0.entry_ref(key).or_default(),
                };
                if group.is_behind(val, end) {
                    continue;
                }
                if !before.contains_key(key) {
                    before.insert(Box::from(key), group.clone());
                }
                group.insert(val, count, end);
            }
        }
        before
    }
}

/// Turns rows by partition, ordered within, of which none is ever taken away, into the first `offset + limit` of each group. Updates before
/// `as_of` count as of `as_of`. A row that is taken away all the same is an error of the view.
pub fn top_of_inserts<'scope>(
    stream: ChunkStream<'scope>,
    result: TopKOutput,
    end: u64,
    as_of: Timestamp,
    errors: ErrorLog,
    name: &str,
) -> DeltaStream<'scope> {
    collect(stream).unary(Pipeline, name, move |_, _| {
        let mut groups = Groups::default();
        move |input, output| {
            input.for_each(|capability, complete| {
                let Some(least) = capability.least().copied() else { return };
                let time = least.max(as_of);
                for chunks in complete.drain(..) {
                    let mut broken = 0;
                    let before = groups.insert(&chunks, end, &mut broken);
                    drop(chunks);
                    if broken > 0 {
                        let reason =
                            "a row was retracted from a source whose rows only come: the first rows of its group may be wrong";
                        errors.push(time, reason.to_owned(), String::new(), broken);
                    }
                    let mut changed = Changed::default();
                    for (key, before) in &before {
                        if let Some(after) = groups.0.get(key) {
                            diff_kept(&result, key, &before.kept(&result), &after.kept(&result), &mut changed);
                        }
                    }
                    if changed.is_empty() {
                        continue;
                    }
                    match result.delta(changed) {
                        Ok(delta) => output.session(&capability.delayed(&time, 0)).give(delta),
                        Err(error) => errors.push(time, error.to_string(), String::new(), 1),
                    }
                }
            });
        }
    })
}
