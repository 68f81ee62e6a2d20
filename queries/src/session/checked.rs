//! Arithmetic of answers that fails where a result does not fit, as in views: DataFusion's wraps around unless told.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::lower::checked;

/// See the module. It comes before the rules that move expressions to where this one would not find them.
#[derive(Debug)]
pub(super) struct CheckedArithmetic;

impl PhysicalOptimizerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(node).data()
    }
}

fn node(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    if let Some(projection) = plan.as_any().downcast_ref::<ProjectionExec>() {
        let expressions = projection.expr().iter().map(|projected| {
            let expr = expression(&projected.expr)?;
            Ok(ProjectionExpr { expr, alias: projected.alias.clone() })
        });
        let expressions = expressions.collect::<Result<Vec<_>>>()?;
        return Ok(Transformed::yes(Arc::new(ProjectionExec::try_new(expressions, Arc::clone(projection.input()))?)));
    }
    if let Some(filter) = plan.as_any().downcast_ref::<FilterExec>() {
        let predicate = expression(filter.predicate())?;
        return Ok(Transformed::yes(Arc::new(FilterExecBuilder::from(filter).with_predicate(predicate).build()?)));
    }
    if let Some(aggregate) = plan.as_any().downcast_ref::<AggregateExec>() {
        let calls = aggregate.aggr_expr().iter().map(|call| {
            let arguments = call.expressions().iter().map(expression).collect::<Result<Vec<_>>>()?;
            let order = call.order_bys().iter().map(|sort| Arc::clone(&sort.expr)).collect();
            Ok(call.with_new_expressions(arguments, order).map_or_else(|| Arc::clone(call), Arc::new))
        });
        let calls = calls.collect::<Result<Vec<_>>>()?;
        return Ok(Transformed::yes(Arc::new(aggregate.with_new_aggr_exprs(calls))));
    }
    Ok(Transformed::no(plan))
}

fn expression(expr: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    Arc::clone(expr).transform_up(|part| Ok(checked(part))).data()
}
