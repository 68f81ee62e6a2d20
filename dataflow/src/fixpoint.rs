//! WITH RECURSIVE: rows that make rows, until no more come.
//!
//! The loop is a timely scope of its own whose times are (tick, round): differential's own collections, joins and `distinct` find out what a
//! change does to each round, so a row that comes or goes costs what depends on it and not the recursion from its beginning. The engine's
//! arrangements know ticks only; inside the loop rows are encoded byte strings by themselves. What does not depend on the rows so far
//! is computed outside, as in any view, and only enters.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use differential_dataflow::collection::AsCollection;
use differential_dataflow::operators::iterate::Variable;
use differential_dataflow::{Data, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::order::Product;
use timely::progress::Timestamp as TimelyTimestamp;

use crate::delta::{Delta, DeltaStream, record_batch};
use crate::errors::{ErrorLog, describe, isolate};
use crate::operators::distribute::without_nulls;
use crate::operators::join::Part;
use crate::operators::map::MapStage;
use crate::operators::{flat_map, window};
use crate::plan::Plan;
use crate::protocol::Timestamp;
use crate::render::{JoinSide, Renderer};
use crate::rows::RowCodec;

/// An encoded row.
type Row = Vec<u8>;
/// Rows outside of the loop.
type Outside<'scope> = VecCollection<'scope, Timestamp, Row, i64>;
/// Tick and round.
type Round = Product<Timestamp, u64>;
/// Rows inside of the loop.
type Inside<'inner> = VecCollection<'inner, Round, Row, i64>;

/// How a recursion goes on and ends.
#[derive(Clone, Copy, Debug)]
pub struct Recursion {
    /// Which [`Plan::Round`] is meant.
    pub variable: u64,
    /// UNION instead of UNION ALL.
    pub distinct: bool,
    /// How many rounds are let be.
    pub rounds: u64,
}

/// The tick that a time belongs to, for errors.
trait Tick {
    fn tick(&self) -> Timestamp;
}

impl Tick for Timestamp {
    fn tick(&self) -> Timestamp {
        *self
    }
}

impl Tick for Round {
    fn tick(&self) -> Timestamp {
        self.outer
    }
}

/// Renders a fixpoint: see [`Plan::Fixpoint`].
///
/// # Errors
/// In words: the step has an operator over the rows so far that a loop has not.
pub fn fixpoint<'scope>(
    renderer: &mut Renderer<'_, 'scope>,
    base: &Plan,
    step: &Plan,
    recursion: &Recursion,
) -> Result<DeltaStream<'scope>, String> {
    let scope = renderer.scope;
    let errors = renderer.errors.clone();
    let schema = base.schema();
    let begin = renderer.render(base)?;
    let begin = encoded(begin, codec(&schema)?, errors.clone());
    let mut outside = Vec::new();
    independent(renderer, step, recursion.variable, &mut outside)?;

    let result = scope.iterative::<u64, _, _>(|inner| -> Result<Outside<'scope>, String> {
        let (variable, so_far) = Variable::new(inner, Product::new(Default::default(), 1));
        let entered = outside.iter().map(|(plan, rows)| (*plan, rows.clone().enter(inner))).collect();
        let body = Loop { entered, so_far, errors: errors.clone() };
        let more = body.render(step)?;
        let all = begin.enter(inner).concat(more);
        let all = if recursion.distinct { all.distinct_core::<i64>() } else { all.consolidate() };
        let all = bounded(all, recursion.rounds, codec(&schema)?, Arc::clone(&schema), errors.clone());
        variable.set(all.clone());
        Ok(all.leave(scope))
    })?;
    Ok(decoded(result.consolidate(), codec(&schema)?, schema, errors))
}

fn codec(schema: &SchemaRef) -> Result<RowCodec, String> {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    RowCodec::new(schema, &all).map_err(|error| error.to_string())
}

/// Renders what does not depend on the rows so far, as large parts as there are.
fn independent<'p, 'scope>(
    renderer: &mut Renderer<'_, 'scope>,
    plan: &'p Plan,
    variable: u64,
    found: &mut Vec<(&'p Plan, Outside<'scope>)>,
) -> Result<(), String> {
    if plan.has_round(variable) {
        plan.children().into_iter().try_for_each(|child| independent(renderer, child, variable, found))
    } else if found.iter().any(|(known, _)| *known == plan) {
        Ok(())
    } else {
        let errors = renderer.errors.clone();
        let rows = encoded(renderer.render(plan)?, codec(&plan.schema())?, errors);
        found.push((plan, rows));
        Ok(())
    }
}

