//! Is a view right? Its query is computed again in batch, from the base relations, at one timestamp, and compared with its rows.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::{DataFrame, SessionContext};

use crate::catalog::{Catalog, Detail, Relation};
use crate::error::{Position, SqlError, SqlErrorKind};
use crate::plan::{conform, explain_error, logical};
use crate::session::{Answer, Mode, RelationReader, state};
use livelake_dataflow::plan::RelationId;

/// Floats that differ by no more than this part of the greater one are equal: sums in another order round differently.
const RELATIVE_TOLERANCE: f64 = 1e-9;
/// So are floats that both are this close to zero: what should be zero is rarely exactly that in batch.
const ABSOLUTE_TOLERANCE: f64 = 1e-12;

/// The rows that a view should have at a timestamp: its query over base relations (views it reads are computed again, too).
///
/// # Errors
/// If the relation is not a view, a base relation cannot be read at that timestamp, or the query fails.
pub async fn expected(
    catalog: &Arc<Catalog>,
    reader: Arc<dyn RelationReader>,
    as_of: u64,
    view: RelationId,
) -> Result<Vec<RecordBatch>, SqlError> {
    let relation: &Arc<Relation> = catalog
        .by_id(view)
        .ok_or_else(|| SqlError::new(SqlErrorKind::UnknownRelation, Position::default(), format!("{view} does not exist")))?;
    let Detail::View(detail) = &relation.detail else {
        let message = format!("{} is a {}: only views can be verified", relation.name, relation.kind);
        return Err(SqlError::new(SqlErrorKind::Invalid, Position::default(), message));
    };
    let answer = Answer { reader, as_of, recompute: true };
    let context = SessionContext::new_with_state(state(catalog, &Mode::Read(answer)));
    let run = async {
        let plan = logical(catalog, &context.state(), &detail.query).await?;
        let plan = conform(&context.state(), plan, &detail.columns)?;
        DataFrame::new(context.state(), plan).collect().await
    };
    run.await.map_err(|error| explain_error(catalog, &error, &relation.position))
}

/// A row that one side has and the other has not.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The row, alone in its batch.
    pub row: RecordBatch,
    /// Whether it should be there and is not; else it is there and should not be.
    pub missing: bool,
}

