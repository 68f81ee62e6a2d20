//! PostgreSQL's JSON operators and functions, as calls that [`super`] has.
//!
//! JSON is text here, so what makes JSON of its arguments cannot tell text from JSON by type. It is told by how the argument is
//! written: what another JSON function or operator answers, or is cast to JSON, is JSON; all else is a value that `to_json` writes.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, UnaryOperator,
    Value,
};

use super::{CONTAINS, GET, GET_TEXT};
use crate::name::fold;
use crate::plan::rewrite::{call, unless_null};

/// Functions whose answer is JSON.
const MAKES_JSON: [&str; 14] = [
    GET,
    "to_json",
    "to_jsonb",
    "row_to_json",
    "json_build_object",
    "jsonb_build_object",
    "json_build_array",
    "jsonb_build_array",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
    "jsonb_object_agg",
    "json_extract_path",
    "jsonb_extract_path",
];

/// Rewrites an expression whose parts were rewritten before.
pub(in crate::plan) fn rewrite(expr: &mut Expr) {
    let rewritten = match expr {
        Expr::BinaryOp { left, op, right } => operator(left, op, right),
        Expr::Function(function) => named(function),
        _ => None,
    };
    if let Some(rewritten) = rewritten {
        *expr = rewritten;
    }
}

/// The lists that a function which answers with rows is made of, each with its column's name: `json_array_elements` and the like.
pub(in crate::plan) fn lists(function: &str, arguments: &[Expr]) -> Option<Vec<(&'static str, Expr)>> {
    let [json] = arguments else { return None };
    let list = |name: &str| call(name, [json.clone()]);
    Some(match function {
        "json_array_elements" | "jsonb_array_elements" => vec![("value", list("json_list"))],
        "json_array_elements_text" | "jsonb_array_elements_text" => vec![("value", list("json_text_list"))],
        "json_object_keys" => vec![("json_object_keys", list("json_key_list"))],
        "jsonb_object_keys" => vec![("jsonb_object_keys", list("json_key_list"))],
        "json_each" | "jsonb_each" => vec![("key", list("json_key_list")), ("value", list("json_value_list"))],
        "json_each_text" | "jsonb_each_text" => vec![("key", list("json_key_list")), ("value", list("json_value_text_list"))],
        _ => return None,
    })
}

fn operator(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Expr> {
    let all = |keys: Vec<Expr>, join: BinaryOperator| {
        let one = |key| contains(left, key);
        let both = |left, right| Expr::BinaryOp { left: Box::new(left), op: join.clone(), right: Box::new(right) };
        keys.into_iter().map(one).reduce(both).map(|all| Expr::Nested(Box::new(all)))
    };
    match op {
        BinaryOperator::Arrow => Some(step(left, right, GET)),
        BinaryOperator::LongArrow => Some(step(left, right, GET_TEXT)),
        BinaryOperator::HashArrow => Some(get(GET, left, path(right)?)),
        BinaryOperator::HashLongArrow => Some(get(GET_TEXT, left, path(right)?)),
        BinaryOperator::Question => Some(contains(left, right.clone())),
        BinaryOperator::QuestionPipe => all(words(right)?, BinaryOperator::Or),
        BinaryOperator::QuestionAnd => all(words(right)?, BinaryOperator::And),
        _ => None,
    }
}

fn contains(json: &Expr, key: Expr) -> Expr {
    unless_null(json, call(CONTAINS, [json.clone(), key]))
}

/// One step into JSON; from the end of an array if it is a number below zero.
fn step(json: &Expr, key: &Expr, function: &str) -> Expr {
    if matches!(key, Expr::UnaryOp { op: UnaryOperator::Minus, expr } if matches!(expr.as_ref(), Expr::Value(_))) {
        let element = call("array_element", [call("json_list", [json.clone()]), key.clone()]);
        return if function == GET { element } else { call(function, [element]) };
    }
    get(function, json, vec![key.clone()])
}

/// Looks into JSON; steps that follow each other are one path, where all of it is written out.
fn get(function: &str, json: &Expr, mut path: Vec<Expr>) -> Expr {
    let mut json = json;
    while let Expr::Nested(inner) = json {
        json = inner;
    }
    if let Expr::Function(inner) = json
        && name(inner).as_deref() == Some(GET)
        && let Some(arguments) = values(inner)
        && arguments.iter().skip(1).chain(&path).all(|step| matches!(step, Expr::Value(_)))
    {
        path.splice(0..0, arguments);
        return call(function, path);
    }
    call(function, std::iter::once(json.clone()).chain(path))
}

/// `'{a,0}'` or `ARRAY['a', '0']`; a number is a place in an array.
fn path(written: &Expr) -> Option<Vec<Expr>> {
    let numbered = |step: Expr| match &step {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) if text.parse::<u64>().is_ok() => {
                Expr::Value(Value::Number(text.clone(), false).into())
            }
            _ => step,
        },
        _ => step,
    };
    Some(words(written)?.into_iter().map(numbered).collect())
}

