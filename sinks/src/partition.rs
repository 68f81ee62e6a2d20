//! `partition_by = 'month(pickup_at), borough'`: reading it, and dealing rows over the partitions.

use std::collections::HashMap;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Schema as ArrowSchema;
use arrow::row::{RowConverter, SortField};
use iceberg::arrow::{PartitionValueCalculator, arrow_struct_to_literal};
use iceberg::spec::{Literal, PartitionSpec, Schema, Struct, StructType, Transform, UnboundPartitionSpec};

use crate::error::SinkError;
use crate::schema::iceberg_schema;

/// How a table is divided: transforms of columns, in order. Empty: not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionBy {
    fields: Vec<(String, Transform)>,
}

impl PartitionBy {
    /// Reads the option `partition_by` against the relation's columns: `column` (identity), `year(c)`, `month(c)`, `day(c)`,
    /// `hour(c)`, `bucket(n, c)`, `truncate(n, c)`, with commas between. A column is found by its exact name first, else
    /// without regard to case; one in double quotes may contain anything.
    ///
    /// # Errors
    /// Names the column that does not exist or whose type the transform does not take, or the part that cannot be read.
    pub fn parse(text: &str, schema: &ArrowSchema) -> Result<PartitionBy, SinkError> {
        let wrong = |part: &str, why: &str| SinkError::Option(format!("partition_by = '{text}': {why} at '{}'", part.trim()));
        let mut fields = Vec::new();
        for part in split(text) {
            let part = part.trim();
            if part.is_empty() {
                if split(text).len() == 1 {
                    break;
                }
                return Err(wrong(part, "a column is missing"));
            }
            let (transform, column) = match part.strip_suffix(')').and_then(|p| p.split_once('(')) {
                Some((name, inside)) if !part.starts_with('"') => {
                    let arguments = split(inside);
                    let number = || {
                        let n = arguments.first().and_then(|n| n.trim().parse::<u32>().ok()).filter(|n| *n > 0);
                        n.ok_or_else(|| wrong(part, "a whole number above zero must come first"))
                    };
                    let (transform, takes) = match name.trim().to_ascii_lowercase().as_str() {
                        "year" | "years" => (Transform::Year, 1),
                        "month" | "months" => (Transform::Month, 1),
                        "day" | "days" => (Transform::Day, 1),
                        "hour" | "hours" => (Transform::Hour, 1),
                        "identity" => (Transform::Identity, 1),
                        "bucket" => (Transform::Bucket(number()?), 2),
                        "truncate" => (Transform::Truncate(number()?), 2),
                        _ => {
                            return Err(wrong(
                                part,
                                "year, month, day, hour, bucket(n, …) and truncate(n, …) are known, not this",
                            ));
                        }
                    };
                    match arguments.last() {
                        Some(column) if arguments.len() == takes => (transform, column.trim()),
                        _ => {
                            return Err(wrong(
                                part,
                                if takes == 1 { "one column is expected" } else { "a number and a column are expected" },
                            ));
                        }
                    }
                }
                _ => (Transform::Identity, part),
            };
            let column = match column.strip_prefix('"').and_then(|c| c.strip_suffix('"')) {
                Some(quoted) => quoted.replace("\"\"", "\""),
                None => column.to_string(),
            };
            fields.push((
                find(&column, schema).ok_or_else(|| wrong(part, &format!("there is no column \"{column}\"")))?,
                transform,
            ));
        }
        let parsed = PartitionBy { fields };
        let stored = iceberg_schema("the sink", schema)?;
        parsed.spec(&stored).map_err(|why| SinkError::Option(format!("partition_by = '{text}': {why}")))?;
        Ok(parsed)
    }

