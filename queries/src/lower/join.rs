//! Joins. The engine joins equal keys; the other kinds are made of that: a semi-join is a join with the distinct keys, an
//! anti-join is what remains when the semi-join is taken away, and an outer join is the inner one and the anti-join padded
//! with NULLs. All of that is exact for bags: taking away is negation, not a set difference.

use std::sync::Arc;

use datafusion::common::{DFSchemaRef, JoinType, NullEquality, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use livelake_dataflow::plan::{JoinRange, Plan};

use super::band::{band, comparison};
use super::{Lowering, Rows, engine_schema, map, unsupported};

/// The two inputs of a join and its condition.
struct Sides<'a> {
    left: &'a Rows,
    right: &'a Rows,
    on: Vec<(Expr, Expr)>,
    filter: Vec<Expr>,
    null_equals_null: bool,
}

impl Lowering<'_> {
    pub(super) fn join(&self, join: &Join) -> Result<Rows> {
        let (left, right) = (self.node(&join.left)?, self.node(&join.right)?);
        let sides = Sides {
            left: &left,
            right: &right,
            on: join.on.clone(),
            filter: join.filter.clone().map(split_conjunction_owned).unwrap_or_default(),
            null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
        };
        let schema = &join.schema;
        match join.join_type {
            JoinType::Inner => self.inner(&sides, schema),
            JoinType::Left if is_scalar(join) => self.inner(&Sides { filter: Vec::new(), ..sides }, schema),
            JoinType::LeftSemi => self.semi(&sides, schema),
            JoinType::RightSemi => self.semi(&sides.swapped(), schema),
            // NOT IN comes here only where neither side can be NULL
            JoinType::LeftAnti => self.anti(&sides, schema),
            JoinType::RightAnti => self.anti(&sides.swapped(), schema),
            JoinType::Left => {
                let parts = vec![self.inner(&sides, schema)?.plan, self.padded(&sides, schema, false)?];
                self.union(parts, schema)
            }
            JoinType::Right => {
                let parts = vec![self.inner(&sides, schema)?.plan, self.padded(&sides.swapped(), schema, true)?];
                self.union(parts, schema)
            }
            JoinType::Full => {
                let inner = self.inner(&sides, schema)?.plan;
                let left = self.padded(&sides, schema, false)?;
                self.union(vec![inner, left, self.padded(&sides.swapped(), schema, true)?], schema)
            }
            // subqueries in expressions are joins before DataFusion would mark rows
            JoinType::LeftMark | JoinType::RightMark => Err(unsupported("a mark join", None)),
        }
    }

    /// Columns of the left, then of the right, of the rows that fit.
    fn inner(&self, sides: &Sides<'_>, schema: &DFSchemaRef) -> Result<Rows> {
        let band = band(&sides.filter, &sides.left.schema, &sides.right.schema);
        let compared = if band.is_some() { None } else { sides.compared() };
        let range = compared.as_ref();
        let left_keys = sides.on.iter().map(|(left, _)| left).chain(range.map(|range| &range.0));
        let right_keys = sides.on.iter().map(|(_, right)| right).chain(range.map(|range| &range.1));
        let ((left, left_keys), (right, right_keys)) = (self.keyed(sides.left, left_keys)?, self.keyed(sides.right, right_keys)?);
        let mut on: Vec<(usize, usize)> = left_keys.into_iter().zip(right_keys).collect();
        let (mut left, mut right) = same_types(left, right, &on)?;
        let range = range.and_then(|(_, _, left_is_greater)| {
            let (left, right) = on.pop()?;
            let in_key = on.iter().any(|pair| pair.0 == left || pair.1 == right);
            (!in_key).then_some(JoinRange { left, right, left_is_greater: *left_is_greater })
        });
        if let Some(band) = band {
            let (left_bucket, right_bucket);
            ((left, left_bucket), (right, right_bucket)) = self.bucketed(&band, (sides.left, left), (sides.right, right))?;
            on.push((left_bucket, right_bucket));
        }
        let mut selected: (Vec<usize>, Vec<usize>) =
            ((0..sides.left.schema.fields().len()).collect(), (0..sides.right.schema.fields().len()).collect());
        if range.is_none() {
            let keys: (Vec<usize>, Vec<usize>) = on.iter().copied().unzip();
            if let Some((get, columns)) = self.by_index(&left, &keys.0) {
                on.iter_mut().for_each(|pair| pair.0 = columns[pair.0]);
                selected.0 = selected.0.into_iter().map(|column| columns[column]).collect();
                left = get;
            }
            if let Some((get, columns)) = self.by_index(&right, &keys.1) {
                on.iter_mut().for_each(|pair| pair.1 = columns[pair.1]);
                selected.1 = selected.1.into_iter().map(|column| columns[column]).collect();
                right = get;
            }
        }
        let offset = left.schema().fields().len();
        let joined = with_range(join_on(left, right, on, sides.null_equals_null), range);
        let projection = map::columns(&joined, selected.0.into_iter().chain(selected.1.into_iter().map(|i| offset + i)));
        // Filters see both sides, whatever the join's own output is.
        let both: DFSchemaRef = Arc::new(sides.left.schema.join(&sides.right.schema)?);
        let plan = map::map(joined, Vec::new(), projection, &map::names(&both))?;
        let rows = self.filter(Rows { plan, schema: both }, sides.filter.clone())?;
        Ok(Rows { plan: rows.plan, schema: Arc::clone(schema) })
    }

    /// The left rows that have a partner.
    fn semi(&self, sides: &Sides<'_>, schema: &DFSchemaRef) -> Result<Rows> {
        let width = sides.left.schema.fields().len();
        if sides.filter.is_empty() {
            let keys = sides.on.iter().map(|(_, right)| self.physical(right, &sides.right.schema)).collect::<Result<Vec<_>>>()?;
            let names: Vec<String> = (0..keys.len()).map(|index| format!("key_{index}")).collect();
            let keys = map::map(sides.right.plan.clone(), Vec::new(), keys, &names)?;
            let partners = Plan::Distinct { input: Box::new(keys) };
            let (left, left_keys) = self.keyed(sides.left, sides.on.iter().map(|(left, _)| left))?;
            let on: Vec<(usize, usize)> = left_keys.into_iter().zip(0..).collect();
            let (left, partners) = same_types(left, partners, &on)?;
            return select(join_on(left, partners, on, sides.null_equals_null), width, schema);
        }
        // With other conditions a left row is known by all of its columns: those that appear in the inner join are kept.
        let inner = self.inner(sides, &Arc::new(sides.left.schema.join(&sides.right.schema)?))?;
        let matched = select(inner.plan, width, &sides.left.schema)?;
        let matched = Plan::Distinct { input: Box::new(matched.plan) };
        let on = (0..width).map(|index| (index, index)).collect();
        select(join_on(sides.left.plan.clone(), matched, on, true), width, schema)
    }

    /// The left rows that have no partner.
    fn anti(&self, sides: &Sides<'_>, schema: &DFSchemaRef) -> Result<Rows> {
        let matched = self.semi(sides, schema)?.plan;
        self.union(vec![sides.left.plan.clone(), Plan::Negate { input: Box::new(matched) }], schema)
    }

    /// The left rows without partner, with NULLs for the right's columns; `swapped` puts the NULLs first.
    fn padded(&self, sides: &Sides<'_>, schema: &DFSchemaRef, swapped: bool) -> Result<Plan> {
        let rows = self.anti(sides, &sides.left.schema)?;
        let width = sides.left.schema.fields().len();
        let wanted = engine_schema(schema);
        let kept = map::columns(&rows.plan, 0..width);
        let fields = wanted.fields();
        let nulls = if swapped { &fields[..fields.len() - width] } else { &fields[width..] };
        let nulls = nulls.iter().map(|field| {
            let null = ScalarValue::try_from(field.data_type())?;
            Ok(Arc::new(Literal::new(null)) as Arc<dyn PhysicalExpr>)
        });
        let nulls = nulls.collect::<Result<Vec<_>>>()?;
        let projection = if swapped { nulls.into_iter().chain(kept).collect() } else { kept.into_iter().chain(nulls).collect() };
        map::map(rows.plan, Vec::new(), projection, &map::names(schema))
    }

    /// A side with its key expressions among its columns, and where they are.
    /// An index that has the rows of a join's side by its keys, with all of the relation's columns; and where the side's columns are among
    /// them. Only for a side that is some columns of a relation: what is filtered or computed is not in the index.
    fn by_index(&self, side: &Plan, keys: &[usize]) -> Option<(Plan, Vec<usize>)> {
        let (get, columns) = match side {
            Plan::Get { schema, .. } => (side, (0..schema.fields().len()).collect()),
            Plan::Map { input, predicates, projection, .. } if predicates.is_empty() => {
                (input.as_ref(), projection.iter().map(map::column_index).collect::<Option<Vec<_>>>()?)
            }
            _ => return None,
        };
        let Plan::Get { relation, schema } = get else { return None };
        let wanted: Vec<usize> = keys.iter().map(|key| columns[*key]).collect();
        let indexes = self.indexes.borrow();
        let found = indexes
            .get(relation)?
            .iter()
            .find(|(_, key)| key.len() == wanted.len() && key.iter().all(|column| wanted.contains(column)));
        let (index, _) = found?;
        let known = self.keys.borrow().get(relation).cloned();
        if let Some(key) = known {
            self.keys.borrow_mut().insert(*index, key);
        }
        Some((Plan::Get { relation: *index, schema: Arc::clone(schema) }, columns))
    }

    fn keyed<'e>(&self, rows: &Rows, keys: impl Iterator<Item = &'e Expr>) -> Result<(Plan, Vec<usize>)> {
        let mut projection = map::identity(&rows.plan);
        let mut names = map::plan_names(&rows.plan);
        let mut indices = Vec::new();
        for key in keys {
            let key = self.physical(key, &rows.schema)?;
            indices.push(match projection.iter().position(|known| map::same(known, &key)) {
                Some(index) => index,
                None => {
                    names.push(format!("key_{}", names.len()));
                    projection.push(key);
                    projection.len() - 1
                }
            });
        }
        Ok((map::map(rows.plan.clone(), Vec::new(), projection, &names)?, indices))
    }
}

