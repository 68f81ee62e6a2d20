//! From the engine's Arrow columns to an Iceberg V2 schema and back.
//!
//! Every field is optional in Iceberg, whatever the relation says: a NOT NULL that a later epoch's rows do not keep would make
//! the whole lake's commit fail for the sake of a label. Types that some reader cannot read (TIME makes a table unreadable in
//! Spark) are stored as text; [`notes`] says which.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema as ArrowSchema, SchemaRef, TimeUnit};
use arrow::util::display::FormatOptions;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};

use crate::error::SinkError;

/// Metadata key of an Arrow field whose value becomes the column's comment (`doc`) in Iceberg.
pub const COMMENT_KEY: &str = "doc";

/// The Iceberg type that a column of an Arrow type is stored as; `None` where there is none.
fn stored_as(data_type: &DataType) -> Option<PrimitiveType> {
    Some(match data_type {
        DataType::Boolean => PrimitiveType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => PrimitiveType::Int,
        DataType::Int64 | DataType::UInt32 => PrimitiveType::Long,
        DataType::UInt64 => PrimitiveType::Decimal { precision: 20, scale: 0 },
        DataType::Float16 | DataType::Float32 => PrimitiveType::Float,
        DataType::Float64 => PrimitiveType::Double,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) | DataType::Decimal256(p, s)
            if *p <= 38 && *s >= 0 =>
        {
            PrimitiveType::Decimal { precision: u32::from(*p), scale: u32::from(s.unsigned_abs()) }
        }
        DataType::Date32 | DataType::Date64 => PrimitiveType::Date,
        DataType::Timestamp(_, None) => PrimitiveType::Timestamp,
        DataType::Timestamp(_, Some(_)) => PrimitiveType::Timestamptz,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => PrimitiveType::Binary,
        DataType::Dictionary(_, values) => return stored_as(values),
        DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) | DataType::RunEndEncoded(..) => return None,
        // Text itself, and by decision: times and intervals, lists, decimals beyond 38 digits, a column of nothing but NULLs.
        _ => PrimitiveType::String,
    })
}

/// What is stored otherwise than the relation declares it: one sentence a column, for the log and `SHOW CREATE`.
pub fn notes(schema: &ArrowSchema) -> Vec<String> {
    let as_text = |t: &DataType| {
        !matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
            && stored_as(t) == Some(PrimitiveType::String)
    };
    let fields = schema.fields().iter();
    fields
        .filter_map(|f| match f.data_type() {
            DataType::Dictionary(_, values) if !as_text(values) => None,
            t if as_text(t) => {
                Some(format!("column \"{}\" ({t}) is stored as text: not all Iceberg readers know its type", f.name()))
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Some(format!("column \"{}\" is stored in microseconds: Iceberg V2 has no nanoseconds", f.name()))
            }
            _ => None,
        })
        .collect()
}

/// The Iceberg schema of a relation, ids from 1 in the order of the columns.
///
/// # Errors
/// Names the column that Iceberg cannot keep, or that appears twice.
pub fn iceberg_schema(table: &str, schema: &ArrowSchema) -> Result<Schema, SinkError> {
    evolved(table, None, schema).map(|e| e.schema)
}

/// A table's schema after a change of its relation's columns.
pub(crate) struct Evolved {
    pub(crate) schema: Schema,
    /// Whether anything differs from the old schema.
    pub(crate) changed: bool,
    /// A column that is there under an old name with a type that cannot be widened into the new one: files written before do
    /// not have it, so the table's rows must be written anew.
    pub(crate) incompatible: Option<String>,
}

/// Fits `wanted` onto `old`: same name and same or wider type keeps the field's id, everything else is a new column.
pub(crate) fn evolved(table: &str, old: Option<(&Schema, i32)>, wanted: &ArrowSchema) -> Result<Evolved, SinkError> {
    let mut last_id = old.map_or(0, |(_, last)| last);
    let mut incompatible = None;
    let mut fields = Vec::with_capacity(wanted.fields().len());
    let mut seen = HashMap::new();
    for field in wanted.fields() {
        let column = |reason: String| SinkError::Column { table: table.into(), column: field.name().clone(), reason };
        if seen.insert(field.name().as_str(), ()).is_some() {
            return Err(column("the name appears twice: give one of the columns another name with AS".into()));
        }
        let stored = stored_as(field.data_type()).ok_or_else(|| {
            column(format!("{} cannot be stored: take it apart into columns, or cast it to text", field.data_type()))
        })?;
        let before = old.and_then(|(schema, _)| schema.field_by_name(field.name()));
        let id = match before.and_then(|f| f.field_type.as_primitive_type().map(|t| (f.id, t))) {
            Some((id, t)) if *t == stored || widens(t, &stored) => id,
            other => {
                if other.is_some() {
                    incompatible = Some(field.name().clone());
                }
                last_id += 1;
                last_id
            }
        };
        let mut nested = NestedField::optional(id, field.name(), Type::Primitive(stored));
        nested.doc = field.metadata().get(COMMENT_KEY).cloned();
        fields.push(Arc::new(nested));
    }
    let changed = old.is_none_or(|(schema, _)| schema.as_struct().fields() != fields);
    let build = Schema::builder().with_fields(fields).build();
    let schema = build.map_err(|e| SinkError::Option(format!("table {table}: its columns make no Iceberg schema: {e}")))?;
    Ok(Evolved { schema, changed, incompatible })
}

