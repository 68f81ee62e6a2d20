//! What is changed in a query's syntax before DataFusion sees it: TUMBLE, HOP and SESSION get their relation as a subquery, AT TIME ZONE
//! becomes a function of ours, columns of USING beside FULL JOIN are merged, and sources show their hidden columns to queries that name one.

use std::ops::ControlFlow;

use datafusion::error::Result;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, JoinOperator, ObjectName,
    ObjectNamePart, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, Visit, VisitMut, Visitor,
    VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::catalog::{Catalog, METADATA_COLUMNS, Relation};
use crate::error::{Position, SqlError, SqlErrorKind};
use crate::name::{RelationName, fold};
use crate::provider::HIDDEN_SUFFIX;
use crate::statement::RelationKind;

/// Changes a query, or a statement that changes a table, as this file's head says.
pub(crate) fn rewrite<S: Visit + VisitMut>(catalog: &Catalog, query: &mut S) -> Result<()> {
    let mut visitor = Rewrite { catalog, hidden: names_hidden_columns(query) };
    match VisitMut::visit(query, &mut visitor) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err((*error).into()),
    }
}

/// The relation in `TUMBLE(relation, …)` or `HOP(relation, …)`, if that is what the factor is.
pub(crate) fn windowed_relation(factor: &TableFactor) -> Option<ObjectName> {
    let TableFactor::Table { name, args: Some(args), .. } = factor else { return None };
    if !is_window_function(name) {
        return None;
    }
    match args.args.first() {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(ident)))) => Some(ObjectName::from(vec![ident.clone()])),
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(idents)))) => {
            Some(ObjectName::from(idents.clone()))
        }
        _ => None,
    }
}

/// Whether it is the name of TUMBLE, HOP or SESSION.
pub(super) fn is_window_function(name: &ObjectName) -> bool {
    matches!(name.0.as_slice(), [ObjectNamePart::Identifier(ident)] if matches!(fold(ident).as_str(), "tumble" | "hop" | "session"))
}

