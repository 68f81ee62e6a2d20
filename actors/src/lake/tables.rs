//! Tables: INSERT, UPDATE, DELETE and COPY as rows for the engine, durable when the statement is answered.
//!
//! A statement's rows are computed at the newest timestamp, one statement at a time, pushed, made visible by a tick and committed with
//! an epoch before the answer: what was acknowledged survives anything.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::DataFrame;
use futures::StreamExt;
use hashbrown::{HashMap, HashSet};
use livelake_dataflow::protocol::{InputBatch, Op, PeekRequest};
use livelake_dataflow::rows::RowCodec;
use livelake_queries::Position;
use livelake_queries::catalog::Relation;
use livelake_queries::plan::check_expressions;
use livelake_queries::session::{Change, ChangeKind, Conflict, change};
use livelake_queries::statement::StatementKind;

use crate::lake::Lake;
use crate::lake::failure::internal;
use crate::lake::reader::peek;
use crate::service::{Answer, LakeError};

/// Rows to take away and rows to put in.
struct Edit {
    old: Option<RecordBatch>,
    new: Option<RecordBatch>,
    count: usize,
}

fn duplicate(table: &Relation) -> LakeError {
    LakeError {
        code: "duplicate_key",
        sqlstate: "23505",
        http_status: 409,
        message: format!("duplicate key value violates the primary key of {}", table.name),
        hint: Some(format!("the key is ({}); ON CONFLICT says what to do about it", table.key_names().join(", "))),
    }
}

/// The rows with the table's column types; NULL where NOT NULL was said is an error.
fn conform(table: &Relation, rows: &RecordBatch) -> Result<RecordBatch, LakeError> {
    let schema: SchemaRef = table.visible_schema();
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (column, field) in rows.columns().iter().zip(schema.fields()) {
        let column = cast(column, field.data_type()).map_err(|error| LakeError {
            code: "invalid_value",
            sqlstate: "22000",
            http_status: 400,
            message: format!("column {} of {}: {error}", field.name(), table.name),
            hint: None,
        })?;
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(LakeError {
                code: "null_value",
                sqlstate: "23502",
                http_status: 400,
                message: format!("null value in column {} of {} violates NOT NULL", field.name(), table.name),
                hint: None,
            });
        }
        columns.push(column);
    }
    RecordBatch::try_new(schema, columns).map_err(internal)
}

/// Refuses rows for which a CHECK of the table's is false; NULL is fine.
fn check(table: &Relation, rows: &RecordBatch) -> Result<(), LakeError> {
    for check in check_expressions(table)? {
        let holds = check.condition.evaluate(rows)?.into_array(rows.num_rows())?;
        let holds = arrow::array::AsArray::as_boolean(&holds);
        if (0..holds.len()).any(|row| holds.is_valid(row) && !holds.value(row)) {
            return Err(LakeError {
                code: "check_violation",
                sqlstate: "23514",
                http_status: 400,
                message: format!("new row for relation \"{}\" violates check constraint \"{}\"", table.name, check.name),
                hint: Some(format!("SHOW CREATE {} shows the condition; nothing of the statement was done", table.name)),
            });
        }
    }
    Ok(())
}