/// Whether Iceberg lets a column of type `from` become one of type `to`.
fn widens(from: &PrimitiveType, to: &PrimitiveType) -> bool {
    match (from, to) {
        (PrimitiveType::Int, PrimitiveType::Long) | (PrimitiveType::Float, PrimitiveType::Double) => true,
        (PrimitiveType::Decimal { precision: p, scale: s }, PrimitiveType::Decimal { precision: q, scale: t }) => {
            s == t && p <= q
        }
        _ => false,
    }
}

/// The Arrow schema of a table's files, with field ids.
pub(crate) fn file_schema(schema: &Schema) -> Result<SchemaRef, iceberg::Error> {
    schema_to_arrow_schema(schema).map(Arc::new)
}

/// Casts a batch's columns to `target`, by name. A column that the batch lacks is NULL.
///
/// # Errors
/// Names the column that does not fit, with the value.
pub(crate) fn conform(table: &str, batch: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch, SinkError> {
    let columns = target.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => cast_column(table, field.name(), column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(target), columns, &options)
        .map_err(SinkError::arrow(format!("fit the rows of {table} to its columns")))
}

/// Casts one column; a value that does not fit is an error, never NULL.
pub(crate) fn cast_column(table: &str, name: &str, column: &ArrayRef, to: &DataType) -> Result<ArrayRef, SinkError> {
    if column.data_type() == to {
        return Ok(Arc::clone(column));
    }
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(column, to, &options).map_err(|e| SinkError::Column {
        table: table.into(),
        column: name.into(),
        reason: format!("{} does not fit into {to}: {e}", column.data_type()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;

    fn arrow(fields: &[(&str, DataType)]) -> ArrowSchema {
        ArrowSchema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>())
    }

    #[test]
    fn types_map_and_odd_ones_become_text_with_a_note() {
        let schema = arrow(&[
            ("a", DataType::Int16),
            ("b", DataType::Timestamp(TimeUnit::Microsecond, None)),
            ("c", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            ("d", DataType::Decimal128(10, 2)),
            ("e", DataType::Time64(TimeUnit::Microsecond)),
            ("f", DataType::Utf8View),
        ]);
        let made = iceberg_schema("n.t", &schema).unwrap();
        let types: Vec<String> = made.as_struct().fields().iter().map(|f| f.field_type.to_string()).collect();
        assert_eq!(types, ["int", "timestamp", "timestamptz", "decimal(10, 2)", "string", "string"]);
        assert_eq!(notes(&schema).len(), 1);
        assert!(notes(&schema)[0].contains("\"e\""));
    }

    #[test]
    fn a_column_that_cannot_be_stored_is_named() {
        let nested = DataType::Struct(vec![Field::new("x", DataType::Int32, true)].into());
        let said = iceberg_schema("n.t", &arrow(&[("bad", nested)])).unwrap_err().to_string();
        assert!(said.contains("\"bad\"") && said.contains("n.t"), "{said}");
        let twice = arrow(&[("a", DataType::Int32), ("a", DataType::Int64)]);
        assert!(iceberg_schema("n.t", &twice).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn ids_stay_with_their_columns() {
        let first = iceberg_schema("n.t", &arrow(&[("a", DataType::Int32), ("b", DataType::Utf8)])).unwrap();
        let ids = |e: &Evolved| e.schema.as_struct().fields().iter().map(|f| f.id).collect::<Vec<_>>();
        let next = evolved("n.t", Some((&first, 2)), &arrow(&[("c", DataType::Utf8), ("a", DataType::Int64)])).unwrap();
        assert_eq!((ids(&next), next.changed, next.incompatible.is_none()), (vec![3, 1], true, true));
        let changed = evolved("n.t", Some((&first, 2)), &arrow(&[("a", DataType::Utf8), ("b", DataType::Utf8)])).unwrap();
        assert_eq!((ids(&changed), changed.incompatible.as_deref()), (vec![3, 2], Some("a")));
        let same = evolved("n.t", Some((&first, 2)), &arrow(&[("a", DataType::Int16), ("b", DataType::Utf8View)])).unwrap();
        assert!(!same.changed);
    }
}
