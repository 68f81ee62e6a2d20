//! Ordered-set aggregates as PostgreSQL has them: `mode()`, `percentile_disc(p)` and `percentile_cont(p)`, each `WITHIN GROUP (ORDER BY x)`.
//!
//! DataFusion has `percentile_cont` only, rounds its place among the values to six digits and takes no intervals and no list of
//! fractions, so this one stands in its place. Values are ordered as everywhere in the lake, by [`livelake_dataflow::rows`].

use std::any::Any;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::{concat, is_not_null, take};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano, Schema};
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Expr, Signature, Volatility};
use livelake_dataflow::rows::RowCodec;

const NANOSECONDS_PER_DAY: f64 = 86_400e9;
/// What PostgreSQL takes a part of a month for.
const DAYS_PER_MONTH: f64 = 30.0;

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// The value that is there most often; of several the first.
    Mode,
    /// The first value whose place is at least that part of the way.
    PercentileDisc,
    /// The value at that part of the way, between two neighbours if need be.
    PercentileCont,
}

/// An ordered-set aggregate. Its first argument is what WITHIN GROUP orders by.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct OrderedSet {
    kind: Kind,
    signature: Signature,
    aliases: Vec<String>,
}

impl OrderedSet {
    pub(super) fn new(kind: Kind) -> OrderedSet {
        let aliases: &[&str] = match kind {
            Kind::Mode => &[],
            Kind::PercentileDisc => &["quantile_disc"],
            Kind::PercentileCont => &["quantile_cont"],
        };
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        OrderedSet { kind, signature: Signature::user_defined(Volatility::Immutable), aliases }
    }
}

impl AggregateUDFImpl for OrderedSet {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        match self.kind {
            Kind::Mode => "mode",
            Kind::PercentileDisc => "percentile_disc",
            Kind::PercentileCont => "percentile_cont",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let wrong = |usage: &str| Err(DataFusionError::Plan(format!("write {usage} WITHIN GROUP (ORDER BY …)")));
        match (self.kind, types) {
            (Kind::Mode, [value]) => Ok(vec![value.clone()]),
            (Kind::Mode, _) => wrong("mode()"),
            (Kind::PercentileDisc, [value, fraction]) => Ok(vec![value.clone(), fraction_type(fraction)?]),
            (Kind::PercentileDisc, _) => wrong("percentile_disc(fraction)"),
            (Kind::PercentileCont, [value, fraction]) => {
                let value = match value {
                    DataType::Interval(_) => DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
                    DataType::Duration(_) => value.clone(),
                    number if number.is_numeric() || number.is_null() => DataType::Float64,
                    other => {
                        let message = format!("percentile_cont takes numbers and intervals, not {other}");
                        return Err(DataFusionError::Plan(format!("{message}; percentile_disc takes any type")));
                    }
                };
                Ok(vec![value, fraction_type(fraction)?])
            }
            (Kind::PercentileCont, _) => wrong("percentile_cont(fraction)"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [value] => Ok(value.clone()),
            [value, DataType::List(_)] => Ok(DataType::new_list(value.clone(), true)),
            [value, _] => Ok(value.clone()),
            _ => Err(DataFusionError::Plan(format!("{} needs WITHIN GROUP (ORDER BY …)", self.name()))),
        }
    }

    fn is_nullable(&self) -> bool {
        true
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let mut fields = Vec::with_capacity(2);
        if let Some(value) = args.input_fields.first() {
            let values = DataType::new_list(value.data_type().clone(), true);
            fields.push(Arc::new(Field::new(format_state_name(args.name, "values"), values, true)));
        }
        if let Some(fraction) = args.input_fields.get(1) {
            fields.push(Arc::new(Field::new(format_state_name(args.name, "fraction"), fraction.data_type().clone(), true)));
        }
        Ok(fields)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let Some(field) = args.expr_fields.first() else {
            return Err(DataFusionError::Internal(format!("{} of nothing", self.name())));
        };
        Ok(Box::new(Ordered {
            kind: self.kind,
            descending: args.order_bys.first().is_some_and(|by| by.options.descending),
            distinct: args.is_distinct,
            data_type: field.data_type().clone(),
            values: Vec::new(),
            fraction: args.expr_fields.get(1).map(|field| ScalarValue::try_from(field.data_type())).transpose()?,
        }))
    }

