//! USING: a column that is named there is one column, with the value of whichever side has a row, and comes first in `*`.
//!
//! DataFusion takes such a column from the left side, which is NULL for the rows that only the right side has. So a FROM with a FULL or RIGHT
//! JOIN gets its USINGs written out as ON, and the columns' names become `coalesce(left, right)`, or the right side's, where the query uses
//! them; and so does one whose columns a `*` asks for. A qualified name (`l.k`) stays that side's own value, as in PostgreSQL.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, SelectItem, SelectItemQualifiedWildcardKind,
    SetExpr, TableFactor, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use super::rewrite::{and, call};
use crate::error::{Position, SqlError, SqlErrorKind};
use crate::name::fold;

/// Rewrites the FROM clauses of a query's own SELECTs.
///
/// # Errors
/// In words, where a column's side cannot be told.
pub(super) fn merge_using(body: &mut SetExpr) -> Result<(), SqlError> {
    match body {
        SetExpr::Select(select) => merge_in(select),
        SetExpr::SetOperation { left, right, .. } => {
            merge_using(left)?;
            merge_using(right)
        }
        _ => Ok(()),
    }
}

/// A relation in FROM: what its columns are qualified by, and which of them are merged with another's.
struct Factor {
    name: Ident,
    merged: Vec<Ident>,
}

#[derive(Default)]
struct Merged {
    factors: Vec<Factor>,
    /// The merged columns' names and values, in the order of `*`.
    columns: Vec<(Ident, Expr)>,
}

fn merge_in(select: &mut ast::Select) -> Result<(), SqlError> {
    // for each USING, whether the right side's rows stay without a partner
    let mut found = Vec::new();
    for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
        let right_stays =
            matches!(join.join_operator, JoinOperator::FullOuter(_) | JoinOperator::Right(_) | JoinOperator::RightOuter(_));
        match constraint(&mut join.join_operator) {
            Some(JoinConstraint::Using(_)) => found.push(right_stays),
            Some(JoinConstraint::Natural) if right_stays => found.push(true),
            _ => {}
        }
    }
    if found.contains(&true) {
        return write_out(select);
    }
    if !found.is_empty() && select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_))) {
        let mut changed = select.clone();
        // where a side cannot be told, only the order of the columns is DataFusion's
        if write_out(&mut changed).is_ok() {
            *select = changed;
        }
    }
    Ok(())
}

fn write_out(select: &mut ast::Select) -> Result<(), SqlError> {
    let mut merged = Merged::default();
    for from in &mut select.from {
        // each list of joins has its own columns to merge with
        let first = merged.factors.len();
        merged.factors.push(factor(&from.relation)?);
        for join in &mut from.joins {
            merged.join(join, first)?;
        }
    }
    merged.expand_wildcards(select);
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Identifier(ident)) = item
            && let Some(value) = merged.value(ident)
        {
            *item = SelectItem::ExprWithAlias { expr: value.clone(), alias: ident.clone() };
        }
    }
    // subqueries in FROM do not see these columns
    let from = std::mem::take(&mut select.from);
    let _: ControlFlow<()> = select.visit(&mut Names { merged: &merged, depth: 0 });
    select.from = from;
    Ok(())
}

fn factor(relation: &TableFactor) -> Result<Factor, SqlError> {
    let name = match relation {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.clone())
        }
        TableFactor::Table { name, .. } => name.0.last().and_then(ObjectNamePart::as_ident).cloned(),
        _ => None,
    };
    let name =
        name.ok_or_else(|| refused("USING beside a relation without a name is not supported", "give it a name with AS"))?;
    Ok(Factor { name, merged: Vec::new() })
}

fn refused(message: &str, hint: &str) -> SqlError {
    SqlError::new(SqlErrorKind::Unsupported, Position::default(), message).with_hint(hint)
}

impl Merged {
    fn value(&self, ident: &Ident) -> Option<&Expr> {
        let name = fold(ident);
        self.columns.iter().find(|(column, _)| fold(column) == name).map(|(_, value)| value)
    }

