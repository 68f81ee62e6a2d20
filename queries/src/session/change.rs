//! INSERT, UPDATE and DELETE: which rows come and go, as plans to be run at one timestamp. Whoever owns the tables applies them.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DataFusionStatement;
use datafusion::sql::sqlparser::ast::{
    self, AssignmentTarget, ConflictTarget, ExprWithAlias, FromTable, ObjectName, OnConflictAction, OnInsert, SelectItem,
    TableFactor, TableObject,
};

use crate::catalog::{Catalog, Relation};
use crate::error::{Position, SqlError, SqlErrorKind};
use crate::name::{RelationName, fold};
use crate::plan::{explain_error, resolve_subqueries, rewrite};
use crate::statement::{RelationKind, StatementKind};

/// A planned INSERT, UPDATE or DELETE.
#[derive(Debug)]
pub struct Change {
    /// The table.
    pub table: Arc<Relation>,
    /// What is done with the rows.
    pub kind: ChangeKind,
    /// The rows: for INSERT the new ones and for DELETE the old ones, with the table's columns; for UPDATE the old one's columns,
    /// then the new one's. Parameters (`$1`) are replaced by [`LogicalPlan::with_param_values`].
    pub rows: LogicalPlan,
    /// What `RETURNING` answers with.
    pub returning: Option<Returning>,
}

/// What a change does.
#[derive(Debug)]
pub enum ChangeKind {
    /// Adds rows.
    Insert(Conflict),
    /// Replaces rows.
    Update,
    /// Takes rows away.
    Delete,
}

/// What happens to an inserted row whose key is there already.
#[derive(Debug)]
pub enum Conflict {
    /// The statement fails (PostgreSQL's 23505).
    Fail,
    /// The row is left out.
    DoNothing,
    /// The row that is there is replaced.
    DoUpdate {
        /// Its new columns, over the columns of the row that is there followed by those of the row that was to be inserted.
        columns: Vec<Arc<dyn PhysicalExpr>>,
        /// Over the same columns: only where it is true.
        condition: Option<Arc<dyn PhysicalExpr>>,
    },
}

/// `RETURNING`.
#[derive(Debug)]
pub struct Returning {
    /// Names and types.
    pub schema: SchemaRef,
    /// Over the table's columns of the row as it is afterwards (DELETE: as it was).
    pub columns: Vec<Arc<dyn PhysicalExpr>>,
}

/// Plans INSERT, UPDATE and DELETE in a context made by [`super::context`].
///
/// # Errors
/// If it does not plan, or the relation is not a table.
pub async fn change(
    context: &SessionContext,
    catalog: &Catalog,
    statement: &StatementKind,
    position: &Position,
) -> Result<Change, SqlError> {
    let state = context.state();
    let planned = match statement {
        StatementKind::Insert(insert) => insert_rows(&state, catalog, insert, position).await,
        StatementKind::Update(update) => update_rows(&state, catalog, update, position).await,
        StatementKind::Delete(delete) => delete_rows(&state, catalog, delete, position).await,
        _ => Err(DataFusionError::Internal("only INSERT, UPDATE and DELETE change rows".into())),
    };
    planned.map_err(|error| explain_error(catalog, &error, position))
}

fn table(catalog: &Catalog, name: &ObjectName, position: &Position) -> Result<Arc<Relation>> {
    let name = RelationName::from_ast(name, position)?;
    let relation = catalog.expect(&name, position)?;
    if relation.kind != RelationKind::Table {
        let message = format!("{name} is a {}: only tables can be written to", relation.kind);
        return Err(SqlError::new(SqlErrorKind::Invalid, position.clone(), message).into());
    }
    Ok(Arc::clone(relation))
}

fn unsupported(position: &Position, what: &str) -> DataFusionError {
    SqlError::new(SqlErrorKind::Unsupported, position.clone(), format!("{what} is not supported")).into()
}

async fn dml_input(state: &SessionState, catalog: &Catalog, mut statement: ast::Statement) -> Result<LogicalPlan> {
    rewrite(catalog, &mut statement)?;
    let plan = state.statement_to_plan(DataFusionStatement::Statement(Box::new(statement))).await?;
    match plan {
        LogicalPlan::Dml(dml) => resolve_subqueries(Arc::unwrap_or_clone(dml.input)),
        other => Err(DataFusionError::Internal(format!("not a change: {}", other.display()))),
    }
}

async fn insert_rows(state: &SessionState, catalog: &Catalog, insert: &ast::Insert, position: &Position) -> Result<Change> {
    let TableObject::TableName(name) = &insert.table else { return Err(unsupported(position, "INSERT INTO a function")) };
    let table = table(catalog, name, position)?;
    let mut plain = insert.clone();
    let (on, returning) = (plain.on.take(), plain.returning.take());
    let conflict = match &on {
        None => Conflict::Fail,
        Some(OnInsert::OnConflict(on)) => conflict(state, &table, on, position)?,
        Some(_) => return Err(unsupported(position, "ON DUPLICATE KEY")),
    };
    let returning = returning.map(|items| returned(state, &table, &items, position)).transpose()?;
    let rows = dml_input(state, catalog, ast::Statement::Insert(plain)).await?;
    Ok(Change { table, kind: ChangeKind::Insert(conflict), rows, returning })
}