/// The operators over rows so far.
struct Loop<'p, 'inner> {
    entered: Vec<(&'p Plan, Inside<'inner>)>,
    so_far: Inside<'inner>,
    errors: ErrorLog,
}

impl<'inner> Loop<'_, 'inner> {
    fn render(&self, plan: &Plan) -> Result<Inside<'inner>, String> {
        if let Some((_, rows)) = self.entered.iter().find(|(known, _)| *known == plan) {
            return Ok(rows.clone());
        }
        match plan {
            Plan::Round { .. } => Ok(self.so_far.clone()),
            Plan::Map { input, predicates, projection, schema } => {
                let stage =
                    MapStage { predicates: predicates.clone(), projection: projection.clone(), schema: Arc::clone(schema) };
                self.vectors(input, schema, move |delta| stage.apply(delta))
            }
            Plan::FlatMap { input, function, schema } => {
                let function = Arc::clone(function);
                self.vectors(input, schema, move |delta| flat_map::apply(function.as_ref(), delta))
            }
            Plan::Window { input, time, slide, size, schema } => {
                let (time, slide, size, out) = (*time, *slide, *size, Arc::clone(schema));
                self.vectors(input, schema, move |delta| Ok(window::assign(delta, time, slide, size, &out)?))
            }
            Plan::Union { inputs } => {
                let mut rows = inputs.iter().map(|input| self.render(input));
                let Some(first) = rows.next() else { return Err("a union has no input".to_owned()) };
                rows.try_fold(first?, |all, more| Ok(all.concat(more?)))
            }
            Plan::Negate { input } => Ok(self.render(input)?.negate()),
            Plan::Distinct { input } => Ok(self.render(input)?.distinct_core()),
            Plan::Join { left, right, on, null_equals_null, schema, .. } => self.join(left, right, on, *null_equals_null, schema),
            Plan::Reduce { .. } | Plan::TopK { .. } | Plan::EachGroup { .. } => {
                Err("a recursion cannot aggregate, number or limit its own rows".to_owned())
            }
            Plan::TemporalFilter { .. } => Err("a recursion cannot compare its own rows with now()".to_owned()),
            Plan::Fixpoint { .. } => Err("a recursion cannot go on with another recursion over its own rows".to_owned()),
            Plan::Get { .. } | Plan::Constant { .. } => Err("a recursion has lost one of its inputs".to_owned()),
        }
    }

    /// An operator that computes deltas from deltas.
    fn vectors(
        &self,
        input: &Plan,
        schema: &SchemaRef,
        mut compute: impl FnMut(&Delta) -> Result<Delta, DataFusionError> + 'static,
    ) -> Result<Inside<'inner>, String> {
        let rows = self.render(input)?;
        let (input_schema, from, to) = (input.schema(), codec(&input.schema())?, codec(schema)?);
        let errors = self.errors.clone();
        Ok(by_time(rows, move |time: &Round, rows: Vec<(Row, i64)>, give: &mut dyn FnMut(Row, i64)| {
            let Some(delta) = delta_of(&rows, &from, &input_schema, time, &errors) else { return };
            let mut whole = |delta: &Delta| -> Result<(crate::rows::Rows, Delta), DataFusionError> {
                let made = compute(delta)?;
                Ok((to.encode(made.rows.columns(), made.len())?, made))
            };
            isolate(&delta, time.tick(), &errors, &mut whole, &mut |(encoded, made)| {
                (0..made.len()).for_each(|row| give(encoded.get(row).to_vec(), made.diff(row)));
            });
        }))
    }

    fn join(
        &self,
        left: &Plan,
        right: &Plan,
        on: &[(usize, usize)],
        null_equals_null: bool,
        schema: &SchemaRef,
    ) -> Result<Inside<'inner>, String> {
        let words = |error: ArrowError| error.to_string();
        let (left_schema, right_schema) = (left.schema(), right.schema());
        let left_side = JoinSide::new(&left_schema, &on.iter().map(|pair| pair.0).collect::<Vec<_>>(), None);
        let right_side = JoinSide::new(&right_schema, &on.iter().map(|pair| pair.1).collect::<Vec<_>>(), None);
        let mut parts = left_side.parts(Part::Left);
        parts.extend(right_side.parts(Part::Right));
        let keys = RowCodec::new(&left_schema, &left_side.key).map_err(words)?;
        let left_rest = RowCodec::new(&left_schema, &left_side.rest).map_err(words)?;
        let right_rest = RowCodec::new(&right_schema, &right_side.rest).map_err(words)?;
        let left_rows = self.keyed(left, &left_side, !null_equals_null)?;
        let right_rows = self.keyed(right, &right_side, !null_equals_null)?;
        let (to, schema, errors) = (codec(schema)?, Arc::clone(schema), self.errors.clone());
        let pairs = left_rows.join_map(right_rows, |key, left, right| (key.clone(), left.clone(), right.clone()));
        Ok(by_time(pairs, move |time: &Round, rows: Vec<((Row, Row, Row), i64)>, give: &mut dyn FnMut(Row, i64)| {
            let columns = || -> Result<crate::rows::Rows, ArrowError> {
                let keys = keys.decode(rows.iter().map(|((key, _, _), _)| key.as_slice()))?;
                let left = left_rest.decode(rows.iter().map(|((_, left, _), _)| left.as_slice()))?;
                let right = right_rest.decode(rows.iter().map(|((_, _, right), _)| right.as_slice()))?;
                let columns: Vec<ArrayRef> = parts
                    .iter()
                    .map(|part| match part {
                        Part::Key(at) => Arc::clone(&keys[*at]),
                        Part::Left(at) => Arc::clone(&left[*at]),
                        Part::Right(at) => Arc::clone(&right[*at]),
                    })
                    .collect();
                let batch = record_batch(Arc::clone(&schema), columns, rows.len())?;
                to.encode(batch.columns(), rows.len())
            };
            match columns() {
                Ok(encoded) => {
                    rows.iter().enumerate().for_each(|(at, (_, diff))| give(encoded.get(at).to_vec(), *diff));
                }
                Err(error) => errors.push(time.tick(), error.to_string(), String::new(), 1),
            }
        }))
    }

    /// Rows by a join's key.
    fn keyed(
        &self,
        plan: &Plan,
        side: &JoinSide,
        drop_null_keys: bool,
    ) -> Result<VecCollection<'inner, Round, (Row, Row), i64>, String> {
        let words = |error: ArrowError| error.to_string();
        let schema = plan.schema();
        let keys = RowCodec::new(&schema, &side.key).map_err(words)?;
        let rest = RowCodec::new(&schema, &side.rest).map_err(words)?;
        let (from, errors) = (codec(&schema)?, self.errors.clone());
        let split = move |time: &Round, rows: Vec<(Row, i64)>, give: &mut dyn FnMut((Row, Row), i64)| {
            let Some(delta) = delta_of(&rows, &from, &schema, time, &errors) else { return };
            let split = || -> Result<_, ArrowError> {
                let kept = if drop_null_keys { without_nulls(&delta, keys.columns())? } else { None };
                let delta = kept.unwrap_or_else(|| delta.clone());
                let keys = keys.encode(delta.rows.columns(), delta.len())?;
                let rest = rest.encode(delta.rows.columns(), delta.len())?;
                Ok((keys, rest, delta))
            };
            match split() {
                Ok((keys, rest, delta)) => {
                    (0..delta.len()).for_each(|row| give((keys.get(row).to_vec(), rest.get(row).to_vec()), delta.diff(row)))
                }
                Err(error) => errors.push(time.tick(), error.to_string(), String::new(), 1),
            }
        };
        Ok(by_time(self.render(plan)?, split))
    }
}

