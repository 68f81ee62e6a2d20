//! From a plan to operators: what each worker builds, the same on all of them, when a view is created.
//!
//! ```text
//!  Get ──import──▶ ┐
//!                  ├─▶ Map, Window, TemporalFilter … (vectors) ─▶ distribute | combine ─▶ arrange ─▶ join, reduce, top-k ─▶ …
//!  Get ──input───▶ ┘
//! ```
//! Joins use a relation's own arrangement where its key is the join's key, so that nothing is built twice.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::SortField;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::{Operator, source};
use timely::dataflow::operators::vec::Map as _;
use timely::dataflow::operators::{Concat, Concatenate};

use crate::aggregate::{Aggregates, Branch};
use crate::delta::{Delta, DeltaStream};
use crate::errors::ErrorLog;
use crate::fixpoint::{Recursion, fixpoint};
use crate::function::GroupFunction;
use crate::lanes::Lanes;
use crate::layout::Layout;
use crate::operators::arrange::{ArrangedRows, ChunkStream, arrange};
use crate::operators::combine::{Contribution, combine};
use crate::operators::distribute::distribute;
use crate::operators::each_group::{EachGroupOutput, each_group};
use crate::operators::flat_map::flat_map;
use crate::operators::join::{JoinOutput, Part, Run, Side, join};
use crate::operators::map::{MapStage, map};
use crate::operators::reduce::{ReduceOutput, reduce};
use crate::operators::temporal::{Ticks, temporal_filter};
use crate::operators::top_of_inserts::top_of_inserts;
use crate::operators::topk::{TopKOutput, top_k};
use crate::operators::window::window;
use crate::plan::{Aggregate, AggregateFunction, JoinRange, OrderBy, Plan, RelationId};
use crate::protocol::Timestamp;
use crate::relation::{Arrangement, DeltaInput, Relation, only_inserts};
use crate::rows::RowCodec;
use crate::wide::split_wide_extremes;

/// Rows per delta when an arrangement is read back into columns.
const IMPORT_ROWS: usize = 64 * 1024;

