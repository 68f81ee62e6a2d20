//! Filters and projections, fused: a run of them is one operator.

use std::sync::Arc;

use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::DFSchemaRef;
use datafusion::common::ScalarValue;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};
use livelake_dataflow::plan::Plan;

type Physical = Arc<dyn PhysicalExpr>;

/// The names of a logical schema's columns.
pub(super) fn names(schema: &DFSchemaRef) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

/// The names of a plan's columns.
pub(super) fn plan_names(plan: &Plan) -> Vec<String> {
    plan.schema().fields().iter().map(|field| field.name().clone()).collect()
}

/// All columns of a plan as they are.
pub(super) fn identity(plan: &Plan) -> Vec<Physical> {
    columns(plan, 0..plan.schema().fields().len())
}

/// Some columns of a plan.
pub(super) fn columns(plan: &Plan, indices: impl IntoIterator<Item = usize>) -> Vec<Physical> {
    let schema = plan.schema();
    indices.into_iter().map(|index| Arc::new(Column::new(schema.field(index).name(), index)) as Physical).collect()
}

/// Filters, then projects. Fuses with a map below unless an expression there would be computed twice; computes constants now;
/// does nothing if there is nothing to do (names of columns matter only at the top: see [`named`]).
pub(super) fn map(input: Plan, mut predicates: Vec<Physical>, mut projection: Vec<Physical>, names: &[String]) -> Result<Plan> {
    let mut names = names.to_vec();
    if projection.is_empty() {
        // A batch without columns has no place for how many rows it has.
        projection.push(Arc::new(Literal::new(ScalarValue::Boolean(Some(true)))));
        names.push("_".to_string());
    }
    names.truncate(projection.len());
    if predicates.is_empty() && is_identity(&projection, input.schema().fields().len()) {
        return Ok(input);
    }
    match input {
        Plan::Constant { rows } => Ok(Plan::Constant { rows: evaluate(&rows, &predicates, &projection, &names)? }),
        Plan::Map { input, predicates: earlier, projection: inner, schema } => {
            if !fusible(&inner, predicates.iter().chain(&projection)) {
                return finish(
                    Plan::Map { input, predicates: earlier, projection: inner, schema },
                    predicates,
                    projection,
                    &names,
                );
            }
            let substitute = |expr: Physical| substitute(expr, &inner);
            predicates = predicates.into_iter().map(substitute).collect::<Result<_>>()?;
            projection = projection.into_iter().map(substitute).collect::<Result<_>>()?;
            let predicates = earlier.into_iter().chain(predicates).collect();
            finish(*input, predicates, projection, &names)
        }
        input => finish(input, predicates, projection, &names),
    }
}

/// The plan with exactly these names and types of columns.
pub(super) fn named(plan: Plan, schema: &SchemaRef) -> Result<Plan> {
    let plan = typed(plan, schema)?;
    if same_names(&plan.schema(), schema) {
        return Ok(plan);
    }
    match plan {
        Plan::Map { input, predicates, projection, .. } => {
            Ok(Plan::Map { input, predicates, projection, schema: Arc::clone(schema) })
        }
        Plan::Constant { rows } => {
            Ok(Plan::Constant { rows: RecordBatch::try_new(Arc::clone(schema), rows.columns().to_vec())? })
        }
        plan => {
            let projection = identity(&plan);
            Ok(Plan::Map { input: Box::new(plan), predicates: Vec::new(), projection, schema: Arc::clone(schema) })
        }
    }
}

/// The plan with these types of columns; superfluous columns at the end are dropped.
pub(super) fn typed(plan: Plan, schema: &SchemaRef) -> Result<Plan> {
    let have = plan.schema();
    let projection = columns(&plan, 0..schema.fields().len()).into_iter().zip(schema.fields()).enumerate();
    let projection =
        projection.map(
            |(index, (column, field))| {
                if have.field(index).data_type() == field.data_type() { column } else { cast(column, field.data_type()) }
            },
        );
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    map(plan, Vec::new(), projection.collect(), &names)
}

