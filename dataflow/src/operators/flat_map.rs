//! Any number of rows from each: unnest and the like. Stateless.

use std::sync::Arc;

use datafusion_common::DataFusionError;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::delta::{Delta, DeltaStream};
use crate::errors::{ErrorLog, isolate};
use crate::function::RowFunction;

/// Applies a function to a delta: each row has the multiplicity of the one that it comes from.
///
/// # Errors
/// The function fails on some row of it.
pub fn apply(function: &dyn RowFunction, delta: &Delta) -> Result<Delta, DataFusionError> {
    let (rows, origins) = function.apply(&delta.rows)?;
    let diffs = delta.diffs.as_ref().map(|diffs| origins.values().iter().map(|origin| diffs[*origin as usize]).collect());
    Ok(Delta { rows, diffs })
}

/// See [`Plan::FlatMap`](crate::plan::Plan::FlatMap).
pub fn flat_map<'scope>(stream: DeltaStream<'scope>, function: Arc<dyn RowFunction>, errors: ErrorLog) -> DeltaStream<'scope> {
    stream.unary(Pipeline, "FlatMap", move |_, _| {
        move |input, output| {
            input.for_each(|capability, deltas| {
                let Some(time) = capability.least().copied() else { return };
                let mut session = output.session(&capability);
                for delta in deltas.drain(..) {
                    let mut compute = |delta: &Delta| apply(function.as_ref(), delta);
                    isolate(&delta, time, &errors, &mut compute, &mut |result| {
                        if !result.is_empty() {
                            session.give(result);
                        }
                    });
                }
            });
        }
    })
}