    /// Whether the table is one piece.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The Iceberg spec over a schema; fields are called as Spark calls them (`pickup_at_month`, `id_bucket`).
    pub(crate) fn spec(&self, schema: &Schema) -> Result<UnboundPartitionSpec, String> {
        let mut builder = UnboundPartitionSpec::builder();
        for (column, transform) in &self.fields {
            let field = schema.field_by_name(column).ok_or_else(|| format!("there is no column \"{column}\""))?;
            let suffix = match transform {
                Transform::Year => "_year",
                Transform::Month => "_month",
                Transform::Day => "_day",
                Transform::Hour => "_hour",
                Transform::Bucket(_) => "_bucket",
                Transform::Truncate(_) => "_trunc",
                _ => "",
            };
            transform
                .result_type(&field.field_type)
                .map_err(|_| format!("column \"{column}\" is of type {}, which {transform} does not take", field.field_type))?;
            builder =
                builder.add_partition_field(field.id, format!("{column}{suffix}"), *transform).map_err(|e| e.to_string())?;
        }
        let spec = builder.build();
        spec.clone().bind(schema.clone()).map_err(|e| e.message().to_string())?;
        Ok(spec)
    }
}

/// The column of that name, exact first, else the only one without regard to case.
fn find(name: &str, schema: &ArrowSchema) -> Option<String> {
    if schema.field_with_name(name).is_ok() {
        return Some(name.to_string());
    }
    let mut alike = schema.fields().iter().filter(|f| f.name().eq_ignore_ascii_case(name));
    let found = alike.next()?;
    alike.next().is_none().then(|| found.name().clone())
}

/// Splits at commas that are neither in brackets nor in double quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start, mut parts) = (0i32, false, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Deals the rows of batches over a table's partitions.
pub(crate) struct Splitter {
    /// Absent for a table in one piece.
    parts: Option<Parts>,
}

struct Parts {
    calculator: PartitionValueCalculator,
    converter: RowConverter,
    partition_type: StructType,
}

impl Splitter {
    pub(crate) fn new(spec: &PartitionSpec, schema: &Schema) -> Result<Splitter, iceberg::Error> {
        if spec.is_unpartitioned() {
            return Ok(Splitter { parts: None });
        }
        let calculator = PartitionValueCalculator::try_new(spec, schema)?;
        let field = SortField::new(calculator.partition_arrow_type().clone());
        let converter = RowConverter::new(vec![field]).map_err(|e| {
            iceberg::Error::new(iceberg::ErrorKind::Unexpected, "partition values cannot be compared").with_source(e)
        })?;
        let partition_type = calculator.partition_type().clone();
        Ok(Splitter { parts: Some(Parts { calculator, converter, partition_type }) })
    }

    /// The batch's rows by partition: the partition's value and which rows. `None` for the rows means all of them.
    pub(crate) fn split(&self, batch: &RecordBatch) -> Result<Vec<(Struct, Option<UInt32Array>)>, iceberg::Error> {
        let Some(parts) = &self.parts else {
            return Ok(vec![(Struct::empty(), None)]);
        };
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let values = parts.calculator.calculate(batch)?;
        // Comparable bytes, so that equal partitions are found without making a value per row.
        let rows = parts.converter.convert_columns(std::slice::from_ref(&values)).map_err(|e| {
            iceberg::Error::new(iceberg::ErrorKind::Unexpected, "partition values cannot be compared").with_source(e)
        })?;
        let mut groups: HashMap<&[u8], usize> = HashMap::new();
        let mut members: Vec<Vec<u32>> = Vec::new();
        let mut last: Option<(&[u8], usize)> = None;
        let encoded: Vec<_> = rows.iter().collect();
        for (row, key) in (0u32..).zip(&encoded) {
            let key = key.data();
            // Rows mostly come in order of time: the partition is usually that of the row before.
            let group = match last {
                Some((bytes, group)) if bytes == key => group,
                _ => *groups.entry(key).or_insert_with(|| {
                    members.push(Vec::new());
                    members.len() - 1
                }),
            };
            last = Some((key, group));
            members[group].push(row);
        }
        let firsts = UInt32Array::from_iter_values(members.iter().map(|m| m[0]));
        let firsts: ArrayRef = arrow::compute::take(&values, &firsts, None)
            .map_err(|e| iceberg::Error::new(iceberg::ErrorKind::Unexpected, "partition values cannot be read").with_source(e))?;
        debug_assert!(firsts.as_struct_opt().is_some());
        let literals = arrow_struct_to_literal(&firsts, &parts.partition_type)?;
        let single = members.len() == 1;
        Ok(literals
            .into_iter()
            .zip(members)
            .map(|(literal, rows)| {
                let value = match literal {
                    Some(Literal::Struct(value)) => value,
                    _ => Struct::empty(),
                };
                (value, if single { None } else { Some(UInt32Array::from(rows)) })
            })
            .collect())
    }
}