/// Compares rows as bags: floats are equal within 1e-9 of the greater one, and NaN equals NaN; all else exactly. The actual
/// columns are cast to the expected types.
///
/// # Errors
/// If the two have different numbers of columns or types that cannot be compared.
pub fn compare(schema: &SchemaRef, expected: &[RecordBatch], actual: &[RecordBatch]) -> Result<Vec<Difference>> {
    let expected = Side::new(schema, expected)?;
    let actual = Side::new(schema, actual)?;
    let (mut e, mut a) = (0, 0);
    let mut differences = Vec::new();
    while e < expected.order.len() || a < actual.order.len() {
        let ordering = match (expected.order.get(e), actual.order.get(a)) {
            (Some(left), Some(right)) => expected.compare(*left, &actual, *right),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match ordering {
            Ordering::Equal => (e, a) = (e + 1, a + 1),
            Ordering::Less => {
                differences.push(Difference { row: expected.rows.slice(expected.order[e], 1), missing: true });
                e += 1;
            }
            Ordering::Greater => {
                differences.push(Difference { row: actual.rows.slice(actual.order[a], 1), missing: false });
                a += 1;
            }
        }
    }
    Ok(differences)
}

/// One side's rows, sorted by what is compared exactly, then by the floats.
struct Side {
    rows: RecordBatch,
    exact: Vec<OwnedRow>,
    floats: Vec<Float64Array>,
    order: Vec<usize>,
}

impl Side {
    fn new(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Side> {
        let conformed = batches.iter().map(|batch| conformed(schema, batch)).collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(schema.as_ref().clone());
        let rows = concat_batches(&nullable(&schema), &conformed)?;
        let (mut exact, mut floats): (Vec<ArrayRef>, Vec<Float64Array>) = (Vec::new(), Vec::new());
        for column in rows.columns() {
            if matches!(column.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64) {
                floats.push(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone());
            } else {
                exact.push(Arc::clone(column));
            }
        }
        let exact = if exact.is_empty() {
            Vec::new()
        } else {
            let fields = exact.iter().map(|column| SortField::new(column.data_type().clone())).collect();
            let rows = RowConverter::new(fields)?.convert_columns(&exact)?;
            rows.iter().map(|row| row.owned()).collect()
        };
        let mut side = Side { order: (0..rows.num_rows()).collect(), rows, exact, floats };
        let mut order = std::mem::take(&mut side.order);
        order.sort_by(|a, b| side.exact_order(*a, &side, *b).then_with(|| side.float_order(*a, &side, *b, f64::total_cmp)));
        side.order = order;
        Ok(side)
    }

    fn exact_order(&self, row: usize, other: &Side, other_row: usize) -> Ordering {
        match (self.exact.get(row), other.exact.get(other_row)) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }

    fn float_order(&self, row: usize, other: &Side, other_row: usize, compare: impl Fn(&f64, &f64) -> Ordering) -> Ordering {
        let value = |column: &Float64Array, row: usize| arrow::array::Array::is_valid(column, row).then(|| column.value(row));
        for (a, b) in self.floats.iter().zip(&other.floats) {
            let ordering = match (value(a, row), value(b, other_row)) {
                (None, None) => Ordering::Equal,
                (None, Some(_)) => Ordering::Less,
                (Some(_), None) => Ordering::Greater,
                (Some(a), Some(b)) => compare(&a, &b),
            };
            if ordering != Ordering::Equal {
                return ordering;
            }
        }
        Ordering::Equal
    }

    fn compare(&self, row: usize, other: &Side, other_row: usize) -> Ordering {
        self.exact_order(row, other, other_row).then_with(|| self.float_order(row, other, other_row, near))
    }
}

/// The order of floats, with those that are near enough equal.
fn near(a: &f64, b: &f64) -> Ordering {
    let equal = (a.is_nan() && b.is_nan())
        || a == b
        || (a - b).abs() <= f64::max(RELATIVE_TOLERANCE * a.abs().max(b.abs()), ABSOLUTE_TOLERANCE);
    if equal && a.is_nan() == b.is_nan() { Ordering::Equal } else { a.total_cmp(b) }
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(arrow::datatypes::Schema::new(fields))
}

fn conformed(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    if batch.num_columns() != schema.fields().len() {
        let message = format!("there are {} columns, not {}", batch.num_columns(), schema.fields().len());
        return Err(DataFusionError::Execution(message));
    }
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    Ok(RecordBatch::try_new(nullable(schema), columns.collect::<Result<Vec<_>, _>>()?)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn rows(keys: Vec<i64>, values: Vec<Option<f64>>) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("k", DataType::Int64, false), Field::new("v", DataType::Float64, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(keys)), Arc::new(Float64Array::from(values))])
            .unwrap()
    }

    #[test]
    fn order_and_rounding_do_not_matter() {
        let a = rows(vec![1, 2, 2], vec![Some(f64::NAN), Some(0.1 + 0.2), None]);
        let b = rows(vec![2, 1, 2], vec![None, Some(-f64::NAN), Some(0.3)]);
        assert!(compare(&a.schema(), std::slice::from_ref(&a), &[b]).unwrap().is_empty());
    }

    #[test]
    fn every_row_that_differs_is_said_once() {
        let expected = rows(vec![1, 2, 2, 3], vec![Some(1.0), Some(2.0), Some(2.0), Some(3.0)]);
        let actual = rows(vec![1, 2, 3], vec![Some(1.000001), Some(2.0), Some(3.0)]);
        let found = compare(&expected.schema(), std::slice::from_ref(&expected), &[actual]).unwrap();
        let said: Vec<(i64, bool)> =
            found.iter().map(|d| (d.row.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0), d.missing)).collect();
        assert_eq!(said, [(1, true), (1, false), (2, true)]);
    }
}
