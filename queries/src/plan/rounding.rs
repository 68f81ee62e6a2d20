//! round, trunc, ceil and floor of decimals, exactly, with as many digits after the point as were asked for; floats are DataFusion's but for
//! halves, which go to the even number.
//!
//! DataFusion computes trunc of a decimal in floats, keeps the scale in ceil and floor (and has no room for a carry there), and gives round
//! another scale before its second argument is folded than after, so that a view and an answer would differ. `sign` is PostgreSQL's name
//! of what DataFusion calls signum.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Int64Type};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::math;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::conversions::nearest;

/// Our versions of the functions.
pub(crate) fn rounding_functions() -> Vec<Arc<ScalarUDF>> {
    let rounding = |inner: Arc<ScalarUDF>, to| {
        let own = (to == To::Up).then(|| "ceiling".to_owned());
        let aliases = inner.aliases().iter().cloned().chain(own).collect();
        Arc::new(ScalarUDF::from(Rounding { inner, to, aliases, signature: Signature::user_defined(Volatility::Immutable) }))
    };
    vec![
        rounding(math::round(), To::Nearest),
        rounding(math::trunc(), To::Zero),
        rounding(math::ceil(), To::Up),
        rounding(math::floor(), To::Down),
        Arc::new(math::signum().as_ref().clone().with_aliases(["sign"])),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum To {
    /// Halves of decimals go away from zero.
    Nearest,
    Zero,
    Up,
    Down,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rounding {
    inner: Arc<ScalarUDF>,
    to: To,
    aliases: Vec<String>,
    signature: Signature,
}

impl ScalarUDFImpl for Rounding {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let takes_places = matches!(self.to, To::Nearest | To::Zero);
        let (number, places) = match types {
            [number] => (number, None),
            [number, places] if takes_places => (number, Some(places)),
            _ => return Err(DataFusionError::Plan(format!("{} does not take {} arguments", self.name(), types.len()))),
        };
        let number = match number {
            DataType::Decimal128(_, _) | DataType::Float32 | DataType::Float64 => number.clone(),
            DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
                DataType::Decimal128(*precision, *scale)
            }
            other if other.is_numeric() || other.is_null() => DataType::Float64,
            other => return Err(DataFusionError::Plan(format!("{} takes a number, not {other}", self.name()))),
        };
        let places = match places {
            None => None,
            Some(places) if places.is_integer() || places.is_null() => Some(match (&number, self.to) {
                // what DataFusion's own take
                (DataType::Float32 | DataType::Float64, To::Nearest) => DataType::Int32,
                _ => DataType::Int64,
            }),
            Some(other) => return Err(DataFusionError::Plan(format!("{} takes a number of digits, not {other}", self.name()))),
        };
        Ok(std::iter::once(number).chain(places).collect())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(DataFusionError::Internal(format!("the type of {} depends on its arguments' values", self.name())))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let data_type = match args.arg_fields[0].data_type() {
            DataType::Decimal128(precision, scale) => {
                let places = match args.scalar_arguments.get(1) {
                    None => Some(0),
                    Some(None) => None,
                    Some(Some(places)) => integer(places)?,
                };
                let (precision, scale) = self.output(*precision, *scale, places);
                DataType::Decimal128(precision, scale)
            }
            DataType::Float32 => DataType::Float32,
            _ => DataType::Float64,
        };
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), data_type, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::Decimal128(precision, scale) = *args.return_field.data_type() else {
            return match (self.to, args.args.as_slice()) {
                (To::Nearest, [_]) => nearest().invoke_with_args(args),
                _ => self.inner.invoke_with_args(args),
            };
        };
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let numbers = args.args[0].to_array(rows)?;
        let DataType::Decimal128(_, from) = *numbers.data_type() else {
            return Err(DataFusionError::Internal(format!("{} got {} for a decimal", self.name(), numbers.data_type())));
        };
        let numbers = numbers.as_primitive::<Decimal128Type>();
        let rounded: Decimal128Array = match args.args.get(1) {
            None => numbers.try_unary(|number| self.rounded(number, from, 0, scale))?,
            Some(ColumnarValue::Scalar(places)) => match integer(places)? {
                Some(places) => numbers.try_unary(|number| self.rounded(number, from, places, scale))?,
                None => Decimal128Array::new_null(rows),
            },
            Some(ColumnarValue::Array(places)) => {
                let places = cast(places, &DataType::Int64)?;
                let places = places.as_primitive::<Int64Type>();
                arrow::compute::try_binary(numbers, places, |number, places| self.rounded(number, from, places, scale))?
            }
        };
        let rounded = rounded.with_precision_and_scale(precision, scale)?;
        rounded.validate_decimal_precision(precision)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&rounded, 0)?),
            false => ColumnarValue::Array(Arc::new(rounded)),
        })
    }
}

/// The number of digits that an argument asks for; `None`: NULL.
fn integer(value: &ScalarValue) -> Result<Option<i64>> {
    match value.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(value) => Ok(value),
        other => Err(DataFusionError::Internal(format!("{other} is not a number of digits"))),
    }
}

impl Rounding {
    /// Precision and scale of what comes out, for so many digits after the point; `None`: each row has its own number of them.
    fn output(&self, precision: u8, scale: i8, places: Option<i64>) -> (u8, i8) {
        let max = i64::from(DECIMAL128_MAX_PRECISION);
        let whole = (i64::from(precision) - i64::from(scale)).max(0) + i64::from(self.to != To::Zero);
        let scale = places.unwrap_or(i64::from(scale)).clamp(0, (max - whole).max(0));
        let precision = (whole + scale).clamp(1, max);
        // both are within 38
        (precision as u8, scale as i8)
    }

    /// A number with `from` digits after the point, rounded to `places` of them, with `scale` of them.
    fn rounded(&self, number: i128, from: i8, places: i64, scale: i8) -> Result<i128, ArrowError> {
        let (from, scale) = (i64::from(from), i64::from(scale));
        let kept = places.min(from).min(scale);
        // 10^38 is the greatest power that fits, and greater than any decimal
        let rounded = match power(from - kept) {
            Some(unit) => match self.to {
                To::Nearest => number.signum() * ((number.abs() + unit / 2) / unit),
                To::Zero => number / unit,
                To::Down => number.div_euclid(unit),
                To::Up => -(-number).div_euclid(unit),
            },
            None => 0,
        };
        let overflow = || ArrowError::ComputeError("numeric field overflow".to_owned());
        if rounded == 0 {
            return Ok(0);
        }
        power(scale - kept).and_then(|unit| rounded.checked_mul(unit)).ok_or_else(overflow)
    }
}

fn power(exponent: i64) -> Option<i128> {
    u32::try_from(exponent).ok().and_then(|exponent| 10_i128.checked_pow(exponent))
}
