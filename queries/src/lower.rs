//! From an optimised logical plan to the engine's operators.
//!
//! Each node becomes the operators that keep it exact under insertions and retractions. What has none is refused by name: a
//! plan is right or there is none. Columns are matched by position: a node's rows have the columns of its logical schema, in
//! order (a schema without columns is a row of one constant, so that counting works on batches with a column).

mod aggregate;
mod band;
mod grouping;
mod join;
mod key;
mod map;
mod recursive;
mod scan;
mod temporal;
mod topk;
mod unnest;
mod whole;
mod window_end;
mod windowed;

pub(crate) use map::checked;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Volatility};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use livelake_dataflow::plan::{Plan, RelationId};

use crate::error::{Position, SqlError, SqlErrorKind};
use crate::plan::{PlannedQuery, StoredColumns, TimeWindow, ViewPlan, is_clock};

/// Lowers a planned query over sources of which the engine stores the columns `stored`.
///
/// # Errors
/// If something in it cannot be maintained incrementally, or a column that it needs is not stored.
pub(crate) fn lower(planned: &PlannedQuery, stored: &StoredColumns, position: &Position) -> Result<ViewPlan, SqlError> {
    let lowering = Lowering {
        stored,
        props: ExecutionProps::new(),
        keys: RefCell::default(),
        indexes: RefCell::default(),
        recursions: RefCell::default(),
    };
    let lowered = lowering.node(&planned.logical).and_then(|rows| map::named(rows.plan, &planned.schema));
    let plan = lowered.map_err(|error| SqlError::from_datafusion(&error, position))?;
    let key = key::shortest(&plan, &lowering.keys.borrow());
    Ok(ViewPlan { schema: plan.schema(), reads: plan.reads(), key, plan, logical: planned.logical.clone() })
}

/// An index and its columns, as indices into what the engine stores.
type Index = (RelationId, Vec<usize>);

struct Lowering<'a> {
    stored: &'a StoredColumns,
    props: ExecutionProps,
    /// Keys of the relations read so far, as indices into what the engine stores of them.
    keys: RefCell<BTreeMap<RelationId, Vec<usize>>>,
    /// Indexes of the relations read so far, with the columns of each likewise.
    indexes: RefCell<BTreeMap<RelationId, Vec<Index>>>,
    recursions: RefCell<Recursions>,
}

/// WITH RECURSIVE on the way from the root to the present node.
#[derive(Default)]
struct Recursions {
    open: Vec<recursive::Recursion>,
    /// How many there were in the whole plan.
    begun: u64,
}

/// A lowered node: its rows, and what the logical plan calls their columns.
struct Rows {
    plan: Plan,
    schema: DFSchemaRef,
}

