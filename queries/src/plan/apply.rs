//! Subqueries that refer to what is outside of them, as joins: LATERAL, EXISTS and IN wherever an expression may stand, and single values that
//! refer to the outside otherwise than by equality.
//!
//! The distinct values of the outer columns that a subquery refers to (its *domain*) are joined into the subquery, which then computes its answers
//! for all of them at once; the outer rows are joined with the answers to their values, in which NULL is a value as any other. This is the way
//! of T. Neumann and A. Kemper, "Unnesting Arbitrary Queries" (2015). What comes out are plain joins, aggregates and
//! windows, so batch queries and maintained views share it. Conditions of WHERE that are just an EXISTS or IN are left to DataFusion's rules, which
//! make semi-joins of them.

mod push;

use std::cell::Cell;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, NullEquality, ScalarValue};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, Join, JoinConstraint, JoinType, LogicalPlan, LogicalPlanBuilder, Operator,
    Projection, Subquery, lit, when,
};

use push::Domain;

/// Replaces such subqueries in a plan that has not been analysed.
///
/// # Errors
/// DataFusion's; and in words where a subquery's operator cannot refer to the outside.
pub(crate) fn apply_subqueries(plan: LogicalPlan) -> Result<LogicalPlan> {
    let apply = Apply { made: Cell::new(0) };
    plan.transform_up_with_subqueries(|node| apply.node(node)).data()
}

struct Apply {
    /// Numbers names that are made up, so that they differ.
    made: Cell<usize>,
}

impl Apply {
    fn name(&self, of: &str) -> String {
        self.made.set(self.made.get() + 1);
        format!("__{of}_{}", self.made.get())
    }

