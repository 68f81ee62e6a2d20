//! PostgreSQL's aggregates that DataFusion has not, or under another name, or otherwise. A view keeps those without a sum in the engine by computing
//! each changed group again ([`crate::lower`]), so nothing else is needed to maintain them.

mod json;
mod ordered;
mod sum;

use std::sync::Arc;

use datafusion::functions_aggregate::bool_and_or::bool_and_udaf;
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::functions_aggregate::variance::var_samp_udaf;
use datafusion::logical_expr::AggregateUDF;

pub(super) use json::write_object;
use json::{JsonAggregate, Kind as JsonKind};
use ordered::{Kind, OrderedSet};

/// Aggregates to be registered after DataFusion's own, some of which they replace.
pub(crate) fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    let named = |function: Arc<AggregateUDF>, alias: &'static str| function.as_ref().clone().with_aliases([alias]);
    let aggregates = [
        sum::CheckedSum::new().into(),
        OrderedSet::new(Kind::Mode).into(),
        OrderedSet::new(Kind::PercentileDisc).into(),
        OrderedSet::new(Kind::PercentileCont).into(),
        JsonAggregate::new(JsonKind::Array).into(),
        JsonAggregate::new(JsonKind::Object).into(),
        JsonAggregate::new(JsonKind::BinaryObject).into(),
        named(bool_and_udaf(), "every"),
        // any will do, so it is one that a view keeps cheaply and that does not change without need
        named(min_udaf(), "any_value"),
        named(var_samp_udaf(), "variance"),
    ];
    aggregates.into_iter().map(Arc::new).collect()
}