impl Lowering<'_> {
    fn node(&self, plan: &LogicalPlan) -> Result<Rows> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::EmptyRelation(empty) => scan::empty(empty),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::SubqueryAlias(alias) => {
                let rows = self.node(&alias.input)?;
                Ok(Rows { plan: rows.plan, schema: Arc::clone(&alias.schema) })
            }
            LogicalPlan::Projection(projection) => {
                let rows = self.node(&projection.input)?;
                self.project(rows, &projection.expr, &projection.schema)
            }
            LogicalPlan::Filter(filter) => self.filtered(&filter.input, split_conjunction_owned(filter.predicate.clone())),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let rows = self.node(input)?;
                Ok(Rows { plan: Plan::Distinct { input: Box::new(rows.plan) }, schema: rows.schema })
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.distinct_on(distinct),
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|input| Ok(self.node(input)?.plan)).collect::<Result<Vec<_>>>()?;
                self.union(inputs, &union.schema)
            }
            LogicalPlan::Window(window) => self.window(window, None),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Sort(sort) => match sort.fetch {
                // Rows of a relation have no order.
                None => self.node(&sort.input),
                Some(fetch) => self.sorted(&sort.input, &sort.expr, 0, Some(fetch)),
            },
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<TimeWindow>() {
                Some(window) => self.time_window(window),
                None => Err(unsupported(extension.node.name(), None)),
            },
            LogicalPlan::Repartition(repartition) => self.node(&repartition.input),
            LogicalPlan::RecursiveQuery(query) => self.recursive(query),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::Subquery(_) => Err(unsupported("a LATERAL subquery", Some("write it as a join"))),
            other => Err(unsupported(&other.display().to_string(), None)),
        }
    }

    fn project(&self, rows: Rows, expressions: &[Expr], schema: &DFSchemaRef) -> Result<Rows> {
        let projection = expressions.iter().map(|expr| self.physical(expr, &rows.schema)).collect::<Result<Vec<_>>>()?;
        let plan = map::map(rows.plan, Vec::new(), projection, &map::names(schema))?;
        Ok(Rows { plan, schema: Arc::clone(schema) })
    }

    /// Keeps the rows for which all conjuncts are true; those that compare with the clock become temporal filters.
    fn filter(&self, rows: Rows, conjuncts: Vec<Expr>) -> Result<Rows> {
        let (temporal, plain): (Vec<Expr>, Vec<Expr>) = conjuncts.into_iter().partition(reads_clock);
        let predicates = plain.iter().map(|expr| self.physical(expr, &rows.schema)).collect::<Result<Vec<_>>>()?;
        let identity = map::identity(&rows.plan);
        let names = map::plan_names(&rows.plan);
        let plan = map::map(rows.plan, predicates, identity, &names)?;
        self.temporal_filter(Rows { plan, schema: rows.schema }, temporal)
    }

    fn time_window(&self, window: &TimeWindow) -> Result<Rows> {
        let rows = self.node(&window.input)?;
        let schema: DFSchemaRef = Arc::clone(datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(window));
        let plan = Plan::Window {
            input: Box::new(rows.plan),
            time: window.time_index()?,
            slide: window.slide,
            size: window.size,
            schema: engine_schema(&schema),
        };
        Ok(Rows { plan, schema })
    }

    fn union(&self, inputs: Vec<Plan>, schema: &DFSchemaRef) -> Result<Rows> {
        let wanted = engine_schema(schema);
        let inputs = inputs.into_iter().map(|input| map::typed(input, &wanted)).collect::<Result<Vec<_>>>()?;
        Ok(Rows { plan: Plan::Union { inputs }, schema: Arc::clone(schema) })
    }

    /// An expression over rows of a schema, ready to be evaluated on batches.
    fn physical(&self, expr: &Expr, schema: &DFSchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
        check_expression(expr)?;
        let expr = create_physical_expr(expr, schema, &self.props)?;
        Ok(expr.transform_up(|node| Ok(checked(node)))?.data)
    }
}

/// The logical columns as the engine's: names and types; any may be NULL.
fn engine_schema(schema: &DFSchemaRef) -> Arc<Schema> {
    let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// An error that names what cannot be maintained.
fn unsupported(construct: &str, hint: Option<&str>) -> DataFusionError {
    let message = format!("{construct} cannot be maintained incrementally yet");
    let hint = hint.unwrap_or("it works in a query that is answered once");
    SqlError::new(SqlErrorKind::Unsupported, Position::default(), message).with_hint(hint).into()
}

fn reads_clock(expr: &Expr) -> bool {
    expr.exists(|node| Ok(matches!(node, Expr::ScalarFunction(function) if is_clock(&function.func)))).unwrap_or(true)
}

/// Refuses what a maintained expression cannot contain.
fn check_expression(expr: &Expr) -> Result<()> {
    expr.apply(|node| {
        match node {
            Expr::ScalarFunction(function) if is_clock(&function.func) => {
                let what = format!("{}() here", function.name());
                let hint = "a view's rows change only when its inputs do, or by WHERE time > now() - INTERVAL '…' and the like, joined by AND";
                return Err(unsupported(&what, Some(hint)));
            }
            Expr::ScalarFunction(function) if function.func.signature().volatility != Volatility::Immutable => {
                let hint = "a view must be a function of its inputs";
                return Err(unsupported(&format!("{}()", function.name()), Some(hint)));
            }
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => {
                return Err(unsupported("this subquery", Some("write it as a join, or as a view of its own")));
            }
            Expr::OuterReferenceColumn(_, column) => {
                return Err(unsupported(&format!("a subquery that refers to {} outside", column.name), Some("write it as a join")));
            }
            Expr::Placeholder(parameter) => {
                return Err(unsupported(&format!("the parameter {}", parameter.id), Some("write the value out")));
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

#[cfg(test)]
mod equality;
#[cfg(test)]
mod oracle;
#[cfg(test)]
pub(crate) mod tests;
