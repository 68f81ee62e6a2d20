//! Comparisons with the moving clock: each says from when or until when a row counts.
//!
//! A comparison has the clock on one side, shifted by intervals of fixed length and truncated to units of fixed length:
//! `f(now) <= x`. All of these are monotone, so the condition can be solved for `now`. In whole microseconds, `<` is `<=` of one
//! less; a shift moves `x` the other way; `trunc(g) <= x` is `g <= trunc(x) + unit - 1`, and `trunc(g) >= x` is
//! `g >= trunc(x + unit - 1)`. Months and years have no fixed length: adding one is not monotone, so they are refused.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions::datetime::expr_fn::date_trunc;
use datafusion::logical_expr::expr::Between;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast, lit};
use livelake_dataflow::plan::Plan;

use super::{Lowering, Rows, reads_clock, unsupported};
use crate::plan::is_clock;
use crate::types::timestamptz;

const DAY: i64 = 86_400_000_000;

/// What is done to the clock before it is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// Microseconds added.
    Shift(i64),
    /// Truncated to a unit of so many microseconds.
    Truncate(&'static str, i64),
}

/// An expression without the clock, and microseconds to add to it.
struct Instant {
    expr: Expr,
    offset: i64,
}

/// When a row counts.
#[derive(Default)]
struct Lifetime {
    from: Vec<Expr>,
    until: Vec<Expr>,
}

impl Lowering<'_> {
    /// Applies conjuncts that all read the clock.
    pub(super) fn temporal_filter(&self, rows: Rows, conjuncts: Vec<Expr>) -> Result<Rows> {
        let mut lifetime = Lifetime::default();
        for conjunct in conjuncts {
            lifetime.add(conjunct, &rows)?;
        }
        let Rows { mut plan, schema } = rows;
        let mut from = lifetime.from.into_iter();
        let mut until = lifetime.until.into_iter();
        loop {
            let (from, until) = (from.next(), until.next());
            if from.is_none() && until.is_none() {
                return Ok(Rows { plan, schema });
            }
            let from = from.map(|expr| self.physical(&expr, &schema)).transpose()?;
            let until = until.map(|expr| self.physical(&expr, &schema)).transpose()?;
            plan = Plan::TemporalFilter { input: Box::new(plan), from, until };
        }
    }
}

impl Lifetime {
    fn add(&mut self, conjunct: Expr, rows: &Rows) -> Result<()> {
        match conjunct {
            Expr::Between(Between { expr, negated: false, low, high }) => {
                self.add(Expr::BinaryExpr(BinaryExpr::new(expr.clone(), Operator::GtEq, low)), rows)?;
                self.add(Expr::BinaryExpr(BinaryExpr::new(expr, Operator::LtEq, high)), rows)
            }
            // One half of a BETWEEN may not read the clock after all; then it is no business of ours, but it is not wrong
            // to solve nothing: it is refused, as it was said together with the clock.
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.add_comparison(*left, op, *right, rows),
            other => Err(not_solvable(&other)),
        }
    }

    fn add_comparison(&mut self, left: Expr, op: Operator, right: Expr, rows: &Rows) -> Result<()> {
        let whole = Expr::BinaryExpr(BinaryExpr::new(Box::new(left.clone()), op, Box::new(right.clone())));
        let (clock, op, other) = match (reads_clock(&left), reads_clock(&right)) {
            (true, false) => (left, op, right),
            (false, true) => match op.swap() {
                Some(swapped) => (right, swapped, left),
                None => return Err(not_solvable(&whole)),
            },
            _ => return Err(not_solvable(&whole)),
        };
        // now() - t < interval, t - now() < interval
        if let Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Minus, right: b }) = strip(&clock)
            && let Some(length) = fixed_length(&other)?
            && reads_clock(a) != reads_clock(b)
            && !is_interval(b)
        {
            return if reads_clock(a) {
                self.solve(steps(a)?, op, Instant { expr: b.as_ref().clone(), offset: length }, &whole, rows)
            } else {
                let Some(op) = op.swap() else { return Err(not_solvable(&whole)) };
                self.solve(steps(b)?, op, Instant { expr: a.as_ref().clone(), offset: -length }, &whole, rows)
            };
        }
        self.solve(steps(&clock)?, op, Instant { expr: other, offset: 0 }, &whole, rows)
    }

    /// Solves `steps(now) op x` for now.
    fn solve(&mut self, steps: Vec<Step>, op: Operator, x: Instant, whole: &Expr, rows: &Rows) -> Result<()> {
        match x.expr.get_type(&rows.schema)? {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {}
            _ => return Err(not_solvable(whole)),
        }
        let x = Instant { expr: cast(x.expr, timestamptz()), offset: x.offset };
        let less = |by: i64| Instant { expr: x.expr.clone(), offset: x.offset + by };
        match op {
            Operator::LtEq => self.until.push(before(&steps, less(0))),
            Operator::Lt => self.until.push(before(&steps, less(-1))),
            Operator::GtEq => self.from.push(since(&steps, less(0))),
            Operator::Gt => self.from.push(since(&steps, less(1))),
            Operator::Eq => {
                self.until.push(before(&steps, less(0)));
                self.from.push(since(&steps, less(0)));
            }
            _ => return Err(not_solvable(whole)),
        }
        Ok(())
    }
}

/// `steps(now) <= x`: the first instant at which it is no longer so.
fn before(steps: &[Step], mut x: Instant) -> Expr {
    for step in steps.iter().rev() {
        match step {
            Step::Shift(by) => x.offset -= by,
            Step::Truncate(unit, length) => x = Instant { expr: date_trunc(lit(*unit), x.resolve()), offset: length - 1 },
        }
    }
    x.offset += 1;
    x.resolve()
}

