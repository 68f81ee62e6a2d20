//! Results read out of words: what each kind of sum says in its SQL type.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Builder, Float64Builder, Int64Builder, UInt64Builder};
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::error::ArrowError;

use super::{Output, carrier, reinterpret};
use crate::exact::{self, Double2, SUM_WORDS};
use crate::plan::AggregateFunction;

/// Correlation or covariance from the words of a place of pairs; nothing where SQL says NULL.
pub(super) fn finish_pairs(function: AggregateFunction, words: &[u64]) -> Option<f64> {
    let count = words[0] as i64;
    if count == 0 || (count < 2 && function == AggregateFunction::CovarSamp) {
        return None;
    }
    let sums = &words[1..1 + 5 * SUM_WORDS];
    if exact::special(&words[1 + 5 * SUM_WORDS..]).is_some() {
        return Some(f64::NAN);
    }
    let n = Double2::of(count as f64);
    let sum = |index: usize| Double2::of_sum(&sums[index * SUM_WORDS..(index + 1) * SUM_WORDS]);
    let scaled = |left: Double2, right: Double2, product: Double2| product.times(n).minus(left.times(right)).value();
    let (x, y) = (sum(0), sum(1));
    let xy = scaled(x, y, sum(4));
    let n = count as f64;
    match function {
        AggregateFunction::CovarPop => Some(xy / n / n),
        AggregateFunction::CovarSamp => Some(xy / n / (n - 1.0)),
        _ => {
            let (xx, yy) = (scaled(x, x, sum(2)), scaled(y, y, sum(3)));
            (xx > 0.0 && yy > 0.0).then(|| (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0))
        }
    }
}

/// Values from their bits.
pub(super) fn finish_bits(output: &Output, groups: usize, value: &dyn Fn(usize) -> Option<i128>) -> Result<ArrayRef, ArrowError> {
    macro_rules! collect {
        ($type:ty) => {
            Arc::new(
                (0..groups)
                    .map(|index| value(index).map(|bits| bits as <$type as ArrowPrimitiveType>::Native))
                    .collect::<arrow::array::PrimitiveArray<$type>>(),
            ) as ArrayRef
        };
    }
    if output.data_type == DataType::Boolean {
        return cast(&collect!(Int8Type), &DataType::Boolean);
    }
    let carrier = carrier(&output.data_type)
        .ok_or_else(|| ArrowError::InvalidArgumentError(format!("values of {} do not fit into words", output.data_type)))?;
    let array = match carrier {
        DataType::Int8 => collect!(Int8Type),
        DataType::Int16 => collect!(Int16Type),
        DataType::Int32 => collect!(Int32Type),
        DataType::Int64 => collect!(Int64Type),
        _ => collect!(Decimal128Type),
    };
    reinterpret(&array, &output.data_type)
}

/// Sums of integers or decimals.
pub(super) fn finish_integer_sum(
    output: &Output,
    groups: usize,
    value: &dyn Fn(usize) -> Option<i128>,
) -> Result<ArrayRef, ArrowError> {
    let overflow = |sum: i128| ArrowError::ArithmeticOverflow(format!("the sum {sum} does not fit {}", output.data_type));
    match &output.data_type {
        DataType::Decimal128(precision, scale) => {
            let mut builder = Decimal128Builder::with_capacity(groups).with_precision_and_scale(*precision, *scale)?;
            for index in 0..groups {
                let sum = value(index);
                let fits = |sum: i128| is_validate_decimal_precision(sum, *precision);
                match sum {
                    Some(sum) if !fits(sum) => return Err(overflow(sum)),
                    sum => builder.append_option(sum),
                }
            }
            Ok(Arc::new(builder.finish()))
        }
        DataType::UInt64 => {
            let mut builder = UInt64Builder::with_capacity(groups);
            for index in 0..groups {
                builder.append_option(value(index).map(|sum| u64::try_from(sum).map_err(|_| overflow(sum))).transpose()?);
            }
            Ok(Arc::new(builder.finish()))
        }
        other => {
            let mut builder = Int64Builder::with_capacity(groups);
            for index in 0..groups {
                builder.append_option(value(index).map(|sum| i64::try_from(sum).map_err(|_| overflow(sum))).transpose()?);
            }
            cast(&(Arc::new(builder.finish()) as ArrayRef), other)
        }
    }
}

/// Averages of integers or decimals, from sums and counts.
pub(super) fn finish_integer_avg(
    output: &Output,
    groups: usize,
    argument_scale: i8,
    value: &dyn Fn(usize) -> Option<(i128, i64)>,
) -> Result<ArrayRef, ArrowError> {
    if let DataType::Decimal128(precision, scale) = output.data_type {
        let mut builder = Decimal128Builder::with_capacity(groups).with_precision_and_scale(precision, scale)?;
        // DataFusion's rule for decimal averages: more digits first, then integer division
        let factor = 10i128.pow(u32::from((scale - argument_scale).max(0) as u8));
        for index in 0..groups {
            let mean = |(sum, count): (i128, i64)| sum.checked_mul(factor).map(|sum| sum / i128::from(count)).ok_or(sum);
            let mean = value(index).map(mean).transpose();
            builder.append_option(mean.map_err(|sum| {
                ArrowError::ArithmeticOverflow(format!("the sum {sum} is too large for a mean as {}", output.data_type))
            })?);
        }
        return Ok(Arc::new(builder.finish()));
    }
    let divisor = 10f64.powi(i32::from(argument_scale));
    let mut builder = Float64Builder::with_capacity(groups);
    (0..groups).for_each(|index| builder.append_option(value(index).map(|(sum, count)| sum as f64 / divisor / count as f64)));
    cast(&(Arc::new(builder.finish()) as ArrayRef), &output.data_type)
}
