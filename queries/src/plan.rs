//! From a query's syntax to an optimised logical plan that [`crate::lower`] can turn into a dataflow.
//!
//! DataFusion resolves names, checks types and rewrites; the rules are chosen so that what comes out has the few shapes that
//! lowering knows, and `now()` is never folded into a constant.

mod aggregates;
mod apply;
mod columns;
mod conversions;
mod copies;
mod functions;
mod intervals;
mod json;
mod names;
mod patterns;
mod rewrite;
mod rounding;
mod series;
mod single;
mod subqueries;
mod syntax;
mod timezone;
mod using;
mod window;

pub(crate) use aggregates::aggregate_functions;
pub use columns::{StoredColumns, columns_read, query_columns};
pub(crate) use conversions::Conversions;
pub(crate) use functions::{is_clock, lake_functions};
pub(crate) use intervals::IntervalArithmetic;
pub(crate) use json::json_functions;
pub(crate) use rewrite::{rewrite, windowed_relation};
pub(crate) use rounding::rounding_functions;
pub use single::SEVERAL_ROWS;
pub(crate) use subqueries::OneSubqueryAtATime;
pub(crate) use timezone::timezone_function;
pub(crate) use window::{TimeWindow, TimeWindowPlanner, WindowRelations};

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, ToDFSchema};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::SessionState;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::optimizer::{self, Optimizer, OptimizerRule};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::sql::parser::Statement as DataFusionStatement;
use datafusion::sql::sqlparser::ast;
use futures::FutureExt;
use livelake_dataflow::plan::{Plan, RelationId};

use crate::catalog::{Catalog, Detail, Relation};
use crate::error::{Position, SqlError, SqlErrorKind};
use crate::lower;
use crate::session::{Mode, state};
use crate::statement::Columns;
use crate::types::column_type;

/// A view's query, planned: everything that does not depend on which columns the engine stores.
#[derive(Clone, Debug)]
pub struct PlannedQuery {
    /// The optimised logical plan; plain views are inlined, materialized ones are scanned.
    pub logical: LogicalPlan,
    /// Names and types of its columns, in the types of [`crate::types`].
    pub schema: SchemaRef,
    /// Columns that identify a row; empty if there are none but the whole row, or if it cannot be maintained.
    pub key: Vec<usize>,
    /// Why it cannot be maintained incrementally, if so.
    pub not_maintainable: Option<SqlError>,
}

/// A view or query ready for the engine.
#[derive(Clone, Debug)]
pub struct ViewPlan {
    /// The dataflow.
    pub plan: Plan,
    /// Names and types of its columns.
    pub schema: SchemaRef,
    /// Columns that identify a row, for [`livelake_dataflow::protocol::ViewSpec::key`].
    pub key: Vec<usize>,
    /// Engine relations that it reads.
    pub reads: Vec<RelationId>,
    /// The logical plan it comes from.
    pub logical: LogicalPlan,
}

/// The dataflow of a view (plain or materialized) over sources of which the engine stores the columns `stored`.
///
/// # Errors
/// If it is not a view, cannot be maintained incrementally, or needs a column that is not stored.
pub fn view_plan(catalog: &Catalog, view: RelationId, stored: &StoredColumns) -> Result<ViewPlan, SqlError> {
    let relation = catalog.by_id(view);
    match relation.map(|relation| (relation, &relation.detail)) {
        Some((relation, Detail::View(view))) => lower::lower(&view.planned, stored, &relation.position),
        _ => Err(SqlError::new(SqlErrorKind::Invalid, Position::default(), format!("{view} is not a view"))),
    }
}

/// Plans a query that is to be maintained without being a view of the catalog: `SUBSCRIBE (query)`.
///
/// # Errors
/// If it does not plan or cannot be maintained incrementally.
pub fn plan_query(catalog: &Arc<Catalog>, query: &ast::Query, position: &Position) -> Result<PlannedQuery, SqlError> {
    let planned = plan_view(catalog, query, &[], position)?;
    match &planned.not_maintainable {
        Some(error) => Err(error.clone()),
        None => Ok(planned),
    }
}

/// The dataflow of a planned query.
///
/// # Errors
/// As [`view_plan`].
pub fn query_plan(planned: &PlannedQuery, stored: &StoredColumns, position: &Position) -> Result<ViewPlan, SqlError> {
    lower::lower(planned, stored, position)
}

