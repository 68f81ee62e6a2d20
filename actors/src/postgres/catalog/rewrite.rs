//! What drivers write in catalog queries and DataFusion does not read, said in its words. datafusion-pg-catalog does most of it; this is what
//! is left.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    Statement, Value, visit_expressions_mut,
};

use crate::statements::tokens;

/// The function that gives the name of the relation with an object id: what `oid::regclass` shows.
pub(super) const REGCLASS: &str = "livelake_regclass";

/// `ARRAY(SELECT …)`, which DataFusion does not know, as an empty array: the catalog's queries build lists of rights, roles and options with
/// it, of which there are none here.
pub(super) fn without_array_queries(sql: &str) -> String {
    let tokens = tokens(sql);
    let offset = |token: &str| token.as_ptr() as usize - sql.as_ptr() as usize;
    let mut out = String::with_capacity(sql.len());
    let mut at = 0;
    while at < tokens.len() {
        let is = |ahead: usize, word: &str| tokens.get(at + ahead).is_some_and(|token| token.eq_ignore_ascii_case(word));
        if is(0, "array") && is(1, "(") && is(2, "select") {
            let mut depth = 0_usize;
            let end = tokens[at + 1..].iter().position(|token| {
                match *token {
                    "(" => depth += 1,
                    ")" => depth -= 1,
                    _ => {}
                }
                depth == 0
            });
            out.push_str(" make_array('') ");
            at += end.map_or(tokens.len() - at, |end| end + 2);
            continue;
        }
        // What stood between the tokens is kept: operators are several tokens.
        let next = tokens.get(at + 1).map_or(sql.len(), |next| offset(next));
        out.push_str(&sql[offset(tokens[at])..next]);
        at += 1;
    }
    out
}

/// `LIKE … ESCAPE` with another character than the backslash, and casts to `regclass`.
pub(super) fn rewrite(statement: &mut Statement) {
    // Nothing here ends the visit early.
    let _: ControlFlow<()> = visit_expressions_mut(statement, |expression| {
        match expression {
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                let escape = escape_char.as_ref().and_then(|value| value.clone().into_string()).filter(|escape| escape != "\\");
                if let Some(escape) = escape {
                    *escape_char = None;
                    let plain = std::mem::replace(pattern.as_mut(), Expr::Value(Value::Null.into()));
                    **pattern = call("replace", vec![plain, text(&escape), text("\\")]);
                }
            }
            Expr::Cast { expr, data_type: DataType::Regclass, .. } => {
                let plain = std::mem::replace(expr.as_mut(), Expr::Value(Value::Null.into()));
                *expression = call(REGCLASS, vec![plain]);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
}

fn text(value: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(value.to_owned()).into())
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_queries_become_empty_arrays() {
        let sql = "SELECT a || array(select f(x) from (select 1) t), ARRAY[1] -- c\nFROM b";
        assert_eq!(without_array_queries(sql), "SELECT a ||  make_array('') , ARRAY[1] -- c\nFROM b");
    }
}
