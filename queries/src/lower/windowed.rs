//! Window functions: each group of a PARTITION BY in its order, computed by DataFusion's own evaluators.
//!
//! What a call is given (arguments, FILTER, PARTITION BY, ORDER BY) is computed before the groups are made, row by row, so that an
//! expression that fails concerns its row and not its group. Calls over the same groups in the same order are one operator.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, concat};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, DFSchema, DFSchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{Expr, Window};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_planner::create_window_expr_with_name;
use livelake_dataflow::function::{GroupFunction, GroupRows};
use livelake_dataflow::plan::{OrderBy, Plan};

use super::{Lowering, Rows, engine_schema, map, unsupported};

/// Calls over the same groups in the same order.
#[derive(Debug)]
struct WindowCalls {
    name: String,
    calls: Vec<Arc<dyn WindowExpr>>,
    /// So many columns of the input are handed on; then come the calls' results.
    width: usize,
    schema: SchemaRef,
}

impl GroupFunction for WindowCalls {
    fn name(&self) -> &str {
        &self.name
    }

    fn one_row_each(&self) -> bool {
        false
    }

    fn apply(&self, rows: &RecordBatch, ends: &[usize]) -> Result<GroupRows, DataFusionError> {
        let mut columns: Vec<ArrayRef> = rows.columns()[..self.width].to_vec();
        for (call, field) in self.calls.iter().zip(&self.schema.fields()[self.width..]) {
            let mut parts = Vec::with_capacity(ends.len());
            let mut begin = 0;
            for end in ends {
                parts.push(call.evaluate(&rows.slice(begin, end - begin))?);
                begin = *end;
            }
            let parts: Vec<&dyn arrow::array::Array> = parts.iter().map(AsRef::as_ref).collect();
            columns.push(match parts.is_empty() {
                true => arrow::array::new_empty_array(field.data_type()),
                false => cast(&concat(&parts)?, field.data_type())?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok(GroupRows { rows, ends: ends.to_vec() })
    }
}

impl Lowering<'_> {
    /// The input's columns, then one for each window function.
    pub(super) fn window_functions(&self, window: &Window) -> Result<Rows> {
        let mut rows = self.node(&window.input)?;
        let width = rows.schema.fields().len();
        let mut sets: Vec<Vec<usize>> = Vec::new();
        let calls = window.window_expr.iter().map(call_of).collect::<Result<Vec<_>>>()?;
        let alike = |a: &WindowFunction, b: &WindowFunction| {
            a.params.partition_by == b.params.partition_by && a.params.order_by == b.params.order_by
        };
        for (at, call) in calls.iter().enumerate() {
            match sets.iter_mut().find(|set| alike(calls[set[0]], call)) {
                Some(set) => set.push(at),
                None => sets.push(vec![at]),
            }
        }
        for set in &sets {
            let fields: Vec<usize> = set.iter().map(|at| width + at).collect();
            rows = self.calls_over(rows, &set.iter().map(|at| calls[*at]).collect::<Vec<_>>(), &window.schema, &fields)?;
        }
        let order = sets.concat();
        let place = |at: usize| order.iter().position(|known| *known == at).map_or(width, |place| width + place);
        let projection = map::columns(&rows.plan, (0..width).chain((0..calls.len()).map(place)));
        let plan = map::map(rows.plan, Vec::new(), projection, &map::names(&window.schema))?;
        Ok(Rows { plan, schema: Arc::clone(&window.schema) })
    }

    /// Appends the results of calls that share groups and order; `fields` are their columns in `named`.
    fn calls_over(&self, rows: Rows, calls: &[&WindowFunction], named: &DFSchemaRef, fields: &[usize]) -> Result<Rows> {
        let width = rows.schema.fields().len();
        let mut computed = Computed::new(self, &rows);
        let mut rewritten = Vec::with_capacity(calls.len());
        let (mut partition, mut order) = (Vec::new(), Vec::new());
        for call in calls {
            let mut call = (*call).clone();
            let params = &mut call.params;
            for expr in params.args.iter_mut().chain(params.filter.iter_mut().map(AsMut::as_mut)).chain(&mut params.partition_by)
            {
                computed.replace(expr)?;
            }
            for sort in &mut params.order_by {
                computed.replace(&mut sort.expr)?;
            }
            (partition, order) = (params.partition_by.clone(), params.order_by.clone());
            rewritten.push(Expr::WindowFunction(Box::new(call)));
        }
        let (input, schema) = computed.finish(rows.plan)?;
        let index = |expr: &Expr| match expr {
            Expr::Column(column) => schema.index_of_column(column).map(Some),
            _ => Ok(None),
        };
        // what is the same for all rows makes no groups and no order
        let partition = partition.iter().map(index).filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
        let order = order_by(&order, &partition, &index)?;
        let result = schema.iter().take(width).chain(fields.iter().map(|at| named.qualified_field(*at)));
        let result: Vec<_> = result.map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        let result: DFSchemaRef = Arc::new(DFSchema::new_with_metadata(result, Default::default())?);
        let function = WindowCalls {
            name: rewritten.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            calls: rewritten
                .iter()
                .map(|call| create_window_expr_with_name(call, call.schema_name().to_string(), &schema, &self.props))
                .collect::<Result<_>>()?,
            width,
            schema: engine_schema(&result),
        };
        let schema = Arc::clone(&function.schema);
        let plan =
            Plan::EachGroup { input: Box::new(input), partition, order, function: Arc::new(function), always: false, schema };
        Ok(Rows { plan, schema: result })
    }
}

fn call_of(expr: &Expr) -> Result<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => call_of(&alias.expr),
        Expr::WindowFunction(call) => Ok(call),
        other => Err(unsupported(&format!("{other} as a window function"), None)),
    }
}