    /// Fractions that are written out are looked at before there are rows.
    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        Some(Box::new(|call: AggregateFunction, _: &_| {
            if let Some(Expr::Literal(fraction, _)) = call.params.args.get(1) {
                fractions(fraction)?;
            }
            Ok(Expr::AggregateFunction(call))
        }))
    }
}

fn fraction_type(given: &DataType) -> Result<DataType> {
    match given {
        DataType::List(_) | DataType::FixedSizeList(..) | DataType::LargeList(_) => {
            Ok(DataType::new_list(DataType::Float64, true))
        }
        number if number.is_numeric() || number.is_null() => Ok(DataType::Float64),
        other => Err(DataFusionError::Plan(format!("a fraction is a number between 0 and 1, not {other}"))),
    }
}

/// The fractions of one, or of a list.
fn fractions(given: &ScalarValue) -> Result<Vec<Option<f64>>> {
    let found = match given {
        ScalarValue::List(list) if list.is_null(0) => Vec::new(),
        ScalarValue::List(list) => {
            let values = arrow::compute::cast(&list.value(0), &DataType::Float64)?;
            values.as_primitive::<arrow::datatypes::Float64Type>().iter().collect()
        }
        other => match other.cast_to(&DataType::Float64)? {
            ScalarValue::Float64(fraction) => vec![fraction],
            _ => vec![None],
        },
    };
    match found.iter().flatten().find(|fraction| !(0.0..=1.0).contains(*fraction)) {
        Some(wrong) => Err(DataFusionError::Plan(format!("percentile value {wrong} is not between 0 and 1"))),
        None => Ok(found),
    }
}

/// The values of one group.
#[derive(Debug)]
struct Ordered {
    kind: Kind,
    descending: bool,
    distinct: bool,
    data_type: DataType,
    /// Without NULLs.
    values: Vec<ArrayRef>,
    /// NULL until there is a row.
    fraction: Option<ScalarValue>,
}

impl Ordered {
    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        let values = match values.null_count() {
            0 => Arc::clone(values),
            _ => arrow::compute::filter(values, &is_not_null(values)?)?,
        };
        if !values.is_empty() {
            self.values.push(values);
        }
        Ok(())
    }

    fn all(&self) -> Result<ArrayRef> {
        let parts: Vec<&dyn Array> = self.values.iter().map(AsRef::as_ref).collect();
        if parts.is_empty() { Ok(arrow::array::new_empty_array(&self.data_type)) } else { Ok(concat(&parts)?) }
    }

    /// The positions of the values in order, and after each whether an equal one follows.
    fn order(&self, values: &ArrayRef) -> Result<(Vec<u64>, Vec<bool>)> {
        let schema = Arc::new(Schema::new(vec![Field::new("value", values.data_type().clone(), true)]));
        let rows = RowCodec::new(&schema, &[0])?.encode(std::slice::from_ref(values), values.len())?;
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|left, right| rows.get(*left).cmp(rows.get(*right)));
        if self.descending {
            order.reverse();
        }
        if self.distinct {
            order.dedup_by(|left, right| rows.get(*left) == rows.get(*right));
        }
        let same = order.windows(2).map(|pair| rows.get(pair[0]) == rows.get(pair[1])).chain([false]).collect();
        Ok((order.into_iter().map(|at| at as u64).collect(), same))
    }

    fn percentiles(&self, values: &ArrayRef, order: &[u64], fractions: &[Option<f64>]) -> Result<ArrayRef> {
        let last = order.len() - 1;
        let place = |fraction: f64| match self.kind {
            Kind::PercentileCont => fraction * last as f64,
            _ => ((fraction * order.len() as f64).ceil() - 1.0).max(0.0),
        };
        let at = |place: f64| order[(place as usize).min(last)];
        let places: Vec<Option<f64>> = fractions.iter().map(|fraction| fraction.map(place)).collect();
        let lower: UInt64Array = places.iter().map(|place| place.map(|place| at(place.floor()))).collect();
        let lower = take(values, &lower, None)?;
        if self.kind != Kind::PercentileCont {
            return Ok(lower);
        }
        let upper: UInt64Array = places.iter().map(|place| place.map(|place| at(place.ceil()))).collect();
        let upper = take(values, &upper, None)?;
        let between = places.iter().enumerate().map(|(index, place)| {
            let lower = ScalarValue::try_from_array(&lower, index)?;
            Ok(match place {
                Some(place) => between(&lower, &ScalarValue::try_from_array(&upper, index)?, place.fract()),
                None => lower,
            })
        });
        ScalarValue::iter_to_array(between.collect::<Result<Vec<_>>>()?)
    }
}