impl Lake {
    /// Runs INSERT, UPDATE or DELETE.
    ///
    /// # Errors
    /// It does not plan, a value does not fit, or a key is there already.
    pub async fn change(
        &self,
        statement: &StatementKind,
        position: &Position,
        parameters: Vec<ScalarValue>,
    ) -> Result<Answer, LakeError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let as_of = self.flush().await?;
        let context = self.session_at(as_of);
        let planned = change(&context, &self.definitions().catalog, statement, position).await?;
        let mut rows = DataFrame::new(context.state(), planned.rows.clone());
        if !parameters.is_empty() {
            rows = rows.with_param_values(ParamValues::from(parameters))?;
        }
        let batches = rows.collect().await?;
        let edit = match batches.first() {
            None => Edit { old: None, new: None, count: 0 },
            Some(first) => {
                let rows = concat_batches(&first.schema(), &batches).map_err(internal)?;
                self.edit(&planned, &rows, as_of).await?
            }
        };
        self.apply(&planned.table, &edit).await?;
        let returning = match (&planned.returning, edit.new.as_ref().or(edit.old.as_ref())) {
            (Some(returning), Some(rows)) => {
                let columns = returning.columns.iter().map(|column| column.evaluate(rows)?.into_array(rows.num_rows()));
                let columns = columns.collect::<Result<Vec<_>, _>>()?;
                vec![Ok(RecordBatch::try_new(Arc::clone(&returning.schema), columns).map_err(internal)?)]
            }
            _ => Vec::new(),
        };
        let tag = match planned.kind {
            ChangeKind::Insert(_) => format!("INSERT 0 {}", edit.count),
            ChangeKind::Update => format!("UPDATE {}", edit.count),
            ChangeKind::Delete => format!("DELETE {}", edit.count),
        };
        let schema = planned.returning.map_or_else(|| Arc::new(arrow::datatypes::Schema::empty()), |returning| returning.schema);
        Ok(Answer { schema, as_of: self.newest(), rows: futures::stream::iter(returning).boxed(), tag })
    }

    /// Inserts rows given by column names (COPY).
    ///
    /// # Errors
    /// As for INSERT.
    pub async fn insert_rows(&self, table: &Relation, rows: &RecordBatch) -> Result<u64, LakeError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let as_of = self.flush().await?;
        let rows = conform(table, rows)?;
        let fresh = self.resolve_conflicts(table, &Conflict::Fail, rows, as_of).await?;
        let count = fresh.count as u64;
        self.apply(table, &fresh).await?;
        Ok(count)
    }

    async fn edit(&self, planned: &Change, rows: &RecordBatch, as_of: u64) -> Result<Edit, LakeError> {
        let table = &planned.table;
        let width = table.visible;
        let count = rows.num_rows();
        Ok(match &planned.kind {
            ChangeKind::Insert(conflict) => self.resolve_conflicts(table, conflict, conform(table, rows)?, as_of).await?,
            ChangeKind::Update => {
                let part = |range: std::ops::Range<usize>| rows.project(&range.collect::<Vec<_>>()).map_err(internal);
                Edit { old: Some(conform(table, &part(0..width)?)?), new: Some(conform(table, &part(width..2 * width)?)?), count }
            }
            ChangeKind::Delete => Edit { old: Some(conform(table, rows)?), new: None, count },
        })
    }

    /// What an INSERT comes to, given the keys that are there.
    async fn resolve_conflicts(
        &self,
        table: &Relation,
        conflict: &Conflict,
        rows: RecordBatch,
        as_of: u64,
    ) -> Result<Edit, LakeError> {
        if table.key.is_empty() {
            let count = rows.num_rows();
            return Ok(Edit { old: None, new: Some(rows), count });
        }
        let codec = RowCodec::new(&rows.schema(), &table.key).map_err(internal)?;
        let new_keys = codec.encode(rows.columns(), rows.num_rows()).map_err(internal)?;
        let mut seen = HashSet::new();
        let first: BooleanArray = (0..rows.num_rows()).map(|row| Some(seen.insert(new_keys.get(row).to_vec()))).collect();
        if first.true_count() < rows.num_rows() && !matches!(conflict, Conflict::DoNothing) {
            return Err(duplicate(table));
        }
        let request = PeekRequest { id: table.id, as_of, key: None, limit: None, projection: None };
        let existing = peek(self.engine(), request).await?;
        let mut there: HashMap<Vec<u8>, (usize, usize)> = HashMap::new();
        for (at, batch) in existing.iter().enumerate() {
            let keys = codec.encode(batch.columns(), batch.num_rows()).map_err(internal)?;
            for row in (0..batch.num_rows()).filter(|row| seen.contains(keys.get(*row))) {
                there.insert(keys.get(row).to_vec(), (at, row));
            }
        }
        let taken = |row: usize| there.get(new_keys.get(row));
        if there.is_empty() || matches!(conflict, Conflict::DoNothing) {
            let keep: BooleanArray = (0..rows.num_rows()).map(|row| Some(first.value(row) && taken(row).is_none())).collect();
            let new = filter_record_batch(&rows, &keep).map_err(internal)?;
            let count = new.num_rows();
            return Ok(Edit { old: None, new: Some(new), count });
        }
        let Conflict::DoUpdate { columns, condition } = conflict else { return Err(duplicate(table)) };
        let mut parts = Vec::new();
        for row in 0..rows.num_rows() {
            let fresh = rows.slice(row, 1);
            match taken(row) {
                None => parts.push(fresh),
                Some((batch, at)) => {
                    parts.extend(updated(table, &existing[*batch].slice(*at, 1), &fresh, columns, condition.as_ref())?)
                }
            }
        }
        let new = concat_batches(&rows.schema(), &parts).map_err(internal)?;
        let count = new.num_rows();
        Ok(Edit { old: None, new: Some(new), count })
    }

    /// Gives the engine an edit and waits until it is visible and durable.
    async fn apply(&self, table: &Relation, edit: &Edit) -> Result<(), LakeError> {
        if edit.count == 0 {
            return Ok(());
        }
        if let Some(new) = &edit.new {
            check(table, new)?;
        }
        let keyed = !table.key.is_empty();
        let (away, put) = if keyed { (Op::Delete, Op::Upsert) } else { (Op::Retract, Op::Insert) };
        for (rows, op) in [(&edit.old, away), (&edit.new, put)] {
            if let Some(rows) = rows {
                let ops = Some(vec![op as u8; rows.num_rows()]);
                self.engine().push(table.id, InputBatch::Rows { rows: rows.clone(), ops })?;
            }
        }
        self.flush().await?;
        self.commit().await.map_err(|error| LakeError {
            message: format!("the rows are visible, but not durable yet: {}", error.message),
            hint: Some("they go with the next epoch that can be committed; /health says when that is".to_owned()),
            ..error
        })?;
        Ok(())
    }
}

/// The row that ON CONFLICT DO UPDATE puts in place of the one that is there; nothing where its condition is not true.
fn updated(
    table: &Relation,
    old: &RecordBatch,
    new: &RecordBatch,
    columns: &[Arc<dyn PhysicalExpr>],
    condition: Option<&Arc<dyn PhysicalExpr>>,
) -> Result<Option<RecordBatch>, LakeError> {
    let fields: Vec<_> = old.schema().fields().iter().chain(new.schema().fields()).cloned().collect();
    let both = old.columns().iter().chain(new.columns()).cloned().collect();
    let both = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), both).map_err(internal)?;
    if let Some(condition) = condition {
        let holds = condition.evaluate(&both)?.into_array(1)?;
        let holds = arrow::array::AsArray::as_boolean_opt(&holds).is_some_and(|holds| holds.is_valid(0) && holds.value(0));
        if !holds {
            return Ok(None);
        }
    }
    let columns = columns.iter().map(|column| column.evaluate(&both)?.into_array(1)).collect::<Result<Vec<_>, _>>()?;
    let fields: Vec<_> = table.visible_schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let fields: Vec<_> =
        fields.into_iter().zip(&columns).map(|(field, column)| field.with_data_type(column.data_type().clone())).collect();
    let row = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns).map_err(internal)?;
    conform(table, &row).map(Some)
}
