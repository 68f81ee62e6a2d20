//! Functions that users write in SQL. A call is replaced by the function's expression before a query is planned, so a view that calls one is
//! maintained as if the expression stood there, and nothing of it exists at run time.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    self, CaseWhen, CastKind, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, SelectItem, SetExpr, Value,
    Visit, VisitMut, Visitor, VisitorMut, helpers::attached_token::AttachedToken,
};

use super::{Catalog, Created};
use crate::error::{Position, SqlError, SqlErrorKind};
use crate::name::fold;
use crate::plan;
use crate::statement::{CreateFunction, DropFunction, Parameter, Statement, StatementKind, parse_statement, positional};

/// A function of the lake's.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its definition; calls of other functions in its body are written out.
    pub definition: CreateFunction,
    /// Its statement, as written.
    pub sql: String,
}

impl Function {
    /// The expression for a call with these arguments.
    ///
    /// # Errors
    /// In words, if there are too many or too few.
    fn applied(&self, arguments: &[Expr]) -> Result<Expr, SqlError> {
        let CreateFunction { name, parameters, returns, strict, body, .. } = &self.definition;
        let needed = parameters.iter().filter(|parameter| parameter.default.is_none()).count();
        if !(needed..=parameters.len()).contains(&arguments.len()) {
            let count = if needed == parameters.len() { needed.to_string() } else { format!("{needed} to {}", parameters.len()) };
            let message = format!("the function {name} takes {count} arguments, not {}", arguments.len());
            return Err(SqlError::new(SqlErrorKind::Invalid, Position::default(), message));
        }
        let defaults = parameters.iter().skip(arguments.len()).filter_map(|parameter| parameter.default.clone());
        let values: Vec<Expr> = arguments
            .iter()
            .cloned()
            .chain(defaults)
            .zip(parameters)
            .map(|(value, parameter)| cast(value, parameter.data_type.clone()))
            .collect();
        let mut expr = body.clone();
        // it never breaks
        let _: ControlFlow<()> = VisitMut::visit(&mut expr, &mut Values { function: name, parameters, values: &values });
        if *strict {
            let missing = values.into_iter().map(|value| Expr::IsNull(Box::new(value)));
            let missing = missing.reduce(|any, one| Expr::BinaryOp {
                left: Box::new(any),
                op: ast::BinaryOperator::Or,
                right: Box::new(one),
            });
            if let Some(condition) = missing {
                expr = Expr::Case {
                    case_token: AttachedToken::empty(),
                    end_token: AttachedToken::empty(),
                    operand: None,
                    conditions: vec![CaseWhen { condition, result: Expr::Value(Value::Null.into()) }],
                    else_result: Some(Box::new(expr)),
                };
            }
        }
        Ok(cast(expr, returns.clone()))
    }
}

fn cast(expr: Expr, data_type: ast::DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(Expr::Nested(Box::new(expr))), data_type, array: false, format: None }
}

/// Puts a call's values where the parameters stand.
struct Values<'a> {
    function: &'a str,
    parameters: &'a [Parameter],
    values: &'a [Expr],
}

impl VisitorMut for Values<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let named =
            |ident: &ast::Ident| self.parameters.iter().position(|parameter| parameter.name.as_ref() == Some(&fold(ident)));
        let place = match &*expr {
            Expr::Identifier(ident) => named(ident),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [function, ident] if fold(function) == self.function => named(ident),
                _ => None,
            },
            Expr::Value(value) => match &value.value {
                Value::Placeholder(name) => positional(name),
                _ => None,
            },
            _ => None,
        };
        if let Some(value) = place.and_then(|place| self.values.get(place)) {
            *expr = value.clone();
        }
        ControlFlow::Continue(())
    }
}

/// The name and plain arguments of a call that may be one of a lake's function.
fn call(expr: &Expr) -> Option<(String, Vec<Expr>)> {
    let Expr::Function(function) = expr else { return None };
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return None };
    if function.over.is_some() || function.filter.is_some() || !function.within_group.is_empty() {
        return None;
    }
    let arguments = match &function.args {
        FunctionArguments::List(list) if list.duplicate_treatment.is_none() && list.clauses.is_empty() => list.args.as_slice(),
        FunctionArguments::None => &[],
        _ => return None,
    };
    let plain = arguments.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    });
    Some((fold(name), plain.collect::<Option<_>>()?))
}

impl Catalog {
    /// A function by name.
    pub fn function(&self, name: &str) -> Option<&Arc<Function>> {
        self.functions.get(name)
    }

    /// All functions, in the order of their names.
    pub fn functions(&self) -> impl Iterator<Item = &Arc<Function>> {
        self.functions.values()
    }

