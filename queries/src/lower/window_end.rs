//! A window's end follows from its start, so it need not be part of a group's key: a smaller key is a smaller arrangement.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use livelake_dataflow::plan::Plan;

use super::map::{self, column_index};

/// Two columns of a plan that are a window's start and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowEnd {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Microseconds between the two.
    size: i64,
}

/// All such pairs among a plan's columns.
pub(super) fn window_ends(plan: &Plan) -> Vec<WindowEnd> {
    match plan {
        Plan::Window { input, size, .. } => {
            let start = input.schema().fields().len();
            let mut found = window_ends(input);
            found.push(WindowEnd { start, end: start + 1, size: *size });
            found
        }
        Plan::Map { input, projection, .. } => {
            let place = |column: usize| projection.iter().position(|expr| column_index(expr) == Some(column));
            moved(window_ends(input), place)
        }
        Plan::Reduce { input, keys, .. } => moved(window_ends(input), |column| keys.iter().position(|key| *key == column)),
        Plan::TemporalFilter { input, .. } | Plan::Distinct { input } | Plan::TopK { input, .. } => window_ends(input),
        Plan::Join { left, right, .. } => {
            let offset = left.schema().fields().len();
            let mut found = window_ends(left);
            found.extend(moved(window_ends(right), |column| Some(offset + column)));
            found
        }
        Plan::Get { .. }
        | Plan::Constant { .. }
        | Plan::Union { .. }
        | Plan::Negate { .. }
        | Plan::EachGroup { .. }
        | Plan::FlatMap { .. }
        | Plan::Fixpoint { .. }
        | Plan::Round { .. } => Vec::new(),
    }
}

impl WindowEnd {
    /// The end, computed from the column that is the start.
    pub(super) fn computed_from(self, start: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        const DAY: i64 = 86_400_000_000;
        let size = ScalarValue::new_interval_mdn(0, (self.size / DAY) as i32, self.size % DAY * 1_000);
        Arc::new(BinaryExpr::new(start, Operator::Plus, Arc::new(Literal::new(size))))
    }
}

/// Takes the ends out of a reduce whose keys hold the starts, and computes them above it.
pub(super) fn without_ends(reduce: Plan) -> Result<Plan> {
    let Plan::Reduce { input, keys, mut aggregates, schema } = reduce else { return Ok(reduce) };
    let redundant: Vec<WindowEnd> =
        window_ends(&input).into_iter().filter(|window| keys.contains(&window.start) && keys.contains(&window.end)).collect();
    if redundant.is_empty() {
        return Ok(Plan::Reduce { input, keys, aggregates, schema });
    }
    let end_of = |key: usize| redundant.iter().find(|window| window.end == key);
    let kept: Vec<usize> = keys.iter().copied().filter(|key| end_of(*key).is_none()).collect();
    // Columns of the input that are still needed, and where they are then.
    let arguments = aggregates.iter().flat_map(|call| call.arguments.iter().copied());
    let mut needed: Vec<usize> = kept.iter().copied().chain(arguments).collect();
    needed.sort_unstable();
    needed.dedup();
    let place = |column: usize| needed.iter().position(|needed| *needed == column).unwrap_or_default();
    for call in &mut aggregates {
        call.arguments.iter_mut().for_each(|argument| *argument = place(*argument));
    }
    let names: Vec<String> = needed.iter().map(|column| input.schema().field(*column).name().clone()).collect();
    let projection = map::columns(&input, needed.iter().copied());
    let input = map::map(*input, Vec::new(), projection, &names)?;

    let position = |key: usize| kept.iter().position(|kept| *kept == key).unwrap_or_default();
    let column = |index: usize, name: &str| Arc::new(Column::new(name, index)) as Arc<dyn PhysicalExpr>;
    let mut projection = Vec::with_capacity(schema.fields().len());
    for (index, key) in keys.iter().enumerate() {
        let name = schema.field(index).name();
        projection.push(match end_of(*key) {
            Some(window) => window.computed_from(column(position(window.start), name)),
            None => column(position(*key), name),
        });
    }
    let aggregate_fields = schema.fields().iter().skip(keys.len());
    for (index, field) in aggregate_fields.clone().enumerate() {
        projection.push(column(kept.len() + index, field.name()));
    }
    let key_fields = keys.iter().zip(schema.fields()).filter(|(key, _)| end_of(**key).is_none()).map(|(_, field)| field);
    let reduced = Arc::new(arrow::datatypes::Schema::new(key_fields.chain(aggregate_fields).cloned().collect::<Vec<_>>()));
    let keys = kept.iter().map(|key| place(*key)).collect();
    let reduce = Plan::Reduce { input: Box::new(input), keys, aggregates, schema: reduced };
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    map::map(reduce, Vec::new(), projection, &names)
}

fn moved(found: Vec<WindowEnd>, place: impl Fn(usize) -> Option<usize>) -> Vec<WindowEnd> {
    let moved = |window: WindowEnd| Some(WindowEnd { start: place(window.start)?, end: place(window.end)?, size: window.size });
    found.into_iter().filter_map(moved).collect()
}