fn names_hidden_columns(query: &impl Visit) -> bool {
    struct Names;
    impl Names {
        fn check(ident: &Ident) -> ControlFlow<()> {
            if METADATA_COLUMNS.contains(&fold(ident).as_str()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(ident) => Names::check(ident),
                Expr::CompoundIdentifier(idents) => idents.last().map_or(ControlFlow::Continue(()), Names::check),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(query, &mut Names).is_break()
}

struct Rewrite<'a> {
    catalog: &'a Catalog,
    hidden: bool,
}

impl Rewrite<'_> {
    /// The source that a table factor names directly, and what its columns are qualified by.
    fn source(&self, factor: &TableFactor) -> Option<(&Relation, Ident)> {
        let (name, alias) = match factor {
            TableFactor::Table { name, args: None, alias, .. } => (name.clone(), alias),
            factor @ TableFactor::Table { alias, .. } => (windowed_relation(factor)?, alias),
            _ => return None,
        };
        let relation = self.catalog.get(&RelationName::from_ast(&name, &Position::default()).ok()?)?;
        let last = name.0.last()?.as_ident()?.clone();
        (relation.kind == RelationKind::Source).then(|| (relation.as_ref(), alias.as_ref().map_or(last, |a| a.name.clone())))
    }

    /// Writes `*` out where a source with its hidden columns shown would add them to it.
    fn expand_wildcards(&self, select: &mut ast::Select) -> Result<(), SqlError> {
        let factors: Vec<&TableFactor> = select
            .from
            .iter()
            .flat_map(|table| std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)))
            .collect();
        if !factors.iter().any(|factor| self.source(factor).is_some()) {
            return Ok(());
        }
        let mut items = Vec::new();
        for item in &select.projection {
            match item {
                SelectItem::Wildcard(_) => {
                    for factor in &factors {
                        items.extend(self.columns_of(factor, item)?);
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    let wanted = name.0.last().and_then(|part| part.as_ident()).map(fold);
                    let factor = factors.iter().find(|factor| match self.source(factor) {
                        Some((_, alias)) => Some(fold(&alias)) == wanted,
                        None => false,
                    });
                    match factor {
                        Some(factor) => items.extend(self.columns_of(factor, item)?),
                        None => items.push(item.clone()),
                    }
                }
                other => items.push(other.clone()),
            }
        }
        select.projection = items;
        Ok(())
    }

    fn columns_of(&self, factor: &TableFactor, star: &SelectItem) -> Result<Vec<SelectItem>, SqlError> {
        let Some((relation, alias)) = self.source(factor) else {
            let qualifier = match factor {
                TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
                    Some(ObjectName::from(vec![alias.name.clone()]))
                }
                TableFactor::Table { name, .. } => Some(name.clone()),
                _ => None,
            };
            let Some(qualifier) = qualifier else {
                let message = "`*` beside hidden columns needs names: give every subquery in FROM one";
                return Err(SqlError::new(SqlErrorKind::Unsupported, Position::default(), message));
            };
            let SelectItem::Wildcard(options) = star else { return Ok(vec![star.clone()]) };
            return Ok(vec![SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(qualifier),
                options.clone(),
            )]);
        };
        let windowed = windowed_relation(factor).is_some();
        let added: &[&str] = if windowed { &["window_start", "window_end"] } else { &[] };
        // What TUMBLE adds has a qualifier only if the factor has an alias.
        let has_alias = matches!(factor, TableFactor::Table { alias: Some(_), .. });
        let names = relation.schema.fields()[..relation.visible].iter().map(|field| (field.name().as_str(), true));
        let names = names.chain(added.iter().map(|name| (*name, has_alias)));
        Ok(names
            .map(|(name, qualified)| {
                let column = Ident::with_quote('"', name);
                SelectItem::UnnamedExpr(if qualified {
                    Expr::CompoundIdentifier(vec![alias.clone(), column])
                } else {
                    Expr::Identifier(column)
                })
            })
            .collect())
    }

    /// Makes a source show its hidden columns.
    fn show_hidden(&self, factor: &mut TableFactor) {
        let Some((_, visible_as)) = self.source(factor) else { return };
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return };
        if let Some(ObjectNamePart::Identifier(last)) = name.0.last_mut() {
            *last = Ident { value: format!("{}{HIDDEN_SUFFIX}", fold(last)), quote_style: Some('"'), span: last.span };
        }
        if alias.is_none() {
            *alias = Some(TableAlias { explicit: true, name: visible_as, columns: Vec::new() });
        }
    }
}

impl VisitorMut for Rewrite<'_> {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<Self::Break> {
        if let Some(with) = query.with.as_mut().filter(|with| with.recursive) {
            with.cte_tables.iter_mut().for_each(name_columns);
        }
        name_computed(&mut query.body);
        as_of_joins(&mut query.body);
        fetch_is_limit(query);
        if let Err(error) = super::using::merge_using(&mut query.body) {
            return ControlFlow::Break(Box::new(error));
        }
        if let SetExpr::Table(table) = query.body.as_ref()
            && let Some(table_name) = &table.table_name
        {
            let parts = table.schema_name.iter().chain([table_name]).map(|name| Ident::with_quote('"', name)).collect::<Vec<_>>();
            if let Some(all) = select_all(ObjectName::from(parts)) {
                query.body = all.body;
            }
        }
        if self.hidden
            && let SetExpr::Select(select) = query.body.as_mut()
            && let Err(error) = self.expand_wildcards(select)
        {
            return ControlFlow::Break(Box::new(error));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        super::series::as_subquery(factor);
        let windowed = windowed_relation(factor);
        if let (Some(relation), TableFactor::Table { args: Some(args), .. }) = (windowed, &mut *factor)
            && let Some(query) = select_all(relation)
        {
            args.args[0] = FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Subquery(Box::new(query))));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match self.catalog.inlined(expr) {
            Ok(None) => {}
            Ok(Some(inlined)) => {
                // a function's body was rewritten when it was created, and the arguments just now
                *expr = inlined;
                return ControlFlow::Continue(());
            }
            Err(error) => return ControlFlow::Break(Box::new(error)),
        }
        row_in(expr);
        filter_is_true(expr);
        if let Err(error) = super::syntax::as_postgres(expr) {
            return ControlFlow::Break(Box::new(error));
        }
        super::json::syntax::rewrite(expr);
        if let Expr::AtTimeZone { timestamp, time_zone } = expr {
            *expr = call(super::timezone::FUNCTION, [time_zone.as_ref().clone(), timestamp.as_ref().clone()]);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        if self.hidden {
            self.show_hidden(factor);
        }
        ControlFlow::Continue(())
    }
}

