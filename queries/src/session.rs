//! Ad-hoc queries: DataFusion over the engine's relations, all read at one timestamp.

mod change;
mod checked;
mod scan;

pub use change::{Change, ChangeKind, Conflict, Returning, change};
pub(crate) use scan::{RelationScan, seekable_equality, seeked};

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast;
use livelake_dataflow::plan::RelationId;

use crate::catalog::Catalog;
use crate::error::{Position, SqlError};
use crate::name::{CATALOG, DEFAULT_SCHEMA};
use crate::plan::{
    Conversions, IntervalArithmetic, OneSubqueryAtATime, TimeWindowPlanner, WindowRelations, aggregate_functions, explain_error,
    json_functions, lake_functions, logical, rounding_functions, timezone_function,
};
use crate::provider::LakeSchema;
use crate::types::LakeTypes;

/// Reads relations of the engine; whoever runs the engine implements it.
#[async_trait]
pub trait RelationReader: Send + Sync {
    /// The rows of a relation at a timestamp, with the requested columns in the requested order.
    ///
    /// # Errors
    /// If the relation is not kept, a column is not stored, or the timestamp is no longer there.
    async fn read(&self, relation: RelationId, as_of: u64, request: ReadRequest) -> Result<Vec<RecordBatch>>;
}

/// What is to be read of a relation.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Columns to return, in this order: indices into the catalog's schema of the relation. May be empty (rows are counted only).
    pub projection: Vec<usize>,
    /// A seek: one row with the relation's key columns, in the key's order and types; absent: all rows.
    pub key: Option<RecordBatch>,
    /// At most this many rows will be used.
    pub limit: Option<usize>,
    /// Conditions that the rows returned need not meet (they are applied afterwards), but that may be used to read less.
    pub filters: Vec<Expr>,
}

/// What plans are made for.
#[derive(Clone)]
pub(crate) enum Mode {
    /// A dataflow: relations have no rows yet, `now()` moves.
    Maintain,
    /// An answer at a timestamp.
    Read(Answer),
}

/// Where an answer's rows come from, and when.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) reader: Arc<dyn RelationReader>,
    pub(crate) as_of: u64,
    /// Whether materialized views are computed again instead of read.
    pub(crate) recompute: bool,
}

/// A context whose relations are read at `as_of` (microseconds since 1970 UTC), which is also what `now()` says.
///
/// It is cheap to make: one for each query. Catalogs and schemas (`pg_catalog`) may be registered in it.
pub fn context(catalog: &Arc<Catalog>, reader: Arc<dyn RelationReader>, as_of: u64) -> SessionContext {
    SessionContext::new_with_state(state(catalog, &Mode::Read(Answer { reader, as_of, recompute: false })))
}

/// Plans a query in a context made by [`context`]. TUMBLE, HOP and hidden columns work here, not in [`SessionContext::sql`].
///
/// # Errors
/// With the place, if it does not plan.
pub async fn query(
    context: &SessionContext,
    catalog: &Catalog,
    query: &ast::Query,
    position: &Position,
) -> Result<DataFrame, SqlError> {
    let plan = plan_answer(&context.state(), catalog, query, position).await?;
    Ok(DataFrame::new(context.state(), plan))
}

/// The columns that a query would answer with, and the types of its parameters (`$1`, `$2`, …; in order, text where it does not
/// matter).
#[derive(Clone, Debug)]
pub struct Description {
    /// Names and types.
    pub schema: SchemaRef,
    /// One for each parameter.
    pub parameters: Vec<DataType>,
    /// The plan, whose parameters [`LogicalPlan::with_param_values`] replaces.
    pub plan: LogicalPlan,
}

/// Describes a query without running it.
///
/// # Errors
/// With the place, if it does not plan.
pub async fn describe(
    context: &SessionContext,
    catalog: &Catalog,
    query: &ast::Query,
    position: &Position,
) -> Result<Description, SqlError> {
    let plan = plan_answer(&context.state(), catalog, query, position).await?;
    let parameters = parameter_types(&plan).map_err(|error| explain_error(catalog, &error, position))?;
    Ok(Description { schema: Arc::new(plan.schema().as_arrow().clone()), parameters, plan })
}