/// The engine's order; what is constant or equal within a group does not order it.
fn order_by(order: &[SortExpr], partition: &[usize], index: &dyn Fn(&Expr) -> Result<Option<usize>>) -> Result<Vec<OrderBy>> {
    let mut found: Vec<OrderBy> = Vec::with_capacity(order.len());
    for sort in order {
        let Some(column) = index(&sort.expr)? else { continue };
        if !partition.contains(&column) && found.iter().all(|known| known.column != column) {
            found.push(OrderBy { column, descending: !sort.asc, nulls_first: sort.nulls_first });
        }
    }
    Ok(found)
}

/// Rows with columns that were computed from them.
struct Computed<'a, 'b> {
    lowering: &'a Lowering<'b>,
    below: DFSchemaRef,
    known: Vec<(Expr, Expr)>,
    projection: Vec<Arc<dyn PhysicalExpr>>,
    names: Vec<String>,
    fields: Vec<(Option<datafusion::common::TableReference>, arrow::datatypes::FieldRef)>,
}

impl<'a, 'b> Computed<'a, 'b> {
    fn new(lowering: &'a Lowering<'b>, rows: &Rows) -> Computed<'a, 'b> {
        let fields: Vec<_> = rows
            .schema
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(true))))
            .collect();
        Computed {
            lowering,
            below: Arc::clone(&rows.schema),
            known: Vec::new(),
            projection: map::columns(&rows.plan, 0..fields.len()),
            names: map::names(&rows.schema),
            fields,
        }
    }

    /// Turns an expression into a column that holds its value; columns and constants stay.
    fn replace(&mut self, expr: &mut Expr) -> Result<()> {
        if matches!(expr, Expr::Column(_) | Expr::Literal(..)) {
            return Ok(());
        }
        if let Some((_, column)) = self.known.iter().find(|(known, _)| known == expr) {
            *expr = column.clone();
            return Ok(());
        }
        // functions look at literals among their arguments, also through a cast
        let folded = datafusion::common::tree_node::TreeNode::transform_up(expr.clone(), |node| match &node {
            Expr::Cast(cast) if matches!(cast.expr.as_ref(), Expr::Literal(..)) => match cast.expr.as_ref() {
                Expr::Literal(value, metadata) => {
                    Ok(Transformed::yes(Expr::Literal(value.cast_to(&cast.data_type)?, metadata.clone())))
                }
                _ => Ok(Transformed::no(node)),
            },
            _ => Ok(Transformed::no(node)),
        })
        .data()?;
        if matches!(folded, Expr::Literal(..)) {
            *expr = folded;
            return Ok(());
        }
        let physical = self.lowering.physical(expr, &self.below)?;
        let name = expr.to_string();
        let data_type = physical.data_type(self.below.as_arrow())?;
        let unique = format!("computed_{}", self.fields.len());
        self.projection.push(physical);
        self.names.push(name);
        self.fields.push((None, Arc::new(arrow::datatypes::Field::new(&unique, data_type, true))));
        let column = Expr::Column(Column::new_unqualified(unique));
        self.known.push((std::mem::replace(expr, column.clone()), column));
        Ok(())
    }

    fn finish(self, below: Plan) -> Result<(Plan, DFSchema)> {
        let plan = map::map(below, Vec::new(), self.projection, &self.names)?;
        Ok((plan, DFSchema::new_with_metadata(self.fields, Default::default())?))
    }
}