/// What rendering needs and what it leaves behind.
#[allow(missing_debug_implementations)]
pub struct Renderer<'a, 'scope> {
    /// Where the operators go.
    pub scope: Scope<'scope, Timestamp>,
    /// What can be read.
    pub relations: &'a mut HashMap<RelationId, Relation>,
    /// Inputs of relations that are not kept, to be registered with them.
    pub inputs: Vec<(RelationId, DeltaInput)>,
    /// When the view begins: what is older counts as of then.
    pub as_of: Timestamp,
    /// Where failed rows go.
    pub errors: ErrorLog,
    /// The closed ticks.
    pub ticks: Ticks,
    /// What was rendered already: a part that a plan has twice, as the one that an outer join is made of does, is built once.
    pub rendered: Vec<(Plan, DeltaStream<'scope>)>,
}

impl<'scope> Renderer<'_, 'scope> {
    /// Renders a plan to the stream of its rows.
    ///
    /// # Errors
    /// In words: an aggregate or type that the engine does not have, or a relation that it does not know.
    pub fn render(&mut self, plan: &Plan) -> Result<DeltaStream<'scope>, String> {
        if let Some((_, stream)) = self.rendered.iter().find(|(known, _)| known == plan) {
            return Ok(stream.clone());
        }
        let stream = self.build(plan)?;
        self.rendered.push((plan.clone(), stream.clone()));
        Ok(stream)
    }

    fn build(&mut self, plan: &Plan) -> Result<DeltaStream<'scope>, String> {
        match plan {
            Plan::Get { relation, .. } => self.get(*relation),
            Plan::Constant { rows } => Ok(self.constant(rows.clone())),
            Plan::Map { .. } => self.map(plan),
            Plan::Window { input, time, slide, size, schema } => {
                if *slide <= 0 || *size <= 0 {
                    return Err("a window's size and slide must be above zero".to_owned());
                }
                Ok(window(self.render(input)?, *time, *slide, *size, Arc::clone(schema), self.errors.clone()))
            }
            Plan::TemporalFilter { input, from, until } => {
                Ok(temporal_filter(self.render(input)?, from.clone(), until.clone(), self.ticks.clone(), self.errors.clone()))
            }
            Plan::Join { left, right, on, null_equals_null, range, schema } => {
                self.join((left, right), on, *null_equals_null, *range, schema)
            }
            Plan::Reduce { input, keys, aggregates, schema } => match split_wide_extremes(input, keys, aggregates, schema)? {
                Some(rewritten) => self.render(&rewritten),
                None => self.reduce(input, keys, aggregates, schema),
            },
            Plan::Distinct { input } => {
                let schema = input.schema();
                let stream = self.render(input)?;
                self.distinct(stream, &schema)
            }
            Plan::Union { inputs } => {
                let streams = inputs.iter().map(|input| self.render(input)).collect::<Result<Vec<_>, _>>()?;
                Ok(self.scope.concatenate(streams))
            }
            Plan::Negate { input } => Ok(self.render(input)?.map(Delta::negate)),
            Plan::TopK { input, partition, order, offset, limit, row_number, schema } => {
                let only_inserts = only_inserts(self.relations, input);
                let stream = self.render(input)?;
                let bounds = (*offset, *limit, *row_number);
                self.top_k(stream, &input.schema(), (partition, order), bounds, only_inserts, schema)
            }
            Plan::EachGroup { input, partition, order, function, always, schema } => {
                let input_schema = input.schema();
                let stream = self.render(input)?;
                self.each_group(stream, &input_schema, (partition, order), Arc::clone(function), *always, schema)
            }
            Plan::FlatMap { input, function, .. } => Ok(flat_map(self.render(input)?, Arc::clone(function), self.errors.clone())),
            Plan::Fixpoint { variable, base, step, distinct, rounds, .. } => {
                fixpoint(self, base, step, &Recursion { variable: *variable, distinct: *distinct, rounds: *rounds })
            }
            Plan::Round { .. } => Err("the rows of a recursion are used outside of it".to_owned()),
        }
    }

    fn get(&mut self, id: RelationId) -> Result<DeltaStream<'scope>, String> {
        let relation = self.relations.get_mut(&id).ok_or_else(|| format!("relation {id} is not in the engine"))?;
        match &relation.arrangement {
            Some(arrangement) => {
                let arrangement = arrangement.clone();
                let layout = Rc::clone(&arrangement.layout);
                let arranged = import(&arrangement, self.scope, &relation.name);
                let (as_of, errors) = (self.as_of, self.errors.clone());
                Ok(arranged.stream.unary::<CapacityContainerBuilder<Vec<Delta>>, _, _, _>(Pipeline, "Decode", move |_, _| {
                    move |input, output| {
                        input.for_each(|capability, spans| {
                            let Some(least) = capability.least().copied() else { return };
                            for span in spans.drain(..) {
                                let Some(batch) = &span.inner else { continue };
                                match layout.deltas(batch, as_of.max(least), IMPORT_ROWS) {
                                    Ok(deltas) => {
                                        for (time, delta) in deltas {
                                            output.session(&capability.delayed(&time, 0)).give(delta);
                                        }
                                    }
                                    Err(error) => errors.push(least, error.to_string(), String::new(), 1),
                                }
                            }
                        });
                    }
                }))
            }
            None => {
                let mut input = DeltaInput::new();
                let stream = input.to_stream(self.scope);
                self.inputs.push((id, input));
                Ok(stream)
            }
        }
    }

    fn constant(&self, rows: arrow::record_batch::RecordBatch) -> DeltaStream<'scope> {
        let (as_of, mine) = (self.as_of, self.scope.index() == 0);
        source::<_, CapacityContainerBuilder<Vec<Delta>>, _, _>(self.scope, "Constant", move |initial, _| {
            let mut once = (mine && rows.num_rows() > 0).then(|| (initial.delayed(&as_of), rows));
            drop(initial);
            move |output| {
                if let Some((capability, rows)) = once.take() {
                    output.session(&capability).give(Delta { rows, diffs: None });
                }
            }
        })
    }

    /// A chain of maps becomes one operator.
    fn map(&mut self, plan: &Plan) -> Result<DeltaStream<'scope>, String> {
        let mut stages = Vec::new();
        let mut at = plan;
        while let Plan::Map { input, predicates, projection, schema } = at {
            stages.push(MapStage { predicates: predicates.clone(), projection: projection.clone(), schema: Arc::clone(schema) });
            at = input;
        }
        stages.reverse();
        Ok(map(self.render(at)?, "Map", stages, self.errors.clone()))
    }

    fn join(
        &mut self,
        (left, right): (&Plan, &Plan),
        on: &[(usize, usize)],
        null_equals_null: bool,
        range: Option<JoinRange>,
        schema: &SchemaRef,
    ) -> Result<DeltaStream<'scope>, String> {
        let (left_schema, right_schema) = (left.schema(), right.schema());
        let mut on = on.to_vec();
        let mut shared_left = self.shared(left, &on.iter().map(|pair| pair.0).collect::<Vec<_>>());
        if let Some(arrangement) = &shared_left {
            reorder(&mut on, arrangement.layout.key(), |pair| pair.0);
        }
        let mut shared_right = self.shared(right, &on.iter().map(|pair| pair.1).collect::<Vec<_>>());
        if let Some(arrangement) = &shared_right {
            if shared_left.is_none() {
                reorder(&mut on, arrangement.layout.key(), |pair| pair.1);
            } else if arrangement.layout.key() != on.iter().map(|pair| pair.1).collect::<Vec<_>>() {
                shared_right = None;
            }
        }
        // one side at least must leave out NULL keys, and a shared arrangement has them
        if !null_equals_null
            && shared_left.is_some()
            && shared_right.is_some()
            && on.iter().any(|pair| left_schema.field(pair.0).is_nullable())
        {
            shared_left = None;
        }
        let left_key: Vec<usize> = on.iter().map(|pair| pair.0).collect();
        let right_key: Vec<usize> = on.iter().map(|pair| pair.1).collect();
        let words = |error: arrow::error::ArrowError| error.to_string();
        // a shared arrangement is sorted as its relation is
        let range = range.filter(|_| shared_left.is_none() && shared_right.is_none());
        let left_layout = JoinSide::new(&left_schema, &left_key, range.map(|range| range.left));
        let right_layout = JoinSide::new(&right_schema, &right_key, range.map(|range| range.right));
        let left_rows = self.join_side(left, shared_left, &left_schema, &left_layout, !null_equals_null)?;
        let right_rows = self.join_side(right, shared_right, &right_schema, &right_layout, !null_equals_null)?;
        let mut parts = left_layout.parts(Part::Left);
        parts.extend(right_layout.parts(Part::Right));
        let result = JoinOutput {
            keys: RowCodec::new(&left_schema, &left_key).map_err(words)?,
            left: RowCodec::new(&left_schema, &left_layout.rest).map_err(words)?,
            right: RowCodec::new(&right_schema, &right_layout.rest).map_err(words)?,
            parts,
            run: range.map(|range| Run::new(&left_schema, range)).transpose().map_err(words)?,
            schema: Arc::clone(schema),
        };
        Ok(join(left_rows, right_rows, result, self.as_of, self.errors.clone(), "Join"))
    }

    /// The relation's own arrangement, if the plan is just the relation and its key is what is asked for, in any order.
    fn shared(&self, plan: &Plan, key: &[usize]) -> Option<Arrangement> {
        let Plan::Get { relation, .. } = plan else { return None };
        let arrangement = self.relations.get(relation)?.arrangement.as_ref()?;
        let same =
            arrangement.layout.key().len() == key.len() && arrangement.layout.key().iter().all(|column| key.contains(column));
        same.then(|| arrangement.clone())
    }

    fn join_side(
        &mut self,
        plan: &Plan,
        shared: Option<Arrangement>,
        schema: &SchemaRef,
        side: &JoinSide,
        drop_null_keys: bool,
    ) -> Result<Side<'scope>, String> {
        if let Some(arrangement) = shared {
            return Ok(Side::Shared(import(&arrangement, self.scope, "Shared")));
        }
        let stream = self.render(plan)?;
        let words = |error: arrow::error::ArrowError| error.to_string();
        let keys = RowCodec::new(schema, &side.key).map_err(words)?;
        let vals = RowCodec::new(schema, &side.rest).map_err(words)?;
        Ok(Side::Own(distribute(stream, keys, vals, drop_null_keys, self.errors.clone())))
    }

    fn distinct(&mut self, stream: DeltaStream<'scope>, schema: &SchemaRef) -> Result<DeltaStream<'scope>, String> {
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let codec = || RowCodec::new(schema, &all).map_err(|error| error.to_string());
        let (aggregates, _) = Aggregates::new(&[], schema)?;
        let contribution = Contribution { aggregates: aggregates.clone(), branch: 0, columns: Vec::new(), keys: codec()? };
        let arranged =
            arrange(combine(stream, contribution, self.errors.clone()), aggregates.lanes().clone(), "ArrangeForDistinct");
        let result = ReduceOutput { aggregates, keys: codec()?, schema: Arc::clone(schema), global_from: None };
        Ok(reduce(arranged, result, self.as_of, self.errors.clone(), "Distinct"))
    }

    fn reduce(
        &mut self,
        input: &Plan,
        keys: &[usize],
        aggregates: &[Aggregate],
        schema: &SchemaRef,
    ) -> Result<DeltaStream<'scope>, String> {
        let input_schema = input.schema();
        let (aggregates, branches) = Aggregates::new(aggregates, &input_schema)?;
        let only_inserts = only_inserts(self.relations, input);
        let stream = self.render(input)?;
        let words = |error: arrow::error::ArrowError| error.to_string();
        let mut chunks = Vec::new();
        for (number, branch) in branches.iter().enumerate() {
            let (branch_stream, columns, codec) = match branch {
                Branch::Main => (stream.clone(), Vec::new(), RowCodec::new(&input_schema, keys).map_err(words)?),
                Branch::Distinct { column } => {
                    let (narrow, schema) = self.narrow(stream.clone(), &input_schema, keys, *column)?;
                    let distinct = self.distinct(narrow, &schema)?;
                    (distinct, vec![(*column, keys.len())], RowCodec::new(&schema, &first(keys.len())).map_err(words)?)
                }
                Branch::Extreme { column, greatest } => {
                    let (narrow, schema) = self.narrow(stream.clone(), &input_schema, keys, *column)?;
                    let order = [OrderBy { column: keys.len(), descending: *greatest, nulls_first: false }];
                    let one = (0, Some(1), false);
                    let extreme = self.top_k(narrow, &schema, (&first(keys.len()), &order), one, only_inserts, &schema)?;
                    (extreme, vec![(*column, keys.len())], RowCodec::new(&schema, &first(keys.len())).map_err(words)?)
                }
            };
            let contribution = Contribution { aggregates: aggregates.clone(), branch: number, columns, keys: codec };
            chunks.push(combine(branch_stream, contribution, self.errors.clone()));
        }
        let Some(all) = chunks.into_iter().reduce(|left, right| left.concat(right)) else {
            return Err("a reduce has no input".to_owned());
        };
        let arranged = arrange(all, aggregates.lanes().clone(), "ArrangeForReduce");
        let result = ReduceOutput {
            aggregates,
            keys: RowCodec::new(&input_schema, keys).map_err(words)?,
            schema: Arc::clone(schema),
            global_from: keys.is_empty().then_some(self.as_of),
        };
        Ok(reduce(arranged, result, self.as_of, self.errors.clone(), "Reduce"))
    }

    /// The keys and one more column, of the rows in which that column is not NULL.
    fn narrow(
        &self,
        stream: DeltaStream<'scope>,
        input: &SchemaRef,
        keys: &[usize],
        column: usize,
    ) -> Result<(DeltaStream<'scope>, SchemaRef), String> {
        use datafusion_physical_expr::expressions::{Column, IsNotNullExpr};
        let reference =
            |at: usize| Arc::new(Column::new(input.field(at).name(), at)) as Arc<dyn datafusion_physical_expr::PhysicalExpr>;
        let columns: Vec<usize> = keys.iter().copied().chain([column]).collect();
        let schema: SchemaRef = Arc::new(Schema::new(columns.iter().map(|at| input.field(*at).clone()).collect::<Vec<_>>()));
        let stage = MapStage {
            predicates: vec![Arc::new(IsNotNullExpr::new(reference(column)))],
            projection: columns.iter().map(|at| reference(*at)).collect(),
            schema: Arc::clone(&schema),
        };
        Ok((map(stream, "Narrow", vec![stage], self.errors.clone()), schema))
    }

    fn top_k(
        &mut self,
        stream: DeltaStream<'scope>,
        input: &SchemaRef,
        (partition, order): (&[usize], &[OrderBy]),
        (offset, limit, row_number): (u64, Option<u64>, bool),
        only_inserts: bool,
        schema: &SchemaRef,
    ) -> Result<DeltaStream<'scope>, String> {
        let (chunks, sorted) = self.sorted_groups(stream, input, partition, order)?;
        let SortedGroups { keys, vals, parts } = sorted;
        let result = TopKOutput { offset, limit, row_number, keys, vals, parts, schema: Arc::clone(schema) };
        if only_inserts && let Some(end) = limit.and_then(|limit| limit.checked_add(offset)) {
            return Ok(top_of_inserts(chunks, result, end, self.as_of, self.errors.clone(), "TopOfInserts"));
        }
        let arranged = arrange(chunks, Lanes::multiplicity(), "ArrangeForTopK");
        Ok(top_k(arranged, result, self.as_of, self.errors.clone(), "TopK"))
    }

    fn each_group(
        &mut self,
        stream: DeltaStream<'scope>,
        input: &SchemaRef,
        (partition, order): (&[usize], &[OrderBy]),
        function: Arc<dyn GroupFunction>,
        always: bool,
        schema: &SchemaRef,
    ) -> Result<DeltaStream<'scope>, String> {
        let (chunks, sorted) = self.sorted_groups(stream, input, partition, order)?;
        let arranged = arrange(chunks, Lanes::multiplicity(), "ArrangeForEachGroup");
        let SortedGroups { keys, vals, parts } = sorted;
        let rows = RowCodec::new(schema, &first(schema.fields().len())).map_err(|error| error.to_string())?;
        let always_from = (always && partition.is_empty()).then_some(self.as_of);
        let result = EachGroupOutput { function, keys, vals, parts, input: Arc::clone(input), rows, always_from };
        Ok(each_group(arranged, result, self.as_of, self.errors.clone(), "EachGroup"))
    }

    /// Encodes rows by group, so that within a group bytes compare as the order asks, and the whole row breaks ties.
    fn sorted_groups(
        &mut self,
        stream: DeltaStream<'scope>,
        input: &SchemaRef,
        partition: &[usize],
        order: &[OrderBy],
    ) -> Result<(ChunkStream<'scope>, SortedGroups), String> {
        let words = |error: arrow::error::ArrowError| error.to_string();
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        let plain = (0..input.fields().len()).map(|column| OrderBy { column, descending: false, nulls_first: true });
        for by in order.iter().copied().chain(plain) {
            if !partition.contains(&by.column) && !columns.contains(&by.column) {
                columns.push(by.column);
                let options = SortOptions { descending: by.descending, nulls_first: by.nulls_first };
                fields.push(SortField::new_with_options(input.field(by.column).data_type().clone(), options));
            }
        }
        let keys = || RowCodec::new(input, partition).map_err(words);
        let vals = || RowCodec::with_fields(input, &columns, fields.clone()).map_err(words);
        let chunks = distribute(stream, keys()?, vals()?, false, self.errors.clone());
        let parts = (0..input.fields().len())
            .map(|column| match partition.iter().position(|key| *key == column) {
                Some(at) => (true, at),
                None => (false, columns.iter().position(|known| *known == column).unwrap_or(0)),
            })
            .collect();
        Ok((chunks, SortedGroups { keys: keys()?, vals: vals()?, parts }))
    }
}

