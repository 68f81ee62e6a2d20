//! Where rows come from: relations of the engine, and constants.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::Schema;
use datafusion::datasource::DefaultTableSource;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::logical_plan::{EmptyRelation, TableScan, Values};
use futures::{FutureExt, TryStreamExt};
use livelake_dataflow::plan::Plan;

use super::{Lowering, Rows, engine_schema, map, unsupported};
use crate::error::{Position, SqlError, SqlErrorKind};
use crate::provider::{indexes_of, relation_of};

impl Lowering<'_> {
    pub(super) fn scan(&self, scan: &TableScan) -> Result<Rows> {
        if let Some(rows) = self.round(scan)? {
            return Ok(rows);
        }
        let Some(relation) = relation_of(&scan.source) else {
            if let Some(rows) = constant(scan)? {
                return Ok(rows);
            }
            return Err(unsupported(&format!("{} in a view", scan.table_name), None));
        };
        let stored = self.stored.of(&relation);
        let schema = self.stored.schema(&relation);
        let wanted: Vec<usize> = match &scan.projection {
            Some(projection) => projection.clone(),
            None => (0..scan.source.schema().fields().len()).collect(),
        };
        let mut indices = Vec::with_capacity(wanted.len());
        for column in wanted {
            let Some(index) = stored.iter().position(|stored| *stored == column) else {
                let message =
                    format!("column {} of {} is not read from its source", relation.schema.field(column).name(), relation.name);
                return Err(SqlError::new(SqlErrorKind::Unsupported, Position::default(), message)
                    .with_hint("nothing needed it when the lake was started: add the view to the lake's files and start it again")
                    .into());
            };
            indices.push(index);
        }
        if !relation.key.is_empty() {
            self.keys.borrow_mut().insert(relation.id, self.stored.key(&relation));
        }
        let indexes = indexes_of(&scan.source).iter().map(|index| (index.id, self.stored.key(index)));
        self.indexes.borrow_mut().insert(relation.id, indexes.collect());
        let get = Plan::Get { relation: relation.id, schema };
        let projection = map::columns(&get, indices);
        let names = map::names(&scan.projected_schema);
        let plan = map::map(get, Vec::new(), projection, &names)?;
        let rows = Rows { plan, schema: Arc::clone(&scan.projected_schema) };
        self.filter(rows, scan.filters.clone())
    }

    pub(super) fn values(&self, values: &Values) -> Result<Rows> {
        let schema = engine_schema(&values.schema);
        let one = one_row()?;
        let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(values.values.len()); schema.fields().len()];
        let nothing = Arc::new(datafusion::common::DFSchema::empty());
        for row in &values.values {
            for (index, value) in row.iter().enumerate() {
                let value = map::cast(self.physical(value, &nothing)?, schema.field(index).data_type());
                columns[index].push(value.evaluate(&one)?.into_array(1)?);
            }
        }
        let columns = columns.iter().map(|parts| {
            let parts: Vec<&dyn arrow::array::Array> = parts.iter().map(AsRef::as_ref).collect();
            concat(&parts).map_err(DataFusionError::from)
        });
        let rows = RecordBatch::try_new(schema, columns.collect::<Result<Vec<_>>>()?)?;
        Ok(Rows { plan: Plan::Constant { rows }, schema: Arc::clone(&values.schema) })
    }
}

/// `SELECT` without FROM has one row of no columns; what is known to be empty has none.
pub(super) fn empty(empty: &EmptyRelation) -> Result<Rows> {
    let rows = if empty.produce_one_row { one_row()? } else { RecordBatch::new_empty(engine_schema(&empty.schema)) };
    let plan = if rows.num_columns() == 0 {
        map::map(Plan::Constant { rows }, Vec::new(), Vec::new(), &[])?
    } else {
        Plan::Constant { rows }
    };
    Ok(Rows { plan, schema: Arc::clone(&empty.schema) })
}

/// More rows than this are not written into a plan.
const CONSTANT_ROWS: usize = 1_000_000;

/// The rows of a table function such as `generate_series`, whose arguments are constants.
fn constant(scan: &TableScan) -> Result<Option<Rows>> {
    let Some(source) = scan.source.as_any().downcast_ref::<DefaultTableSource>() else { return Ok(None) };
    let state = SessionStateBuilder::new().with_default_features().build();
    let read = async {
        let provider = &source.table_provider;
        let plan = provider.scan(&state, scan.projection.as_ref(), &[], None).await?;
        let mut stream = plan.execute(0, state.task_ctx())?;
        let mut batches = Vec::new();
        let mut count = 0;
        while let Some(batch) = stream.try_next().await? {
            count += batch.num_rows();
            if count > CONSTANT_ROWS {
                return Err(unsupported(&format!("{} of more than {CONSTANT_ROWS} rows", scan.table_name), None));
            }
            batches.push(batch);
        }
        let rows = concat_batches(&plan.schema(), &batches)?;
        Ok(rows.with_schema(engine_schema(&scan.projected_schema))?)
    };
    match read.now_or_never() {
        Some(rows) => Ok(Some(Rows { plan: Plan::Constant { rows: rows? }, schema: Arc::clone(&scan.projected_schema) })),
        None => Ok(None),
    }
}

fn one_row() -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?)
}