    fn node(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        match node {
            LogicalPlan::Join(join) if lateral(&join.right).is_some() => Ok(Transformed::yes(self.lateral_join(join)?)),
            LogicalPlan::Projection(projection) if projection.expr.iter().any(has_test) => {
                let (input, expr) = self.tests(projection.input, projection.expr)?;
                Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(expr, input)?)))
            }
            LogicalPlan::Filter(filter)
                if split_conjunction(&filter.predicate).into_iter().any(|part| !simple(part, &filter)) =>
            {
                let columns = columns_of(filter.input.schema());
                let (mine, plain): (Vec<Expr>, Vec<Expr>) =
                    split_conjunction(&filter.predicate).into_iter().cloned().partition(|part| !simple(part, &filter));
                let mut input = filter.input;
                if let Some(plain) = plain.into_iter().reduce(Expr::and) {
                    input = Arc::new(LogicalPlan::Filter(Filter::try_new(plain, input)?));
                }
                let (input, mine) = self.tests(input, mine)?;
                let Some(condition) = mine.into_iter().reduce(Expr::and) else {
                    return datafusion::common::internal_err!("a filter lost its condition");
                };
                let filtered = LogicalPlan::Filter(Filter::try_new(condition, input)?);
                Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(filtered))?)))
            }
            other => Ok(Transformed::no(other)),
        }
    }

    /// `left, LATERAL right` and `left LEFT JOIN LATERAL right ON …`.
    fn lateral_join(&self, join: Join) -> Result<LogicalPlan> {
        let Some(subquery) = lateral(&join.right) else {
            return datafusion::common::internal_err!("a lateral join has lost its subquery");
        };
        let mut inner = subquery.subquery.as_ref().clone();
        if let LogicalPlan::SubqueryAlias(alias) = join.right.as_ref() {
            inner = LogicalPlanBuilder::from(inner).alias(alias.alias.clone())?.build()?;
        }
        let equal = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
        let condition = join.filter.iter().cloned().chain(equal).reduce(Expr::and);
        if let Some(condition) = condition {
            let outside = |node: Expr| match &node {
                Expr::Column(column) if join.left.schema().has_column(column) => {
                    let field = join.left.schema().qualified_field_from_column(column)?.1;
                    Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column.clone())))
                }
                _ => Ok(Transformed::no(node)),
            };
            let condition = condition.transform_up(outside).data()?;
            inner = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(inner))?);
        }
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return datafusion::common::plan_err!("a {} JOIN cannot be LATERAL", join.join_type);
        }
        let columns = join.schema.iter().map(|column| Expr::Column(Column::from(column))).collect();
        let joined = self.applied(&join.left, &inner, join.join_type)?;
        Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(joined))?))
    }

    /// The rows of `left` with the rows that `inner` has for each of them.
    fn applied(&self, left: &Arc<LogicalPlan>, inner: &LogicalPlan, join_type: JoinType) -> Result<LogicalPlan> {
        let outer = outer_columns(inner, left.schema());
        if outer.is_empty() {
            return LogicalPlanBuilder::from(left.as_ref().clone()).join_on(inner.clone(), join_type, [lit(true)])?.build();
        }
        let domain = Domain::of(left, &outer, self.name("outer"))?;
        let pushed = domain.push(inner)?;
        let on = domain.pairs.iter().map(|(outer, inside)| (Expr::Column(outer.clone()), Expr::Column(inside.clone()))).collect();
        let equality = NullEquality::NullEqualsNull;
        let joined = Join::try_new(Arc::clone(left), Arc::new(pushed), on, None, join_type, JoinConstraint::On, equality, false)?;
        Ok(LogicalPlan::Join(joined))
    }

    /// Computes the EXISTS and IN of some expressions over `input` below, as columns.
    fn tests(&self, input: Arc<LogicalPlan>, expressions: Vec<Expr>) -> Result<(Arc<LogicalPlan>, Vec<Expr>)> {
        let mut input = input;
        let mut known: Vec<(Expr, Expr)> = Vec::new();
        let mut replaced = Vec::with_capacity(expressions.len());
        for expr in expressions {
            let called = expr.schema_name().to_string();
            let mut replace = |node: Expr| {
                if !is_test(&node) {
                    return Ok(Transformed::no(node));
                }
                if let Some((_, value)) = known.iter().find(|(test, _)| *test == node) {
                    return Ok(Transformed::yes(value.clone()));
                }
                let (below, value) = self.test(&input, &node)?;
                input = below;
                known.push((node, value.clone()));
                Ok(Transformed::yes(value))
            };
            let expr = expr.transform_up(&mut replace).data()?;
            replaced.push(if expr.schema_name().to_string() == called { expr } else { expr.alias(called) });
        }
        Ok((input, replaced))
    }

    /// One test, as an expression over the rows that it is computed with.
    fn test(&self, input: &Arc<LogicalPlan>, test: &Expr) -> Result<(Arc<LogicalPlan>, Expr)> {
        match test {
            Expr::Exists(Exists { subquery, negated }) => {
                let (input, there) = self.there(input, subquery.subquery.as_ref().clone())?;
                Ok((input, if *negated { there.is_not_true() } else { there.is_true() }))
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let inner = subquery.subquery.as_ref();
                let element = Expr::Column(Column::from(inner.schema().qualified_field(0)));
                let (mut input, value) = self.column(Arc::clone(input), expr)?;
                let field = input.schema().qualified_field_from_column(&value)?.1;
                let outside = Expr::OuterReferenceColumn(Arc::clone(field), value.clone());
                let value_may_be_null = field.is_nullable();
                let element_may_be_null = element.nullable(inner.schema())?;
                let filtered = |condition: Expr| LogicalPlanBuilder::from(inner.clone()).filter(condition)?.build();
                let (below, found) = self.there(&input, filtered(element.clone().eq(outside))?)?;
                input = below;
                let mut unknown = Vec::new();
                if element_may_be_null {
                    let (below, null) = self.there(&input, filtered(element.is_null())?)?;
                    input = below;
                    unknown.push(null.is_true());
                }
                if value_may_be_null {
                    let (below, any) = self.there(&input, inner.clone())?;
                    input = below;
                    unknown.push(Expr::Column(value).is_null().and(any.is_true()));
                }
                let mut cases = when(found.is_true(), lit(true));
                if let Some(unknown) = unknown.into_iter().reduce(Expr::or) {
                    cases = cases.when(unknown, Expr::Literal(ScalarValue::Boolean(None), None));
                }
                let is_in = cases.otherwise(lit(false))?;
                Ok((input, if *negated { Expr::Not(Box::new(is_in)) } else { is_in }))
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                let inner = subquery.subquery.as_ref();
                let element = Expr::Column(Column::from(inner.schema().qualified_field(0)));
                let (input, value) = self.column(Arc::clone(input), expr)?;
                let field = input.schema().qualified_field_from_column(&value)?.1;
                let outside = Expr::OuterReferenceColumn(Arc::clone(field), value);
                let holds = Expr::BinaryExpr(BinaryExpr::new(Box::new(outside), *op, Box::new(element)));
                let filtered = |condition: Expr| LogicalPlanBuilder::from(inner.clone()).filter(condition)?.build();
                // one element decides: one for which it holds if any is asked for, one for which it does not if all are
                let all = *quantifier == SetQuantifier::All;
                let decides = if all { holds.clone().is_false() } else { holds.clone().is_true() };
                let (input, decided) = self.there(&input, filtered(decides)?)?;
                let (input, unknown) = self.there(&input, filtered(holds.is_null())?)?;
                let mut cases = when(decided.is_true(), lit(!all));
                let mut cases = cases.when(unknown.is_true(), Expr::Literal(ScalarValue::Boolean(None), None));
                Ok((input, cases.otherwise(lit(all))?))
            }
            Expr::ScalarSubquery(subquery) => {
                let name = self.name("value");
                let value = Expr::Column(Column::new_unqualified(name.clone()));
                let inner = subquery.subquery.as_ref();
                let only = Expr::Column(Column::from(inner.schema().qualified_field(0)));
                let inner = LogicalPlanBuilder::from(inner.clone()).project([only.alias(&name)])?.build()?;
                let mut columns = columns_of(input.schema());
                columns.push(value.clone());
                let applied = self.applied(input, &inner, JoinType::Left)?;
                Ok((Arc::new(LogicalPlanBuilder::from(applied).project(columns)?.build()?), value))
            }
            other => datafusion::common::internal_err!("{other} is not a test"),
        }
    }

    /// The rows with a column that is true where the subquery has rows.
    fn there(&self, input: &Arc<LogicalPlan>, inner: LogicalPlan) -> Result<(Arc<LogicalPlan>, Expr)> {
        let name = self.name("there");
        let outer = outer_columns(&inner, input.schema());
        let mark = Expr::Column(Column::new_unqualified(name.clone()));
        let mut columns = columns_of(input.schema());
        columns.push(mark.clone());
        if outer.is_empty() {
            // counted rather than limited: one number is less to keep than the rows in an order
            let rows = count(lit(1_i64)).alias("rows");
            let any = LogicalPlanBuilder::from(inner).aggregate(Vec::<Expr>::new(), [rows])?;
            let some = Expr::Column(Column::new_unqualified("rows")).gt(lit(0_i64));
            let any = any.filter(some)?.project([lit(true).alias(&name)])?.build()?;
            let joined = LogicalPlanBuilder::from(input.as_ref().clone()).join_on(any, JoinType::Left, [lit(true)])?;
            return Ok((Arc::new(joined.project(columns)?.build()?), mark));
        }
        let domain = Domain::of(input, &outer, self.name("outer"))?;
        let inside: Vec<Expr> = domain.pairs.iter().map(|(_, inside)| Expr::Column(inside.clone())).collect();
        let answers = LogicalPlanBuilder::from(domain.push(&inner)?).project(inside.clone())?.distinct()?;
        let marked = answers.project(inside.into_iter().chain([lit(true).alias(&name)]))?.build()?;
        let on = domain.pairs.iter().map(|(outer, inside)| (Expr::Column(outer.clone()), Expr::Column(inside.clone()))).collect();
        let joined = Join::try_new(
            Arc::clone(input),
            Arc::new(marked),
            on,
            None,
            JoinType::Left,
            JoinConstraint::On,
            NullEquality::NullEqualsNull,
            false,
        )?;
        Ok((Arc::new(LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()?), mark))
    }

    /// The rows with a column that holds an expression's value, if it is not one already.
    fn column(&self, input: Arc<LogicalPlan>, expr: &Expr) -> Result<(Arc<LogicalPlan>, Column)> {
        if let Expr::Column(column) = expr {
            return Ok((input, column.clone()));
        }
        let name = self.name("value");
        let mut columns = columns_of(input.schema());
        columns.push(expr.clone().alias(&name));
        Ok((Arc::new(LogicalPlan::Projection(Projection::try_new(columns, input)?)), Column::new_unqualified(name)))
    }
}