/// The types of a plan's parameters, in order: what they are compared with, else what they are cast to; a row count in LIMIT and
/// OFFSET; text where nothing says.
///
/// # Errors
/// One parameter is used with types that contradict each other.
pub fn parameter_types(plan: &LogicalPlan) -> Result<Vec<DataType>> {
    let inferred = plan.get_parameter_types()?;
    let mut said: HashMap<String, DataType> = HashMap::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for count in limit.skip.iter().chain(&limit.fetch) {
                if let Expr::Placeholder(parameter) = count.as_ref() {
                    said.entry(parameter.id.clone()).or_insert(DataType::Int64);
                }
            }
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let (inner, data_type) = match expr {
                    Expr::Cast(cast) => (&cast.expr, &cast.data_type),
                    Expr::TryCast(cast) => (&cast.expr, &cast.data_type),
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                if let Expr::Placeholder(parameter) = inner.as_ref() {
                    said.entry(parameter.id.clone()).or_insert_with(|| data_type.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let count = inferred.keys().filter_map(|name| name.trim_start_matches('$').parse::<usize>().ok()).max().unwrap_or(0);
    let parameter = |number: usize| {
        let name = format!("${number}");
        inferred.get(&name).cloned().flatten().or_else(|| said.get(&name).cloned()).unwrap_or(DataType::Utf8)
    };
    Ok((1..=count).map(parameter).collect())
}

async fn plan_answer(
    state: &SessionState,
    catalog: &Catalog,
    query: &ast::Query,
    position: &Position,
) -> Result<LogicalPlan, SqlError> {
    logical(catalog, state, query).await.map_err(|error| explain_error(catalog, &error, position))
}

/// A session over the catalog.
pub(crate) fn state(catalog: &Arc<Catalog>, mode: &Mode) -> SessionState {
    let provider = MemoryCatalogProvider::new();
    for schema in catalog.schemas() {
        let lake = LakeSchema::new(schema.clone(), Arc::clone(catalog), mode.clone());
        // A memory catalog refuses nothing.
        let _ = provider.register_schema(&schema, Arc::new(lake));
    }
    let as_of = match mode {
        Mode::Maintain => None,
        Mode::Read(answer) => Some(answer.as_of),
    };
    let mut state = SessionStateBuilder::new()
        .with_config(config())
        .with_default_features()
        .with_type_planner(Arc::new(LakeTypes))
        .with_relation_planners(vec![Arc::new(WindowRelations)])
        .with_query_planner(Arc::new(LakeQueryPlanner))
        .with_optimizer_rules(optimizer_rules())
        .with_physical_optimizer_rules(physical_rules())
        .build();
    state.add_analyzer_rule(Arc::new(Conversions));
    // as little
    let _ = datafusion::execution::FunctionRegistry::register_expr_planner(&mut state, Arc::new(IntervalArithmetic));
    state.catalog_list().register_catalog(CATALOG.to_string(), Arc::new(provider));
    let functions =
        lake_functions(as_of).into_iter().chain([timezone_function()]).chain(rounding_functions()).chain(json_functions());
    for function in functions {
        // A session state refuses no function.
        let _ = datafusion::execution::FunctionRegistry::register_udf(&mut state, function);
    }
    for function in aggregate_functions() {
        let _ = datafusion::execution::FunctionRegistry::register_udaf(&mut state, function);
    }
    state
}

/// DataFusion's own rules, and one of ours before them.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let ours: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(OneSubqueryAtATime);
    std::iter::once(ours).chain(Optimizer::new().rules).collect()
}

/// Likewise for physical plans.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let ours: Arc<dyn PhysicalOptimizerRule + Send + Sync> = Arc::new(checked::CheckedArithmetic);
    std::iter::once(ours).chain(PhysicalOptimizer::new().rules).collect()
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    let options = config.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.execution.time_zone = Some("UTC".to_string());
    // it loses the group whose key is NULL: SELECT DISTINCT x … ORDER BY x LIMIT n
    options.optimizer.enable_topk_aggregation = false;
    // planner and optimiser differ on what may be NULL, as beside a UNION, and then refuse the plan that they made
    options.execution.skip_physical_aggregate_schema_check = true;
    config
}

/// DataFusion's physical planner, and our windows.
#[derive(Debug)]
struct LakeQueryPlanner;

#[async_trait]
impl QueryPlanner for LakeQueryPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(TimeWindowPlanner)]);
        planner.create_physical_plan(plan, state).await
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("as_of", &self.as_of).finish_non_exhaustive()
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Maintain => f.write_str("Maintain"),
            Mode::Read(answer) => f.debug_tuple("Read").field(answer).finish(),
        }
    }
}

#[cfg(test)]
mod tests;
