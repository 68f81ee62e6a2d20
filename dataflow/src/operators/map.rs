//! Filter and projection, vectorised: DataFusion's physical expressions over whole batches.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::and_kleene;
use arrow::datatypes::SchemaRef;
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::delta::{Delta, DeltaStream, record_batch};
use crate::errors::{ErrorLog, isolate};

/// One stage: keep the rows for which all predicates hold, then compute the columns.
#[derive(Clone, Debug)]
pub struct MapStage {
    /// Boolean expressions.
    pub predicates: Vec<Arc<dyn PhysicalExpr>>,
    /// One expression per output column.
    pub projection: Vec<Arc<dyn PhysicalExpr>>,
    /// Names and types of the output.
    pub schema: SchemaRef,
}

impl MapStage {
    /// Applies the stage to a delta.
    ///
    /// # Errors
    /// An expression fails on some row of it.
    pub fn apply(&self, delta: &Delta) -> Result<Delta, DataFusionError> {
        let mut kept = delta.clone();
        let mut mask: Option<BooleanArray> = None;
        for predicate in &self.predicates {
            let value = match (truth(predicate, &kept), &mask) {
                (Err(_), Some(so_far)) if so_far.true_count() < kept.len() => {
                    // what an earlier predicate leaves out must not fail: `b <> 0 AND a / b > 1`
                    kept = kept.filter(so_far)?;
                    mask = None;
                    truth(predicate, &kept)?
                }
                (value, _) => value?,
            };
            mask = Some(match mask {
                None => value,
                Some(mask) => and_kleene(&mask, &value)?,
            });
        }
        if let Some(mask) = &mask
            && mask.true_count() < kept.len()
        {
            kept = kept.filter(mask)?;
        }
        let mut columns = Vec::with_capacity(self.projection.len());
        for (expression, field) in self.projection.iter().zip(self.schema.fields()) {
            let column = expression.evaluate(&kept.rows)?.into_array(kept.len())?;
            // planners may leave out casts between types of one representation (a time zone's name, a decimal's precision)
            columns.push(if column.data_type() == field.data_type() {
                column
            } else {
                arrow::compute::cast(&column, field.data_type())?
            });
        }
        Ok(Delta { rows: record_batch(Arc::clone(&self.schema), columns, kept.len())?, diffs: kept.diffs })
    }
}

/// A predicate of each row.
fn truth(predicate: &Arc<dyn PhysicalExpr>, delta: &Delta) -> Result<BooleanArray, DataFusionError> {
    let value = predicate.evaluate(&delta.rows)?.into_array(delta.len())?;
    let wrong = || DataFusionError::Internal(format!("a predicate gave {} instead of a truth value", value.data_type()));
    Ok(value.as_boolean_opt().ok_or_else(wrong)?.clone())
}

/// Applies stages one after another within one operator.
pub fn map<'scope>(stream: DeltaStream<'scope>, name: &str, stages: Vec<MapStage>, errors: ErrorLog) -> DeltaStream<'scope> {
    stream.unary(Pipeline, name, move |_, _| {
        move |input, output| {
            input.for_each(|capability, deltas| {
                let Some(time) = capability.least().copied() else { return };
                let mut session = output.session(&capability);
                for delta in deltas.drain(..) {
                    let mut compute = |delta: &Delta| {
                        let (first, rest) = match stages.split_first() {
                            Some(split) => split,
                            None => return Ok(delta.clone()),
                        };
                        rest.iter().try_fold(first.apply(delta)?, |delta, stage| stage.apply(&delta))
                    };
                    isolate(&delta, time, &errors, &mut compute, &mut |result| {
                        if !result.is_empty() {
                            session.give(result);
                        }
                    });
                }
            });
        }
    })
}
