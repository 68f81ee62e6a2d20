//! Conversions and comparisons as PostgreSQL makes them, where DataFusion's differ: put into plans once all types are known.
//!
//! A decimal or float becomes the nearest integer (halves of decimals away from zero, of floats to the even one), not what is before its
//! point. A text becomes a number whatever blanks are around it. A float or timestamp becomes the text that PostgreSQL shows. The two zeros of floats are equal: DataFusion compares floats in
//! their total order, where -0.0 is less. Rows in the engine have no -0.0 (its encoding makes it 0.0), so only zeros in the text of a query and what an
//! expression computes are concerned.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::math;
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use crate::text::float::{float_name, postgres_float};
use crate::text::time::write_timestamp;

static TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Convert::new(Kind::Text))));
static NEAREST: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Convert::new(Kind::Nearest))));
static ONE_ZERO: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Convert::new(Kind::OneZero))));

/// A float as the nearest whole number, the even one of two.
pub(super) fn nearest() -> &'static ScalarUDF {
    &NEAREST
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Conversions;

impl AnalyzerRule for Conversions {
    fn name(&self) -> &str {
        "conversions"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let names = NamePreserver::new(&node);
            let node = node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(|part| converted(part, &schema))?.update_data(|expr| name.restore(expr)))
            })?;
            Ok(node)
        })
        .data()
    }
}

fn converted(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Cast(Cast { expr, data_type }) => match conversion(&expr, &data_type, schema) {
            Some(converted) => Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(converted), data_type }))),
            None => Ok(Transformed::no(Expr::Cast(Cast { expr, data_type }))),
        },
        Expr::TryCast(TryCast { expr, data_type }) => match conversion(&expr, &data_type, schema) {
            Some(converted) => Ok(Transformed::yes(Expr::TryCast(TryCast { expr: Box::new(converted), data_type }))),
            None => Ok(Transformed::no(Expr::TryCast(TryCast { expr, data_type }))),
        },
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) && is_float(&left, schema) => {
            let (left, right) = (one_zero(*left, schema), one_zero(*right, schema));
            let changed = left.transformed || right.transformed;
            let expr = Expr::BinaryExpr(BinaryExpr::new(Box::new(left.data), op, Box::new(right.data)));
            Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
        }
        // constants are folded without a look at whether they fit
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match folded(&left, op, &right)? {
            Some(value) => Ok(Transformed::yes(value)),
            None => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
        },
        // the least integer has no negative; a subtraction notices
        Expr::Negative(inner) => match inner.get_type(schema) {
            Ok(data_type) if data_type.is_signed_integer() && !matches!(*inner, Expr::Literal(..)) => {
                let zero = Expr::Literal(ScalarValue::new_zero(&data_type)?, None);
                Ok(Transformed::yes(zero - *inner))
            }
            _ => Ok(Transformed::no(Expr::Negative(inner))),
        },
        other => Ok(Transformed::no(other)),
    }
}

/// What is cast instead of `expr`, if its conversion to a type is another one than DataFusion's.
fn conversion(expr: &Expr, to: &DataType, schema: &DFSchema) -> Option<Expr> {
    let from = expr.get_type(schema).ok()?;
    match (from, to) {
        (DataType::Decimal128(_, scale), to) if to.is_integer() && scale > 0 => Some(math::expr_fn::round(vec![expr.clone()])),
        // as PostgreSQL, without regard to blanks around it
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, to) if to.is_integer() || to.is_floating() => {
            Some(datafusion::functions::string::expr_fn::btrim(vec![expr.clone()]))
        }
        (DataType::Float32 | DataType::Float64, to) if to.is_integer() => Some(NEAREST.call(vec![expr.clone()])),
        (
            DataType::Float32 | DataType::Float64 | DataType::Timestamp(TimeUnit::Microsecond, _),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View,
        ) => Some(TEXT.call(vec![expr.clone()])),
        _ => None,
    }
}

/// The value of integers that stand in the query.
fn folded(left: &Expr, op: Operator, right: &Expr) -> Result<Option<Expr>> {
    let (Expr::Literal(ScalarValue::Int64(Some(a)), _), Expr::Literal(ScalarValue::Int64(Some(b)), _)) = (left, right) else {
        return Ok(None);
    };
    let value = match op {
        Operator::Plus => a.checked_add(*b),
        Operator::Minus => a.checked_sub(*b),
        Operator::Multiply => a.checked_mul(*b),
        _ => return Ok(None),
    };
    match value {
        Some(value) => Ok(Some(Expr::Literal(ScalarValue::Int64(Some(value)), None))),
        None => Err(ArrowError::ArithmeticOverflow(format!("Overflow happened on: {a} {op} {b}")).into()),
    }
}

