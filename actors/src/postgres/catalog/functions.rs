//! System functions that datafusion-pg-catalog does not bring, or answers for another database: each gives a fixed or a looked-up value.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use datafusion::common::plan_err;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;

use super::DATABASE;
use super::rewrite::REGCLASS;
use super::tables::oid;
use crate::service::LakeService;
use crate::statements::tokens;

/// Registers them all.
pub(super) fn register(context: &SessionContext, service: &Arc<dyn LakeService>) {
    let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
    let version = format!("PostgreSQL 16.6 (livelake {})", env!("CARGO_PKG_VERSION"));
    for (name, value) in [("version", version.as_str()), ("current_database", DATABASE), ("current_catalog", DATABASE)] {
        context.register_udf(constant(name, false, text(value)));
    }
    context.register_udf(constant("pg_get_userbyid", true, text(DATABASE)));
    // Nothing has a comment, a default, an index or a size of its own on disk.
    for name in [
        "obj_description",
        "shobj_description",
        "col_description",
        "pg_get_indexdef",
        "pg_get_functiondef",
        "pg_get_function_result",
        "pg_get_function_arguments",
        "pg_get_ruledef",
        "pg_tablespace_location",
    ] {
        context.register_udf(constant(name, true, ScalarValue::Utf8(None)));
    }
    for name in [
        "pg_function_is_visible",
        "pg_type_is_visible",
        "pg_operator_is_visible",
        "pg_collation_is_visible",
        "pg_opclass_is_visible",
    ] {
        context.register_udf(constant(name, true, ScalarValue::Boolean(Some(true))));
    }
    context.register_udf(constant("pg_is_in_recovery", false, ScalarValue::Boolean(Some(false))));
    // Types beyond the fixed ones (hstore, citext), for which drivers ask by name, do not exist.
    context.register_udf(constant("to_regtype", true, ScalarValue::Int32(None)));
    context.register_udf(looked_up("to_regclass", DataType::Utf8, DataType::Int32, {
        let service = Arc::clone(service);
        move |argument| {
            let name = argument.as_string::<i32>();
            let relations = service.relations();
            let oid_of = |name: &str| {
                let name = name.replace('"', "");
                let full_name = if name.contains('.') { name } else { format!("public.{name}") };
                relations.iter().find(|relation| relation.full_name() == full_name).map(|_| oid("relation", &full_name))
            };
            Arc::new(name.iter().map(|name| name.and_then(oid_of)).collect::<Int32Array>())
        }
    }));
    for name in ["pg_table_size", "pg_relation_size", "pg_total_relation_size"] {
        let service = Arc::clone(service);
        context.register_udf(looked_up(name, DataType::Int32, DataType::Int64, move |argument| {
            let relations = service.relations();
            let size = |wanted: i32| {
                let found = relations.iter().find(|relation| oid("relation", &relation.full_name()) == wanted);
                found.and_then(|relation| relation.bytes).map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
            };
            Arc::new(argument.as_primitive::<Int32Type>().iter().map(|wanted| wanted.map(size)).collect::<Int64Array>())
        }));
    }
    context.register_udf(looked_up("pg_database_size", DataType::Utf8, DataType::Int64, {
        let service = Arc::clone(service);
        move |argument| {
            let bytes: u64 = service.relations().iter().filter_map(|relation| relation.bytes).sum();
            Arc::new(Int64Array::from(vec![i64::try_from(bytes).unwrap_or(i64::MAX); argument.len()]))
        }
    }));
    context.register_udf(looked_up("pg_size_pretty", DataType::Int64, DataType::Utf8, |argument| {
        Arc::new(argument.as_primitive::<Int64Type>().iter().map(|size| size.map(pretty_size)).collect::<StringArray>())
    }));
    context.register_udf(looked_up(REGCLASS, DataType::Int32, DataType::Utf8, {
        let service = Arc::clone(service);
        move |argument| {
            let relations = service.relations();
            let name = |wanted: i32| {
                relations
                    .iter()
                    .map(|relation| relation.full_name())
                    .find(|name| oid("relation", name) == wanted)
                    .unwrap_or_else(|| wanted.to_string())
            };
            Arc::new(argument.as_primitive::<Int32Type>().iter().map(|wanted| wanted.map(name)).collect::<StringArray>())
        }
    }));
    // There are no sequences.
    context.register_udf(constant("pg_get_serial_sequence", true, ScalarValue::Utf8(None)));
    context.register_udf(looked_up("pg_get_viewdef", DataType::Int32, DataType::Utf8, {
        let service = Arc::clone(service);
        move |argument| {
            let relations = service.relations();
            let definition = |wanted: i32| {
                let found = relations.iter().find(|relation| oid("relation", &relation.full_name()) == wanted);
                found.map(|relation| query_of(&relation.sql).to_owned())
            };
            Arc::new(
                argument.as_primitive::<Int32Type>().iter().map(|wanted| wanted.and_then(definition)).collect::<StringArray>(),
            )
        }
    }));
}

/// `23 MB`, with PostgreSQL's units and roundings: the next unit from ten of it on.
fn pretty_size(bytes: i64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if size.abs() < 10_240 {
            return format!("{size} {unit}");
        }
        size = (size + 512) / 1_024;
    }
    format!("{size} TB")
}

/// The query of a `CREATE … AS query`.
fn query_of(sql: &str) -> &str {
    let found = tokens(sql).into_iter().find(|token| token.eq_ignore_ascii_case("as"));
    found.map_or(sql, |token| sql[token.as_ptr() as usize - sql.as_ptr() as usize + token.len()..].trim_start())
}

/// A function that gives the same value for every row.
fn constant(name: &str, takes_arguments: bool, value: ScalarValue) -> ScalarUDF {
    let signature =
        if takes_arguments { Signature::variadic_any(Volatility::Stable) } else { Signature::nullary(Volatility::Stable) };
    let data_type = value.data_type();
    let implementation = move |arguments: &[ColumnarValue]| {
        let rows = arguments.iter().find_map(|argument| match argument {
            ColumnarValue::Array(array) => Some(array.len()),
            ColumnarValue::Scalar(_) => None,
        });
        Ok(match rows {
            None => ColumnarValue::Scalar(value.clone()),
            Some(rows) => ColumnarValue::Array(value.to_array_of_size(rows)?),
        })
    };
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, data_type, Arc::new(implementation)))
}

/// A function of its first argument.
fn looked_up(
    name: &str,
    takes: DataType,
    gives: DataType,
    look_up: impl Fn(&ArrayRef) -> ArrayRef + Send + Sync + 'static,
) -> ScalarUDF {
    let signature = Signature::variadic_any(Volatility::Stable);
    let implementation = move |arguments: &[ColumnarValue]| {
        let Some(first) = arguments.first() else { return plan_err!("an argument is missing") };
        let scalar = matches!(first, ColumnarValue::Scalar(_));
        let column = cast(&first.to_array(1)?, &takes)?;
        let found = look_up(&column);
        Ok(if scalar { ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?) } else { ColumnarValue::Array(found) })
    };
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, gives, Arc::new(implementation)))
}
