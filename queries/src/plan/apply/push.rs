//! Joining a domain into a subquery: every operator answers for each value of the domain by itself.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchemaRef, NullEquality, TableReference};
use datafusion::error::Result;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::logical_plan::{FetchType, SkipType};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Filter, Join, JoinConstraint, JoinType, Limit, LogicalPlan, LogicalPlanBuilder, Projection, lit,
};

use super::{columns_of, outer_columns};
use crate::error::{Position, SqlError, SqlErrorKind};

/// The distinct values of some outer columns.
pub(super) struct Domain {
    plan: LogicalPlan,
    outside: DFSchemaRef,
    /// Each outer column, and where its values are in the domain.
    pub(super) pairs: Vec<(Column, Column)>,
}

impl Domain {
    pub(super) fn of(left: &Arc<LogicalPlan>, outer: &[Column], name: String) -> Result<Domain> {
        let columns = outer.iter().enumerate().map(|(at, column)| Expr::Column(column.clone()).alias(format!("c{at}")));
        let plan = LogicalPlanBuilder::from(left.as_ref().clone()).project(columns)?.distinct()?.alias(name.as_str())?.build()?;
        let inside = |at: usize| Column::new(Some(TableReference::bare(name.as_str())), format!("c{at}"));
        let pairs = outer.iter().enumerate().map(|(at, column)| (column.clone(), inside(at))).collect();
        Ok(Domain { plan, outside: Arc::clone(left.schema()), pairs })
    }

    fn columns(&self) -> Vec<Expr> {
        self.pairs.iter().map(|(_, inside)| Expr::Column(inside.clone())).collect()
    }

    /// An expression with what it refers to outside taken from the domain; it is called as before.
    fn inside(&self, expr: &Expr) -> Result<Expr> {
        let replace = |node: Expr| match &node {
            Expr::OuterReferenceColumn(_, column) => match self.pairs.iter().find(|(outer, _)| outer == column) {
                Some((_, inside)) => Ok(Transformed::yes(Expr::Column(inside.clone()))),
                None => Ok(Transformed::no(node)),
            },
            _ => Ok(Transformed::no(node)),
        };
        expr.clone().transform_up(replace).data()
    }

    fn named(&self, expr: &Expr) -> Result<Expr> {
        let replaced = self.inside(expr)?;
        let called = expr.schema_name().to_string();
        Ok(if replaced.schema_name().to_string() == called { replaced } else { replaced.alias(called) })
    }

    fn all(&self, expressions: &[Expr]) -> Result<Vec<Expr>> {
        let own = self.columns().into_iter().map(Ok);
        own.chain(expressions.iter().map(|expr| self.named(expr))).collect()
    }

