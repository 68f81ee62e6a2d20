//! The first rows of each group: LIMIT, DISTINCT ON, and `row_number()` with a bound on it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchemaRef, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::logical_plan::{FetchType, SkipType};
use datafusion::logical_expr::{BinaryExpr, DistinctOn, Expr, Limit, LogicalPlan, Operator, Projection, Window};
use livelake_dataflow::plan::{OrderBy, Plan};

use super::{Lowering, Rows, map, unsupported};

/// Groups and their order, over the columns of a map.
struct Ranking {
    input: Plan,
    partition: Vec<usize>,
    order: Vec<OrderBy>,
}

/// How many rows of each group, and whether they are numbered.
#[derive(Clone, Copy)]
struct Bounds {
    offset: u64,
    limit: Option<u64>,
    row_number: bool,
}

impl Lowering<'_> {
    pub(super) fn limit(&self, limit: &Limit) -> Result<Rows> {
        let (SkipType::Literal(offset), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?) else {
            return Err(unsupported("LIMIT of something else than a number", None));
        };
        match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => self.sorted(&sort.input, &sort.expr, offset, smaller(fetch, sort.fetch)),
            // A projection keeps rows and order: the limit may as well be taken below it.
            LogicalPlan::Projection(Projection { input, expr, schema, .. }) if matches!(input.as_ref(), LogicalPlan::Sort(_)) => {
                let below = Limit { skip: limit.skip.clone(), fetch: limit.fetch.clone(), input: Arc::clone(input) };
                let rows = self.limit(&below)?;
                self.project(rows, expr, schema)
            }
            input => self.sorted(input, &[], offset, fetch),
        }
    }

    /// ORDER BY … LIMIT … OFFSET.
    pub(super) fn sorted(&self, input: &LogicalPlan, order: &[SortExpr], offset: usize, fetch: Option<usize>) -> Result<Rows> {
        let rows = self.node(input)?;
        let bounds = Bounds { offset: offset as u64, limit: fetch.map(|fetch| fetch as u64), row_number: false };
        let schema = Arc::clone(&rows.schema);
        let ranking = self.ranking(rows, &[], order)?;
        narrow(ranking.rank(bounds), &schema)
    }

    pub(super) fn distinct_on(&self, distinct: &DistinctOn) -> Result<Rows> {
        let rows = self.node(&distinct.input)?;
        let input_schema = Arc::clone(&rows.schema);
        let order: Vec<SortExpr> = distinct.sort_expr.clone().unwrap_or_default();
        let ranking = self.ranking(rows, &distinct.on_expr, &order)?;
        let plan = ranking.rank(Bounds { offset: 0, limit: Some(1), row_number: false });
        let rows = narrow(plan, &input_schema)?;
        self.project(rows, &distinct.select_expr, &distinct.schema)
    }

    /// A filter; what is said above a window is taken down to it, through what only picks and renames columns.
    pub(super) fn filtered(&self, input: &LogicalPlan, conjuncts: Vec<Expr>) -> Result<Rows> {
        match input {
            LogicalPlan::Window(window) => self.filtered_window(window, conjuncts),
            LogicalPlan::SubqueryAlias(alias) if leads_to_window(&alias.input) => {
                let columns: Vec<Expr> = alias.input.schema().iter().map(|column| Expr::Column(Column::from(column))).collect();
                let rows = self.filtered(&alias.input, replaced(conjuncts, &alias.schema, &columns)?)?;
                Ok(Rows { plan: rows.plan, schema: Arc::clone(&alias.schema) })
            }
            LogicalPlan::Projection(projection) if leads_to_window(&projection.input) => {
                let rows = self.filtered(&projection.input, replaced(conjuncts, &projection.schema, &projection.expr)?)?;
                self.project(rows, &projection.expr, &projection.schema)
            }
            input => {
                let rows = self.node(input)?;
                self.filter(rows, conjuncts)
            }
        }
    }

    /// A bound on the row number is the limit of the top-k.
    fn filtered_window(&self, window: &Window, conjuncts: Vec<Expr>) -> Result<Rows> {
        let number = window.input.schema().fields().len();
        let mut limit: Option<u64> = None;
        let mut rest = Vec::new();
        for conjunct in conjuncts {
            match upper_bound(&conjunct, &window.schema, number) {
                _ if only_row_number(window).is_none() => rest.push(conjunct),
                Some(bound) => {
                    limit = Some(limit.map_or(bound.limit, |known| known.min(bound.limit)));
                    if !bound.implied {
                        rest.push(conjunct);
                    }
                }
                None => rest.push(conjunct),
            }
        }
        let rows = self.window(window, limit)?;
        self.filter(rows, rest)
    }

    /// `row_number()`, limited where a filter above says so.
    pub(super) fn window(&self, window: &Window, limit: Option<u64>) -> Result<Rows> {
        let Some(call) = only_row_number(window) else { return self.window_functions(window) };
        let rows = self.node(&window.input)?;
        let width = rows.schema.fields().len();
        let ranking = self.ranking(rows, &call.params.partition_by, &call.params.order_by)?;
        let ranked = ranking.rank(Bounds { offset: 0, limit, row_number: true });
        let number = ranked.schema().fields().len() - 1;
        let mut projection = map::columns(&ranked, (0..width).chain([number]));
        // The engine counts in Int64, DataFusion's plan in UInt64.
        if let Some(last) = projection.last_mut() {
            *last = map::cast(Arc::clone(last), window.schema.field(width).data_type());
        }
        let plan = map::map(ranked, Vec::new(), projection, &map::names(&window.schema))?;
        Ok(Rows { plan, schema: Arc::clone(&window.schema) })
    }

    /// The rows with the columns to group and order by.
    fn ranking(&self, rows: Rows, partition: &[Expr], order: &[SortExpr]) -> Result<Ranking> {
        let mut projection = map::identity(&rows.plan);
        let mut names = map::plan_names(&rows.plan);
        let mut column = |expr: &Expr| -> Result<usize> {
            let expr = self.physical(expr, &rows.schema)?;
            if let Some(index) = projection.iter().position(|known| map::same(known, &expr)) {
                return Ok(index);
            }
            names.push(format!("order_{}", names.len()));
            projection.push(expr);
            Ok(projection.len() - 1)
        };
        let partition = partition.iter().map(&mut column).collect::<Result<Vec<_>>>()?;
        let mut order_by: Vec<OrderBy> = Vec::with_capacity(order.len());
        for sort in order {
            let index = column(&sort.expr)?;
            // What is equal within a group does not order it.
            if !partition.contains(&index) && order_by.iter().all(|known| known.column != index) {
                order_by.push(OrderBy { column: index, descending: !sort.asc, nulls_first: sort.nulls_first });
            }
        }
        let input = map::map(rows.plan, Vec::new(), projection, &names)?;
        Ok(Ranking { input, partition, order: order_by })
    }
}

