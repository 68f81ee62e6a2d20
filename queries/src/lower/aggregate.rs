//! GROUP BY: keys and arguments are computed by a map below, so that the reduce sees columns only.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::AggregateFunction as AggregateCall;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate as LogicalAggregate, Expr, ExprSchemable, lit, when};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use livelake_dataflow::plan::{Aggregate, AggregateFunction, OrderBy, Plan};

use super::whole::{self, Argument, WholeCall};
use super::{Lowering, Rows, engine_schema, grouping, map, unsupported, window_end};

/// Columns under construction: an expression that is needed twice is one column.
#[derive(Default)]
struct ColumnSet {
    expressions: Vec<Arc<dyn PhysicalExpr>>,
}

impl ColumnSet {
    fn add(&mut self, expr: Arc<dyn PhysicalExpr>) -> usize {
        match self.expressions.iter().position(|known| map::same(known, &expr)) {
            Some(index) => index,
            None => {
                self.expressions.push(expr);
                self.expressions.len() - 1
            }
        }
    }
}

impl Lowering<'_> {
    pub(super) fn aggregate(&self, aggregate: &LogicalAggregate) -> Result<Rows> {
        let rows = self.node(&aggregate.input)?;
        let mut columns = ColumnSet::default();
        let mut keys = Vec::with_capacity(aggregate.group_expr.len());
        for expr in grouping_set_to_exprlist(&aggregate.group_expr)? {
            keys.push(columns.add(self.physical(expr, &rows.schema)?));
        }
        let sets = grouping::sets(&aggregate.group_expr)?;
        let schema = engine_schema(&aggregate.schema);
        // the number of the grouping set stands between the keys and the aggregates
        let first = keys.len() + usize::from(sets.is_some());
        let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
        for (index, expr) in aggregate.aggr_expr.iter().enumerate() {
            let data_type = schema.field(first + index).data_type().clone();
            calls.push(self.aggregate_call(expr, &rows, &mut columns, data_type)?);
        }
        let everything = sets.is_some().then(|| columns.add(Arc::new(Literal::new(ScalarValue::Boolean(Some(true))))));
        let names: Vec<String> = (0..columns.expressions.len()).map(|index| format!("column_{index}")).collect();
        let names = named_like(&columns.expressions, &names);
        let input = map::map(rows.plan, Vec::new(), columns.expressions, &names)?;
        let plan = match sets.zip(everything) {
            None => grouped(&input, keys, &calls, schema)?,
            Some((sets, everything)) => grouping::union(&input, &keys, everything, &sets, &calls, &schema)?,
        };
        Ok(Rows { plan, schema: Arc::clone(&aggregate.schema) })
    }

    fn aggregate_call(&self, expr: &Expr, rows: &Rows, columns: &mut ColumnSet, data_type: DataType) -> Result<Call> {
        let call = match expr {
            Expr::Alias(alias) => return self.aggregate_call(&alias.expr, rows, columns, data_type),
            Expr::AggregateFunction(call) => call,
            other => return Err(unsupported(&format!("{other} as an aggregate"), None)),
        };
        let Some(function) = function(call) else { return self.whole_call(call, rows, columns, data_type) };
        let mut arguments = call.params.args.clone();
        // count(*) is count(1); an argument that cannot be NULL does not matter to count either.
        let distinct = call.params.distinct && !matches!(function, AggregateFunction::Min | AggregateFunction::Max);
        if function == AggregateFunction::Count && !distinct && !may_be_null(&arguments, rows)? {
            arguments.clear();
        }
        if let Some(filter) = &call.params.filter {
            let filter = filter.as_ref().clone();
            arguments = if arguments.is_empty() {
                vec![when(filter, lit(true)).end()?]
            } else {
                arguments.into_iter().map(|argument| when(filter.clone(), argument).end()).collect::<Result<_>>()?
            };
        }
        let wanted: &[usize] = match function {
            AggregateFunction::Count if distinct => &[1],
            AggregateFunction::Count => &[0, 1],
            AggregateFunction::CovarPop | AggregateFunction::CovarSamp | AggregateFunction::Corr => &[2],
            _ => &[1],
        };
        if !wanted.contains(&arguments.len()) {
            return Err(unsupported(&format!("{} of {} arguments", call.func.name(), arguments.len()), None));
        }
        let mut indices = Vec::with_capacity(arguments.len());
        for argument in &arguments {
            indices.push(columns.add(self.physical(argument, &rows.schema)?));
        }
        Ok(Call::Sum(Aggregate { function, arguments: indices, distinct, data_type }))
    }

    /// A call that needs its group's rows.
    fn whole_call(&self, call: &AggregateCall, rows: &Rows, columns: &mut ColumnSet, data_type: DataType) -> Result<Call> {
        let mut column = |expr: &Expr| -> Result<Argument> {
            let expr = self.physical(expr, &rows.schema)?;
            Ok(match constant(&expr) {
                Some(value) => Argument::Constant(value),
                None => Argument::Column(columns.add(expr)),
            })
        };
        let arguments = call.params.args.iter().map(&mut column).collect::<Result<Vec<_>>>()?;
        let mut order: Vec<OrderBy> = Vec::with_capacity(call.params.order_by.len());
        for sort in &call.params.order_by {
            if let Argument::Column(column) = column(&sort.expr)?
                && order.iter().all(|known| known.column != column)
            {
                order.push(OrderBy { column, descending: !sort.asc, nulls_first: sort.nulls_first });
            }
        }
        let filter = match &call.params.filter {
            Some(filter) => Some(columns.add(self.physical(filter, &rows.schema)?)),
            None => None,
        };
        Ok(Call::Whole(WholeCall::new(call, arguments, filter, order, data_type)))
    }
}