/// Plans a view's query; `columns` are names given to its columns, or none.
pub(crate) fn plan_view(
    catalog: &Arc<Catalog>,
    query: &ast::Query,
    columns: &[String],
    position: &Position,
) -> Result<PlannedQuery, SqlError> {
    let state = state(catalog, &Mode::Maintain);
    let conformed = logical(catalog, &state, query)
        .now_or_never()
        .unwrap_or_else(|| Err(DataFusionError::Internal("the catalog did not answer at once".into())))
        .and_then(|logical| conform(&state, logical, columns))
        .map_err(|error| explain_error(catalog, &error, position))?;
    let schema: Vec<Field> = conformed.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let logical = Optimizer::with_rules(maintenance_rules())
        .optimize(conformed, &state, |_, _| {})
        .map_err(|error| explain_error(catalog, &error, position))?;
    let mut planned = PlannedQuery { logical, schema: Arc::new(Schema::new(schema)), key: Vec::new(), not_maintainable: None };
    match lower::lower(&planned, &StoredColumns::default(), position) {
        Ok(view) => planned.key = view.key,
        Err(error) => planned.not_maintainable = Some(error),
    }
    Ok(planned)
}

/// The logical plan of a query, as DataFusion makes it from the syntax: not yet analysed.
pub(crate) async fn logical(catalog: &Catalog, state: &SessionState, query: &ast::Query) -> DataFusionResult<LogicalPlan> {
    let mut query = query.clone();
    rewrite(catalog, &mut query)?;
    let statement = ast::Statement::Query(Box::new(query));
    let plan = state.statement_to_plan(DataFusionStatement::Statement(Box::new(statement))).await?;
    resolve_subqueries(plan)
}

/// What DataFusion's rules do not do with subqueries and copies, in a plan that has not been analysed: see `copies`, `single` and `apply`.
pub(crate) fn resolve_subqueries(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    apply::apply_subqueries(single::single_values(copies::number_copies(plan)?)?)
}

/// Analyses a plan and gives its columns their names and the catalog's types.
pub(crate) fn conform(state: &SessionState, plan: LogicalPlan, names: &[String]) -> DataFusionResult<LogicalPlan> {
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    let schema = Arc::clone(plan.schema());
    let width = schema.fields().len();
    if !names.is_empty() && names.len() != width {
        let message = format!("the view names {} columns, its query has {width}", names.len());
        return Err(SqlError::new(SqlErrorKind::Invalid, Position::default(), message).into());
    }
    let mut taken: Vec<&str> = Vec::with_capacity(width);
    let mut projection = Vec::with_capacity(width);
    for (index, (qualifier, field)) in schema.iter().enumerate() {
        let name = names.get(index).unwrap_or(field.name());
        if taken.contains(&name.as_str()) {
            let message = format!("column {name} appears twice");
            return Err(SqlError::new(SqlErrorKind::Invalid, Position::default(), message)
                .with_hint("give one of them another name with AS")
                .into());
        }
        taken.push(name);
        let column = Expr::Column(datafusion::common::Column::from((qualifier, field)));
        let wanted = column_type(field.data_type());
        let column = if wanted == *field.data_type() { column } else { cast(column, wanted) };
        projection.push(column.alias(name));
    }
    LogicalPlanBuilder::from(plan).project(projection)?.build()
}

/// An error of DataFusion's with the statement's place, and the nearest relation for one that does not exist.
pub(crate) fn explain_error(catalog: &Catalog, error: &DataFusionError, position: &Position) -> SqlError {
    let found = SqlError::from_datafusion(error, position);
    let missing = found.message.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found"));
    match missing {
        Some(name) => catalog.unknown(&crate::name::RelationName::parse(name), found.position),
        None if found.message.starts_with("failed to resolve schema: ") => {
            let schemas = catalog.schemas();
            let name = found.message.trim_start_matches("failed to resolve schema: ");
            let hint =
                crate::error::nearest(name, schemas.iter().map(String::as_str)).map(|near| format!("did you mean {near}?"));
            SqlError { kind: SqlErrorKind::UnknownRelation, message: format!("schema {name} does not exist"), hint, ..found }
        }
        None => found,
    }
}

