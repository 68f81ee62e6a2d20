//! TUMBLE and HOP: each row goes into the windows that contain its time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::delta::{Delta, DeltaStream, record_batch};
use crate::errors::{ErrorLog, isolate};

/// The starts of the windows of `size` every `slide` that contain `time`, latest first, clipped to what 64 bits hold.
fn window_starts(time: i64, slide: i64, size: i64) -> impl Iterator<Item = i64> {
    let last = time - time.rem_euclid(slide);
    std::iter::successors(Some(last), move |start| start.checked_sub(slide)).take_while(move |start| {
        match start.checked_add(size) {
            Some(end) => end > time,
            None => true,
        }
    })
}

/// One row per row and window.
pub fn assign(delta: &Delta, time: usize, slide: i64, size: i64, schema: &SchemaRef) -> Result<Delta, ArrowError> {
    let times = delta.rows.column(time).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| {
        ArrowError::InvalidArgumentError(format!(
            "a window needs a TIMESTAMP column, not {}",
            delta.rows.column(time).data_type()
        ))
    })?;
    let zone = match times.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => zone.clone(),
        _ => None,
    };
    let stamped =
        |values: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values).with_timezone_opt(zone.clone())) };
    let mut positions = Vec::with_capacity(delta.len());
    let mut starts = Vec::with_capacity(delta.len());
    for row in (0..delta.len()).filter(|row| times.is_valid(*row)) {
        for start in window_starts(times.value(row), slide, size) {
            positions.push(row as u32);
            starts.push(start);
        }
    }
    let ends = starts.iter().map(|start| start.saturating_add(size)).collect();
    let one_each = positions.len() == delta.len() && positions.iter().enumerate().all(|(at, position)| at as u32 == *position);
    let kept = if one_each { delta.clone() } else { delta.take(&UInt32Array::from(positions))? };
    let mut columns = kept.rows.columns().to_vec();
    columns.push(stamped(starts));
    columns.push(stamped(ends));
    Ok(Delta { rows: record_batch(Arc::clone(schema), columns, kept.len())?, diffs: kept.diffs })
}

/// See [`Plan::Window`](crate::plan::Plan::Window).
pub fn window<'scope>(
    stream: DeltaStream<'scope>,
    time: usize,
    slide: i64,
    size: i64,
    schema: SchemaRef,
    errors: ErrorLog,
) -> DeltaStream<'scope> {
    stream.unary(Pipeline, "Window", move |_, _| {
        move |input, output| {
            input.for_each(|capability, deltas| {
                let Some(now) = capability.least().copied() else { return };
                let mut session = output.session(&capability);
                for delta in deltas.drain(..) {
                    let mut compute = |delta: &Delta| Ok(assign(delta, time, slide, size, &schema)?);
                    isolate(&delta, now, &errors, &mut compute, &mut |result| {
                        if !result.is_empty() {
                            session.give(result);
                        }
                    });
                }
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::window_starts;

    #[test]
    fn windows_contain_their_time() {
        assert_eq!(window_starts(7, 5, 5).collect::<Vec<_>>(), [5]);
        assert_eq!(window_starts(-1, 5, 5).collect::<Vec<_>>(), [-5]);
        assert_eq!(window_starts(7, 2, 5).collect::<Vec<_>>(), [6, 4]);
        assert_eq!(window_starts(8, 2, 5).collect::<Vec<_>>(), [8, 6, 4]);
        assert_eq!(window_starts(9, 10, 5).collect::<Vec<_>>(), Vec::<i64>::new());
    }
}
