//! Arithmetic of intervals that DataFusion has not, or has otherwise: an interval times a number, and a date plus an interval, which is a
//! timestamp (DataFusion's stays a date and forgets the hours); and comparisons of dates with timestamps.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, IntervalMonthDayNanoArray};
use arrow::compute::cast as cast_array;
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast, lit,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::types::timestamp;

const NANOS_PER_DAY: f64 = 86_400_000_000_000.0;
const DAYS_PER_MONTH: f64 = 30.0;
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

static TIMES: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Arc::new(ScalarUDF::from(Times { signature: Signature::exact(vec![INTERVAL, DataType::Float64], Volatility::Immutable) }))
});

/// See the module.
#[derive(Debug)]
pub(crate) struct IntervalArithmetic;

impl ExprPlanner for IntervalArithmetic {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
        let at_midnight = |date: Expr| cast(date, timestamp());
        Ok(match expr.op {
            BinaryOperator::Multiply if is_interval(&left) && right.is_numeric() => {
                PlannerResult::Planned(times(expr.left, expr.right))
            }
            BinaryOperator::Multiply if is_interval(&right) && left.is_numeric() => {
                PlannerResult::Planned(times(expr.right, expr.left))
            }
            BinaryOperator::Divide if is_interval(&left) && right.is_numeric() => {
                PlannerResult::Planned(times(expr.left, lit(1.0) / cast(expr.right, DataType::Float64)))
            }
            BinaryOperator::Plus | BinaryOperator::Minus if left == DataType::Date32 && is_interval(&right) => {
                PlannerResult::Original(RawBinaryExpr { left: at_midnight(expr.left), ..expr })
            }
            BinaryOperator::Plus if right == DataType::Date32 && is_interval(&left) => {
                PlannerResult::Original(RawBinaryExpr { right: at_midnight(expr.right), ..expr })
            }
            // midnight as fine as the other side: nanoseconds, which DataFusion would compare in, end in the year 2262
            _ if compares(&expr.op) && left == DataType::Date32 && matches!(right, DataType::Timestamp(_, _)) => {
                PlannerResult::Original(RawBinaryExpr { left: cast(expr.left, right), ..expr })
            }
            _ if compares(&expr.op) && right == DataType::Date32 && matches!(left, DataType::Timestamp(_, _)) => {
                PlannerResult::Original(RawBinaryExpr { right: cast(expr.right, left), ..expr })
            }
            _ => PlannerResult::Original(expr),
        })
    }
}

fn compares(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

fn times(interval: Expr, factor: Expr) -> Expr {
    TIMES.call(vec![cast(interval, INTERVAL), cast(factor, DataType::Float64)])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Times {
    signature: Signature,
}

impl ScalarUDFImpl for Times {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "interval_times"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(INTERVAL)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [intervals, factors] = arrays.as_slice() else {
            return Err(DataFusionError::Internal("interval_times takes an interval and a number".into()));
        };
        let factors = cast_array(factors, &DataType::Float64)?;
        let (intervals, factors) = (intervals.as_primitive::<IntervalMonthDayNanoType>(), factors.as_primitive::<Float64Type>());
        let scaled: IntervalMonthDayNanoArray = arrow::compute::try_binary(intervals, factors, scaled)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&scaled, 0)?),
            false => ColumnarValue::Array(Arc::new(scaled)),
        })
    }
}

/// As PostgreSQL's `interval_mul`: what is left of a month becomes days of which it has 30, what is left of a day becomes time.
fn scaled(interval: IntervalMonthDayNano, factor: f64) -> Result<IntervalMonthDayNano, arrow::error::ArrowError> {
    let overflow = || arrow::error::ArrowError::ComputeError("interval overflow".to_owned());
    let months = f64::from(interval.months) * factor;
    let whole_months = months.trunc();
    // to the microsecond, so that 1/3 of a month is 10 days
    let rounded = |days: f64| (days * 86_400e6).round() / 86_400e6;
    let of_months = rounded((months - whole_months) * DAYS_PER_MONTH);
    let days = f64::from(interval.days) * factor;
    let whole_days = days.trunc() + of_months.trunc();
    let left = rounded(days.fract()) + of_months.fract();
    let nanos = interval.nanoseconds as f64 * factor + left * NANOS_PER_DAY;
    let fits =
        whole_months.abs() < f64::from(i32::MAX) && whole_days.abs() < f64::from(i32::MAX) && nanos.abs() < i64::MAX as f64;
    if !fits {
        return Err(overflow());
    }
    // the range was looked at; microseconds are as fine as it goes
    Ok(IntervalMonthDayNano::new(whole_months as i32, whole_days as i32, (nanos / 1_000.0).round() as i64 * 1_000))
}
