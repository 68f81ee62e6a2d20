//! What an engine would make of decoded input, in the simplest way: for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use livelake_dataflow::protocol::{InputBatch, Op};

use super::{Counters, DecodeSpec, Decoded, EnvelopeMode, errors_schema};

/// The rows of a relation as text (NULL is `∅`), how many of each, by their key under upsert.
#[derive(Debug, Default)]
pub(crate) struct Model {
    key: Vec<usize>,
    upsert: bool,
    rows: BTreeMap<Vec<String>, (Vec<String>, i64)>,
    pub(crate) errors: Vec<[String; 3]>,
    pub(crate) counters: Counters,
    /// Operations in the order in which they came.
    pub(crate) ops: Vec<Op>,
}

impl Model {
    pub(crate) fn new(spec: &DecodeSpec) -> Self {
        let key = spec.key.iter().map(|name| spec.schema.index_of(name).unwrap()).collect();
        Model { key, upsert: spec.envelope == EnvelopeMode::Upsert, ..Model::default() }
    }

    pub(crate) fn apply(&mut self, decoded: Decoded) {
        self.counters += decoded.counters;
        let mut rows_out = 0;
        for input in decoded.inputs {
            let InputBatch::Rows { rows, ops } = input else {
                self.rows.clear();
                continue;
            };
            rows_out += rows.num_rows() as u64;
            let options = FormatOptions::default().with_null("∅");
            let columns: Vec<_> =
                rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
            for row in 0..rows.num_rows() {
                let cells: Vec<String> = columns
                    .iter()
                    .map(|column| column.value(row).try_to_string().unwrap_or_else(|_| "out of calendar".into()))
                    .collect();
                let usual = if self.upsert { Op::Upsert } else { Op::Insert };
                let op = match ops.as_ref().map(|ops| ops[row]) {
                    None => usual,
                    Some(code) => {
                        *[Op::Insert, Op::Retract, Op::Upsert, Op::Delete].iter().find(|op| **op as u8 == code).unwrap()
                    }
                };
                self.ops.push(op);
                let key: Vec<String> =
                    if self.upsert { self.key.iter().map(|at| cells[*at].clone()).collect() } else { cells.clone() };
                match op {
                    Op::Upsert => _ = self.rows.insert(key, (cells, 1)),
                    Op::Delete => _ = self.rows.remove(&key),
                    Op::Insert => self.rows.entry(key).or_insert((cells, 0)).1 += 1,
                    Op::Retract => self.rows.entry(key).or_insert((cells, 0)).1 -= 1,
                }
            }
            self.rows.retain(|_, (_, count)| *count != 0);
        }
        assert_eq!(rows_out, decoded.counters.rows);
        if let Some(errors) = decoded.errors {
            assert_eq!(errors.schema(), errors_schema());
            let text = |column: usize, row: usize| {
                let column = errors.column(column).as_string::<i32>();
                if column.is_null(row) { "∅".to_owned() } else { column.value(row).to_owned() }
            };
            self.errors.extend((0..errors.num_rows()).map(|row| [text(1, row), text(2, row), text(3, row)]));
        }
    }

    /// The rows with their counts, in order.
    pub(crate) fn rows(&self) -> Vec<(Vec<String>, i64)> {
        self.rows.values().cloned().collect()
    }

    /// Places and reasons of the errors.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.errors.iter().map(|[place, _, reason]| format!("{place}: {reason}")).collect()
    }

    /// The first column of every row, in order of numbers.
    pub(crate) fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = self.rows.values().map(|(cells, _)| cells[0].parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    /// The row that begins with this text.
    pub(crate) fn row(&self, first: &str) -> &[String] {
        &self.rows.values().find(|(cells, _)| cells[0] == first).unwrap().0
    }
}

pub(crate) const INT: DataType = DataType::Int32;
pub(crate) const BIGINT: DataType = DataType::Int64;
pub(crate) const TEXT: DataType = DataType::Utf8;
pub(crate) const STAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
pub(crate) const MONEY: DataType = DataType::Decimal128(10, 2);

pub(crate) fn stamp_utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A schema; a name that ends with `!` is NOT NULL.
pub(crate) fn schema<'n>(columns: impl IntoIterator<Item = (&'n str, DataType)>) -> SchemaRef {
    let field = |(name, data_type): (&str, DataType)| Field::new(name.trim_end_matches('!'), data_type, !name.ends_with('!'));
    Arc::new(Schema::new(columns.into_iter().map(field).collect::<Vec<_>>()))
}
