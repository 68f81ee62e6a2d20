//! A relation in a physical plan: it is read when the query runs, not while it is planned.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{StreamExt, TryStreamExt, stream};

use super::{Answer, ReadRequest};
use crate::catalog::Relation;

/// One read of a relation.
pub(crate) struct RelationScan {
    relation: Arc<Relation>,
    answer: Answer,
    request: ReadRequest,
    schema: SchemaRef,
}

impl RelationScan {
    pub(crate) fn plan(
        relation: Arc<Relation>,
        answer: Answer,
        projection: Vec<usize>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = Arc::new(relation.schema.project(&projection)?);
        let key = key_row(&relation, filters)?;
        let request = ReadRequest { projection, key, limit, filters: filters.to_vec() };
        let scan = RelationScan { relation, answer, request, schema: Arc::clone(&schema) };
        let exec = StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, Vec::new(), false, limit)?;
        Ok(Arc::new(exec))
    }
}

impl fmt::Debug for RelationScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelationScan")
            .field("relation", &self.relation.name.to_string())
            .field("as_of", &self.answer.as_of)
            .field("seek", &self.request.key.is_some())
            .finish_non_exhaustive()
    }
}

impl PartitionStream for RelationScan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let Answer { reader, as_of, .. } = self.answer.clone();
        let (id, request, schema) = (self.relation.id, self.request.clone(), Arc::clone(&self.schema));
        let read = async move { reader.read(id, as_of, request).await };
        let batches = stream::once(read).map_ok(|batches| stream::iter(batches.into_iter().map(Ok))).try_flatten();
        // The reader may say more about nulls than the catalog, or less; the plan was made with the catalog's schema.
        let conformed = batches.map(move |batch: Result<RecordBatch>| {
            let batch = batch?;
            if batch.schema_ref() == &schema {
                return Ok(batch);
            }
            let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&schema), batch.columns().to_vec(), &options)?)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), conformed))
    }
}

/// The relation itself, or else the first index of it, whose columns the filters fix; `None`: all its rows are looked at.
pub(crate) fn seeked<'a>(
    relation: &'a Arc<Relation>,
    indexes: &'a [Arc<Relation>],
    filters: &[Expr],
) -> Result<Option<&'a Arc<Relation>>> {
    for by in std::iter::once(relation).chain(indexes) {
        if key_row(by, filters)?.is_some() {
            return Ok(Some(by));
        }
    }
    Ok(None)
}

/// `key column = constant`: the column's index and the constant.
pub(crate) fn seekable_equality(filter: &Expr, relation: &Relation) -> Option<(usize, ScalarValue)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else { return None };
    let (column, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column)) => (column, value),
        _ => return None,
    };
    let index = relation.schema.index_of(&column.name).ok()?;
    (relation.key.contains(&index) && !value.is_null()).then(|| (index, value.clone()))
}

/// The key to seek, if the filters fix all of its columns.
fn key_row(relation: &Relation, filters: &[Expr]) -> Result<Option<RecordBatch>> {
    let equalities: Vec<(usize, ScalarValue)> = filters.iter().filter_map(|filter| seekable_equality(filter, relation)).collect();
    let mut columns = Vec::with_capacity(relation.key.len());
    let mut fields = Vec::with_capacity(relation.key.len());
    for key in &relation.key {
        let Some((_, value)) = equalities.iter().find(|(index, _)| index == key) else { return Ok(None) };
        let field = relation.schema.field(*key);
        if value.data_type() != *field.data_type() {
            return Ok(None);
        }
        columns.push(value.to_array()?);
        fields.push(field.clone());
    }
    if columns.is_empty() {
        return Ok(None);
    }
    Ok(Some(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?))
}