/// The rules for plans that are maintained. Left out, against DataFusion's own list: what introduces shapes that are costlier
/// to maintain (distinct as an aggregate, distinct aggregates in two steps), what pushes limits around (a limit is a top-k
/// here), and what serves scans of files only.
fn maintenance_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    vec![
        Arc::new(optimizer::rewrite_set_comparison::RewriteSetComparison::new()),
        Arc::new(optimizer::optimize_unions::OptimizeUnions::new()),
        Arc::new(optimizer::simplify_expressions::SimplifyExpressions::new()),
        Arc::new(optimizer::eliminate_join::EliminateJoin::new()),
        Arc::new(optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery::new()),
        Arc::new(OneSubqueryAtATime),
        Arc::new(optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin::new()),
        Arc::new(optimizer::decorrelate_lateral_join::DecorrelateLateralJoin::new()),
        Arc::new(optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate::new()),
        Arc::new(optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr::new()),
        Arc::new(optimizer::eliminate_filter::EliminateFilter::new()),
        Arc::new(optimizer::eliminate_cross_join::EliminateCrossJoin::new()),
        Arc::new(optimizer::propagate_empty_relation::PropagateEmptyRelation::new()),
        Arc::new(optimizer::eliminate_outer_join::EliminateOuterJoin::new()),
        Arc::new(optimizer::push_down_filter::PushDownFilter::new()),
        Arc::new(optimizer::eliminate_group_by_constant::EliminateGroupByConstant::new()),
        Arc::new(optimizer::optimize_projections::OptimizeProjections::new()),
    ]
}

/// A CHECK ready to be evaluated.
#[derive(Clone, Debug)]
pub struct CompiledCheck {
    /// The constraint's name.
    pub name: String,
    /// Over the relation's visible columns; boolean.
    pub condition: Arc<dyn PhysicalExpr>,
}

/// The conditions of a relation's CHECKs over its visible columns: a row is fine unless one is false (NULL is fine).
///
/// # Errors
/// If one does not plan, with its place.
pub fn check_expressions(relation: &Relation) -> Result<Vec<CompiledCheck>, SqlError> {
    let columns = match &relation.detail {
        Detail::Source { columns, .. } | Detail::Table { columns } => columns,
        _ => return Ok(Vec::new()),
    };
    let schema = relation.visible_schema();
    let mut compiled = Vec::with_capacity(columns.checks.len());
    for check in &columns.checks {
        // Places in the error are places in the condition's text, not in the file.
        let misplaced =
            |error| SqlError { position: check.position.clone(), ..SqlError::from_datafusion(&error, &check.position) };
        let expression = expression(&schema, &check.condition).map_err(misplaced)?;
        if expression.data_type(&schema).ok() != Some(arrow::datatypes::DataType::Boolean) {
            return Err(SqlError::new(SqlErrorKind::Invalid, check.position.clone(), "a CHECK must be true or false"));
        }
        compiled.push(CompiledCheck { name: check.name.clone(), condition: expression });
    }
    Ok(compiled)
}

/// Compiles an SQL expression over some columns: `DEFAULT`s (over none), CHECKs, conditions in options.
///
/// # Errors
/// DataFusion's, if it does not plan.
pub fn expression(schema: &SchemaRef, text: &str) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
    let state = state(&Arc::new(Catalog::new()), &Mode::Maintain);
    let schema: DFSchema = Arc::clone(schema).to_dfschema()?;
    let logical = state.create_logical_expr(text, &schema)?;
    let context = optimizer::simplify_expressions::SimplifyContext::default().with_schema(Arc::new(schema.clone()));
    let simplifier = optimizer::simplify_expressions::ExprSimplifier::new(context);
    let logical = simplifier.coerce(logical, &schema)?;
    create_physical_expr(&logical, &schema, &ExecutionProps::new())
}

/// The DEFAULTs of columns.
pub(crate) fn default_values(columns: &Columns) -> DataFusionResult<HashMap<String, Expr>> {
    let mut defaults = HashMap::new();
    let mut session = None;
    for column in &columns.columns {
        if let Some(text) = &column.default {
            let session = session.get_or_insert_with(|| state(&Arc::new(Catalog::new()), &Mode::Maintain));
            let value = session.create_logical_expr(text, &DFSchema::empty())?;
            defaults.insert(column.name.clone(), cast(value, column.data_type.clone()));
        }
    }
    Ok(defaults)
}