/// Gives PostgreSQL's names to what the SELECTs that make a query's columns compute.
fn name_computed(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => super::names::name_columns(select),
        // the left side's names are the result's
        SetExpr::SetOperation { left, .. } => name_computed(left),
        _ => {}
    }
}

/// `FETCH FIRST n ROWS ONLY` as `LIMIT n`.
fn fetch_is_limit(query: &mut ast::Query) {
    let rows = match &query.fetch {
        Some(ast::Fetch { with_ties: false, percent: false, quantity }) => {
            quantity.clone().unwrap_or_else(|| Expr::Value(ast::Value::Number("1".to_owned(), false).into()))
        }
        _ => return,
    };
    let offset = match query.limit_clause.take() {
        None => None,
        Some(ast::LimitClause::LimitOffset { limit: None, offset, .. }) => offset,
        // both: DataFusion says that it does not know FETCH
        other => {
            query.limit_clause = other;
            return;
        }
    };
    query.fetch = None;
    query.limit_clause = Some(ast::LimitClause::LimitOffset { limit: Some(rows), offset, limit_by: Vec::new() });
}

/// `r (a, b) AS (SELECT x, y …)` as `r AS (SELECT x AS a, y AS b …)`: DataFusion does not tell a recursion's own part the names that
/// stand before it.
fn name_columns(cte: &mut ast::Cte) {
    let mut body = cte.query.body.as_mut();
    while let SetExpr::SetOperation { left, .. } = body {
        body = left;
    }
    let names = &mut cte.alias.columns;
    match body {
        SetExpr::Select(select) if select.projection.len() == names.len() => {
            let plain = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
            if !select.projection.iter().all(plain) {
                return;
            }
            for (item, name) in select.projection.iter_mut().zip(names.drain(..)) {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = &*item {
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: name.name };
                }
            }
        }
        _ => {}
    }
}

/// `ASOF JOIN right MATCH_CONDITION (left.time >= right.time) ON …` as a LATERAL subquery: of the right rows that match, the one that comes
/// first when they are ordered by the right side of the match, from the left side on. A left row without one stays, as in Snowflake.
fn as_of(join: &mut ast::Join) {
    let JoinOperator::AsOf { match_condition, constraint } = &join.join_operator else { return };
    let Expr::BinaryOp { left, op, right } = match_condition else { return };
    let descending = match op {
        ast::BinaryOperator::GtEq | ast::BinaryOperator::Gt => true,
        ast::BinaryOperator::LtEq | ast::BinaryOperator::Lt => false,
        _ => return,
    };
    let condition = match constraint {
        ast::JoinConstraint::On(on) => and(match_condition.clone(), on.clone()),
        ast::JoinConstraint::None => match_condition.clone(),
        _ => return,
    };
    let alias = match &join.relation {
        TableFactor::Table { name, alias: None, .. } => name.0.last().and_then(ObjectNamePart::as_ident).cloned(),
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.clone())
        }
        _ => None,
    };
    let Some(alias) = alias else { return };
    let direction = if descending { "DESC" } else { "ASC" };
    let Some(mut subquery) = parsed(&format!("SELECT * FROM x WHERE c ORDER BY o {direction} LIMIT 1")) else { return };
    // the right row's side of the match is the one that names it
    let of_right = |expr: &Expr| matches!(expr, Expr::CompoundIdentifier(parts) if parts.first().map(fold) == Some(fold(&alias)));
    let key = if of_right(left) && !of_right(right) { left } else { right };
    if let SetExpr::Select(select) = subquery.body.as_mut() {
        select.selection = Some(and(condition, Expr::IsNotNull(key.clone())));
        if let Some(from) = select.from.first_mut() {
            from.relation = join.relation.clone();
        }
    }
    if let Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(order), .. }) = &mut subquery.order_by
        && let Some(first) = order.first_mut()
    {
        first.expr = key.as_ref().clone();
    }
    let alias = Some(TableAlias { explicit: true, name: alias, columns: Vec::new() });
    join.relation = TableFactor::Derived { lateral: true, subquery: Box::new(subquery), alias, sample: None };
    join.join_operator = JoinOperator::LeftOuter(ast::JoinConstraint::On(Expr::Value(ast::Value::Boolean(true).into())));
}

