//! One scalar subquery at a time: an expression list with several correlated ones becomes a chain of projections with one each.
//!
//! DataFusion's rule that turns them into joins gives every joined subquery a column of one name that says whether there was a partner, so
//! two in one node would make that name ambiguous. With one in each projection, the name does not reach the next.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// See the module.
#[derive(Debug)]
pub(crate) struct OneSubqueryAtATime;

impl OptimizerRule for OneSubqueryAtATime {
    fn name(&self) -> &'static str {
        "one_subquery_at_a_time"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Projection(projection) if correlated(&projection.expr)?.len() > 1 => {
                let (expr, input) = chain(projection.expr, projection.input, config)?;
                let schema = Arc::clone(&projection.schema);
                Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new_with_schema(expr, input, schema)?)))
            }
            LogicalPlan::Filter(filter) if correlated(std::slice::from_ref(&filter.predicate))?.len() > 1 => {
                let columns = columns_of(filter.input.schema());
                let (mut predicate, input) = chain(vec![filter.predicate], filter.input, config)?;
                let Some(predicate) = predicate.pop() else {
                    return datafusion::common::internal_err!("a filter lost its condition");
                };
                let filtered = LogicalPlan::Filter(Filter::try_new(predicate, input)?);
                Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(filtered))?)))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

/// The correlated scalar subqueries in some expressions, each as often as it is there.
fn correlated(expressions: &[Expr]) -> Result<Vec<Expr>> {
    let mut found: Vec<Expr> = Vec::new();
    for expr in expressions {
        expr.apply(|node| {
            if matches!(node, Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty()) {
                found.push(node.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(found)
}

fn columns_of(schema: &DFSchemaRef) -> Vec<Expr> {
    schema.iter().map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field)))).collect()
}

/// Computes every different subquery below, in a projection of its own; the expressions name its column instead. What an expression is
/// called does not change by that.
fn chain(expressions: Vec<Expr>, input: Arc<LogicalPlan>, config: &dyn OptimizerConfig) -> Result<(Vec<Expr>, Arc<LogicalPlan>)> {
    let (mut expressions, mut input) = (expressions, input);
    let mut done: Vec<Expr> = Vec::new();
    for subquery in correlated(&expressions)? {
        if done.contains(&subquery) {
            continue;
        }
        let name = config.alias_generator().next("__subquery");
        let mut columns = columns_of(input.schema());
        columns.push(subquery.clone().alias(&name));
        input = Arc::new(LogicalPlan::Projection(Projection::try_new(columns, input)?));
        let column = Expr::Column(Column::new_unqualified(name));
        expressions = expressions
            .into_iter()
            .map(|expr| {
                let called = expr.schema_name().to_string();
                let replaced = expr.transform_down(|node| {
                    Ok(if node == subquery { Transformed::yes(column.clone()) } else { Transformed::no(node) })
                })?;
                let same = replaced.data.schema_name().to_string() == called;
                Ok(if same { replaced.data } else { replaced.data.alias(called) })
            })
            .collect::<Result<_>>()?;
        done.push(subquery);
    }
    Ok((expressions, input))
}
