//! Aggregates that no sum in a diff can hold (medians, lists, first and last values, modes): computed by DataFusion's accumulators
//! from each changed group's rows, in the order that the call asks for.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{filter, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::AggregateUDF;
use datafusion::logical_expr::expr::{AggregateFunction as AggregateCall, NullTreatment};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use livelake_dataflow::function::{GroupFunction, GroupRows};
use livelake_dataflow::plan::{OrderBy, Plan};

use super::map;

/// What a call is given.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Argument {
    /// A column of the aggregate's input.
    Column(usize),
    /// The same for all rows.
    Constant(ScalarValue),
}

/// A call over a group's rows.
#[derive(Clone, Debug)]
pub(super) struct WholeCall {
    function: Arc<AggregateUDF>,
    arguments: Vec<Argument>,
    filter: Option<usize>,
    pub(super) order: Vec<OrderBy>,
    distinct: bool,
    ignore_nulls: bool,
    data_type: DataType,
}

impl WholeCall {
    pub(super) fn new(
        call: &AggregateCall,
        arguments: Vec<Argument>,
        filter: Option<usize>,
        mut order: Vec<OrderBy>,
        data_type: DataType,
    ) -> WholeCall {
        // a set of values has no order of its own, and a view needs one
        if call.params.distinct
            && order.is_empty()
            && let Some(Argument::Column(column)) = arguments.first()
        {
            order.push(OrderBy { column: *column, descending: false, nulls_first: false });
        }
        WholeCall {
            function: Arc::clone(&call.func),
            arguments,
            filter,
            order,
            distinct: call.params.distinct,
            ignore_nulls: call.params.null_treatment == Some(NullTreatment::IgnoreNulls),
            data_type,
        }
    }

    /// Whether the function looks at ORDER BY itself; to the others the rows come in order.
    fn wants_order(&self) -> bool {
        self.distinct || self.function.supports_within_group_clause()
    }

    fn columns(&self) -> impl Iterator<Item = usize> {
        let arguments = self.arguments.iter().filter_map(|argument| match argument {
            Argument::Column(column) => Some(*column),
            Argument::Constant(_) => None,
        });
        arguments.chain(self.filter).chain(self.order.iter().map(|by| by.column))
    }

    fn moved(&self, place: &dyn Fn(usize) -> usize) -> WholeCall {
        let mut moved = self.clone();
        for argument in &mut moved.arguments {
            if let Argument::Column(column) = argument {
                *column = place(*column);
            }
        }
        moved.filter = moved.filter.map(place);
        moved.order.iter_mut().for_each(|by| by.column = place(by.column));
        moved
    }

    fn build(&self, schema: &SchemaRef) -> Result<Call> {
        let column = |at: usize| Arc::new(Column::new(schema.field(at).name(), at)) as Arc<dyn PhysicalExpr>;
        let argument = |argument: &Argument| match argument {
            Argument::Column(at) => column(*at),
            Argument::Constant(value) => Arc::new(Literal::new(value.clone())),
        };
        let arguments = self.arguments.iter().map(argument).collect();
        let mut builder = AggregateExprBuilder::new(Arc::clone(&self.function), arguments)
            .schema(Arc::clone(schema))
            .alias(self.text(schema))
            .with_distinct(self.distinct)
            .with_ignore_nulls(self.ignore_nulls);
        if self.wants_order() {
            let order = self.order.iter().map(|by| PhysicalSortExpr {
                expr: column(by.column),
                options: arrow::compute::SortOptions { descending: by.descending, nulls_first: by.nulls_first },
            });
            builder = builder.order_by(order.collect());
        }
        let function = builder.build()?;
        // accumulators that sort take what they sort by behind their arguments
        let order = function.order_bys().iter().map(|by| Arc::clone(&by.expr));
        let arguments = function.expressions().into_iter().chain(order).collect();
        Ok(Call { function, arguments, filter: self.filter })
    }

    /// All that the call is, for people and to compare by.
    fn text(&self, schema: &Schema) -> String {
        let name = |at: usize| format!("{}@{at}", schema.field(at).name());
        let arguments: Vec<String> = self
            .arguments
            .iter()
            .map(|argument| match argument {
                Argument::Column(at) => name(*at),
                Argument::Constant(value) => value.to_string(),
            })
            .collect();
        let order: Vec<String> = self
            .order
            .iter()
            .map(|by| {
                let nulls = if by.nulls_first { " nulls first" } else { "" };
                format!("{}{}{nulls}", name(by.column), if by.descending { " desc" } else { "" })
            })
            .collect();
        let mut text =
            format!("{}({}{}", self.function.name(), if self.distinct { "distinct " } else { "" }, arguments.join(", "));
        if !order.is_empty() {
            text += &format!(" order by {}", order.join(", "));
        }
        text.push(')');
        if self.ignore_nulls {
            text += " ignore nulls";
        }
        if let Some(filter) = self.filter {
            text += &format!(" filter {}", name(filter));
        }
        text
    }
}

