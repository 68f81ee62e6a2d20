//! Rows of which there are less than none: more were taken away from a source without a key than had come.
//!
//! Only such a source can have them (one with a key takes the old row from its own state), so they are looked for here, where they come
//! from, and not behind every view. Only a batch that takes something away costs look-ups, or any while something is missing.

use std::ops::Range;
use std::rc::Rc;

use arrow::error::ArrowError;
use differential_dataflow::trace::TraceReader;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::{Antichain, Timestamp as _};

use crate::batch::RowBatch;
use crate::delta::Delta;
use crate::errors::{ErrorLog, describe};
use crate::layout::Layout;
use crate::operators::arrange::{ArrangedRows, batches_before, release_before};
use crate::protocol::Timestamp;
use crate::rows::Rows;

/// Reports the rows of a source of which there are less than none, and when that is made good.
pub fn below_zero(source: &ArrangedRows<'_>, layout: Layout, errors: ErrorLog) {
    let mut trace = source.trace.clone();
    let mut done = Antichain::from_elem(Timestamp::minimum());
    let mut missing = 0i64;
    source.stream.clone().sink(Pipeline, "BelowZero", move |(input, _)| {
        input.for_each(|_, spans| {
            for span in spans.drain(..) {
                if let Some(fresh) = &span.inner
                    && (missing > 0 || (0..fresh.update_count()).any(|update| count_of(fresh, update) < 0))
                {
                    let older = batches_before(&mut trace, span.lower());
                    changes(fresh, &older, |row, time, diff| {
                        missing += diff;
                        errors.push_below_zero(time, row_text(&layout, row).unwrap_or_default(), diff);
                    });
                }
                done.clone_from(span.upper());
                release_before(&mut trace, &done);
            }
        });
        trace.advance_upper(&mut done);
        release_before(&mut trace, &done);
    });
}

fn count_of(batch: &RowBatch, update: usize) -> i64 {
    batch.diff(update)[0] as i64
}

fn row_text(layout: &Layout, (key, val): (&[u8], &[u8])) -> Result<String, ArrowError> {
    let (mut keys, mut vals) = (Rows::default(), Rows::default());
    keys.push(key);
    vals.push(val);
    Ok(describe(&Delta { rows: layout.decode(&keys, &vals)?, diffs: None }, 0))
}

/// Gives each row of which more or fewer are missing after a batch, when that is, and how many more.
fn changes<'a>(fresh: &'a RowBatch, older: &[Rc<RowBatch>], mut give: impl FnMut((&'a [u8], &'a [u8]), Timestamp, i64)) {
    let mut positions = vec![0usize; older.len()];
    for key_at in 0..fresh.key_count() {
        let key = fresh.key(key_at);
        let vals = older.iter().zip(&mut positions).map(|(batch, position)| {
            *position = batch.seek(*position, key);
            if batch.key_at(*position) == Some(key) { batch.vals_of(*position) } else { 0..0 }
        });
        let vals: Vec<Range<usize>> = vals.collect();
        for val_at in fresh.vals_of(key_at) {
            let val = fresh.val(val_at);
            let same = older.iter().zip(&vals).flat_map(|(batch, vals)| {
                vals.clone().filter(|at| batch.val(*at) == val).flat_map(|at| batch.updates_of(at)).map(|at| count_of(batch, at))
            });
            let mut count: i64 = same.sum();
            for update in fresh.updates_of(val_at) {
                let was = (-count).max(0);
                count += count_of(fresh, update);
                let is = (-count).max(0);
                if is != was {
                    give((key, val), fresh.time(update), is - was);
                }
            }
        }
    }
}
