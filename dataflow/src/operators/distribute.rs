//! From batches of columns to chunks of encoded rows, each for the worker that owns its keys.

use arrow::array::{Array, BooleanArray};
use arrow::error::ArrowError;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::chunk::{Chunk, Picks, Updates, deal, owner};
use crate::delta::{Delta, DeltaStream};
use crate::diffs::Diffs;
use crate::errors::{ErrorLog, isolate};
use crate::operators::arrange::ChunkStream;
use crate::rows::RowCodec;

/// Encodes keys and values. With `drop_null_keys`, rows with a NULL in the key are left out: SQL's `=` matches them with nothing.
pub fn distribute<'scope>(
    stream: DeltaStream<'scope>,
    keys: RowCodec,
    vals: RowCodec,
    drop_null_keys: bool,
    errors: ErrorLog,
) -> ChunkStream<'scope> {
    let peers = stream.scope().peers();
    stream.unary(Pipeline, "Distribute", move |_, _| {
        move |input, output| {
            input.for_each(|capability, deltas| {
                let Some(time) = capability.least().copied() else { return };
                let mut session = output.session(&capability);
                for delta in deltas.drain(..) {
                    let mut compute = |delta: &Delta| Ok(split(delta, &keys, &vals, drop_null_keys, peers)?);
                    isolate(&delta, time, &errors, &mut compute, &mut |(updates, picks)| {
                        session.give_iterator(Chunk::of_workers(time, updates, picks));
                    });
                }
            });
        }
    })
}

/// The encoded rows, and which of them are whose.
fn split(
    delta: &Delta,
    keys: &RowCodec,
    vals: &RowCodec,
    drop_null_keys: bool,
    peers: usize,
) -> Result<(Updates, Vec<Picks>), ArrowError> {
    let filtered = if drop_null_keys { without_nulls(delta, keys.columns())? } else { None };
    let delta = filtered.as_ref().unwrap_or(delta);
    let count = delta.len();
    let (keys, vals) = (keys.encode(delta.rows.columns(), count)?, vals.encode(delta.rows.columns(), count)?);
    let mut diffs = Diffs::Ones(0);
    (0..count).for_each(|row| diffs.push_count(delta.diff(row)));
    let picks = deal(count, peers, |row| owner(keys.get(row), peers));
    Ok((Updates { keys, vals, diffs, stride: 1, diffs_at: 0 }, picks))
}

/// The rows without NULL in these columns; `None` if that is all of them.
pub fn without_nulls(delta: &Delta, columns: &[usize]) -> Result<Option<Delta>, ArrowError> {
    let nullable: Vec<_> =
        columns.iter().map(|column| delta.rows.column(*column)).filter(|column| column.null_count() > 0).collect();
    if nullable.is_empty() {
        return Ok(None);
    }
    let mask: BooleanArray = (0..delta.len()).map(|row| Some(nullable.iter().all(|column| column.is_valid(row)))).collect();
    delta.filter(&mask).map(Some)
}