async fn update_rows(state: &SessionState, catalog: &Catalog, update: &ast::Update, position: &Position) -> Result<Change> {
    let TableFactor::Table { name, .. } = &update.table.relation else { return Err(unsupported(position, "UPDATE of this")) };
    let table = table(catalog, name, position)?;
    let mut plain = update.clone();
    for assignment in &mut plain.assignments {
        if let AssignmentTarget::ColumnName(name) = &mut assignment.target {
            *name = ObjectName::from(name.0.iter().filter_map(|part| part.as_ident()).map(folded).collect::<Vec<_>>());
        }
    }
    let returning = plain.returning.take().map(|items| returned(state, &table, &items, position)).transpose()?;
    let LogicalPlan::Projection(new) = dml_input(state, catalog, ast::Statement::Update(plain)).await? else {
        return Err(DataFusionError::Internal("an update computes the new rows".into()));
    };
    // The old rows are needed, too: a changed key takes the row away from its old place.
    let old = new.input.schema().iter().map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field))));
    let old = old.zip(table.schema.fields()).map(|(column, field)| column.alias(format!("old.{}", field.name())));
    let rows =
        LogicalPlanBuilder::from(Arc::unwrap_or_clone(Arc::clone(&new.input))).project(old.chain(new.expr.clone()))?.build()?;
    Ok(Change { table, kind: ChangeKind::Update, rows, returning })
}

async fn delete_rows(state: &SessionState, catalog: &Catalog, delete: &ast::Delete, position: &Position) -> Result<Change> {
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let Some(TableFactor::Table { name, .. }) = from.first().map(|from| &from.relation) else {
        return Err(unsupported(position, "DELETE from this"));
    };
    let table = table(catalog, name, position)?;
    let mut plain = delete.clone();
    let returning = plain.returning.take().map(|items| returned(state, &table, &items, position)).transpose()?;
    let rows = dml_input(state, catalog, ast::Statement::Delete(plain)).await?;
    Ok(Change { table, kind: ChangeKind::Delete, rows, returning })
}

fn folded(ident: &ast::Ident) -> ast::Ident {
    ast::Ident { value: fold(ident), quote_style: Some('"'), span: ident.span }
}

fn conflict(state: &SessionState, table: &Relation, on: &ast::OnConflict, position: &Position) -> Result<Conflict> {
    if let Some(ConflictTarget::Columns(columns)) = &on.conflict_target {
        let mut named: Vec<String> = columns.iter().map(fold).collect();
        let mut key: Vec<&str> = table.key_names();
        named.sort_unstable();
        key.sort_unstable();
        if named != key {
            let message = format!("there is no unique constraint on ({})", named.join(", "));
            return Err(SqlError::new(SqlErrorKind::Invalid, position.clone(), message)
                .with_hint(format!("the primary key is ({})", table.key_names().join(", ")))
                .into());
        }
    }
    let update = match &on.action {
        OnConflictAction::DoNothing => return Ok(Conflict::DoNothing),
        OnConflictAction::DoUpdate(update) => update,
    };
    let there = DFSchema::try_from_qualified_schema(TableReference::bare(table.name.name.as_str()), &table.schema)?;
    let excluded = DFSchema::try_from_qualified_schema(TableReference::bare("excluded"), &table.schema)?;
    let schema = there.join(&excluded)?;
    let mut columns: Vec<Expr> = there.iter().map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field)))).collect();
    for assignment in &update.assignments {
        let AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(unsupported(position, "assigning several columns at once"));
        };
        let name = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
        let Ok(index) = table.schema.index_of(&name) else {
            let names: Vec<&str> = table.schema.fields().iter().map(|field| field.name().as_str()).collect();
            let hint = crate::error::nearest(&name, names).map(|near| format!("did you mean {near}?"));
            return Err(SqlError::new(SqlErrorKind::UnknownColumn, position.clone(), format!("column {name} does not exist"))
                .with_optional_hint(hint)
                .into());
        };
        columns[index] = logical(state, &assignment.value, &schema)?;
    }
    let columns = columns.into_iter().zip(table.schema.fields()).map(|(column, field)| {
        let column = column.cast_to(field.data_type(), &schema)?;
        physical(column, &schema)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let condition =
        update.selection.as_ref().map(|condition| physical(logical(state, condition, &schema)?, &schema)).transpose()?;
    Ok(Conflict::DoUpdate { columns, condition })
}

fn returned(state: &SessionState, table: &Relation, items: &[SelectItem], position: &Position) -> Result<Returning> {
    let schema = DFSchema::try_from_qualified_schema(TableReference::bare(table.name.name.as_str()), &table.schema)?;
    let mut fields: Vec<Field> = Vec::new();
    let mut columns = Vec::new();
    for item in items {
        let (expr, alias) = match item {
            SelectItem::Wildcard(_) => {
                for (qualifier, field) in schema.iter() {
                    fields.push(field.as_ref().clone());
                    columns.push(physical(Expr::Column(Column::from((qualifier, field))), &schema)?);
                }
                continue;
            }
            SelectItem::UnnamedExpr(expr) => (expr, None),
            SelectItem::ExprWithAlias { expr, alias } => (expr, Some(fold(alias))),
            _ => return Err(unsupported(position, &format!("RETURNING {item}"))),
        };
        let column = logical(state, expr, &schema)?;
        let name = alias.unwrap_or_else(|| match &column {
            Expr::Column(column) => column.name.clone(),
            other => other.schema_name().to_string(),
        });
        let column = physical(column, &schema)?;
        fields.push(Field::new(name, column.data_type(schema.as_arrow())?, true));
        columns.push(column);
    }
    Ok(Returning { schema: Arc::new(Schema::new(fields)), columns })
}

fn logical(state: &SessionState, expr: &ast::Expr, schema: &DFSchema) -> Result<Expr> {
    state.create_logical_expr_from_sql_expr(ExprWithAlias { expr: expr.clone(), alias: None }, schema)
}

fn physical(expr: Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let context = SimplifyContext::default().with_schema(Arc::new(schema.clone()));
    let expr = ExprSimplifier::new(context).coerce(expr, schema)?;
    create_physical_expr(&expr, schema, &ExecutionProps::new())
}