    /// The domain's columns, and beside them what the plan answers for their values.
    pub(super) fn push(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        if outer_columns(plan, &self.outside).is_empty() {
            if matches!(plan, LogicalPlan::EmptyRelation(empty) if empty.produce_one_row && empty.schema.fields().is_empty()) {
                return Ok(self.plan.clone());
            }
            return LogicalPlanBuilder::from(self.plan.clone()).cross_join(plan.clone())?.build();
        }
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.push(&projection.input)?;
                Ok(LogicalPlan::Projection(Projection::try_new(self.all(&projection.expr)?, Arc::new(input))?))
            }
            LogicalPlan::Filter(filter) => {
                let input = self.push(&filter.input)?;
                Ok(LogicalPlan::Filter(Filter::try_new(self.inside(&filter.predicate)?, Arc::new(input))?))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.push(&alias.input)?;
                let renamed = alias.input.schema().iter().zip(alias.schema.iter()).map(|(column, (qualifier, field))| {
                    Expr::Column(Column::from(column)).alias_qualified(qualifier.cloned(), field.name())
                });
                let columns: Vec<Expr> = self.columns().into_iter().chain(renamed).collect();
                LogicalPlanBuilder::from(input).project(columns)?.build()
            }
            LogicalPlan::Subquery(subquery) => self.push(&subquery.subquery),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Sort(sort) => match sort.fetch {
                None => self.push(&sort.input),
                Some(fetch) => self.limited(&sort.input, &sort.expr, 0, Some(fetch)),
            },
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Distinct(Distinct::All(input)) => LogicalPlanBuilder::from(self.push(input)?).distinct()?.build(),
            LogicalPlan::Distinct(Distinct::On(distinct)) => {
                let own = self.columns().into_iter().map(|column| SortExpr::new(column, true, false));
                let sort = distinct
                    .sort_expr
                    .iter()
                    .flatten()
                    .map(|sort| Ok(SortExpr::new(self.inside(&sort.expr)?, sort.asc, sort.nulls_first)));
                let sort = own.map(Ok).chain(sort).collect::<Result<Vec<_>>>()?;
                let on = self.all(&distinct.on_expr)?;
                let select = self.all(&distinct.select_expr)?;
                let sort = distinct.sort_expr.is_some().then_some(sort);
                LogicalPlanBuilder::from(self.push(&distinct.input)?).distinct_on(on, select, sort)?.build()
            }
            LogicalPlan::Window(window) => {
                let mut columns = self.columns();
                columns.extend(columns_of(window.input.schema()));
                let mut calls = Vec::with_capacity(window.window_expr.len());
                for expr in &window.window_expr {
                    let call = self.partitioned(self.inside(expr)?.unalias())?;
                    columns.push(named_column(&call).alias(expr.schema_name().to_string()));
                    calls.push(call);
                }
                LogicalPlanBuilder::from(self.push(&window.input)?).window(calls)?.project(columns)?.build()
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => {
                let width = union.schema.fields().len();
                let name = |at: usize| format!("u{at}");
                let mut all: Option<LogicalPlanBuilder> = None;
                for input in &union.inputs {
                    let columns = input.schema().iter().enumerate();
                    let columns = columns.map(|(at, column)| Expr::Column(Column::from(column)).alias(name(at)));
                    let own = self.columns().into_iter().enumerate().map(|(at, column)| column.alias(format!("d{at}")));
                    let part = LogicalPlanBuilder::from(self.push(input)?).project(own.chain(columns))?;
                    all = Some(match all {
                        None => part,
                        Some(all) => all.union(part.build()?)?,
                    });
                }
                let Some(all) = all else { return datafusion::common::internal_err!("a union has no input") };
                let column = |name: String| Expr::Column(Column::new_unqualified(name));
                let own = self
                    .pairs
                    .iter()
                    .enumerate()
                    .map(|(at, (_, inside))| column(format!("d{at}")).alias_qualified(inside.relation.clone(), &inside.name));
                let columns = (0..width).map(|at| {
                    let (qualifier, field) = union.schema.qualified_field(at);
                    column(name(at)).alias_qualified(qualifier.cloned(), field.name())
                });
                all.project(own.chain(columns))?.build()
            }
            LogicalPlan::Unnest(unnest) => LogicalPlanBuilder::from(self.push(&unnest.input)?)
                .unnest_columns_with_options(unnest.exec_columns.clone(), unnest.options.clone())?
                .build(),
            other => Err(refused(&other.display().to_string())),
        }
    }

    fn aggregate(&self, aggregate: &Aggregate) -> Result<LogicalPlan> {
        let input = self.push(&aggregate.input)?;
        let group = self.all(&aggregate.group_expr)?;
        let calls = aggregate.aggr_expr.iter().map(|call| self.named(call)).collect::<Result<Vec<_>>>()?;
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), group, calls.clone())?);
        if !aggregate.group_expr.is_empty() {
            return Ok(grouped);
        }
        // without GROUP BY there is an answer over no rows, too
        let own: Vec<(Expr, Expr)> = self.columns().into_iter().zip(columns_of(grouped.schema())).collect();
        let answers = self.pairs.iter().enumerate().map(|(at, _)| own[at].1.clone().alias(format!("a{at}")));
        let results: Vec<Expr> = columns_of(grouped.schema()).split_off(self.pairs.len());
        let answers = LogicalPlanBuilder::from(grouped).project(answers.chain(results.clone()))?.build()?;
        let on = own
            .iter()
            .enumerate()
            .map(|(at, (inside, _))| (inside.clone(), Expr::Column(Column::new_unqualified(format!("a{at}")))));
        let joined = Join::try_new(
            Arc::new(self.plan.clone()),
            Arc::new(answers),
            on.collect(),
            None,
            JoinType::Left,
            JoinConstraint::On,
            NullEquality::NullEqualsNull,
            false,
        )?;
        let columns = aggregate.aggr_expr.iter().zip(results).map(|(call, result)| match counts(call) {
            true => {
                datafusion::functions::core::expr_fn::coalesce(vec![result, lit(0_i64)]).alias(call.schema_name().to_string())
            }
            false => result,
        });
        let columns: Vec<Expr> = self.columns().into_iter().chain(columns).collect();
        LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()
    }

    fn limit(&self, limit: &Limit) -> Result<LogicalPlan> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?) else {
            return Err(refused("LIMIT of something else than a number"));
        };
        match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => self.limited(&sort.input, &sort.expr, skip, fetch),
            LogicalPlan::Projection(projection) => {
                let below = Limit { input: Arc::clone(&projection.input), ..limit.clone() };
                let input = self.limit(&below)?;
                Ok(LogicalPlan::Projection(Projection::try_new(self.all(&projection.expr)?, Arc::new(input))?))
            }
            input => self.limited(input, &[], skip, fetch),
        }
    }

    /// The first rows for each value.
    fn limited(&self, input: &LogicalPlan, order: &[SortExpr], skip: usize, fetch: Option<usize>) -> Result<LogicalPlan> {
        let mut columns = self.columns();
        columns.extend(columns_of(input.schema()));
        let mut call = self.partitioned(row_number())?;
        if let Expr::WindowFunction(call) = &mut call {
            for sort in order {
                call.params.order_by.push(SortExpr::new(self.inside(&sort.expr)?, sort.asc, sort.nulls_first));
            }
        }
        let number = named_column(&call);
        let mut limited = LogicalPlanBuilder::from(self.push(input)?).window([call])?;
        if let Some(fetch) = fetch {
            limited = limited.filter(number.clone().lt_eq(lit((skip + fetch) as u64)))?;
        }
        if skip > 0 {
            limited = limited.filter(number.gt(lit(skip as u64)))?;
        }
        limited.project(columns)?.build()
    }

    fn partitioned(&self, call: Expr) -> Result<Expr> {
        match call {
            Expr::WindowFunction(call) => {
                let mut call: WindowFunction = *call;
                call.params.partition_by.splice(0..0, self.columns());
                Ok(Expr::WindowFunction(Box::new(call)))
            }
            other => Err(refused(&other.to_string())),
        }
    }

    fn join(&self, join: &Join) -> Result<LogicalPlan> {
        let refers = |plan: &LogicalPlan| !outer_columns(plan, &self.outside).is_empty();
        let (left, right) = (refers(&join.left), refers(&join.right));
        let (left, right) = match (left, right, join.join_type) {
            (_, false, JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti) => {
                (Arc::new(self.push(&join.left)?), Arc::clone(&join.right))
            }
            (false, true, JoinType::Inner | JoinType::Right) => (Arc::clone(&join.left), Arc::new(self.push(&join.right)?)),
            _ => return Err(refused("both sides of a join within it")),
        };
        let on = join.on.iter().map(|(left, right)| Ok((self.inside(left)?, self.inside(right)?))).collect::<Result<_>>()?;
        let filter = join.filter.as_ref().map(|filter| self.inside(filter)).transpose()?;
        let joined =
            Join::try_new(left, right, on, filter, join.join_type, join.join_constraint, join.null_equality, join.null_aware)?;
        let mut columns = self.columns();
        columns.extend(columns_of(&join.schema));
        LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()
    }
}

fn named_column(call: &Expr) -> Expr {
    Expr::Column(Column::new_unqualified(call.schema_name().to_string()))
}

fn counts(call: &Expr) -> bool {
    match call {
        Expr::Alias(alias) => counts(&alias.expr),
        Expr::AggregateFunction(call) => call.func.name() == "count",
        _ => false,
    }
}

fn refused(what: &str) -> datafusion::error::DataFusionError {
    let message = format!("a subquery that refers to the query around it from {what} is not supported");
    SqlError::new(SqlErrorKind::Unsupported, Position::default(), message).with_hint("write it as a join").into()
}