/// The chosen rows of a batch.
pub(crate) fn pick(batch: &RecordBatch, rows: Option<&UInt32Array>) -> Result<RecordBatch, SinkError> {
    match rows {
        None => Ok(batch.clone()),
        Some(rows) => take_record_batch(batch, rows).map_err(SinkError::arrow("deal rows over partitions")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, TimeUnit};

    use super::*;

    fn columns() -> ArrowSchema {
        ArrowSchema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("pickup_at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("Borough name", DataType::Utf8, true),
        ])
    }

    #[test]
    fn reads_all_transforms() {
        let text = "month(PICKUP_AT), \"Borough name\", bucket(16, id), truncate(4, \"Borough name\")";
        let parsed = PartitionBy::parse(text, &columns()).unwrap();
        let spec = parsed.spec(&iceberg_schema("n.t", &columns()).unwrap()).unwrap();
        let names: Vec<_> = spec.fields().iter().map(|f| format!("{} {}", f.name, f.transform)).collect();
        assert_eq!(
            names,
            ["pickup_at_month month", "Borough name identity", "id_bucket bucket[16]", "Borough name_trunc truncate[4]"]
        );
        assert!(PartitionBy::parse(" ", &columns()).unwrap().is_empty());
    }

    #[test]
    fn errors_name_the_part() {
        let said = |text: &str| PartitionBy::parse(text, &columns()).unwrap_err().to_string();
        assert!(said("day(nothing)").contains("no column \"nothing\""));
        assert!(said("day(id)").contains("\"id\" is of type long"), "{}", said("day(id)"));
        assert!(said("week(pickup_at)").contains("week(pickup_at)"));
        assert!(said("bucket(id)").contains("whole number"));
        assert!(said("bucket(0, id)").contains("whole number"));
        assert!(said("id,,id").contains("missing"));
        assert!(said("day(pickup_at, id)").contains("one column"));
        assert!(said("id, id").contains("partition_by"));
    }

    #[test]
    fn rows_go_to_their_partitions_nulls_included() {
        let arrow = columns();
        let schema = iceberg_schema("n.t", &arrow).unwrap();
        let by = PartitionBy::parse("day(pickup_at), \"Borough name\"", &arrow).unwrap();
        let spec = by.spec(&schema).unwrap().bind(schema.clone()).unwrap();
        let target = crate::schema::file_schema(&schema).unwrap();
        let day = 86_400_000_000i64;
        let batch = RecordBatch::try_new(
            Arc::new(arrow),
            vec![
                Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5])),
                Arc::new(TimestampMicrosecondArray::from(vec![Some(0), Some(day), Some(-1), None, Some(day + 5)])),
                Arc::new(StringArray::from(vec!["a", "a", "a", "a", "a"])),
            ],
        )
        .unwrap();
        let batch = crate::schema::conform("n.t", &batch, &target).unwrap();
        let found = Splitter::new(&spec, &schema).unwrap().split(&batch).unwrap();
        let mut days: Vec<_> =
            found.iter().map(|(value, rows)| (value.fields()[0].clone(), rows.as_ref().unwrap().values().to_vec())).collect();
        days.sort_by_key(|(_, rows)| rows[0]);
        assert_eq!(
            days,
            [
                (Some(Literal::int(0)), vec![0]),
                (Some(Literal::int(1)), vec![1, 4]),
                (Some(Literal::int(-1)), vec![2]),
                (None, vec![3])
            ]
        );
    }
}