impl<'a> Sides<'a> {
    /// A left and a right column that a condition compares, in types that the engine can keep rows sorted by; and whether the left one
    /// is to be the greater.
    fn compared(&self) -> Option<(Expr, Expr, bool)> {
        self.filter.iter().find_map(|condition| {
            let of = |expr: &Expr, rows: &Rows| matches!(expr, Expr::Column(column) if rows.schema.has_column(column));
            let (left, left_is_greater, right) =
                comparison(condition, &|expr| of(expr, self.left), &|expr| of(expr, self.right))?;
            let types = (left.get_type(&self.left.schema).ok()?, right.get_type(&self.right.schema).ok()?);
            let fits = types.0 == types.1 && JoinRange::fits(&types.0);
            fits.then(|| (left.clone(), right.clone(), left_is_greater))
        })
    }

    fn swapped(&self) -> Sides<'a> {
        Sides {
            left: self.right,
            right: self.left,
            on: self.on.iter().map(|(left, right)| (right.clone(), left.clone())).collect(),
            filter: self.filter.clone(),
            null_equals_null: self.null_equals_null,
        }
    }
}

fn join_on(left: Plan, right: Plan, on: Vec<(usize, usize)>, null_equals_null: bool) -> Plan {
    let fields: Vec<_> = left.schema().fields().iter().chain(right.schema().fields()).cloned().collect();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    Plan::Join { left: Box::new(left), right: Box::new(right), on, null_equals_null, range: None, schema }
}

