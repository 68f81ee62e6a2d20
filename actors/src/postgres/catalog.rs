//! PostgreSQL's system catalog over the lake's relations: what `\d`, drivers and BI tools ask to find their way.
//!
//! Such queries run in a DataFusion session of their own. datafusion-pg-catalog rewrites their PostgreSQL-isms and brings the tables that
//! never change (`pg_type`, `pg_am`, …) and the functions; the tables that list relations are made here from
//! [`LakeService::relations`], so that object ids are the same in every query and materialized views are what they are. The lake's own
//! relations can be joined in: they are looked up in [`LakeService::session`].

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider};
use datafusion::common::{ParamValues, ScalarValue, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use futures::StreamExt;
use pgwire::error::PgWireResult;

use super::error::{of_datafusion, wire};
use super::handlers::Rows;
use crate::service::{LakeService, RelationKind, RelationStatus};
use crate::statements::tokens;

mod functions;
mod rewrite;
mod tables;

/// The one database.
pub(super) const DATABASE: &str = "lake";

/// Names that make a query one for the catalog, besides everything that begins with `pg_`.
const NAMES: &[&str] = &[
    "information_schema",
    "current_schema",
    "current_schemas",
    "current_database",
    "current_catalog",
    "current_user",
    "session_user",
    "current_setting",
    "version",
    "format_type",
    "has_table_privilege",
    "has_schema_privilege",
    "has_database_privilege",
    "has_any_column_privilege",
    "to_regclass",
    "to_regtype",
    "regclass",
    "regtype",
    "obj_description",
    "col_description",
    "shobj_description",
    "quote_ident",
];

/// Answers catalog queries.
pub(super) struct Catalog {
    context: SessionContext,
    parser: PostgresCompatibilityParser,
}

impl Catalog {
    pub(super) fn new(service: Arc<dyn LakeService>) -> Result<Self, DataFusionError> {
        let config = SessionConfig::new().with_default_catalog_and_schema(DATABASE, "public").with_information_schema(true);
        let context = SessionContext::new_with_config(config);
        setup_pg_catalog(&context, DATABASE, EmptyContextProvider).map_err(|error| *error)?;
        let system = context.catalog(DATABASE).and_then(|catalog| catalog.schema("pg_catalog"));
        let system = system.ok_or_else(|| DataFusionError::Configuration("pg_catalog is not registered".to_owned()))?;
        functions::register(&context, &service);
        let system = Arc::new(System { fixed: system, service: Arc::clone(&service) });
        context.register_catalog(DATABASE, Arc::new(Database { service, system }));
        Ok(Self { context, parser: PostgresCompatibilityParser::new() })
    }

    /// Whether a statement is a query that needs the catalog.
    pub(super) fn answers(&self, sql: &str) -> bool {
        let words = tokens(sql);
        let is_query =
            words.first().is_some_and(|word| matches!(word.to_ascii_lowercase().as_str(), "select" | "with" | "values" | "("));
        is_query
            && words.iter().any(|word| {
                let name = word.trim_matches('"').to_ascii_lowercase();
                name.starts_with("pg_") || NAMES.contains(&name.as_str())
            })
    }

    /// Columns and parameter types of a catalog query.
    pub(super) async fn describe(&self, sql: &str) -> PgWireResult<(SchemaRef, Vec<DataType>)> {
        let plan = self.plan(sql).await?;
        let types = plan.get_parameter_types().map_err(|error| of_datafusion(&error))?;
        let parameter = |index: usize| types.get(&format!("${index}")).cloned().flatten().unwrap_or(DataType::Null);
        Ok((Arc::clone(plan.schema().inner()), (1..=types.len()).map(parameter).collect()))
    }

    /// Runs a catalog query.
    pub(super) async fn run(&self, sql: &str, parameters: Vec<ScalarValue>) -> PgWireResult<(SchemaRef, Rows)> {
        let mut plan = self.plan(sql).await?;
        if !parameters.is_empty() {
            plan = plan.with_param_values(ParamValues::from(parameters)).map_err(|error| of_datafusion(&error))?;
        }
        let schema = Arc::clone(plan.schema().inner());
        let frame = self.context.execute_logical_plan(plan).await.map_err(|error| of_datafusion(&error))?;
        let rows = frame.execute_stream().await.map_err(|error| of_datafusion(&error))?;
        Ok((schema, rows.map(|batch| batch.map_err(|error| of_datafusion(&error))).boxed()))
    }

    async fn plan(&self, sql: &str) -> PgWireResult<LogicalPlan> {
        let sql = rewrite::without_array_queries(sql);
        let mut statements = self.parser.parse(&sql).map_err(|error| wire("42601", error.to_string(), None))?;
        let (Some(mut statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(wire("42601", "one statement is expected", None));
        };
        rewrite::rewrite(&mut statement);
        let state = self.context.state();
        state.statement_to_plan(Statement::Statement(Box::new(statement))).await.map_err(|error| of_datafusion(&error))
    }
}

/// The database: schemas as the lake has them now, and the system's.
#[derive(Clone)]
struct Database {
    service: Arc<dyn LakeService>,
    system: Arc<System>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Database")
    }
}

impl CatalogProvider for Database {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn schema_names(&self) -> Vec<String> {
        let mut names = tables::schemas(self.service.as_ref());
        names.push("pg_catalog".to_owned());
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == "pg_catalog" {
            return Some(Arc::clone(&self.system) as _);
        }
        let exists = tables::schemas(self.service.as_ref()).iter().any(|schema| schema == name);
        exists.then(|| Arc::new(LakeSchema { service: Arc::clone(&self.service), name: name.to_owned() }) as _)
    }
}

/// A schema of the lake.
struct LakeSchema {
    service: Arc<dyn LakeService>,
    name: String,
}

impl std::fmt::Debug for LakeSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LakeSchema").field(&self.name).finish()
    }
}