/// The subquery that a join's right side is, if it refers to the left.
fn lateral(right: &LogicalPlan) -> Option<&Subquery> {
    match right {
        LogicalPlan::Subquery(subquery) => Some(subquery),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some(subquery),
            _ => None,
        },
        _ => None,
    }
}

fn is_test(expr: &Expr) -> bool {
    match expr {
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => true,
        Expr::ScalarSubquery(subquery) => !subquery.outer_ref_columns.is_empty() && !equates_only(&subquery.subquery),
        _ => false,
    }
}

/// Whether a subquery's filters are all that refers to the outside, and they ask for equality: DataFusion's own rule makes a join of it.
fn equates_only(inner: &LogicalPlan) -> bool {
    let equates = |condition: &&Expr| match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => left.contains_outer() != right.contains_outer(),
        other => !other.contains_outer(),
    };
    let odd = inner.exists(|node| {
        Ok(match node {
            LogicalPlan::Filter(filter) => !split_conjunction(&filter.predicate).iter().all(equates),
            other => other.expressions().iter().any(Expr::contains_outer),
        })
    });
    // the closure never fails
    !odd.unwrap_or(true)
}

fn has_test(expr: &Expr) -> bool {
    expr.exists(|node| Ok(is_test(node))).unwrap_or(false)
}

/// Whether a condition of WHERE has no test, or is one that a semi- or anti-join answers.
fn simple(condition: &Expr, filter: &Filter) -> bool {
    match condition {
        Expr::Exists(_) => true,
        Expr::InSubquery(InSubquery { negated: false, .. }) => true,
        Expr::InSubquery(InSubquery { expr, subquery, .. }) => {
            let schema = filter.input.schema();
            !expr.nullable(schema).unwrap_or(true) && !subquery.subquery.schema().field(0).is_nullable()
        }
        Expr::Not(inner) if matches!(inner.as_ref(), Expr::Exists(_)) => true,
        other => !has_test(other),
    }
}

/// The columns of `outside` that a subquery refers to.
fn outer_columns(inner: &LogicalPlan, outside: &DFSchemaRef) -> Vec<Column> {
    let mut found: Vec<Column> = Vec::new();
    // the closure never fails
    let _ = inner.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|node| {
                if let Expr::OuterReferenceColumn(_, column) = node
                    && outside.has_column(column)
                    && !found.contains(column)
                {
                    found.push(column.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found
}

fn columns_of(schema: &DFSchemaRef) -> Vec<Expr> {
    schema.iter().map(|column| Expr::Column(Column::from(column))).collect()
}
