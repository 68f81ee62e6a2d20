//! The catalog as DataFusion sees it: one catalog `iceberg`, its schemas, and relations as table providers.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::datasource::{DefaultTableSource, ViewTable};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableSource, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::catalog::{Catalog, Detail, Relation};
use crate::name::RelationName;
use crate::plan;
use crate::session::{Mode, RelationScan, seekable_equality, seeked, state};
use crate::statement::RelationKind;

/// Added to a source's name, it names the same source with its hidden columns shown. It cannot be part of a plain name.
pub(crate) const HIDDEN_SUFFIX: &str = "$hidden";

/// One schema of the lake.
pub(crate) struct LakeSchema {
    schema: String,
    catalog: Arc<Catalog>,
    mode: Mode,
}

impl LakeSchema {
    pub(crate) fn new(schema: String, catalog: Arc<Catalog>, mode: Mode) -> LakeSchema {
        LakeSchema { schema, catalog, mode }
    }

    fn relation(&self, name: &str) -> Option<(&Arc<Relation>, bool)> {
        let (name, hidden) = match name.strip_suffix(HIDDEN_SUFFIX) {
            Some(name) => (name, true),
            None => (name, false),
        };
        self.catalog.get(&RelationName::new(self.schema.as_str(), name)).map(|relation| (relation, hidden))
    }

    fn is_asked(&self, relation: &Relation) -> bool {
        relation.name.schema == self.schema && !matches!(relation.kind, RelationKind::Sink | RelationKind::Index)
    }
}

impl fmt::Debug for LakeSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeSchema").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for LakeSchema {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn table_names(&self) -> Vec<String> {
        let here = self.catalog.iter().filter(|relation| self.is_asked(relation));
        here.map(|relation| relation.name.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some((relation, hidden)) = self.relation(name) else { return Ok(None) };
        let recompute = matches!(&self.mode, Mode::Read(answer) if answer.recompute);
        if let Detail::View(view) = &relation.detail
            && (recompute || relation.kind == RelationKind::View)
        {
            let state = state(&self.catalog, &self.mode);
            let logical = plan::logical(&self.catalog, &state, &view.query).await?;
            let logical: LogicalPlan = plan::conform(&state, logical, &view.columns)?;
            return Ok(Some(Arc::new(ViewTable::new(logical, Some(relation.sql.clone())))));
        }
        Ok(Some(Arc::new(RelationProvider::new(
            Arc::clone(relation),
            self.catalog.indexes(relation.id),
            hidden,
            self.mode.clone(),
        )?)))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.relation(name).map(|(relation, _)| table_type(relation)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.relation(name).is_some()
    }
}

/// A relation with rows of its own.
pub(crate) struct RelationProvider {
    pub(crate) relation: Arc<Relation>,
    indexes: Vec<Arc<Relation>>,
    schema: SchemaRef,
    defaults: HashMap<String, Expr>,
    mode: Mode,
}

impl RelationProvider {
    fn new(relation: Arc<Relation>, indexes: Vec<Arc<Relation>>, hidden: bool, mode: Mode) -> Result<RelationProvider> {
        let schema = if hidden { Arc::clone(&relation.schema) } else { relation.visible_schema() };
        let defaults = match (&relation.detail, &mode) {
            (Detail::Table { columns }, Mode::Read(_)) => plan::default_values(columns)?,
            _ => HashMap::new(),
        };
        Ok(RelationProvider { relation, indexes, schema, defaults, mode })
    }
}

impl fmt::Debug for RelationProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelationProvider").field("relation", &self.relation.name).finish_non_exhaustive()
    }
}

/// The relation that a scan reads, if it is one of ours.
pub(crate) fn relation_of(source: &Arc<dyn TableSource>) -> Option<Arc<Relation>> {
    provider_of(source).map(|provider| Arc::clone(&provider.relation))
}

/// The indexes that the relation of a scan had when the query was planned.
pub(crate) fn indexes_of(source: &Arc<dyn TableSource>) -> &[Arc<Relation>] {
    provider_of(source).map_or(&[], |provider| &provider.indexes)
}

fn provider_of(source: &Arc<dyn TableSource>) -> Option<&RelationProvider> {
    let source = source.as_any().downcast_ref::<DefaultTableSource>()?;
    source.table_provider.as_any().downcast_ref::<RelationProvider>()
}

fn table_type(relation: &Relation) -> TableType {
    if relation.kind == RelationKind::View { TableType::View } else { TableType::Base }
}

#[async_trait]
impl TableProvider for RelationProvider {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        table_type(&self.relation)
    }

    fn get_table_definition(&self) -> Option<&str> {
        Some(&self.relation.sql)
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.get(column)
    }

    /// Equalities on the key, or an index's columns, become a seek when they cover it; they stay in the plan as filters either way.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let seeks = |filter: &Expr| {
            std::iter::once(&self.relation).chain(&self.indexes).any(|relation| seekable_equality(filter, relation).is_some())
        };
        let pushed = |filter: &&Expr| match &self.mode {
            Mode::Read(_) if seeks(filter) => TableProviderFilterPushDown::Inexact,
            _ => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match &self.mode {
            Mode::Maintain => Err(DataFusionError::Plan(format!("{} has no rows while planning", self.relation.name))),
            Mode::Read(answer) => {
                let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
                let relation = seeked(&self.relation, &self.indexes, filters)?.unwrap_or(&self.relation);
                RelationScan::plan(Arc::clone(relation), answer.clone(), projection, filters, limit)
            }
        }
    }
}