fn compares(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Float32 | DataType::Float64))
}

/// One side of a comparison of floats, without -0.0.
fn one_zero(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match &expr {
        Expr::Column(_) | Expr::OuterReferenceColumn(_, _) => Transformed::no(expr),
        Expr::Literal(ScalarValue::Float64(Some(value)), _) if value.to_bits() != (-0.0_f64).to_bits() => Transformed::no(expr),
        Expr::Literal(ScalarValue::Float32(Some(value)), _) if value.to_bits() != (-0.0_f32).to_bits() => Transformed::no(expr),
        Expr::Cast(Cast { expr: inner, .. }) if inner.get_type(schema).is_ok_and(|from| exact(&from)) => Transformed::no(expr),
        _ => Transformed::yes(ONE_ZERO.call(vec![expr])),
    }
}

/// Whether a type has one zero only.
fn exact(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_decimal()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// A float or timestamp as PostgreSQL shows it.
    Text,
    /// The nearest whole number, the even one of two.
    Nearest,
    /// 0.0 for -0.0.
    OneZero,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Convert {
    kind: Kind,
    signature: Signature,
}

impl Convert {
    fn new(kind: Kind) -> Convert {
        Convert { kind, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Convert {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        match self.kind {
            Kind::Text => "text",
            Kind::Nearest => "nearest",
            Kind::OneZero => "one_zero",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match self.kind {
            Kind::Text => Ok(DataType::Utf8),
            Kind::Nearest | Kind::OneZero => Ok(types.first().cloned().unwrap_or(DataType::Float64)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return Err(DataFusionError::Internal(format!("{} takes one value", self.name())));
        };
        match value {
            ColumnarValue::Array(values) => Ok(ColumnarValue::Array(self.convert(values)?)),
            ColumnarValue::Scalar(value) => {
                let converted = self.convert(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&converted, 0)?))
            }
        }
    }
}

impl Convert {
    fn convert(&self, values: &ArrayRef) -> Result<ArrayRef> {
        Ok(match (self.kind, values.data_type()) {
            (Kind::Text, _) => text(values)?,
            (Kind::Nearest, DataType::Float32) => {
                Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even))
            }
            (Kind::Nearest, DataType::Float64) => {
                Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even))
            }
            // -0.0 + 0.0 is 0.0, and nothing else changes
            (Kind::OneZero, DataType::Float32) => {
                Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(|value| value + 0.0))
            }
            (Kind::OneZero, DataType::Float64) => {
                Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(|value| value + 0.0))
            }
            (_, other) => return Err(DataFusionError::Internal(format!("{} of {other}", self.name()))),
        })
    }
}

fn text(values: &ArrayRef) -> Result<ArrayRef> {
    match values.data_type() {
        DataType::Float32 => {
            let floats = values.as_primitive::<Float32Type>();
            written(values, |row, one| match floats.value(row) {
                value if value.is_finite() => postgres_float(&format!("{value:e}"), 6, one),
                value => one.extend_from_slice(float_name(f64::from(value)).as_bytes()),
            })
        }
        DataType::Float64 => {
            let floats = values.as_primitive::<Float64Type>();
            written(values, |row, one| match floats.value(row) {
                value if value.is_finite() => postgres_float(&format!("{value:e}"), 15, one),
                value => one.extend_from_slice(float_name(value).as_bytes()),
            })
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let times = values.as_primitive::<TimestampMicrosecondType>();
            let offset: &[u8] = if zone.is_some() { b"+00" } else { b"" };
            written(values, |row, one| {
                write_timestamp(times.value(row), TimeUnit::Microsecond, b' ', one);
                one.extend_from_slice(offset);
            })
        }
        other => Err(DataFusionError::Internal(format!("the text of {other}"))),
    }
}

/// Each row that is not NULL, as `write` writes it.
fn written(values: &ArrayRef, write: impl Fn(usize, &mut Vec<u8>)) -> Result<ArrayRef> {
    let mut texts = StringBuilder::with_capacity(values.len(), values.len() * 12);
    let mut one = Vec::with_capacity(32);
    for row in 0..values.len() {
        if values.is_null(row) {
            texts.append_null();
            continue;
        }
        one.clear();
        write(row, &mut one);
        texts.append_value(std::str::from_utf8(&one).map_err(|error| DataFusionError::Internal(error.to_string()))?);
    }
    Ok(Arc::new(texts.finish()))
}
