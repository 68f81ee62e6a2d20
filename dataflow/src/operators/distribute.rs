//! From batches of columns to chunks of encoded rows, each for the worker that owns its keys.

use arrow::array::{Array, BooleanArray};
use arrow::error::ArrowError;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::delta::{Delta, DeltaStream};
use crate::diffs::Diffs;
use crate::errors::{ErrorLog, isolate};
use crate::operators::arrange::{Chunk, ChunkStream};
use crate::protocol::Timestamp;
use crate::rows::{Encoded, RowCodec, Rows, hash_row};

/// Which worker of `peers` owns a key.
#[inline]
pub fn owner(key: &[u8], peers: usize) -> u64 {
    if peers == 1 { 0 } else { hash_row(key) % peers as u64 }
}

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
                    let mut compute = |delta: &Delta| Ok(split(delta, &keys, &vals, drop_null_keys, peers, time)?);
                    isolate(&delta, time, &errors, &mut compute, &mut |chunks: Vec<Chunk>| {
                        for (target, chunk) in chunks.into_iter().enumerate().filter(|(_, chunk)| !chunk.keys.is_empty()) {
                            session.give((target as u64, chunk));
                        }
                    });
                }
            });
        }
    })
}

/// One chunk per worker.
fn split(
    delta: &Delta,
    keys: &RowCodec,
    vals: &RowCodec,
    drop_null_keys: bool,
    peers: usize,
    time: Timestamp,
) -> Result<Vec<Chunk>, ArrowError> {
    let filtered = if drop_null_keys { without_nulls(delta, keys.columns())? } else { None };
    let delta = filtered.as_ref().unwrap_or(delta);
    let count = delta.len();
    let (key_rows, val_rows) = (keys.encode(delta.rows.columns(), count)?, vals.encode(delta.rows.columns(), count)?);
    let bytes = |rows: &Encoded| rows.byte_len() / peers + rows.byte_len() / peers / 16;
    let mut chunks: Vec<Chunk> = (0..peers)
        .map(|_| Chunk {
            time,
            keys: Rows::with_capacity(bytes(&key_rows)),
            vals: Rows::with_capacity(bytes(&val_rows)),
            diffs: Diffs::Ones(0),
        })
        .collect();
    for row in 0..count {
        let key = key_rows.get(row);
        let chunk = &mut chunks[owner(key, peers) as usize];
        chunk.keys.push(key);
        chunk.vals.push(val_rows.get(row));
        chunk.diffs.push_count(delta.diff(row));
    }
    Ok(chunks)
}

/// The rows without NULL in these columns; `None` if that is all of them.
fn without_nulls(delta: &Delta, columns: &[usize]) -> Result<Option<Delta>, ArrowError> {
    let nullable: Vec<_> =
        columns.iter().map(|column| delta.rows.column(*column)).filter(|column| column.null_count() > 0).collect();
    if nullable.is_empty() {
        return Ok(None);
    }
    let mask: BooleanArray = (0..delta.len()).map(|row| Some(nullable.iter().all(|column| column.is_valid(row)))).collect();
    delta.filter(&mask).map(Some)
}