/// The value of an expression that reads no column.
fn constant(expr: &Arc<dyn PhysicalExpr>) -> Option<ScalarValue> {
    let mut reads = false;
    let walked = expr.apply(|node| {
        reads |= map::column_index(node).is_some();
        Ok(TreeNodeRecursion::Continue)
    });
    if reads || walked.is_err() {
        return None;
    }
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).ok()?;
    ScalarValue::try_from_array(&expr.evaluate(&row).ok()?.into_array(1).ok()?, 0).ok()
}

/// An aggregate, and how it is kept.
pub(super) enum Call {
    /// In the diffs of an arrangement.
    Sum(Aggregate),
    /// Computed from its group's rows.
    Whole(WholeCall),
}

/// The groups of `keys` with their aggregates; `schema` names the keys, then the calls. One operator keeps all sums; calls that need
/// the rows in one order share one, too; what there is of them is joined by the key, in which NULL equals NULL.
///
/// # Errors
/// DataFusion refuses a call.
pub(super) fn grouped(input: &Plan, keys: Vec<usize>, calls: &[Call], schema: SchemaRef) -> Result<Plan> {
    let sums: Vec<usize> = (0..calls.len()).filter(|at| matches!(calls[*at], Call::Sum(_))).collect();
    let mut sets: Vec<(Vec<OrderBy>, Vec<usize>)> = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let Call::Whole(call) = call else { continue };
        let same = |set: &&mut (Vec<OrderBy>, Vec<usize>)| set.0.is_empty() || call.order.is_empty() || set.0 == call.order;
        match sets.iter_mut().find(same) {
            Some((order, set)) => {
                if order.is_empty() {
                    order.clone_from(&call.order);
                }
                set.push(at);
            }
            None => sets.push((call.order.clone(), vec![at])),
        }
    }
    let key_fields: Vec<Field> = schema.fields()[..keys.len()].iter().map(|field| field.as_ref().clone()).collect();
    let mut parts: Vec<(Plan, Vec<usize>)> = Vec::with_capacity(sets.len() + 1);
    if sets.is_empty() || !sums.is_empty() {
        let fields = sums.iter().map(|at| schema.field(keys.len() + at).clone());
        let aggregates = sums.iter().filter_map(|at| match &calls[*at] {
            Call::Sum(aggregate) => Some(aggregate.clone()),
            Call::Whole(_) => None,
        });
        let reduce = Plan::Reduce {
            input: Box::new(input.clone()),
            keys: keys.clone(),
            aggregates: aggregates.collect(),
            schema: Arc::new(Schema::new(key_fields.iter().cloned().chain(fields).collect::<Vec<_>>())),
        };
        parts.push((window_end::without_ends(reduce)?, sums));
    }
    for (_, set) in sets {
        let calls: Vec<&WholeCall> = set
            .iter()
            .filter_map(|at| match &calls[*at] {
                Call::Whole(call) => Some(call),
                Call::Sum(_) => None,
            })
            .collect();
        parts.push((whole::groups(input, &keys, &calls, &key_fields)?, set));
    }
    let mut places = vec![0; calls.len()];
    let mut width = 0;
    let mut joined: Option<Plan> = None;
    for (plan, set) in parts {
        set.iter().enumerate().for_each(|(index, at)| places[*at] = width + keys.len() + index);
        width += keys.len() + set.len();
        joined = Some(match joined {
            None => plan,
            Some(left) => {
                let fields: Vec<_> = left.schema().fields().iter().chain(plan.schema().fields()).cloned().collect();
                Plan::Join {
                    left: Box::new(left),
                    right: Box::new(plan),
                    on: (0..keys.len()).map(|key| (key, key)).collect(),
                    null_equals_null: true,
                    range: None,
                    schema: Arc::new(Schema::new(fields)),
                }
            }
        });
    }
    let plan = joined.ok_or_else(|| DataFusionError::Internal("a GROUP BY of nothing".into()))?;
    let projection = map::columns(&plan, (0..keys.len()).chain(places));
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    map::map(plan, Vec::new(), projection, &names)
}

/// Columns that are just taken over keep their names, so that plans can be read.
fn named_like(expressions: &[Arc<dyn PhysicalExpr>], fallback: &[String]) -> Vec<String> {
    let name = |(expr, fallback): (&Arc<dyn PhysicalExpr>, &String)| {
        let column = expr.as_any().downcast_ref::<datafusion::physical_expr::expressions::Column>();
        column.map_or_else(|| fallback.clone(), |column| column.name().to_string())
    };
    expressions.iter().zip(fallback).map(name).collect()
}

fn may_be_null(arguments: &[Expr], rows: &Rows) -> Result<bool> {
    for argument in arguments {
        if argument.nullable(&rows.schema)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The aggregates that live in a diff.
fn function(call: &AggregateCall) -> Option<AggregateFunction> {
    Some(match call.func.name() {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "avg" => AggregateFunction::Avg,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "var" => AggregateFunction::VarSamp,
        "var_pop" => AggregateFunction::VarPop,
        "stddev" => AggregateFunction::StddevSamp,
        "stddev_pop" => AggregateFunction::StddevPop,
        "covar_samp" => AggregateFunction::CovarSamp,
        "covar_pop" => AggregateFunction::CovarPop,
        "corr" => AggregateFunction::Corr,
        "bool_and" => AggregateFunction::BoolAnd,
        "bool_or" => AggregateFunction::BoolOr,
        _ => return None,
    })
}
