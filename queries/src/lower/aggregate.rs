//! GROUP BY: keys and arguments are computed by a map below, so that the reduce sees columns only.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction as AggregateCall;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate as LogicalAggregate, Expr, ExprSchemable, lit, when};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use livelake_dataflow::plan::{Aggregate, AggregateFunction, Plan};

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
        let mut aggregates = Vec::with_capacity(aggregate.aggr_expr.len());
        for (index, expr) in aggregate.aggr_expr.iter().enumerate() {
            let data_type = schema.field(first + index).data_type().clone();
            aggregates.push(self.aggregate_call(expr, &rows, &mut columns, data_type)?);
        }
        let everything = sets.is_some().then(|| columns.add(Arc::new(Literal::new(ScalarValue::Boolean(Some(true))))));
        let names: Vec<String> = (0..columns.expressions.len()).map(|index| format!("column_{index}")).collect();
        let names = named_like(&columns.expressions, &names);
        let input = map::map(rows.plan, Vec::new(), columns.expressions, &names)?;
        let plan = match sets.zip(everything) {
            None => window_end::without_ends(Plan::Reduce { input: Box::new(input), keys, aggregates, schema })?,
            Some((sets, everything)) => grouping::union(&input, &keys, everything, &sets, &aggregates, &schema)?,
        };
        Ok(Rows { plan, schema: Arc::clone(&aggregate.schema) })
    }

    fn aggregate_call(&self, expr: &Expr, rows: &Rows, columns: &mut ColumnSet, data_type: DataType) -> Result<Aggregate> {
        let call = match expr {
            Expr::Alias(alias) => return self.aggregate_call(&alias.expr, rows, columns, data_type),
            Expr::AggregateFunction(call) => call,
            other => return Err(unsupported(&format!("{other} as an aggregate"), None)),
        };
        let function = function(call)?;
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
        Ok(Aggregate { function, arguments: indices, distinct, data_type })
    }
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

fn function(call: &AggregateCall) -> Result<AggregateFunction> {
    Ok(match call.func.name() {
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
        "first_value" | "last_value" => {
            return Err(unsupported(call.func.name(), Some("use DISTINCT ON or row_number() with ORDER BY")));
        }
        other => {
            let hint = "there are count, sum, avg, min, max, var_*, stddev_*, covar_*, corr, bool_and, bool_or";
            return Err(unsupported(&format!("the aggregate {other}"), Some(hint)));
        }
    })
}
