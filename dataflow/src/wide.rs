//! MIN and MAX of values that do not fit into a diff (text, binary, nested): a join of the other aggregates with a top-1.
//!
//! Each such aggregate becomes the first row per group in the right order, NULLs last, so that every group has exactly one; the
//! parts are joined on the group's key, in which NULL equals NULL.

use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use crate::delta::record_batch;
use crate::plan::{Aggregate, AggregateFunction, OrderBy, Plan};
use crate::render::is_wide_extreme;

fn columns_of(schema: &SchemaRef, columns: &[usize]) -> Vec<Arc<dyn PhysicalExpr>> {
    columns.iter().map(|at| Arc::new(Column::new(schema.field(*at).name(), *at)) as Arc<dyn PhysicalExpr>).collect()
}

fn pick(input: Plan, columns: &[usize], schema: SchemaRef) -> Plan {
    let projection = columns_of(&input.schema(), columns);
    Plan::Map { input: Box::new(input), predicates: Vec::new(), projection, schema }
}

/// The reduce without wide MIN and MAX, or `None` if it has none.
///
/// # Errors
/// In words, if the rewritten rows cannot be built.
pub fn split_wide_extremes(
    input: &Plan,
    keys: &[usize],
    aggregates: &[Aggregate],
    schema: &SchemaRef,
) -> Result<Option<Plan>, String> {
    let input_schema = input.schema();
    let (wide, narrow): (Vec<usize>, Vec<usize>) =
        (0..aggregates.len()).partition(|at| is_wide_extreme(&aggregates[*at], &input_schema));
    if wide.is_empty() {
        return Ok(None);
    }
    let field = |at: usize| schema.field(at).clone();
    let key_fields: Vec<Field> = (0..keys.len()).map(field).collect();
    let narrow_schema: SchemaRef = Arc::new(Schema::new(
        key_fields.iter().cloned().chain(narrow.iter().map(|at| field(keys.len() + at))).collect::<Vec<_>>(),
    ));
    let mut joined = Plan::Reduce {
        input: Box::new(input.clone()),
        keys: keys.to_vec(),
        aggregates: narrow.iter().map(|at| aggregates[*at].clone()).collect(),
        schema: Arc::clone(&narrow_schema),
    };
    let on: Vec<(usize, usize)> = (0..keys.len()).map(|at| (at, at)).collect();
    for at in &wide {
        let aggregate = &aggregates[*at];
        let value = Field::new(
            schema.field(keys.len() + at).name(),
            input_schema.field(aggregate.arguments[0]).data_type().clone(),
            true,
        );
        let part_schema: SchemaRef = Arc::new(Schema::new(key_fields.iter().cloned().chain([value]).collect::<Vec<_>>()));
        let picked: Vec<usize> = keys.iter().copied().chain([aggregate.arguments[0]]).collect();
        let mut rows = pick(input.clone(), &picked, Arc::clone(&part_schema));
        if keys.is_empty() {
            // over no rows there is one group all the same
            let nulls = record_batch(Arc::clone(&part_schema), vec![new_null_array(part_schema.field(0).data_type(), 1)], 1)
                .map_err(|error| error.to_string())?;
            rows = Plan::Union { inputs: vec![rows, Plan::Constant { rows: nulls }] };
        }
        let top = Plan::TopK {
            input: Box::new(rows),
            partition: (0..keys.len()).collect(),
            order: vec![OrderBy {
                column: keys.len(),
                descending: aggregate.function == AggregateFunction::Max,
                nulls_first: false,
            }],
            offset: 0,
            limit: Some(1),
            row_number: false,
            schema: Arc::clone(&part_schema),
        };
        let both: Vec<Field> =
            joined.schema().fields().iter().chain(part_schema.fields()).map(|field| field.as_ref().clone()).collect();
        joined = Plan::Join {
            left: Box::new(joined),
            right: Box::new(top),
            on: on.clone(),
            null_equals_null: true,
            range: None,
            schema: Arc::new(Schema::new(both)),
        };
    }
    let position = |at: usize| match narrow.iter().position(|known| *known == at) {
        Some(place) => keys.len() + place,
        None => {
            let part = wide.iter().position(|known| *known == at).unwrap_or(0);
            keys.len() + narrow.len() + part * (keys.len() + 1) + keys.len()
        }
    };
    let order: Vec<usize> = (0..keys.len()).chain((0..aggregates.len()).map(position)).collect();
    Ok(Some(pick(joined, &order, Arc::clone(schema))))
}