fn words(written: &Expr) -> Option<Vec<Expr>> {
    match written {
        Expr::Array(array) => Some(array.elem.clone()),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => words(expr),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => {
                let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
                let word = |word: &str| Value::SingleQuotedString(word.trim().trim_matches('"').to_owned());
                Some(inner.split(',').filter(|part| !part.trim().is_empty()).map(|part| Expr::Value(word(part).into())).collect())
            }
            _ => None,
        },
        _ => None,
    }
}

fn name(function: &Function) -> Option<String> {
    match function.name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Some(fold(ident)),
        _ => None,
    }
}

/// The plain arguments of a call; nothing if there are others.
fn values(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    list.args
        .iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
            _ => None,
        })
        .collect()
}

fn with_arguments(function: &Function, arguments: impl IntoIterator<Item = Expr>) -> Expr {
    let mut changed = function.clone();
    if let FunctionArguments::List(list) = &mut changed.args {
        list.args = arguments.into_iter().map(|value| FunctionArg::Unnamed(FunctionArgExpr::Expr(value))).collect();
    }
    Expr::Function(changed)
}

fn named(function: &Function) -> Option<Expr> {
    let name = name(function)?;
    let arguments = values(function)?;
    match (name.as_str(), arguments.as_slice()) {
        ("json_agg" | "jsonb_agg", [value]) => Some(with_arguments(function, [as_json(value)])),
        ("json_object_agg" | "jsonb_object_agg", [key, value]) => {
            let word = |word: &str| Expr::Value(Value::SingleQuotedString(word.to_owned()).into());
            let pair = call("named_struct", [word("key"), text(key), word("value"), as_json(value)]);
            Some(with_arguments(function, [pair]))
        }
        ("json_build_array" | "jsonb_build_array", _) => Some(with_arguments(function, arguments.iter().map(as_json))),
        ("json_build_object" | "jsonb_build_object", _) => {
            let parts = arguments.iter().enumerate();
            Some(with_arguments(function, parts.map(|(at, part)| if at % 2 == 0 { text(part) } else { as_json(part) })))
        }
        ("json_extract_path" | "jsonb_extract_path", [json, path @ ..]) => Some(get(GET, json, self::path(&array(path))?)),
        ("json_extract_path_text" | "jsonb_extract_path_text", [json, path @ ..]) => {
            Some(get(GET_TEXT, json, self::path(&array(path))?))
        }
        _ => match lists(&name, &arguments)?.as_slice() {
            [(_, list)] => Some(call("unnest", [list.clone()])),
            _ => None,
        },
    }
}

fn array(elements: &[Expr]) -> Expr {
    Expr::Array(datafusion::sql::sqlparser::ast::Array { elem: elements.to_vec(), named: true })
}

fn text(value: &Expr) -> Expr {
    Expr::Cast {
        kind: datafusion::sql::sqlparser::ast::CastKind::Cast,
        expr: Box::new(value.clone()),
        data_type: DataType::Text,
        array: false,
        format: None,
    }
}

fn as_json(value: &Expr) -> Expr {
    if is_json(value) { value.clone() } else { call("to_json", [value.clone()]) }
}

fn is_json(value: &Expr) -> bool {
    match value {
        Expr::Nested(inner) => is_json(inner),
        Expr::Cast { data_type, .. } => matches!(data_type, DataType::JSON | DataType::JSONB),
        Expr::Case { conditions, else_result, .. } => {
            conditions.iter().any(|case| is_json(&case.result)) || else_result.as_deref().is_some_and(is_json)
        }
        Expr::Function(function) => match name(function).as_deref() {
            Some("coalesce") => values(function).is_some_and(|arguments| arguments.iter().any(is_json)),
            Some("array_element") => {
                let list = values(function).and_then(|arguments| arguments.into_iter().next());
                matches!(list, Some(Expr::Function(list)) if name(&list).as_deref() == Some("json_list"))
            }
            Some(name) => MAKES_JSON.contains(&name),
            None => false,
        },
        _ => false,
    }
}