/// Updates of one time at once.
fn by_time<'s, T, D, E>(
    rows: VecCollection<'s, T, D, i64>,
    mut compute: impl FnMut(&T, Vec<(D, i64)>, &mut dyn FnMut(E, i64)) + 'static,
) -> VecCollection<'s, T, E, i64>
where
    T: TimelyTimestamp + differential_dataflow::lattice::Lattice + Ord,
    D: Data,
    E: Data,
{
    let stream = rows.inner.unary::<CapacityContainerBuilder<Vec<(E, T, i64)>>, _, _, _>(Pipeline, "ByTime", move |_, _| {
        move |input, output| {
            input.for_each(|capability, updates| {
                let mut updates = std::mem::take(updates);
                updates.sort_by(|left, right| left.1.cmp(&right.1));
                let mut session = output.session(&capability);
                let mut updates = updates.into_iter().peekable();
                while let Some((row, time, diff)) = updates.next() {
                    let mut rows = vec![(row, diff)];
                    while let Some((row, _, diff)) = updates.next_if(|next| next.1 == time) {
                        rows.push((row, diff));
                    }
                    compute(&time, rows, &mut |row, diff| session.give((row, time.clone(), diff)));
                }
            });
        }
    });
    stream.as_collection()
}

/// Rows as columns; nothing, and an error, if they do not come from the codec.
fn delta_of<T: Tick>(rows: &[(Row, i64)], from: &RowCodec, schema: &SchemaRef, time: &T, errors: &ErrorLog) -> Option<Delta> {
    let columns = from.decode(rows.iter().map(|(row, _)| row.as_slice()));
    match columns.and_then(|columns| record_batch(Arc::clone(schema), columns, rows.len())) {
        Ok(batch) => Some(Delta { rows: batch, diffs: Some(rows.iter().map(|(_, diff)| *diff).collect()) }),
        Err(error) => {
            errors.push(time.tick(), error.to_string(), String::new(), 1);
            None
        }
    }
}