/// How to read rows by group, ordered within.
struct SortedGroups {
    /// Decodes the partition columns.
    keys: RowCodec,
    /// Decodes the values: ordering columns first, then the others.
    vals: RowCodec,
    /// For each column: (in the key?, its position there).
    parts: Vec<(bool, usize)>,
}

/// One side of a join: which columns are the key, which the value.
pub(crate) struct JoinSide {
    pub(crate) key: Vec<usize>,
    pub(crate) rest: Vec<usize>,
    columns: usize,
}

impl JoinSide {
    /// A side by these columns; within equal keys by `first`, where one is given.
    pub(crate) fn new(schema: &SchemaRef, key: &[usize], first: Option<usize>) -> JoinSide {
        let columns = schema.fields().len();
        let rest = (0..columns).filter(|column| !key.contains(column) && Some(*column) != first);
        JoinSide { key: key.to_vec(), rest: first.into_iter().chain(rest).collect(), columns }
    }

    pub(crate) fn parts(&self, rest: fn(usize) -> Part) -> Vec<Part> {
        (0..self.columns)
            .map(|column| match self.key.iter().position(|key| *key == column) {
                Some(at) => Part::Key(at),
                None => rest(self.rest.iter().position(|known| *known == column).unwrap_or(0)),
            })
            .collect()
    }
}