impl LakeSchema {
    fn full_name(&self, table: &str) -> String {
        format!("{}.{table}", self.name)
    }
}

#[async_trait]
impl SchemaProvider for LakeSchema {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn table_names(&self) -> Vec<String> {
        let relations = self.service.relations();
        relations
            .iter()
            .map(RelationStatus::parts)
            .filter(|(schema, _)| *schema == self.name)
            .map(|(_, name)| name.to_owned())
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let full_name = self.full_name(name);
        let Some(relation) = self.service.relations().into_iter().find(|relation| relation.full_name() == full_name) else {
            return Ok(None);
        };
        let (session, _) = self.service.session().await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        match session.table_provider(TableReference::partial(self.name.clone(), name.to_owned())).await {
            Ok(table) => Ok(Some(table)),
            // Its rows are not kept: the catalog still knows its columns.
            Err(_) => Ok(Some(Arc::new(EmptyTable::new(relation.schema)))),
        }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        let full_name = self.full_name(name);
        let relation = self.service.relations().into_iter().find(|relation| relation.full_name() == full_name);
        Ok(relation.map(|relation| match relation.kind {
            RelationKind::View | RelationKind::MaterializedView => TableType::View,
            _ => TableType::Base,
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        let full_name = self.full_name(name);
        self.service.relations().iter().any(|relation| relation.full_name() == full_name)
    }
}

/// `pg_catalog`: what lists relations is made here, the rest never changes.
struct System {
    fixed: Arc<dyn SchemaProvider>,
    service: Arc<dyn LakeService>,
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("System")
    }
}

#[async_trait]
impl SchemaProvider for System {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn table_names(&self) -> Vec<String> {
        self.fixed.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let name = name.to_ascii_lowercase();
        match tables::table(&name, self.service.as_ref())? {
            Some(table) => Ok(Some(table)),
            None => self.fixed.table(&name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.fixed.table_exist(name)
    }
}