/// What comes after the last round is left out, and said in the errors: each such row, so that the error goes when they do.
fn bounded<'s>(rows: Inside<'s>, rounds: u64, codec: RowCodec, schema: SchemaRef, errors: ErrorLog) -> Inside<'s> {
    by_time(rows, move |time: &Round, rows: Vec<(Row, i64)>, give: &mut dyn FnMut(Row, i64)| {
        if time.inner < rounds {
            rows.into_iter().for_each(|(row, diff)| give(row, diff));
        } else if let Some(delta) = delta_of(&rows, &codec, &schema, time, &errors) {
            let reason = format!("the recursion has not ended after {rounds} rounds");
            for row in 0..delta.len() {
                errors.push(time.tick(), reason.clone(), describe(&delta, row), delta.diff(row));
            }
        }
    })
}

fn encoded<'scope>(stream: DeltaStream<'scope>, codec: RowCodec, errors: ErrorLog) -> Outside<'scope> {
    let rows = stream.unary::<CapacityContainerBuilder<Vec<(Row, Timestamp, i64)>>, _, _, _>(Pipeline, "Encode", move |_, _| {
        move |input, output| {
            input.for_each(|capability, deltas| {
                let Some(time) = capability.least().copied() else { return };
                let mut session = output.session(&capability);
                for delta in deltas.drain(..) {
                    match codec.encode(delta.rows.columns(), delta.len()) {
                        Ok(rows) => {
                            (0..delta.len()).for_each(|row| session.give((rows.get(row).to_vec(), time, delta.diff(row))));
                        }
                        Err(error) => errors.push(time, error.to_string(), String::new(), 1),
                    }
                }
            });
        }
    });
    rows.as_collection()
}

fn decoded<'scope>(rows: Outside<'scope>, codec: RowCodec, schema: SchemaRef, errors: ErrorLog) -> DeltaStream<'scope> {
    rows.inner.unary::<CapacityContainerBuilder<Vec<Delta>>, _, _, _>(Pipeline, "Decode", move |_, _| {
        move |input, output| {
            input.for_each(|capability, updates| {
                let mut updates = std::mem::take(updates);
                updates.sort_by_key(|(_, time, _)| *time);
                for same in updates.chunk_by(|left, right| left.1 == right.1) {
                    let Some((_, time, _)) = same.first() else { continue };
                    let rows: Vec<(Row, i64)> = same.iter().map(|(row, _, diff)| (row.clone(), *diff)).collect();
                    if let Some(delta) = delta_of(&rows, &codec, &schema, time, &errors) {
                        output.session(&capability.delayed(time, 0)).give(delta);
                    }
                }
            });
        }
    })
}