/// Sorts pairs so that one side's columns come in the order of `key`.
fn reorder(on: &mut [(usize, usize)], key: &[usize], side: impl Fn(&(usize, usize)) -> usize) {
    on.sort_by_key(|pair| key.iter().position(|column| *column == side(pair)));
}

/// The first `count` columns.
fn first(count: usize) -> Vec<usize> {
    (0..count).collect()
}

/// Brings a shared arrangement into a dataflow. It stops with the dataflow.
fn import<'scope>(arrangement: &Arrangement, scope: Scope<'scope, Timestamp>, name: &str) -> ArrangedRows<'scope> {
    arrangement.trace.clone().import_named(scope, name)
}

/// The layout of a view's own arrangement.
///
/// # Errors
/// A column's type cannot be kept.
pub fn view_layout(plan: &Plan, key: &[usize]) -> Result<Layout, String> {
    Layout::new(&plan.schema(), key).map_err(|error| error.to_string())
}

/// Whether the engine computes this aggregate in words; see [`Aggregates::fits_in_words`].
pub fn is_wide_extreme(aggregate: &Aggregate, input: &Schema) -> bool {
    matches!(aggregate.function, AggregateFunction::Min | AggregateFunction::Max)
        && !Aggregates::fits_in_words(input.field(aggregate.arguments[0]).data_type())
}
