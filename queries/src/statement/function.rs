//! CREATE FUNCTION and DROP FUNCTION.

use datafusion::sql::sqlparser::ast::{
    self, ArgMode, CreateFunctionBody, Expr, FunctionCalledOnNull, ObjectNamePart, SelectItem, SetExpr, Value,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::parse::{error_at, peek_word};
use super::{CreateFunction, DropFunction, Parameter, StatementKind};
use crate::name::fold;

pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Option<StatementKind>, ParserError> {
    let creates = peek_word(parser, 0, "CREATE")
        && (peek_word(parser, 1, "FUNCTION")
            || (peek_word(parser, 1, "OR") && peek_word(parser, 2, "REPLACE") && peek_word(parser, 3, "FUNCTION")));
    let drops = peek_word(parser, 0, "DROP") && peek_word(parser, 1, "FUNCTION");
    if !(creates || drops) {
        return Ok(None);
    }
    let place = parser.peek_token_ref().span.start;
    match parser.parse_statement()? {
        ast::Statement::CreateFunction(function) => {
            created(function, place).map(|create| Some(StatementKind::CreateFunction(Box::new(create))))
        }
        ast::Statement::DropFunction(drop) => {
            let names = drop.func_desc.iter().map(|function| own_name(&function.name, place)).collect::<Result<_, _>>()?;
            Ok(Some(StatementKind::DropFunction(DropFunction { names, if_exists: drop.if_exists })))
        }
        other => error_at(format!("{other} is not a statement about a function"), place),
    }
}

fn own_name(name: &ast::ObjectName, place: Location) -> Result<String, ParserError> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Ok(fold(ident)),
        _ => error_at("functions have no schema: name it without one", place),
    }
}

fn created(function: ast::CreateFunction, place: Location) -> Result<CreateFunction, ParserError> {
    let language = function.language.as_ref().map_or_else(|| "sql".to_owned(), fold);
    if language != "sql" {
        return error_at(format!("functions are written in SQL, not in {language}: LANGUAGE sql"), place);
    }
    let Some(returns) = function.return_type else { return error_at("a function needs RETURNS and a type", place) };
    let mut parameters = Vec::new();
    for argument in function.args.unwrap_or_default() {
        if !matches!(argument.mode, None | Some(ArgMode::In)) {
            return error_at("a function has IN parameters only", place);
        }
        let default = argument.default_expr;
        if default.is_none() && parameters.last().is_some_and(|last: &Parameter| last.default.is_some()) {
            return error_at("a parameter after one with a DEFAULT needs a DEFAULT", place);
        }
        parameters.push(Parameter { name: argument.name.as_ref().map(fold), data_type: argument.data_type, default });
    }
    let strict =
        matches!(function.called_on_null, Some(FunctionCalledOnNull::Strict | FunctionCalledOnNull::ReturnsNullOnNullInput));
    let body = match function.function_body {
        Some(CreateFunctionBody::AsBeforeOptions { body, .. } | CreateFunctionBody::AsAfterOptions(body)) => {
            of_text(&body, place)?
        }
        Some(CreateFunctionBody::Return(value)) => value,
        _ => return error_at("a function needs a body: AS $$ SELECT … $$, or RETURN …", place),
    };
    Ok(CreateFunction {
        name: own_name(&function.name, place)?,
        or_replace: function.or_replace,
        if_not_exists: function.if_not_exists,
        parameters,
        returns,
        strict,
        body,
    })
}

/// The expression in `SELECT expression`.
fn of_text(body: &Expr, place: Location) -> Result<Expr, ParserError> {
    let text = match body {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.as_str()),
            Value::DollarQuotedString(text) => Some(text.value.as_str()),
            _ => None,
        },
        _ => None,
    };
    let Some(text) = text else { return error_at("a function's body is a text", place) };
    let wrong = "a function's body is SELECT and one expression, without FROM: a query of relations is a view";
    let text = text.trim().trim_end_matches(';');
    let mut parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(text)?;
    let query = parser.parse_query()?;
    super::parse::expect_end(&parser)?;
    match *query.body {
        SetExpr::Select(select)
            if select.from.is_empty()
                && select.selection.is_none()
                && query.with.is_none()
                && query.order_by.is_none()
                && query.limit_clause.is_none() =>
        {
            match <[SelectItem; 1]>::try_from(select.projection) {
                Ok([SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }]) => Ok(expr),
                _ => error_at(wrong, place),
            }
        }
        _ => error_at(wrong, place),
    }
}

/// Whether a name is the positional parameter `$n`, and which, from 0.
pub(crate) fn positional(name: &str) -> Option<usize> {
    name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}