/// Rewrites the as-of joins of a query's own FROM clauses.
fn as_of_joins(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => select.from.iter_mut().flat_map(|from| &mut from.joins).for_each(as_of),
        SetExpr::SetOperation { left, right, .. } => {
            as_of_joins(left);
            as_of_joins(right);
        }
        _ => {}
    }
}

pub(super) fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(Expr::Nested(Box::new(left))),
        op: ast::BinaryOperator::And,
        right: Box::new(Expr::Nested(Box::new(right))),
    }
}

/// A query written out here.
pub(super) fn parsed(text: &str) -> Option<ast::Query> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).ok()?.parse_query().ok().map(|query| *query)
}

/// `FILTER (WHERE c)` as `FILTER (WHERE (c) IS TRUE)`, which is the same; but DataFusion's grouped count takes rows for which `c` is NULL.
fn filter_is_true(expr: &mut Expr) {
    if let Expr::Function(Function { filter: Some(filter), .. }) = expr
        && !matches!(filter.as_ref(), Expr::IsTrue(_))
    {
        let condition = std::mem::replace(filter.as_mut(), Expr::Value(ast::Value::Null.into()));
        **filter = Expr::IsTrue(Box::new(Expr::Nested(Box::new(condition))));
    }
}

/// `(a, b) IN (SELECT …)` as EXISTS; DataFusion takes one column there. (Negated it would differ where there are NULLs, and is left alone.)
fn row_in(expr: &mut Expr) {
    let Expr::InSubquery { expr: row, subquery, negated: false } = &*expr else { return };
    let Expr::Tuple(values) = row.as_ref() else { return };
    let Some(mut query) = parsed("SELECT 1 FROM x") else { return };
    let alias = Ident::new("__row");
    let column = |at: usize| Ident::new(format!("__{at}"));
    let equal = values.iter().enumerate().map(|(at, value)| Expr::BinaryOp {
        left: Box::new(Expr::CompoundIdentifier(vec![alias.clone(), column(at)])),
        op: ast::BinaryOperator::Eq,
        right: Box::new(value.clone()),
    });
    let condition =
        equal.reduce(|all, next| Expr::BinaryOp { left: Box::new(all), op: ast::BinaryOperator::And, right: Box::new(next) });
    if let SetExpr::Select(select) = query.body.as_mut() {
        let columns = (0..values.len()).map(|at| ast::TableAliasColumnDef { name: column(at), data_type: None }).collect();
        let alias = Some(TableAlias { explicit: true, name: alias, columns });
        if let Some(from) = select.from.first_mut() {
            from.relation = TableFactor::Derived { lateral: false, subquery: subquery.clone(), alias, sample: None };
        }
        select.selection = condition;
    }
    *expr = Expr::Exists { subquery: Box::new(query), negated: false };
}

/// An expression where a value is there, NULL where it is NULL.
pub(super) fn unless_null(value: &Expr, expr: Expr) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![ast::CaseWhen { condition: Expr::IsNotNull(Box::new(value.clone())), result: expr }],
        else_result: None,
    }
}

/// A call of a function by its name.
pub(super) fn call(name: &str, arguments: impl IntoIterator<Item = Expr>) -> Expr {
    let args = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
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

/// `SELECT * FROM relation`, with the name's own place for errors.
fn select_all(relation: ObjectName) -> Option<ast::Query> {
    let mut query = parsed("SELECT * FROM x")?;
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let TableFactor::Table { name, .. } = &mut select.from.first_mut()?.relation else { return None };
    *name = relation;
    Some(query)
}
