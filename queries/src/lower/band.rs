//! Band joins: `left.time BETWEEN right.time - a AND right.time + b` without the cross product.
//!
//! Time is cut into buckets as long as the band is wide. A left row is in the bucket of its time; a right row is in those that its band
//! touches, two or three. So the buckets' begin is a key that rows which fit have in common, and few others; the conditions
//! themselves are still asked of each pair. The engine has this already: the buckets are windows, tumbling on the left, hopping on the right.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr as Physical, Literal};
use livelake_dataflow::plan::Plan;

use super::temporal::fixed_length;
use super::{Lowering, Rows, map};
use crate::types::timestamp;

/// `lowest <= left - right <= highest`, in microseconds, or in units for integers (of 32 bits: buckets of greater ones could overflow).
#[derive(Debug)]
pub(super) struct Band {
    left: Expr,
    right: Expr,
    lowest: i64,
    highest: i64,
}

/// The first band among some conditions.
pub(super) fn band(conditions: &[Expr], left: &DFSchemaRef, right: &DFSchemaRef) -> Option<Band> {
    let bounds: Vec<Bound> = conditions.iter().flat_map(|condition| bound(condition, left, right)).collect();
    for (at, lower) in bounds.iter().enumerate().filter(|(_, bound)| bound.is_lower) {
        let upper = bounds
            .iter()
            .enumerate()
            .find(|(other, upper)| *other != at && !upper.is_lower && upper.left == lower.left && upper.right == lower.right);
        if let Some((_, upper)) = upper
            && upper.value >= lower.value
            && upper.value.checked_sub(lower.value).is_some_and(|width| width < i64::MAX / 4)
        {
            return Some(Band {
                left: lower.left.clone(),
                right: lower.right.clone(),
                lowest: lower.value,
                highest: upper.value,
            });
        }
    }
    None
}

/// `left - right >= value`, or `<=`.
struct Bound {
    left: Expr,
    right: Expr,
    value: i64,
    is_lower: bool,
}

/// What a condition compares of the left side, whether that is to be the greater, and what of the right side.
pub(super) fn comparison<'e>(
    condition: &'e Expr,
    of_left: &dyn Fn(&Expr) -> bool,
    of_right: &dyn Fn(&Expr) -> bool,
) -> Option<(&'e Expr, bool, &'e Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) = condition else { return None };
    let (left, op, right) = if of_left(a) && of_right(b) {
        (a, *op, b)
    } else if of_left(b) && of_right(a) {
        (b, op.swap()?, a)
    } else {
        return None;
    };
    match op {
        Operator::Gt | Operator::GtEq => Some((left, true, right)),
        Operator::Lt | Operator::LtEq => Some((left, false, right)),
        _ => None,
    }
}

fn bound(condition: &Expr, left: &DFSchemaRef, right: &DFSchemaRef) -> Option<Bound> {
    let of = |expr: &Expr, schema: &DFSchemaRef| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.into_iter().all(|column| schema.has_column(column))
    };
    let (a, is_lower, b) = comparison(condition, &|expr| of(expr, left), &|expr| of(expr, right))?;
    let ((a, a_more), (b, b_more)) = (shifted(a)?, shifted(b)?);
    let counted = |expr: &Expr, schema: &DFSchemaRef| {
        let data_type = expr.get_type(schema).ok()?;
        matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Int64 | DataType::Int32)
            .then_some(data_type)
    };
    // a + a_more >= b + b_more is a - b >= b_more - a_more
    let value = b_more.checked_sub(a_more)?;
    (counted(a, left)? == counted(b, right)?).then(|| Bound { left: a.clone(), right: b.clone(), value, is_lower })
}

/// An expression without the constant that is added to it or taken from it, and that constant.
fn shifted(expr: &Expr) -> Option<(&Expr, i64)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Some((expr, 0)) };
    let constant = |expr: &Expr| match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), _) => Some(*value),
        Expr::Literal(ScalarValue::Int32(Some(value)), _) => Some(i64::from(*value)),
        other => fixed_length(other).ok().flatten(),
    };
    match (op, constant(left), constant(right)) {
        (Operator::Plus, None, Some(more)) => Some((left.as_ref(), more)),
        (Operator::Minus, None, Some(less)) => Some((left.as_ref(), less.checked_neg()?)),
        (Operator::Plus, Some(more), None) => Some((right.as_ref(), more)),
        (Operator::Plus | Operator::Minus, ..) => None,
        _ => Some((expr, 0)),
    }
}

impl Lowering<'_> {
    /// Both sides with a column that rows have in common if they are within the band, and where it is.
    pub(super) fn bucketed(
        &self,
        band: &Band,
        left: (&Rows, Plan),
        right: (&Rows, Plan),
    ) -> Result<((Plan, usize), (Plan, usize))> {
        let width = (band.highest - band.lowest).max(1);
        let left = self.buckets(left, &band.left, 0, width, width)?;
        let right = self.buckets(right, &band.right, band.highest, width, band.highest - band.lowest + width)?;
        Ok((left, right))
    }

    fn buckets(&self, (rows, plan): (&Rows, Plan), time: &Expr, shift: i64, slide: i64, size: i64) -> Result<(Plan, usize)> {
        let number = map::cast(self.physical(time, &rows.schema)?, &DataType::Int64);
        let number = map::substitute(number, &map::identity(&plan))?;
        let shift = Arc::new(Literal::new(ScalarValue::Int64(Some(shift))));
        let moved = Physical::new(number, Operator::Plus, shift);
        let mut projection = map::identity(&plan);
        let mut names = map::plan_names(&plan);
        projection.push(map::cast(Arc::new(moved), &timestamp()));
        names.push("band".to_string());
        let time = projection.len() - 1;
        let input = map::map(plan, Vec::new(), projection, &names)?;
        let mut fields: Vec<_> = input.schema().fields().iter().cloned().collect();
        for name in ["bucket", "bucket_end"] {
            fields.push(Arc::new(Field::new(name, timestamp(), true)));
        }
        let schema = Arc::new(Schema::new(fields));
        Ok((Plan::Window { input: Box::new(input), time, slide, size, schema }, time + 1))
    }
}