    /// What stands for an expression that calls a function of the lake's; `None`: it does not.
    ///
    /// # Errors
    /// In words, if the number of arguments is wrong.
    pub(crate) fn inlined(&self, expr: &Expr) -> Result<Option<Expr>, SqlError> {
        if self.functions.is_empty() {
            return Ok(None);
        }
        match call(expr).and_then(|(name, arguments)| Some((self.functions.get(&name)?, arguments))) {
            Some((function, arguments)) => function.applied(&arguments).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn create_function(&mut self, create: &CreateFunction, statement: &Statement) -> Result<Created, SqlError> {
        let name = &create.name;
        let refused = |kind, message: String| SqlError::new(kind, statement.position.clone(), message);
        if self.functions.contains_key(name) {
            if create.if_not_exists {
                return Ok(Created::Function(name.clone()));
            }
            if !create.or_replace {
                return Err(refused(SqlErrorKind::Exists, format!("the function {name} exists already")));
            }
            self.refuse_if_called(name, &statement.position)?;
        }
        let mut definition = create.clone();
        definition.body =
            self.rewritten(create.body.clone()).map_err(|error| SqlError { position: statement.position.clone(), ..error })?;
        let function = Function { definition, sql: statement.text.clone() };
        // tried with NULLs, so that what it names and computes is known to be there
        let nulls: Vec<Expr> = function.definition.parameters.iter().map(|_| Expr::Value(Value::Null.into())).collect();
        let query = selecting(function.applied(&nulls)?)?;
        plan::plan_view(&Arc::new(self.clone()), &query, &[], &statement.position)?;
        self.functions.insert(name.clone(), Arc::new(function));
        Ok(Created::Function(name.clone()))
    }

    /// Takes a DROP FUNCTION.
    ///
    /// # Errors
    /// It does not exist, or a view or another function calls it. Nothing is dropped then.
    pub fn drop_function(&mut self, drop: &DropFunction, position: &Position) -> Result<(), SqlError> {
        for name in &drop.names {
            if self.functions.contains_key(name) {
                self.refuse_if_called(name, position)?;
            } else if !drop.if_exists {
                let message = format!("the function {name} does not exist");
                return Err(SqlError::new(SqlErrorKind::UnknownRelation, position.clone(), message));
            }
        }
        drop.names.iter().for_each(|name| {
            self.functions.remove(name);
        });
        Ok(())
    }

    /// A body as a query's expressions are rewritten before they are planned, with the functions that it calls written out.
    fn rewritten(&self, body: Expr) -> Result<Expr, SqlError> {
        let mut query = selecting(body)?;
        plan::rewrite(self, &mut query).map_err(|error| SqlError::from_datafusion(&error, &Position::default()))?;
        match *query.body {
            SetExpr::Select(mut select) => match select.projection.pop() {
                Some(SelectItem::ExprWithAlias { expr, .. }) => Ok(expr),
                _ => Err(SqlError::new(SqlErrorKind::Invalid, Position::default(), "a function's body is one expression")),
            },
            _ => Err(SqlError::new(SqlErrorKind::Invalid, Position::default(), "a function's body is one expression")),
        }
    }

    fn refuse_if_called(&self, name: &str, position: &Position) -> Result<(), SqlError> {
        let views = self.iter().map(|relation| (relation.name.to_string(), relation.sql.as_str()));
        let functions = self.functions.iter().map(|(name, function)| (name.clone(), function.sql.as_str()));
        for (caller, sql) in views.chain(functions) {
            if caller != name && calls(sql, name) {
                let message = format!("the function {name} is called by {caller}");
                return Err(
                    SqlError::new(SqlErrorKind::InUse, position.clone(), message).with_hint(format!("drop {caller} first"))
                );
            }
        }
        Ok(())
    }
}

/// `SELECT expression AS value`.
fn selecting(expr: Expr) -> Result<ast::Query, SqlError> {
    let StatementKind::Query(select) = parse_statement("SELECT 1 AS value")?.kind else {
        return Err(SqlError::new(SqlErrorKind::Invalid, Position::default(), "a query is not a query"));
    };
    let mut query = *select.query;
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = vec![SelectItem::ExprWithAlias { expr, alias: ast::Ident::new("value") }];
    }
    Ok(query)
}

/// Whether the view or function that a statement creates calls a function.
fn calls(sql: &str, name: &str) -> bool {
    struct Calls<'a>(&'a str);
    impl Visitor for Calls<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match call(expr) {
                Some((called, _)) if called == self.0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match parse_statement(sql).map(|statement| statement.kind) {
        Ok(StatementKind::CreateView(view)) => view.query.visit(&mut Calls(name)).is_break(),
        Ok(StatementKind::CreateFunction(function)) => function.body.visit(&mut Calls(name)).is_break(),
        _ => false,
    }
}