    fn join(&mut self, join: &mut ast::Join, first: usize) -> Result<(), SqlError> {
        let mut right = factor(&join.relation)?;
        let kept = match &join.join_operator {
            JoinOperator::FullOuter(_) => Kept::Either,
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => Kept::Right,
            _ => Kept::Left,
        };
        if let Some(constraint) = constraint(&mut join.join_operator) {
            match constraint {
                JoinConstraint::Natural => {
                    return Err(refused("NATURAL beside FULL or RIGHT JOIN is not supported", "name the columns: USING (…)"));
                }
                JoinConstraint::Using(columns) => {
                    let columns: Vec<Ident> =
                        columns.iter().filter_map(|column| column.0.last().and_then(ObjectNamePart::as_ident)).cloned().collect();
                    let mut condition: Option<Expr> = None;
                    for column in columns {
                        let ours = self.left_of(&column, first)?;
                        let theirs = Expr::CompoundIdentifier(vec![right.name.clone(), column.clone()]);
                        let equal = Expr::BinaryOp {
                            left: Box::new(ours.clone()),
                            op: ast::BinaryOperator::Eq,
                            right: Box::new(theirs.clone()),
                        };
                        condition = Some(condition.map_or_else(|| equal.clone(), |condition| and(condition, equal.clone())));
                        let value = match kept {
                            Kept::Left => ours,
                            Kept::Right => theirs,
                            Kept::Either => call("coalesce", [ours, theirs]),
                        };
                        let name = fold(&column);
                        match self.columns.iter_mut().find(|(known, _)| fold(known) == name) {
                            Some((_, known)) => *known = value,
                            None => self.columns.push((column.clone(), value)),
                        }
                        right.merged.push(column);
                    }
                    if let Some(condition) = condition {
                        *constraint = JoinConstraint::On(condition);
                    }
                }
                JoinConstraint::On(_) | JoinConstraint::None => {}
            }
        }
        self.factors.push(right);
        Ok(())
    }

    /// The value that a column of USING has on the left.
    fn left_of(&mut self, column: &Ident, first: usize) -> Result<Expr, SqlError> {
        if let Some(value) = self.value(column) {
            return Ok(value.clone());
        }
        match &mut self.factors[first..] {
            [only] => {
                only.merged.push(column.clone());
                Ok(Expr::CompoundIdentifier(vec![only.name.clone(), column.clone()]))
            }
            _ => Err(refused(
                &format!("USING ({column}) is not supported where several relations on the left may have the column"),
                "write ON with the column's relation",
            )),
        }
    }

    /// `*` as the merged columns and then what is left of each relation.
    fn expand_wildcards(&self, select: &mut ast::Select) {
        let mut items = Vec::with_capacity(select.projection.len());
        for item in select.projection.drain(..) {
            let SelectItem::Wildcard(_) = &item else {
                items.push(item);
                continue;
            };
            let named = self.columns.iter();
            items.extend(named.map(|(name, value)| SelectItem::ExprWithAlias { expr: value.clone(), alias: name.clone() }));
            for factor in &self.factors {
                let left_out = (!factor.merged.is_empty()).then(|| ast::ExcludeSelectItem::Multiple(factor.merged.clone()));
                let options = WildcardAdditionalOptions { opt_exclude: left_out, ..WildcardAdditionalOptions::default() };
                let name = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![factor.name.clone()]));
                items.push(SelectItem::QualifiedWildcard(name, options));
            }
        }
        select.projection = items;
    }
}

enum Kept {
    Left,
    Right,
    Either,
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    use JoinOperator::{FullOuter, Inner, Join, Left, LeftOuter, Right, RightOuter};
    match operator {
        Join(on) | Inner(on) | Left(on) | LeftOuter(on) | Right(on) | RightOuter(on) | FullOuter(on) => Some(on),
        _ => None,
    }
}

/// Puts values where merged columns are named, outside of subqueries.
struct Names<'a> {
    merged: &'a Merged,
    depth: usize,
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(ident) = &*expr
            && let Some(value) = self.merged.value(ident)
        {
            *expr = value.clone();
        }
        ControlFlow::Continue(())
    }
}