/// `steps(now) >= x`: the first instant at which it is so.
fn since(steps: &[Step], mut x: Instant) -> Expr {
    for step in steps.iter().rev() {
        match step {
            Step::Shift(by) => x.offset -= by,
            Step::Truncate(unit, length) => {
                x.offset += length - 1;
                x = Instant { expr: date_trunc(lit(*unit), x.resolve()), offset: 0 };
            }
        }
    }
    x.resolve()
}

impl Instant {
    fn resolve(self) -> Expr {
        if self.offset == 0 {
            return self.expr;
        }
        let (days, rest) = (self.offset / DAY, self.offset % DAY);
        let interval = ScalarValue::new_interval_mdn(0, days as i32, rest * 1_000);
        self.expr + Expr::Literal(interval, None)
    }
}

/// The steps from the clock to an expression that reads it, the first one first.
fn steps(expr: &Expr) -> Result<Vec<Step>> {
    match expr {
        Expr::Alias(alias) => steps(&alias.expr),
        Expr::Cast(inner) => cast_steps(&inner.expr, &inner.data_type, expr),
        Expr::TryCast(inner) => cast_steps(&inner.expr, &inner.data_type, expr),
        Expr::ScalarFunction(function) if is_clock(&function.func) => {
            Ok(if function.name() == "current_date" { vec![Step::Truncate("day", DAY)] } else { Vec::new() })
        }
        Expr::ScalarFunction(function) if function.name() == "date_trunc" => match function.args.as_slice() {
            [Expr::Literal(unit, _), inner] => {
                let unit = unit.try_as_str().flatten().and_then(unit_length).ok_or_else(|| not_solvable(expr))?;
                let mut found = steps(inner)?;
                found.push(Step::Truncate(unit.0, unit.1));
                Ok(found)
            }
            _ => Err(not_solvable(expr)),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let (clock, shift) = match (reads_clock(left), reads_clock(right), op) {
                (true, false, _) => (left, right),
                (false, true, Operator::Plus) => (right, left),
                _ => return Err(not_solvable(expr)),
            };
            let length = fixed_length(shift)?.ok_or_else(|| not_solvable(expr))?;
            let mut found = steps(clock)?;
            // A date moves by whole days: what is less would be dropped by date arithmetic.
            if is_date(&found) && length % DAY != 0 {
                return Err(not_solvable(expr));
            }
            found.push(Step::Shift(if *op == Operator::Plus { length } else { -length }));
            Ok(found)
        }
        other => Err(not_solvable(other)),
    }
}

/// Casts between timestamps change nothing here (all are UTC), to a date they truncate.
fn cast_steps(inner: &Expr, to: &DataType, whole: &Expr) -> Result<Vec<Step>> {
    let mut found = steps(inner)?;
    match to {
        DataType::Timestamp(..) => {}
        DataType::Date32 | DataType::Date64 => found.push(Step::Truncate("day", DAY)),
        _ => return Err(not_solvable(whole)),
    }
    Ok(found)
}

fn is_date(steps: &[Step]) -> bool {
    steps.iter().all(|step| !matches!(step, Step::Shift(by) if by % DAY != 0))
        && steps.iter().any(|step| matches!(step, Step::Truncate("day", _)))
}

fn unit_length(unit: &str) -> Option<(&'static str, i64)> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "microsecond" => ("microsecond", 1),
        "millisecond" => ("millisecond", 1_000),
        "second" => ("second", 1_000_000),
        "minute" => ("minute", 60_000_000),
        "hour" => ("hour", 3_600_000_000),
        "day" => ("day", DAY),
        "week" => ("week", 7 * DAY),
        _ => return None,
    })
}

fn is_interval(expr: &Expr) -> bool {
    matches!(strip(expr), Expr::Literal(value, _) if matches!(value.data_type(), DataType::Interval(_) | DataType::Duration(_)))
}

/// A constant interval in microseconds (or a whole number of days, for dates); an error if it has months.
pub(super) fn fixed_length(expr: &Expr) -> Result<Option<i64>> {
    let Expr::Literal(value, _) = strip(expr) else { return Ok(None) };
    Ok(match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            if interval.months != 0 {
                let hint = "months and years have no fixed length: use days";
                return Err(unsupported("now() plus or minus months", Some(hint)));
            }
            Some(i64::from(interval.days) * DAY + interval.nanoseconds / 1_000)
        }
        ScalarValue::IntervalDayTime(Some(interval)) => {
            Some(i64::from(interval.days) * DAY + i64::from(interval.milliseconds) * 1_000)
        }
        ScalarValue::DurationSecond(Some(length)) => length.checked_mul(1_000_000),
        ScalarValue::DurationMillisecond(Some(length)) => length.checked_mul(1_000),
        ScalarValue::DurationMicrosecond(Some(length)) => Some(*length),
        ScalarValue::DurationNanosecond(Some(length)) => Some(length / 1_000),
        _ => None,
    })
}

fn strip(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(inner) => strip(&inner.expr),
        Expr::TryCast(inner) => strip(&inner.expr),
        Expr::Alias(alias) => strip(&alias.expr),
        other => other,
    }
}

fn not_solvable(expr: &Expr) -> datafusion::error::DataFusionError {
    let hint = "write a comparison of a time with now(): time > now() - INTERVAL '…', joined to the others by AND";
    unsupported(&format!("the condition {expr}"), Some(hint))
}
