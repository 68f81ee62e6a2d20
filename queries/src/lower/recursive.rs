//! WITH RECURSIVE: a fixpoint over the rows so far.

use std::sync::Arc;

use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::datasource::DefaultTableSource;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::TableSource;
use datafusion::logical_expr::logical_plan::{RecursiveQuery, TableScan};
use livelake_dataflow::plan::Plan;

use super::{Lowering, Rows, engine_schema, map, unsupported};

/// A recursion that has not ended after so many rounds is taken for one that never ends.
const ROUNDS: u64 = 10_000;

/// A recursion that is being lowered.
pub(super) struct Recursion {
    name: String,
    variable: u64,
    schema: Arc<arrow::datatypes::Schema>,
}

impl Lowering<'_> {
    pub(super) fn recursive(&self, query: &RecursiveQuery) -> Result<Rows> {
        let base = self.node(&query.static_term)?;
        let schema = engine_schema(&base.schema);
        let base_plan = map::typed(base.plan, &schema)?;
        let variable = {
            let mut recursions = self.recursions.borrow_mut();
            recursions.begun += 1;
            let variable = recursions.begun;
            recursions.open.push(Recursion { name: query.name.clone(), variable, schema: Arc::clone(&schema) });
            variable
        };
        let step = self.node(&query.recursive_term);
        self.recursions.borrow_mut().open.pop();
        let step = map::typed(step?.plan, &schema)?;
        check(&step, variable)?;
        let plan = Plan::Fixpoint {
            variable,
            base: Box::new(base_plan),
            step: Box::new(step),
            distinct: query.is_distinct,
            rounds: ROUNDS,
            schema,
        };
        Ok(Rows { plan, schema: base.schema })
    }

    /// The rows so far, if that is what is scanned.
    pub(super) fn round(&self, scan: &TableScan) -> Result<Option<Rows>> {
        let Some(table) = work_table(&scan.source) else { return Ok(None) };
        let recursions = self.recursions.borrow();
        let Some(open) = recursions.open.iter().rev().find(|open| open.name == table) else {
            return Err(DataFusionError::Internal(format!("{table} is used outside of its recursion")));
        };
        let round = Plan::Round { variable: open.variable, schema: Arc::clone(&open.schema) };
        drop(recursions);
        let wanted: Vec<usize> = match &scan.projection {
            Some(projection) => projection.clone(),
            None => (0..round.schema().fields().len()).collect(),
        };
        let projection = map::columns(&round, wanted);
        let plan = map::map(round, Vec::new(), projection, &map::names(&scan.projected_schema))?;
        let rows = Rows { plan, schema: Arc::clone(&scan.projected_schema) };
        Ok(Some(self.filter(rows, scan.filters.clone())?))
    }
}

fn work_table(source: &Arc<dyn TableSource>) -> Option<String> {
    let source = source.as_any().downcast_ref::<DefaultTableSource>()?;
    Some(source.table_provider.as_any().downcast_ref::<CteWorkTable>()?.name().to_string())
}

/// Refuses what a loop has no operator for.
fn check(plan: &Plan, variable: u64) -> Result<()> {
    if !plan.has_round(variable) {
        return Ok(());
    }
    let what = match plan {
        Plan::Reduce { .. } => "an aggregate over a recursion's own rows",
        Plan::TopK { .. } => "LIMIT or row_number() over a recursion's own rows",
        Plan::EachGroup { .. } => "a window function over a recursion's own rows",
        Plan::TemporalFilter { .. } => "now() beside a recursion's own rows",
        Plan::Fixpoint { .. } => "a recursion over another recursion's own rows",
        Plan::Negate { .. } => "an outer join, NOT EXISTS or EXCEPT with a recursion's own rows",
        _ => return plan.children().into_iter().try_for_each(|child| check(child, variable)),
    };
    Err(unsupported(what, Some("do it in the query around the recursion")))
}
