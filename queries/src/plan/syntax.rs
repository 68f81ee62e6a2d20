//! Expressions that PostgreSQL reads otherwise than DataFusion, rewritten into what DataFusion computes alike.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Interval,
    ObjectNamePart, UnaryOperator, Value, ValueWithSpan,
};

use super::patterns::chrono_pattern;
use super::rewrite::{call, unless_null};
use crate::error::{Position, SqlError, SqlErrorKind};
use crate::name::fold;

/// Rewrites one expression whose parts are rewritten.
///
/// # Errors
/// In words, where PostgreSQL's reading cannot be had.
pub(super) fn as_postgres(expr: &mut Expr) -> Result<(), SqlError> {
    let replacement = match &*expr {
        Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
            Some(overlay(expr, overlay_what, overlay_from, overlay_for.as_deref()))
        }
        Expr::SimilarTo { negated, expr, pattern, escape_char } => {
            Some(similar_to(*negated, expr, pattern, escape_char.as_ref())?)
        }
        // Sunday is 7, not 6
        Expr::Extract { field: DateTimeField::Isodow, .. } => Some(plus_one(expr)),
        Expr::Cast { kind, expr, data_type, array: false, format: None } => {
            decimal_of(expr, data_type).map(|text| cast(kind.clone(), text, data_type))
        }
        Expr::Interval(interval) => clock_time(interval).map(Expr::Interval),
        // all bits turned over; never beyond the type
        Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr } => {
            Some(binary(number(-1), BinaryOperator::Minus, Expr::Nested(expr.clone())))
        }
        Expr::AllOp { left, compare_op, right } => of_all(left, compare_op, right),
        Expr::Function(function) => of_function(function)?,
        _ => None,
    };
    if let Some(replacement) = replacement {
        *expr = replacement;
    }
    Ok(())
}

fn text(value: impl Into<String>) -> Expr {
    Expr::Value(Value::SingleQuotedString(value.into()).into())
}

fn number(value: i64) -> Expr {
    Expr::Value(Value::Number(value.to_string(), false).into())
}

/// A text that stands in the query.
fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text),
        _ => None,
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }))
}

fn cast(kind: CastKind, expr: Expr, data_type: &DataType) -> Expr {
    Expr::Cast { kind, expr: Box::new(expr), data_type: data_type.clone(), array: false, format: None }
}

fn quotient(number: &Expr, op: BinaryOperator, by: &Expr) -> Expr {
    binary(Expr::Nested(Box::new(number.clone())), op, Expr::Nested(Box::new(by.clone())))
}

fn plus_one(expr: &Expr) -> Expr {
    binary(expr.clone(), BinaryOperator::Plus, number(1))
}

/// What is before, the new part, and what is behind: DataFusion's own counts bytes.
fn overlay(of: &Expr, what: &Expr, from: &Expr, length: Option<&Expr>) -> Expr {
    let length = length.cloned().unwrap_or_else(|| call("char_length", [what.clone()]));
    let before = binary(from.clone(), BinaryOperator::Minus, number(1));
    let behind = binary(from.clone(), BinaryOperator::Plus, length);
    let head = call("substr", [of.clone(), number(1), before]);
    let tail = call("substr", [of.clone(), behind]);
    binary(binary(head, BinaryOperator::StringConcat, what.clone()), BinaryOperator::StringConcat, tail)
}

/// A regular expression for all of the text, with `%` and `_` as in LIKE.
fn similar_to(negated: bool, expr: &Expr, pattern: &Expr, escape: Option<&Value>) -> Result<Expr, SqlError> {
    let unsupported = |what: &str| {
        SqlError::new(SqlErrorKind::Unsupported, Position::default(), format!("SIMILAR TO with {what} is not supported"))
    };
    if escape.is_some() {
        return Err(unsupported("an escape character of its own").with_hint("the escape character is the backslash"));
    }
    let pattern = literal(pattern)
        .ok_or_else(|| unsupported("a pattern that is not a text in the query").with_hint("use a regular expression: ~"))?;
    let mut regex = String::from("^(?:");
    let (mut escaped, mut in_brackets) = (false, false);
    for letter in pattern.chars() {
        match letter {
            _ if escaped => {
                if !letter.is_alphanumeric() {
                    regex.push('\\');
                }
                regex.push(letter);
                escaped = false;
            }
            '\\' => escaped = true,
            '[' | ']' => {
                in_brackets = letter == '[';
                regex.push(letter);
            }
            '%' if !in_brackets => regex.push_str("(?s:.*)"),
            '_' if !in_brackets => regex.push_str("(?s:.)"),
            '.' | '^' | '$' if !in_brackets => {
                regex.push('\\');
                regex.push(letter);
            }
            _ => regex.push(letter),
        }
    }
    regex.push_str(")$");
    let op = if negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    Ok(binary(expr.clone(), op, text(regex)))
}

