//! A scalar subquery has one value, and more than one row of it is an error of the row that asks: as in PostgreSQL, and never more rows.
//!
//! DataFusion joins a scalar subquery to its outer rows and takes the query's word that there is one row; with more, outer rows would
//! silently multiply, and a correlated one must be an aggregate to be taken at all. So a subquery that may have several rows is made an
//! aggregate that collects them, `only_one(SELECT __up_to_two(x) FROM …)`, and the error is raised by a function of the outer row: it is an
//! error of exactly the rows that need the value, and goes when the rows too many go.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility,
};

/// What a scalar subquery with more than one row is told, in PostgreSQL's words.
pub const SEVERAL_ROWS: &str = "more than one row returned by a subquery used as an expression";

static UP_TO_TWO: LazyLock<Arc<AggregateUDF>> =
    LazyLock::new(|| Arc::new(AggregateUDF::from(UpToTwo { signature: Signature::any(1, Volatility::Immutable) })));
static ONLY_ONE: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(OnlyOne { signature: Signature::any(1, Volatility::Immutable) })));

/// Guards all scalar subqueries of a plan that may have several rows.
///
/// # Errors
/// DataFusion's, for a plan that does not hold together.
pub(crate) fn single_values(plan: LogicalPlan) -> Result<LogicalPlan> {
    let guarded = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(guard)?.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(guarded.data)
}

fn guard(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::ScalarSubquery(subquery) if may_have_several(&subquery.subquery) => {
            let column = subquery.subquery.schema().columns().into_iter().next().map(Expr::Column);
            let collected = UP_TO_TWO.call(column.into_iter().collect());
            let rows = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
            let rows = rows.aggregate(Vec::<Expr>::new(), vec![collected])?.build()?;
            let subquery = Expr::ScalarSubquery(Subquery { subquery: Arc::new(rows), ..subquery });
            Ok(Transformed::yes(ONLY_ONE.call(vec![subquery])))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// More than one column is an error that DataFusion words.
fn may_have_several(query: &LogicalPlan) -> bool {
    query.schema().fields().len() == 1 && query.max_rows().is_none_or(|rows| rows > 1)
}

fn list_of(data_type: &DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(data_type.clone(), true)))
}

/// A list with the value of the one row that there is, NULL without rows, two NULLs for more: which rows are too many does not matter,
/// and a view's state must not depend on which one came first.
#[derive(Debug, PartialEq, Eq, Hash)]
struct UpToTwo {
    signature: Signature,
}

impl AggregateUDFImpl for UpToTwo {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "__up_to_two"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(list_of(&arguments[0]))
    }

    fn accumulator(&self, call: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let data_type = call.expr_fields[0].data_type().clone();
        Ok(Box::new(Collected { data_type, values: Vec::new() }))
    }

    fn state_fields(&self, call: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let data_type = list_of(call.input_fields[0].data_type());
        Ok(vec![Arc::new(Field::new(format!("{}[values]", call.name), data_type, true))])
    }
}

/// The first two values.
#[derive(Debug)]
struct Collected {
    data_type: DataType,
    values: Vec<ScalarValue>,
}

impl Collected {
    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        for row in 0..values.len().min(2 - self.values.len()) {
            self.values.push(ScalarValue::try_from_array(values, row)?);
        }
        Ok(())
    }

    fn list(&self, values: &[ScalarValue]) -> Result<ScalarValue> {
        if values.is_empty() {
            return ScalarValue::try_new_null(&list_of(&self.data_type));
        }
        Ok(ScalarValue::List(ScalarValue::new_list_nullable(values, &self.data_type)))
    }
}

impl Accumulator for Collected {
    fn update_batch(&mut self, arguments: &[ArrayRef]) -> Result<()> {
        self.add(&arguments[0])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        lists.iter().flatten().try_for_each(|values| self.add(&values))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.list(&self.values)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.values.len() {
            0 | 1 => self.list(&self.values),
            _ => self.list(&[ScalarValue::try_new_null(&self.data_type)?, ScalarValue::try_new_null(&self.data_type)?]),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + ScalarValue::size_of_vec(&self.values)
    }
}

/// The value in a list of one, NULL for none; more is an error.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OnlyOne {
    signature: Signature,
}

impl ScalarUDFImpl for OnlyOne {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "only_one"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match &arguments[0] {
            DataType::List(field) => Ok(field.data_type().clone()),
            other => Err(DataFusionError::Internal(format!("only_one of {other}"))),
        }
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let lists = call.args[0].to_array(call.number_rows)?;
        let lists = lists.as_list::<i32>();
        let place = |row: usize| match lists.is_valid(row).then(|| lists.value_length(row)) {
            None | Some(0) => Ok(None),
            Some(1) => Ok(Some(lists.value_offsets()[row] as u64)),
            Some(_) => Err(DataFusionError::Execution(SEVERAL_ROWS.to_owned())),
        };
        let places = (0..lists.len()).map(place).collect::<Result<UInt64Array>>()?;
        Ok(ColumnarValue::Array(take(lists.values(), &places, None)?))
    }
}
