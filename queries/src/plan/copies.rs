//! INTERSECT ALL and EXCEPT ALL with as many copies of a row as SQL says: the lesser number, and the difference.
//!
//! DataFusion plans both as a semi- or anti-join of whole rows, which keeps or drops all copies at once. Here each copy gets its number among
//! those that are alike before the join, so the first copy meets the first and the third the third. (Without ALL the left rows are made
//! distinct first, and the join alone is right.)

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, NullEquality};
use datafusion::error::Result;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, Join, JoinType, LogicalPlan, LogicalPlanBuilder};

/// Numbers the copies in a plan as DataFusion makes it from the syntax, before anything else has made joins of whole rows.
///
/// # Errors
/// DataFusion's, for a plan that does not hold together.
pub(super) fn number_copies(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if compares_copies(&join) => Ok(Transformed::yes(numbered(join)?)),
        other => Ok(Transformed::no(other)),
    })
    .data()
}

fn compares_copies(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.on.len() == join.left.schema().fields().len()
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(_))
}

fn numbered(join: Join) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = join.left.schema().iter().map(|column| Expr::Column(Column::from(column))).collect();
    let (left, left_copy) = with_copy(&join.left)?;
    let (right, right_copy) = with_copy(&join.right)?;
    let on = join.on.iter().cloned().chain([(left_copy, right_copy)]).collect();
    let joined =
        Join::try_new(left, right, on, join.filter, join.join_type, join.join_constraint, join.null_equality, join.null_aware)?;
    LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()
}

/// The rows with a column that numbers those that are alike, from 1.
fn with_copy(rows: &Arc<LogicalPlan>) -> Result<(Arc<LogicalPlan>, Expr)> {
    let columns: Vec<Expr> = rows.schema().iter().map(|column| Expr::Column(Column::from(column))).collect();
    let number = row_number().partition_by(columns).build()?;
    let column = Expr::Column(Column::new_unqualified(number.schema_name().to_string()));
    Ok((Arc::new(LogicalPlanBuilder::from(rows.as_ref().clone()).window([number])?.build()?), column))
}
