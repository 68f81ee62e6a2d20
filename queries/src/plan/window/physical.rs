//! TUMBLE and HOP in a batch query: what the engine's operator does, over DataFusion's streams.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::StreamExt;

use super::node::TimeWindow;

/// Plans [`TimeWindow`] as [`TimeWindowExec`].
#[derive(Debug)]
pub(crate) struct TimeWindowPlanner;

#[async_trait]
impl ExtensionPlanner for TimeWindowPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _state: &SessionState,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(window) = node.as_any().downcast_ref::<TimeWindow>() else { return Ok(None) };
        let schema = Arc::new(node.schema().as_arrow().clone());
        let windows = Windows { time: window.time_index()?, slide: window.slide, size: window.size, schema };
        let input = physical_inputs.first().ok_or_else(|| DataFusionError::Internal("a window has an input".into()))?;
        Ok(Some(Arc::new(TimeWindowExec::new(Arc::clone(input), windows))))
    }
}

/// The windows, as numbers.
#[derive(Clone, Debug)]
struct Windows {
    time: usize,
    slide: i64,
    size: i64,
    schema: SchemaRef,
}

#[derive(Debug)]
struct TimeWindowExec {
    input: Arc<dyn ExecutionPlan>,
    windows: Windows,
    properties: Arc<PlanProperties>,
}

impl TimeWindowExec {
    fn new(input: Arc<dyn ExecutionPlan>, windows: Windows) -> TimeWindowExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&windows.schema)),
            datafusion::physical_expr::Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        TimeWindowExec { input, windows, properties: Arc::new(properties) }
    }
}

impl DisplayAs for TimeWindowExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "TimeWindowExec: time=@{}, slide={}us, size={}us", self.windows.time, self.windows.slide, self.windows.size)
    }
}

impl ExecutionPlan for TimeWindowExec {
    fn name(&self) -> &str {
        "TimeWindowExec"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().ok_or_else(|| DataFusionError::Internal("a window has an input".into()))?;
        Ok(Arc::new(TimeWindowExec::new(input, self.windows.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let windows = self.windows.clone();
        let stream = self.input.execute(partition, context)?.map(move |batch| batch.and_then(|batch| windows.assign(&batch)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.windows.schema), stream)))
    }
}

impl Windows {
    /// Each row once for every window that its time is in.
    fn assign(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let times = batch.column(self.time).as_any().downcast_ref::<TimestampMicrosecondArray>();
        let times = times.ok_or_else(|| DataFusionError::Internal("a window's time is in microseconds".into()))?;
        let mut rows: Vec<u32> = Vec::with_capacity(times.len());
        let mut starts: Vec<i64> = Vec::with_capacity(times.len());
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            let time = times.value(row);
            let mut start = time.div_euclid(self.slide) * self.slide;
            while start + self.size > time {
                rows.push(row as u32);
                starts.push(start);
                start -= self.slide;
            }
        }
        let zone = match times.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let ends: Vec<i64> = starts.iter().map(|start| start + self.size).collect();
        let stamps =
            |values: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values).with_timezone_opt(zone.clone())) };
        let rows = UInt32Array::from(rows);
        let mut columns = batch.columns().iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>()?;
        columns.push(stamps(starts));
        columns.push(stamps(ends));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