impl Ranking {
    fn rank(self, bounds: Bounds) -> Plan {
        let mut fields: Vec<_> = self.input.schema().fields().iter().cloned().collect();
        if bounds.row_number {
            fields.push(Arc::new(Field::new("row_number", DataType::Int64, true)));
        }
        Plan::TopK {
            input: Box::new(self.input),
            partition: self.partition,
            order: self.order,
            offset: bounds.offset,
            limit: bounds.limit,
            row_number: bounds.row_number,
            schema: Arc::new(Schema::new(fields)),
        }
    }
}

/// Drops the columns that were only there to order by.
fn narrow(plan: Plan, schema: &DFSchemaRef) -> Result<Rows> {
    let projection = map::columns(&plan, 0..schema.fields().len());
    let plan = map::map(plan, Vec::new(), projection, &map::names(schema))?;
    Ok(Rows { plan, schema: Arc::clone(schema) })
}

fn leads_to_window(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Window(_) => true,
        LogicalPlan::SubqueryAlias(alias) => leads_to_window(&alias.input),
        LogicalPlan::Projection(projection) => leads_to_window(&projection.input),
        _ => false,
    }
}

/// Conditions over a node's columns, said over its input's.
fn replaced(conjuncts: Vec<Expr>, schema: &DFSchemaRef, columns: &[Expr]) -> Result<Vec<Expr>> {
    let replace = |expr: Expr| match &expr {
        Expr::Column(column) => {
            let index = schema.index_of_column(column)?;
            Ok(Transformed::yes(columns[index].clone().unalias()))
        }
        _ => Ok(Transformed::no(expr)),
    };
    conjuncts.into_iter().map(|conjunct| conjunct.transform_up(replace).data()).collect()
}

fn smaller(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The call, if all that is asked for is `row_number()`.
fn only_row_number(window: &Window) -> Option<&WindowFunction> {
    let [expr] = window.window_expr.as_slice() else { return None };
    let call = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    match call {
        Expr::WindowFunction(call) if call.fun.name() == "row_number" => Some(call),
        _ => None,
    }
}

struct UpperBound {
    limit: u64,
    /// Whether the limit says all that the condition says.
    implied: bool,
}

/// What `row_number <= n`, `< n`, `= n` and their mirror images say.
fn upper_bound(conjunct: &Expr, schema: &DFSchemaRef, number: usize) -> Option<UpperBound> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = conjunct else { return None };
    let is_number = |expr: &Expr| match strip_casts(expr) {
        Expr::Column(column) => schema.index_of_column(column).ok() == Some(number),
        _ => false,
    };
    let (op, value) = if is_number(left) {
        (*op, integer(right)?)
    } else if is_number(right) {
        (op.swap()?, integer(left)?)
    } else {
        return None;
    };
    let limit = |value: i128| u64::try_from(value.max(0)).unwrap_or(u64::MAX);
    match op {
        Operator::LtEq => Some(UpperBound { limit: limit(value), implied: true }),
        Operator::Lt => Some(UpperBound { limit: limit(value - 1), implied: true }),
        Operator::Eq => Some(UpperBound { limit: limit(value), implied: value <= 1 && value > 0 }),
        _ => None,
    }
}

fn strip_casts(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => strip_casts(&cast.expr),
        Expr::TryCast(cast) => strip_casts(&cast.expr),
        other => other,
    }
}

fn integer(expr: &Expr) -> Option<i128> {
    let Expr::Literal(value, _) = strip_casts(expr) else { return None };
    match value {
        ScalarValue::Decimal128(Some(value), _, 0) => Some(*value),
        ScalarValue::UInt64(Some(value)) => Some(i128::from(*value)),
        value => match value.cast_to(&DataType::Int64).ok()? {
            ScalarValue::Int64(Some(integer)) if value.data_type().is_integer() => Some(i128::from(integer)),
            _ => None,
        },
    }
}