/// A number that is cast to a decimal is that number, not the double nearest to it.
fn decimal_of(expr: &Expr, data_type: &DataType) -> Option<Expr> {
    if !matches!(data_type, DataType::Decimal(_) | DataType::Numeric(_) | DataType::Dec(_)) {
        return None;
    }
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => Some(text(digits.as_str())),
        Expr::Nested(inner) => decimal_of(inner, data_type),
        _ => None,
    }
}

/// `'1 day 04:05:06'` as `'1 day 4 hours 5 minutes 6 seconds'`.
fn clock_time(interval: &Interval) -> Option<Interval> {
    let words = literal(&interval.value)?;
    if !words.contains(':') || interval.leading_field.is_some() {
        return None;
    }
    let mut spelled: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        if !word.contains(':') {
            spelled.push(word.to_owned());
            continue;
        }
        let (sign, digits) = word.strip_prefix('-').map_or(("", word), |digits| ("-", digits));
        let digits = digits.strip_prefix('+').unwrap_or(digits);
        for (part, unit) in digits.split(':').zip(["hours", "minutes", "seconds"]) {
            spelled.push(format!("{sign}{part} {unit}"));
        }
    }
    Some(Interval { value: Box::new(text(spelled.join(" "))), ..interval.clone() })
}

/// `x > ALL (ARRAY[a, b])` as `x > a AND x > b`.
fn of_all(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Expr> {
    match right {
        Expr::Nested(inner) => of_all(left, op, inner),
        Expr::Array(array) if !array.elem.is_empty() => {
            let each = array.elem.iter().map(|element| binary(left.clone(), op.clone(), element.clone()));
            each.reduce(|all, next| binary(all, BinaryOperator::And, next))
        }
        _ => None,
    }
}

fn of_function(function: &Function) -> Result<Option<Expr>, SqlError> {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return Ok(None) };
    let FunctionArguments::List(list) = &function.args else { return Ok(None) };
    let mut arguments = Vec::with_capacity(list.args.len());
    for argument in &list.args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else { return Ok(None) };
        arguments.push(argument);
    }
    Ok(match (fold(name).as_str(), arguments.as_slice()) {
        ("date_part", [field, _]) if literal(field).is_some_and(|field| field.eq_ignore_ascii_case("isodow")) => {
            Some(plus_one(&Expr::Function(function.clone())))
        }
        ("date_trunc", [unit, time, zone]) => {
            let there = call(super::timezone::FUNCTION, [(*zone).clone(), (*time).clone()]);
            let truncated = call("date_trunc", [(*unit).clone(), there]);
            Some(call(super::timezone::FUNCTION, [(*zone).clone(), truncated]))
        }
        ("mod", [number, by]) => Some(quotient(number, BinaryOperator::Modulo, by)),
        ("div", [number, by]) => Some(call("trunc", [quotient(number, BinaryOperator::Divide, by)])),
        // DataFusion's removes the first one
        ("array_remove", [list, element]) => Some(call("array_remove_all", [(*list).clone(), (*element).clone()])),
        // DataFusion's counts 0 in NULL
        ("regexp_count", [value, ..]) => Some(unless_null(value, Expr::Function(function.clone()))),
        (function_name @ ("to_char" | "to_date" | "to_timestamp"), [value, pattern]) => match literal(pattern) {
            Some(pattern) => chrono_pattern(pattern)?.map(|pattern| call(function_name, [(*value).clone(), text(pattern)])),
            None => None,
        },
        _ => None,
    })
}
