//! The logical node of TUMBLE and HOP.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion::common::{DFSchema, DFSchemaRef, ExprSchema, TableReference};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

pub(crate) const WINDOW_START: &str = "window_start";
pub(crate) const WINDOW_END: &str = "window_end";

/// Every row once for each window that contains its time, with the window's start and end appended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimeWindow {
    pub(crate) input: LogicalPlan,
    /// A column of the input.
    pub(crate) time: Expr,
    /// Microseconds between two windows' starts.
    pub(crate) slide: i64,
    /// Microseconds that a window lasts.
    pub(crate) size: i64,
    schema: DFSchemaRef,
}

impl TimeWindow {
    pub(crate) fn try_new(input: LogicalPlan, time: Expr, slide: i64, size: i64) -> Result<TimeWindow> {
        let Expr::Column(column) = &time else {
            return Err(DataFusionError::Internal("a window's time is a column".into()));
        };
        let data_type = input.schema().field_from_column(column)?.data_type().clone();
        let mut fields: Vec<(Option<TableReference>, FieldRef)> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        fields.push((None, Arc::new(Field::new(WINDOW_START, data_type.clone(), false))));
        fields.push((None, Arc::new(Field::new(WINDOW_END, data_type, false))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().as_arrow().metadata().clone())?);
        Ok(TimeWindow { input, time, slide, size, schema })
    }

    /// Where the time is among the input's columns.
    pub(crate) fn time_index(&self) -> Result<usize> {
        match &self.time {
            Expr::Column(column) => self.input.schema().index_of_column(column),
            _ => Err(DataFusionError::Internal("a window's time is a column".into())),
        }
    }
}

impl PartialOrd for TimeWindow {
    fn partial_cmp(&self, other: &TimeWindow) -> Option<Ordering> {
        (&self.input, &self.time, self.slide, self.size).partial_cmp(&(&other.input, &other.time, other.slide, other.size))
    }
}

impl UserDefinedLogicalNodeCore for TimeWindow {
    fn name(&self) -> &str {
        "TimeWindow"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.time.clone()]
    }

    /// A window's bounds are not known below; everything else may be filtered before.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::from([WINDOW_START.to_string(), WINDOW_END.to_string()])
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "TimeWindow: {} slide={}us size={}us", self.time, self.slide, self.size)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<TimeWindow> {
        match (exprs.into_iter().next(), inputs.into_iter().next()) {
            (Some(time), Some(input)) => TimeWindow::try_new(input, time.unalias(), self.slide, self.size),
            _ => Err(DataFusionError::Internal("a window has one input and one time".into())),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|column| *column < width).collect();
        needed.push(self.time_index().ok()?);
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
