//! A view's errors as a relation of its own, exact at every timestamp.
//!
//! An operator pushes an error into the log before it lets go of the time at which the error counts. So when the frontier of the view's own
//! arrangement has passed a time, which it does on all workers together, this worker's log holds all of that time: that is when they are
//! taken out and become rows. Until then the capability for that time is held, so that nobody takes the errors for complete before.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::delta::{Delta, DeltaStream};
use crate::errors::{ErrorLog, error_rows};
use crate::operators::arrange::{ArrangedRows, element};
use crate::protocol::Timestamp;

/// The rows of what a view's operators have put into `found`; they go on to `reported`. What is older than `as_of` counts as of then.
pub fn errors<'scope>(view: &ArrangedRows<'scope>, found: ErrorLog, reported: ErrorLog, as_of: Timestamp) -> DeltaStream<'scope> {
    view.stream.clone().unary_frontier::<CapacityContainerBuilder<Vec<Delta>>, _, _, _>(Pipeline, "Errors", move |initial, _| {
        let mut held = Some(initial.delayed(&as_of));
        drop(initial);
        move |(input, frontier), output| {
            // only how far the view is matters here
            input.for_each(|_, spans| spans.clear());
            let Some(capability) = &mut held else { return };
            let complete = found.take_complete(frontier.frontier(), as_of);
            for same_time in complete.chunk_by(|left, right| left.as_of == right.as_of) {
                match error_rows(same_time) {
                    Ok(rows) => output.session(&capability.delayed(&same_time[0].as_of)).give(rows),
                    Err(error) => reported.push(same_time[0].as_of, error.to_string(), String::new(), 1),
                }
            }
            reported.extend(complete);
            match element(frontier.frontier()) {
                Some(next) if next > *capability.time() => capability.downgrade(&next),
                Some(_) => {}
                None => held = None,
            }
        }
    })
}