/// The groups of `keys` with the results of calls that take their rows in one order. Without keys there is always one row.
///
/// # Errors
/// DataFusion refuses a call.
pub(super) fn groups(input: &Plan, keys: &[usize], calls: &[&WholeCall], key_fields: &[Field]) -> Result<Plan> {
    let mut needed: Vec<usize> = keys.iter().copied().chain(calls.iter().flat_map(|call| call.columns())).collect();
    needed.sort_unstable();
    needed.dedup();
    let names: Vec<String> = needed.iter().map(|column| input.schema().field(*column).name().clone()).collect();
    let projection = map::columns(input, needed.iter().copied());
    let input = map::map(input.clone(), Vec::new(), projection, &names)?;
    let place = |column: usize| needed.iter().position(|known| *known == column).unwrap_or_default();
    let keys: Vec<usize> = keys.iter().map(|key| place(*key)).collect();
    let calls: Vec<WholeCall> = calls.iter().map(|call| call.moved(&place)).collect();
    let input_schema = input.schema();
    let results = calls.iter().map(|call| Field::new(call.text(&input_schema), call.data_type.clone(), true));
    let schema: SchemaRef = Arc::new(Schema::new(key_fields.iter().cloned().chain(results).collect::<Vec<_>>()));
    let mut order: Vec<OrderBy> = Vec::new();
    if let Some(ordered) = calls.iter().find(|call| !call.order.is_empty()) {
        order.extend(ordered.order.iter().filter(|by| !keys.contains(&by.column)));
    }
    let function = WholeCalls {
        name: calls.iter().map(|call| call.text(&input_schema)).collect::<Vec<_>>().join(", "),
        keys: keys.clone(),
        calls: calls.iter().map(|call| call.build(&input_schema)).collect::<Result<_>>()?,
        schema: Arc::clone(&schema),
    };
    let always = keys.is_empty();
    Ok(Plan::EachGroup { input: Box::new(input), partition: keys, order, function: Arc::new(function), always, schema })
}

/// A call, ready to be computed.
#[derive(Debug)]
struct Call {
    function: AggregateFunctionExpr,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<usize>,
}

/// Calls over the same groups in the same order.
#[derive(Debug)]
struct WholeCalls {
    name: String,
    keys: Vec<usize>,
    calls: Vec<Call>,
    schema: SchemaRef,
}

impl GroupFunction for WholeCalls {
    fn name(&self) -> &str {
        &self.name
    }

    fn one_row_each(&self) -> bool {
        true
    }

    fn apply(&self, rows: &RecordBatch, ends: &[usize]) -> Result<GroupRows, DataFusionError> {
        let begins = || std::iter::once(0).chain(ends.iter().copied()).zip(ends);
        let first = UInt64Array::from_iter_values(begins().map(|(begin, _)| begin as u64));
        let mut columns =
            self.keys.iter().map(|key| take(rows.column(*key), &first, None)).collect::<Result<Vec<ArrayRef>, _>>()?;
        for (call, field) in self.calls.iter().zip(&self.schema.fields()[self.keys.len()..]) {
            let arguments = call
                .arguments
                .iter()
                .map(|argument| argument.evaluate(rows)?.into_array(rows.num_rows()))
                .collect::<Result<Vec<_>>>()?;
            let kept = call.filter.map(|column| rows.column(column).as_boolean());
            let values = begins().map(|(begin, end)| {
                let mut accumulator = call.function.create_accumulator()?;
                let mut group: Vec<ArrayRef> = arguments.iter().map(|argument| argument.slice(begin, end - begin)).collect();
                if let Some(kept) = kept {
                    let kept = kept.slice(begin, end - begin);
                    group = group.iter().map(|argument| filter(argument, &kept)).collect::<Result<_, _>>()?;
                }
                accumulator.update_batch(&group)?;
                accumulator.evaluate()?.cast_to(field.data_type())
            });
            let values = values.collect::<Result<Vec<ScalarValue>>>()?;
            columns.push(match values.is_empty() {
                true => arrow::array::new_empty_array(field.data_type()),
                false => ScalarValue::iter_to_array(values)?,
            });
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(GroupRows { rows, ends: (1..=ends.len()).collect() })
    }
}
