//! Rows for people: aligned columns as psql prints them, and changes as they come.

use std::io::Write;

use arrow::array::Array;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::encode::text::{Style, TextColumn, plain};

/// A cell wider than this is cut, so that one long text does not spread the whole table.
const CELL_WIDTH_MAX: usize = 80;

/// Prints rows under their headings and how many there are.
///
/// # Errors
/// What writing says, or a column of a type that has no text.
pub fn print(schema: &Schema, batches: &[RecordBatch], out: &mut dyn Write) -> Result<(), ArrowError> {
    let headings: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let right: Vec<bool> = schema.fields().iter().map(|field| is_number(field.data_type())).collect();
    let mut rows = Vec::new();
    for batch in batches {
        cells(batch, &mut rows)?;
    }
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String], align: &dyn Fn(usize) -> bool| {
        let aligned = cells.iter().enumerate().map(|(index, cell)| {
            let width = widths[index];
            if align(index) { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") }
        });
        aligned.collect::<Vec<_>>().join("|").trim_end().to_owned()
    };
    writeln!(out, "{}", line(&headings, &|_| false))?;
    writeln!(out, "{}", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+"))?;
    for row in &rows {
        writeln!(out, "{}", line(row, &|index| right[index]))?;
    }
    let plural = if rows.len() == 1 { "" } else { "s" };
    writeln!(out, "({} row{plural})", rows.len())?;
    out.flush()?;
    Ok(())
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

fn cells(batch: &RecordBatch, rows: &mut Vec<Vec<String>>) -> Result<(), ArrowError> {
    let arrays = batch.columns().iter().map(plain).collect::<Result<Vec<_>, _>>()?;
    let columns = arrays.iter().map(|array| TextColumn::new(array, Style::Postgres)).collect::<Result<Vec<_>, _>>()?;
    let nulls: Vec<_> = arrays.iter().map(|array| array.logical_nulls()).collect();
    for row in 0..batch.num_rows() {
        let cell = |(column, nulls): (&TextColumn<'_>, &Option<arrow::buffer::NullBuffer>)| {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                return String::new();
            }
            let mut text = Vec::new();
            column.write(row, &mut text);
            shown(&String::from_utf8_lossy(&text))
        };
        rows.push(columns.iter().zip(&nulls).map(cell).collect());
    }
    Ok(())
}

/// A text on one line and not too long; control characters, which could steer a terminal, are shown as such.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, character) in text.chars().enumerate() {
        if index == CELL_WIDTH_MAX {
            out.push('…');
            break;
        }
        match character {
            '\n' => out.push('⏎'),
            control if control.is_control() => out.extend(control.escape_default()),
            other => out.push(other),
        }
    }
    out
}

/// Prints subscription messages: a heading once, then a line per change.
#[derive(Debug, Default)]
pub struct ChangePrinter {
    columns: Vec<String>,
}

#[derive(Deserialize)]
struct Message<'a> {
    as_of: u64,
    #[serde(borrow, default)]
    changes: Vec<Change<'a>>,
}

#[derive(Deserialize)]
struct Change<'a> {
    diff: i64,
    #[serde(borrow)]
    row: &'a RawValue,
}

impl ChangePrinter {
    /// Prints one message; progress marks print nothing.
    ///
    /// # Errors
    /// A message that is none, or what writing says.
    pub fn print(&mut self, message: &str, out: &mut dyn Write) -> std::io::Result<()> {
        let message: Message<'_> = serde_json::from_str(message)?;
        for change in message.changes {
            let Row(columns) = serde_json::from_str(change.row.get())?;
            let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
            if names != self.columns {
                writeln!(out, "as_of\tdiff\t{}", names.join("\t"))?;
                self.columns = names;
            }
            let cells: Vec<String> = columns.iter().map(|(_, value)| cell(value)).collect();
            writeln!(out, "{}\t{:+}\t{}", message.as_of, change.diff, cells.join("\t"))?;
        }
        Ok(())
    }
}

/// A JSON object whose columns keep their order and whose numbers keep their digits.
struct Row<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Row<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;
        impl<'de> serde::de::Visitor<'de> for Columns {
            type Value = Row<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Row<'de>, A::Error> {
                let mut columns = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    columns.push(entry);
                }
                Ok(Row(columns))
            }
        }
        deserializer.deserialize_map(Columns)
    }
}

fn cell(value: &RawValue) -> String {
    match value.get() {
        "null" => String::new(),
        text if text.starts_with('"') => shown(&serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_owned())),
        other => shown(other),
    }
}