/// The value that part of the way from one to the other.
fn between(lower: &ScalarValue, upper: &ScalarValue, part: f64) -> ScalarValue {
    match (lower, upper) {
        // the way from one infinity to itself is not a number
        _ if lower == upper || part == 0.0 => lower.clone(),
        (ScalarValue::Float64(Some(from)), ScalarValue::Float64(Some(to))) => {
            ScalarValue::Float64(Some(from + (to - from) * part))
        }
        (ScalarValue::IntervalMonthDayNano(Some(from)), ScalarValue::IntervalMonthDayNano(Some(to))) => {
            let months = f64::from(to.months - from.months) * part;
            let days = f64::from(to.days - from.days) * part + months.fract() * DAYS_PER_MONTH;
            let nanoseconds = (to.nanoseconds - from.nanoseconds) as f64 * part + days.fract() * NANOSECONDS_PER_DAY;
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(
                from.months + months.trunc() as i32,
                from.days + days.trunc() as i32,
                from.nanoseconds + nanoseconds.round() as i64,
            )))
        }
        (ScalarValue::DurationMicrosecond(Some(from)), ScalarValue::DurationMicrosecond(Some(to))) => {
            ScalarValue::DurationMicrosecond(Some(from + ((to - from) as f64 * part).round() as i64))
        }
        (ScalarValue::DurationNanosecond(Some(from)), ScalarValue::DurationNanosecond(Some(to))) => {
            ScalarValue::DurationNanosecond(Some(from + ((to - from) as f64 * part).round() as i64))
        }
        (ScalarValue::DurationMillisecond(Some(from)), ScalarValue::DurationMillisecond(Some(to))) => {
            ScalarValue::DurationMillisecond(Some(from + ((to - from) as f64 * part).round() as i64))
        }
        (ScalarValue::DurationSecond(Some(from)), ScalarValue::DurationSecond(Some(to))) => {
            ScalarValue::DurationSecond(Some(from + ((to - from) as f64 * part).round() as i64))
        }
        _ => lower.clone(),
    }
}

/// Where the longest run of equal values begins; of several the first.
fn longest_run(same: &[bool]) -> usize {
    let (mut best, mut length, mut begin) = (0, 0, 0);
    for (at, _) in same.iter().enumerate().filter(|(_, same)| !**same) {
        if at + 1 - begin > length {
            (best, length) = (begin, at + 1 - begin);
        }
        begin = at + 1;
    }
    best
}

