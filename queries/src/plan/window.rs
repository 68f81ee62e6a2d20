//! `TUMBLE`, `HOP` and `SESSION` in FROM: how they are planned, and how a batch query computes them.

mod node;
mod physical;
mod session;

pub(crate) use node::TimeWindow;
pub(crate) use physical::TimeWindowPlanner;

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ExprSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, Spanned, TableFactor};

use super::rewrite::is_window_function;
use crate::error::{Position, SqlError, SqlErrorKind};

/// Plans TUMBLE and HOP as [`TimeWindow`]s, SESSION as window functions.
#[derive(Debug)]
pub(crate) struct WindowRelations;

impl RelationPlanner for WindowRelations {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        match relation {
            TableFactor::Table { name, args: Some(args), alias, .. } if is_window_function(&name) => {
                let start = name.span().start;
                let position = Position { file: None, line: start.line, column: start.column };
                let plan = plan_window(&name.to_string().to_lowercase(), args.args, context, &position)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn plan_window(
    function: &str,
    args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
    position: &Position,
) -> Result<LogicalPlan> {
    let usage = match function {
        "tumble" => "TUMBLE(relation, time_column, INTERVAL size)",
        "session" => "SESSION(relation, time_column, INTERVAL gap [, column, …])",
        _ => "HOP(relation, time_column, INTERVAL slide, INTERVAL size)",
    };
    let wrong = |message: String| SqlError::new(SqlErrorKind::Invalid, position.clone(), message).with_hint(usage);
    let mut expressions = Vec::with_capacity(args.len());
    for arg in args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => expressions.push(expression),
            other => return Err(wrong(format!("{other} cannot be given to {function}")).into()),
        }
    }
    let wanted = if function == "hop" { 4 } else { 3 };
    if expressions.len() < wanted || function != "session" && expressions.len() > wanted {
        return Err(wrong(format!("{function} takes {wanted} arguments, not {}", expressions.len())).into());
    }
    let mut expressions = expressions.into_iter();
    let (Some(relation), Some(time)) = (expressions.next(), expressions.next()) else {
        return Err(wrong(format!("{function} takes {wanted} arguments")).into());
    };
    let ast::Expr::Subquery(subquery) = relation else {
        return Err(wrong(format!("{relation} is not a relation")).into());
    };
    let input = context.plan(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None })?;
    let time = time_column(context.sql_to_expr(time, input.schema())?, input.schema(), &wrong)?;
    let mut lengths = Vec::with_capacity(2);
    for length in expressions.by_ref().take(wanted - 2) {
        let text = length.to_string();
        lengths.push(microseconds(&context.sql_to_expr(length, &DFSchema::empty())?, &text).map_err(&wrong)?);
    }
    if let ("session", [gap]) = (function, lengths.as_slice()) {
        let partition = expressions.map(|expression| context.sql_to_expr(expression, input.schema()));
        return session::sessions(input.clone(), time, *gap, partition.collect::<Result<_>>()?);
    }
    let (slide, size) = match lengths.as_slice() {
        [size] => (*size, *size),
        [slide, size] => (*slide, *size),
        _ => return Err(wrong(format!("{function} takes {wanted} arguments")).into()),
    };
    let node = Arc::new(TimeWindow::try_new(input, time, slide, size)?);
    Ok(LogicalPlan::Extension(Extension { node }))
}

fn time_column(time: Expr, schema: &DFSchema, wrong: &dyn Fn(String) -> SqlError) -> Result<Expr> {
    let Expr::Column(column) = &time else {
        return Err(wrong(format!("the time must be a column, not {time}: compute it in a subquery")).into());
    };
    let field = schema.field_from_column(column)?;
    match field.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(time),
        other => Err(wrong(format!("column {} is {other}, not a timestamp: cast it in a subquery", column.name)).into()),
    }
}

/// An interval as microseconds, if it always is the same number of them.
fn microseconds(length: &Expr, text: &str) -> std::result::Result<i64, String> {
    match length {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            if interval.months != 0 {
                return Err(format!("{text} has no fixed length: months and years differ"));
            }
            let length = i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1_000;
            if length <= 0 { Err(format!("{text} is not longer than nothing")) } else { Ok(length) }
        }
        _ => Err(format!("{text} is not an interval")),
    }
}