/// An expression as another type.
pub(super) fn cast(expr: Physical, to: &arrow::datatypes::DataType) -> Physical {
    Arc::new(CastExpr::new(expr, to.clone(), None))
}

/// Arithmetic that fails where a result does not fit, as PostgreSQL's does: DataFusion's wraps around unless told.
pub(crate) fn checked(expr: Physical) -> Transformed<Physical> {
    match expr.as_any().downcast_ref::<BinaryExpr>() {
        Some(binary) if matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) => {
            Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)))
        }
        _ => Transformed::no(expr),
    }
}

/// Replaces the columns of an expression by what they are computed from.
pub(super) fn substitute(expr: Physical, columns: &[Physical]) -> Result<Physical> {
    expr.transform_up(|node| match node.as_any().downcast_ref::<Column>() {
        Some(column) => match columns.get(column.index()) {
            Some(replacement) => Ok(Transformed::yes(Arc::clone(replacement))),
            None => Err(DataFusionError::Internal(format!("column {} does not exist", column.index()))),
        },
        None => Ok(Transformed::no(node)),
    })
    .data()
}

/// Whether two expressions over the same rows are the same; columns are, whatever they are called.
pub(super) fn same(a: &Physical, b: &Physical) -> bool {
    match (column_index(a), column_index(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a.eq(b),
    }
}

/// The column that an expression is, if it is just that.
pub(super) fn column_index(expr: &Physical) -> Option<usize> {
    expr.as_any().downcast_ref::<Column>().map(Column::index)
}

fn finish(input: Plan, predicates: Vec<Physical>, projection: Vec<Physical>, names: &[String]) -> Result<Plan> {
    if predicates.is_empty() && is_identity(&projection, input.schema().fields().len()) {
        return Ok(input);
    }
    let schema = output_schema(&input.schema(), &projection, names)?;
    Ok(Plan::Map { input: Box::new(input), predicates, projection, schema })
}

fn output_schema(input: &SchemaRef, projection: &[Physical], names: &[String]) -> Result<SchemaRef> {
    let fields = projection.iter().zip(names).map(|(expr, name)| Ok(Field::new(name, expr.data_type(input)?, true)));
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

fn is_identity(projection: &[Physical], width: usize) -> bool {
    projection.len() == width && projection.iter().enumerate().all(|(index, expr)| column_index(expr) == Some(index))
}

fn same_names(a: &Schema, b: &Schema) -> bool {
    a.fields().iter().map(|field| field.name()).eq(b.fields().iter().map(|field| field.name()))
}

/// Whether computing the inner expressions inside of the outer ones computes none of them twice.
fn fusible<'a>(inner: &[Physical], outer: impl Iterator<Item = &'a Physical>) -> bool {
    let mut uses = vec![0_usize; inner.len()];
    for expr in outer {
        let counted = expr.apply(|node| {
            if let Some(column) = node.as_any().downcast_ref::<Column>()
                && let Some(count) = uses.get_mut(column.index())
            {
                *count += 1;
            }
            Ok(TreeNodeRecursion::Continue)
        });
        if counted.is_err() {
            return false;
        }
    }
    let free = |expr: &Physical| column_index(expr).is_some() || expr.as_any().is::<Literal>();
    inner.iter().zip(uses).all(|(expr, uses)| uses <= 1 || free(expr))
}

fn evaluate(rows: &RecordBatch, predicates: &[Physical], projection: &[Physical], names: &[String]) -> Result<RecordBatch> {
    let mut rows = rows.clone();
    for predicate in predicates {
        let kept = predicate.evaluate(&rows)?.into_array(rows.num_rows())?;
        rows = filter_record_batch(&rows, as_boolean_array(&kept)?)?;
    }
    let schema = output_schema(&rows.schema(), projection, names)?;
    let columns = projection.iter().map(|expr| expr.evaluate(&rows)?.into_array(rows.num_rows())).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}