fn with_range(mut join: Plan, asked: Option<JoinRange>) -> Plan {
    if let Plan::Join { range, .. } = &mut join {
        *range = asked;
    }
    join
}

/// The first columns of a join's output.
fn select(joined: Plan, width: usize, schema: &DFSchemaRef) -> Result<Rows> {
    let projection = map::columns(&joined, 0..width);
    let plan = map::map(joined, Vec::new(), projection, &map::names(schema))?;
    Ok(Rows { plan, schema: Arc::clone(schema) })
}

/// The engine compares encoded keys, so both sides of each pair must have one type; DataFusion has seen to that.
fn same_types(left: Plan, right: Plan, on: &[(usize, usize)]) -> Result<(Plan, Plan)> {
    let (left_schema, right_schema) = (left.schema(), right.schema());
    for (l, r) in on {
        let (l, r) = (left_schema.field(*l).data_type(), right_schema.field(*r).data_type());
        if l != r {
            return Err(DataFusionError::Plan(format!("a join compares {l} with {r}: cast one of them")));
        }
    }
    Ok((left, right))
}

/// A scalar subquery becomes a left join without condition with exactly one row: that is a cross product.
fn is_scalar(join: &Join) -> bool {
    let always = match &join.filter {
        None => true,
        Some(Expr::Literal(ScalarValue::Boolean(Some(true)), _)) => true,
        Some(_) => false,
    };
    join.on.is_empty() && always && has_one_row(&join.right)
}

fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Projection(projection) => has_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input),
        _ => false,
    }
}
