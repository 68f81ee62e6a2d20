//! Temporal filters: rows that enter and leave by themselves as the clock passes.
//!
//! A row's entry and exit are scheduled when it arrives; nothing is scanned later. What is scheduled for an instant becomes visible at the
//! first tick at or after it, which is the first moment at which anybody can look.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, AsArray, UInt32Array};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use crate::delta::{Delta, DeltaStream};
use crate::errors::{ErrorLog, isolate};
use crate::protocol::Timestamp;

/// The timestamps of closed ticks that some operator may still have to look up, ascending. Shared by a worker and its dataflows.
#[derive(Clone, Debug, Default)]
pub struct Ticks(Rc<RefCell<VecDeque<Timestamp>>>);

impl Ticks {
    /// A tick was closed.
    pub fn close(&self, time: Timestamp) {
        self.0.borrow_mut().push_back(time);
    }

    /// Nothing before this time will be asked for any more.
    pub fn forget_before(&self, time: Timestamp) {
        let mut ticks = self.0.borrow_mut();
        while ticks.len() > 1 && ticks.front().is_some_and(|tick| *tick < time) {
            ticks.pop_front();
        }
    }

    /// The first closed tick at or after an instant; the instant itself if there is none yet.
    fn at_or_after(&self, time: Timestamp) -> Timestamp {
        let ticks = self.0.borrow();
        let position = ticks.partition_point(|tick| *tick < time);
        ticks.get(position).copied().unwrap_or(time)
    }
}

/// Rows of one arrived batch with their scheduled changes.
type Agenda = BTreeMap<Timestamp, Vec<(Rc<Delta>, u32, bool)>>;

/// The bound of each row in microseconds; `None` where it is NULL.
fn bounds(expression: &Arc<dyn PhysicalExpr>, delta: &Delta) -> Result<Vec<Option<i64>>, DataFusionError> {
    let value = expression.evaluate(&delta.rows)?.into_array(delta.len())?;
    let zone = match value.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let value = arrow::compute::cast(&value, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    let times = value.as_primitive::<TimestampMicrosecondType>();
    Ok((0..times.len()).map(|row| times.is_valid(row).then(|| times.value(row))).collect())
}

/// First and last instants of a row's life from its bounds: present from the first, gone at the second.
type Life = (Timestamp, Option<Timestamp>);

/// See [`Plan::TemporalFilter`](crate::plan::Plan::TemporalFilter).
pub fn temporal_filter<'scope>(
    stream: DeltaStream<'scope>,
    from: Option<Arc<dyn PhysicalExpr>>,
    until: Option<Arc<dyn PhysicalExpr>>,
    ticks: Ticks,
    errors: ErrorLog,
) -> DeltaStream<'scope> {
    let lives = move |delta: &Delta, now: Timestamp| -> Result<Vec<Option<Life>>, DataFusionError> {
        let from = from.as_ref().map(|from| bounds(from, delta)).transpose()?;
        let until = until.as_ref().map(|until| bounds(until, delta)).transpose()?;
        let instant = |bound: i64| Timestamp::try_from(bound).unwrap_or(0);
        Ok((0..delta.len())
            .map(|row| {
                let begin = match &from {
                    None => now,
                    Some(from) => instant(from[row]?).max(now),
                };
                let end = match &until {
                    None => None,
                    Some(until) => Some(instant(until[row]?)),
                };
                end.is_none_or(|end| end > begin).then_some((begin, end))
            })
            .collect())
    };
    stream.unary_frontier(Pipeline, "TemporalFilter", move |initial, _| {
        drop(initial);
        let mut agenda: Agenda = BTreeMap::new();
        let mut held: Option<Capability<Timestamp>> = None;
        move |(input, frontier), output| {
            input.for_each(|capability, deltas| {
                let Some(now) = capability.least().copied() else { return };
                let mut earliest = None;
                {
                    let mut session = output.session(&capability);
                    for delta in deltas.drain(..) {
                        let mut compute = |delta: &Delta| Ok((delta.clone(), lives(delta, now)?));
                        isolate(&delta, now, &errors, &mut compute, &mut |(delta, lives)| {
                            let delta = Rc::new(delta);
                            let mut present = Vec::new();
                            for (row, life) in lives.into_iter().enumerate() {
                                let Some((begin, end)) = life else { continue };
                                if begin <= now {
                                    present.push(row as u32);
                                } else {
                                    agenda.entry(begin).or_default().push((Rc::clone(&delta), row as u32, true));
                                    earliest = Some(earliest.map_or(begin, |e: Timestamp| e.min(begin)));
                                }
                                if let Some(end) = end {
                                    agenda.entry(end).or_default().push((Rc::clone(&delta), row as u32, false));
                                    earliest = Some(earliest.map_or(end, |e: Timestamp| e.min(end)));
                                }
                            }
                            if let Ok(present) = delta.take(&UInt32Array::from(present))
                                && !present.is_empty()
                            {
                                session.give(present);
                            }
                        });
                    }
                }
                if let Some(earliest) = earliest
                    && held.as_ref().is_none_or(|held| *held.time() > earliest)
                {
                    held = Some(capability.delayed(&earliest, 0));
                }
            });
            // everything due before the frontier, grouped by the tick at which it shows
            while let Some((due, _)) = agenda.first_key_value()
                && !frontier.less_equal(due)
            {
                let shown = ticks.at_or_after(*due);
                let later = agenda.split_off(&(shown + 1));
                let due_now = std::mem::replace(&mut agenda, later);
                if let Some(held) = &held {
                    let capability = held.delayed(&shown.max(*held.time()));
                    let mut session = output.session(&capability);
                    for delta in gather(due_now) {
                        session.give(delta);
                    }
                }
            }
            match (agenda.first_key_value(), &mut held) {
                (None, _) => held = None,
                (Some((next, _)), Some(held)) if held.time() < next => held.downgrade(next),
                _ => {}
            }
        }
    })
}

/// The scheduled changes as deltas: the rows of each arrived batch together.
fn gather(due: Agenda) -> Vec<Delta> {
    let mut entries: Vec<(Rc<Delta>, u32, bool)> = due.into_values().flatten().collect();
    entries.sort_by_key(|(delta, row, _)| (Rc::as_ptr(delta) as usize, *row));
    entries
        .chunk_by(|left, right| Rc::ptr_eq(&left.0, &right.0))
        .filter_map(|chunk| {
            let positions = UInt32Array::from(chunk.iter().map(|entry| entry.1).collect::<Vec<_>>());
            let mut delta = chunk[0].0.take(&positions).ok()?;
            let diffs =
                chunk.iter().enumerate().map(|(at, entry)| if entry.2 { delta.diff(at) } else { -delta.diff(at) }).collect();
            delta.diffs = Some(diffs);
            Some(delta)
        })
        .collect()
}