impl Accumulator for Ordered {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let Some(values) = columns.first() else { return Ok(()) };
        self.add(values)?;
        if let (Some(fraction), Some(given)) = (&mut self.fraction, columns.get(1))
            && fraction.is_null()
            && !given.is_empty()
        {
            *fraction = ScalarValue::try_from_array(given, 0)?;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(lists) = states.first() else { return Ok(()) };
        for values in lists.as_list::<i32>().iter().flatten() {
            self.add(&values)?;
        }
        if let (Some(fraction), Some(given)) = (&mut self.fraction, states.get(1)) {
            for row in 0..given.len() {
                if fraction.is_null() {
                    *fraction = ScalarValue::try_from_array(given, row)?;
                }
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = SingleRowListArrayBuilder::new(self.all()?).with_nullable(true).build_list_scalar();
        Ok(std::iter::once(values).chain(self.fraction.clone()).collect())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let values = self.all()?;
        let fractions = self.fraction.as_ref().map(fractions).transpose()?;
        let list = matches!(self.fraction, Some(ScalarValue::List(_)));
        if values.is_empty() || fractions.as_ref().is_some_and(Vec::is_empty) {
            let data_type = if list { DataType::new_list(self.data_type.clone(), true) } else { self.data_type.clone() };
            return ScalarValue::try_from(&data_type);
        }
        let (order, same) = self.order(&values)?;
        let Some(fractions) = fractions else {
            return ScalarValue::try_from_array(&values, order[longest_run(&same)] as usize);
        };
        let found = self.percentiles(&values, &order, &fractions)?;
        if list {
            return Ok(SingleRowListArrayBuilder::new(found).with_nullable(true).build_list_scalar());
        }
        ScalarValue::try_from_array(&found, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.iter().map(|values| values.get_array_memory_size()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: Kind, descending: bool, values: ScalarValue, all: Vec<ScalarValue>, fraction: Option<f64>) -> ScalarValue {
        let mut kept = Ordered {
            kind,
            descending,
            distinct: false,
            data_type: values.data_type(),
            values: Vec::new(),
            fraction: fraction.map(|_| ScalarValue::Float64(None)),
        };
        let mut merged = Ordered { values: Vec::new(), fraction: kept.fraction.clone(), data_type: values.data_type(), ..kept };
        // in two parts, of which one is merged
        let array = ScalarValue::iter_to_array(all).unwrap();
        let fractions = ScalarValue::Float64(fraction).to_array_of_size(array.len()).unwrap();
        let half = array.len() / 2;
        for (target, from, to) in [(&mut kept, 0, half), (&mut merged, half, array.len())] {
            target.update_batch(&[array.slice(from, to - from), fractions.slice(from, to - from)]).unwrap();
        }
        let states: Vec<ArrayRef> = kept.state().unwrap().iter().map(|state| state.to_array().unwrap()).collect();
        merged.merge_batch(&states).unwrap();
        merged.evaluate().unwrap()
    }

    fn integers(values: &[i64]) -> Vec<ScalarValue> {
        values.iter().map(|value| ScalarValue::Int64((*value != 0).then_some(*value))).collect()
    }

    #[test]
    fn the_most_frequent_value_and_the_first_of_several() {
        let none = ScalarValue::Int64(None);
        let mode = |descending, values: &[i64]| answer(Kind::Mode, descending, none.clone(), integers(values), None);
        assert_eq!(mode(false, &[3, 1, 0, 0, 0, 2, 3]), ScalarValue::Int64(Some(3)));
        assert_eq!(mode(false, &[3, 1, 2, 2, 3]), ScalarValue::Int64(Some(2)));
        assert_eq!(mode(true, &[3, 1, 2, 2, 3]), ScalarValue::Int64(Some(3)));
        assert_eq!(mode(false, &[0, 0]), none);
    }

    #[test]
    fn percentiles_as_postgresql_says() {
        let disc = |descending, values: &[i64], fraction| {
            answer(Kind::PercentileDisc, descending, ScalarValue::Int64(None), integers(values), Some(fraction))
        };
        let values = [40, 10, 0, 30, 20];
        for (fraction, up, down) in [(0.0, 10, 40), (0.25, 10, 40), (0.26, 20, 30), (0.5, 20, 30), (0.51, 30, 20), (1.0, 40, 10)]
        {
            assert_eq!(disc(false, &values, fraction), ScalarValue::Int64(Some(up)), "{fraction}");
            assert_eq!(disc(true, &values, fraction), ScalarValue::Int64(Some(down)), "{fraction} DESC");
        }
        let floats = [1.0, f64::INFINITY, 2.0].map(|value| ScalarValue::Float64(Some(value))).to_vec();
        let cont = |descending, fraction| {
            answer(Kind::PercentileCont, descending, ScalarValue::Float64(None), floats.clone(), Some(fraction))
        };
        assert_eq!(cont(false, 0.123_456_789), ScalarValue::Float64(Some(1.0 + 2.0 * 0.123_456_789)));
        assert_eq!(cont(true, 1.0), ScalarValue::Float64(Some(1.0)));
        assert_eq!(cont(true, 0.0), ScalarValue::Float64(Some(f64::INFINITY)));
        assert!(fractions(&ScalarValue::Float64(Some(1.5))).is_err());
    }

    #[test]
    fn intervals_lie_between_intervals() {
        let interval = |months, days, nanoseconds| {
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanoseconds)))
        };
        assert_eq!(between(&interval(0, 0, 0), &interval(1, 1, 0), 0.5), interval(0, 15, 43_200_000_000_000));
        assert_eq!(between(&interval(0, 0, 10), &interval(0, 0, 20), 0.25), interval(0, 0, 13));
    }
}
