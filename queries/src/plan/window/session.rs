//! SESSION: rows of one partition that follow each other within a gap are in one window, from the first one's time until the gap has
//! passed after the last one's.
//!
//! The bounds are two window functions over the partition in the order of time, so a batch query and a maintained view share them.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimestampMicrosecondType};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl, lit,
};

use super::node::{WINDOW_END, WINDOW_START};

/// The relation's rows that have a time, with their session's bounds appended. `gap` is in microseconds.
pub(super) fn sessions(input: LogicalPlan, time: Expr, gap: i64, partition: Vec<Expr>) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = input.schema().iter().map(|column| Expr::Column(Column::from(column))).collect();
    let call = |bound: Bound| {
        let function = Arc::new(WindowUDF::from(SessionBound::new(bound)));
        let mut call = WindowFunction::new(function, vec![time.clone(), lit(gap)]);
        call.params.partition_by.clone_from(&partition);
        call.params.order_by = vec![Sort::new(time.clone(), true, false)];
        Expr::WindowFunction(Box::new(call))
    };
    let (start, end) = (call(Bound::Start), call(Bound::End));
    let name = |call: &Expr| Expr::Column(Column::new_unqualified(call.schema_name().to_string()));
    let bounds = [name(&start).alias(WINDOW_START), name(&end).alias(WINDOW_END)];
    LogicalPlanBuilder::from(input)
        .filter(time.clone().is_not_null())?
        .window([start, end])?
        .project(columns.into_iter().chain(bounds))?
        .build()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Bound {
    Start,
    End,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionBound {
    bound: Bound,
    signature: Signature,
}

impl SessionBound {
    fn new(bound: Bound) -> SessionBound {
        SessionBound { bound, signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl WindowUDFImpl for SessionBound {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        match self.bound {
            Bound::Start => "session_start",
            Bound::End => "session_end",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Sessions { bound: self.bound }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let data_type = args.input_fields().first().map_or(DataType::Null, |field| field.data_type().clone());
        Ok(Arc::new(Field::new(args.name(), data_type, true)))
    }
}

#[derive(Debug)]
struct Sessions {
    bound: Bound,
}

impl PartitionEvaluator for Sessions {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let [times, gaps] = values else {
            return Err(DataFusionError::Internal("a session has times and a gap".into()));
        };
        let ScalarValue::Int64(Some(gap)) =
            (if rows == 0 { ScalarValue::Int64(Some(0)) } else { ScalarValue::try_from_array(gaps, 0)? })
        else {
            return Err(DataFusionError::Internal("a session's gap is a number of microseconds".into()));
        };
        let data_type = times.data_type().clone();
        let times = times.as_primitive::<TimestampMicrosecondType>().values();
        let mut bounds = Vec::with_capacity(rows);
        for session in times.chunk_by(|earlier, later| later.saturating_sub(*earlier) <= gap) {
            let bound = match (self.bound, session) {
                (Bound::Start, [first, ..]) => *first,
                (Bound::End, [.., last]) => last.saturating_add(gap),
                (_, []) => continue,
            };
            bounds.extend(std::iter::repeat_n(bound, session.len()));
        }
        Ok(Arc::new(TimestampMicrosecondArray::from(bounds).with_data_type(data_type)))
    }

    fn supports_bounded_execution(&self) -> bool {
        false
    }
}
