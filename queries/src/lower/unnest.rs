//! unnest: the elements of lists and the fields of structs as rows and columns, by DataFusion's own operator over each batch.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use datafusion::common::UnnestOptions;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Unnest;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::unnest::{ListUnnest, UnnestExec};
use futures::{FutureExt, TryStreamExt};
use livelake_dataflow::function::RowFunction;
use livelake_dataflow::plan::Plan;

use super::{Lowering, Rows, engine_schema, map};

impl Lowering<'_> {
    pub(super) fn unnest(&self, unnest: &Unnest) -> Result<Rows> {
        let rows = self.node(&unnest.input)?;
        let input = map::typed(rows.plan, &engine_schema(&rows.schema))?;
        let lists: Vec<(usize, usize)> = unnest.list_type_columns.iter().map(|(column, list)| (*column, list.depth)).collect();
        let columns: Vec<String> = lists
            .iter()
            .map(|(column, depth)| format!("{}@{column} {depth} deep", input.schema().field(*column).name()))
            .chain(unnest.struct_type_columns.iter().map(|column| format!("{}@{column}", input.schema().field(*column).name())))
            .collect();
        let name = format!("unnest {}{}", columns.join(", "), if unnest.options.preserve_nulls { " with nulls" } else { "" });
        let schema = engine_schema(&unnest.schema);
        let function = Unnested {
            name,
            lists,
            structs: unnest.struct_type_columns.clone(),
            options: unnest.options.clone(),
            schema: Arc::clone(&schema),
        };
        let plan = Plan::FlatMap { input: Box::new(input), function: Arc::new(function), schema };
        Ok(Rows { plan, schema: Arc::clone(&unnest.schema) })
    }
}

#[derive(Debug)]
struct Unnested {
    name: String,
    /// Columns of lists, and how deep they are taken apart.
    lists: Vec<(usize, usize)>,
    structs: Vec<usize>,
    options: UnnestOptions,
    schema: SchemaRef,
}

/// The column that says which row each row comes from.
const ORIGIN: &str = "origin";

fn with_origin(schema: &Schema) -> SchemaRef {
    let origin = Arc::new(Field::new(ORIGIN, DataType::UInt32, false));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([origin]).collect::<Vec<_>>()))
}

impl RowFunction for Unnested {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, rows: &RecordBatch) -> Result<(RecordBatch, UInt32Array), DataFusionError> {
        let origins: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..rows.num_rows() as u32));
        let columns: Vec<ArrayRef> = rows.columns().iter().cloned().chain([origins]).collect();
        let input = RecordBatch::try_new(with_origin(&rows.schema()), columns)?;
        let schema = with_origin(&self.schema);
        let lists = self.lists.iter().map(|(column, depth)| ListUnnest { index_in_input_schema: *column, depth: *depth });
        let source = MemorySourceConfig::try_new_exec(&[vec![input.clone()]], input.schema(), None)?;
        let unnest = UnnestExec::new(source, lists.collect(), self.structs.clone(), Arc::clone(&schema), self.options.clone())?;
        let made: Vec<RecordBatch> = unnest
            .execute(0, Arc::new(TaskContext::default()))?
            .try_collect()
            .now_or_never()
            .unwrap_or_else(|| Err(DataFusionError::Internal("a batch in memory was not there at once".into())))?;
        let made = concat_batches(&schema, &made)?;
        let width = self.schema.fields().len();
        let origins = made.column(width).as_primitive::<UInt32Type>().clone();
        let columns = made.columns()[..width].iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<Vec<_>, _>>()?;
        Ok((RecordBatch::try_new(Arc::clone(&self.schema), columns)?, origins))
    }
}
