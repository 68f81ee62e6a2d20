//! System functions that datafusion-pg-catalog does not bring, or answers for another database: each gives one fixed or looked-up text.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;

use super::DATABASE;

/// Registers them all.
pub(super) fn register(context: &SessionContext) {
    let version = format!("PostgreSQL 16.6 (livelake {})", env!("CARGO_PKG_VERSION"));
    for (name, value) in [("version", version.as_str()), ("current_database", DATABASE), ("current_catalog", DATABASE)] {
        context.register_udf(text(name, false, Some(value)));
    }
    context.register_udf(text("pg_get_userbyid", true, Some(DATABASE)));
    // Nothing has a comment or a default.
    context.register_udf(text("obj_description", true, None));
    context.register_udf(text("shobj_description", true, None));
    context.register_udf(text("col_description", true, None));
    context.register_udf(text("pg_get_viewdef", true, None));
    context.register_udf(text("pg_get_indexdef", true, None));
}

/// A function that gives the same text for every row.
fn text(name: &str, takes_arguments: bool, value: Option<&str>) -> ScalarUDF {
    let value = value.map(str::to_owned);
    let signature =
        if !takes_arguments { Signature::nullary(Volatility::Stable) } else { Signature::variadic_any(Volatility::Stable) };
    let implementation = move |arguments: &[ColumnarValue]| {
        let rows = arguments.iter().find_map(|argument| match argument {
            ColumnarValue::Array(array) => Some(array.len()),
            ColumnarValue::Scalar(_) => None,
        });
        Ok(match rows {
            None => ColumnarValue::Scalar(ScalarValue::Utf8(value.clone())),
            Some(rows) => {
                let column: ArrayRef = Arc::new(StringArray::from(vec![value.as_deref(); rows]));
                ColumnarValue::Array(column)
            }
        })
    };
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, DataType::Utf8, Arc::new(implementation)))
}
