//! Functions in FROM whose answers are rows: unnest, generate_series, json_array_elements and the like.

use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, SelectItem, SetExpr, TableAlias, TableFactor,
};

use super::rewrite::{call, parsed};
use crate::name::fold;

/// `unnest(…)`, `generate_series(…)` and `json_array_elements(…)` of other relations' columns in FROM, as a LATERAL subquery with the function in its SELECT.
pub(super) fn as_subquery(factor: &mut TableFactor) {
    let (function, values, alias) = match &mut *factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => (called(name), plain(&args.args), alias),
        TableFactor::Function { name, args, alias, .. } => (called(name), plain(args), alias),
        TableFactor::UNNEST { array_exprs, alias, with_offset: false, with_ordinality: false, .. } => {
            (Some("unnest".to_owned()), Some(array_exprs.clone()), alias)
        }
        _ => return,
    };
    let (Some(function), Some(values)) = (function, values) else { return };
    if function == "generate_series" && values.iter().all(is_integer) {
        // DataFusion makes the rows one after another; only its column has another name
        let name = alias.as_ref().map_or_else(|| Ident::new(&function), |alias| alias.name.clone());
        let alias = alias.get_or_insert_with(|| TableAlias { explicit: true, name: name.clone(), columns: Vec::new() });
        if alias.columns.is_empty() {
            alias.columns.push(ast::TableAliasColumnDef { name, data_type: None });
        }
        return;
    }
    let unnested = |name: &str, list: Expr| (name.to_owned(), call("unnest", [list]));
    let columns: Vec<(String, Expr)> = match function.as_str() {
        "unnest" => values.into_iter().map(|value| unnested(&function, value)).collect(),
        "generate_series" => vec![unnested(&function, call("generate_series", values))],
        _ => match super::json::syntax::lists(&function, &values) {
            Some(lists) => lists.into_iter().map(|(name, list)| unnested(name, list)).collect(),
            None => return,
        },
    };
    let alias = &*alias;
    let named = |at: usize| match alias {
        Some(alias) if at < alias.columns.len() => alias.columns[at].name.clone(),
        // the column of a function that does not name it is called as the function is here
        Some(alias) if columns.len() == 1 && columns[0].0 == function => alias.name.clone(),
        _ => Ident::new(&columns[at].0),
    };
    let items =
        columns.iter().enumerate().map(|(at, (_, expr))| SelectItem::ExprWithAlias { expr: expr.clone(), alias: named(at) });
    let Some(mut subquery) = parsed("SELECT 1") else { return };
    if let SetExpr::Select(select) = subquery.body.as_mut() {
        select.projection = items.collect();
    }
    let name = alias.as_ref().map_or_else(|| Ident::new(&function), |alias| alias.name.clone());
    let alias = Some(TableAlias { explicit: true, name, columns: Vec::new() });
    *factor = TableFactor::Derived { lateral: true, subquery: Box::new(subquery), alias, sample: None };
}

/// The name of a function without a schema.
fn called(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(function)] => Some(fold(function)),
        _ => None,
    }
}

/// Arguments, if none has a name.
fn plain(args: &[FunctionArg]) -> Option<Vec<Expr>> {
    let plain = args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    });
    plain.collect()
}

fn is_integer(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(&value.value, ast::Value::Number(digits, _) if digits.parse::<i64>().is_ok()),
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => is_integer(expr),
        _ => false,
    }
}
