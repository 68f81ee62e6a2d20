//! One relation's rows as a file: Parquet, CSV, JSON, Arrow, or a table for the eye.
//!
//! A file is written under a temporary name and renamed when it is complete, so nobody ever sees half of one.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::error::SinkError;
use crate::schema::cast_column;

/// The ways to write rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Lines and columns for the eye.
    Table,
    /// RFC 4180 with a header; NULL is an empty field, times are written as `2025-03-03 00:05:00`.
    Csv,
    /// An array of objects.
    Json,
    /// One object a line.
    Ndjson,
    /// The Arrow IPC file format.
    Arrow,
    /// Parquet, zstd.
    Parquet,
}

impl ExportFormat {
    /// The format that a file's suffix stands for.
    pub fn of(path: &Path) -> Option<ExportFormat> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" => Some(ExportFormat::Ndjson),
            "txt" => Some(ExportFormat::Table),
            "feather" | "ipc" => Some(ExportFormat::Arrow),
            name => name.parse().ok(),
        }
    }
}

impl FromStr for ExportFormat {
    type Err = SinkError;

    fn from_str(text: &str) -> Result<ExportFormat, SinkError> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "table" => ExportFormat::Table,
            "csv" => ExportFormat::Csv,
            "json" => ExportFormat::Json,
            "ndjson" => ExportFormat::Ndjson,
            "arrow" => ExportFormat::Arrow,
            "parquet" => ExportFormat::Parquet,
            _ => {
                let known = "table, csv, json, ndjson, arrow, parquet";
                return Err(SinkError::Option(format!("'{text}' is not a format: it is one of {known}")));
            }
        })
    }
}

/// Writes batches into `out`, one after the other; [`Export::finish`] ends it.
pub struct Export<W: Write + Send> {
    encoder: Encoder<W>,
    rows: u64,
}

impl<W: Write + Send> std::fmt::Debug for Export<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("rows", &self.rows).finish_non_exhaustive()
    }
}

enum Encoder<W: Write + Send> {
    Table(W, SchemaRef, Vec<RecordBatch>),
    Csv(Box<arrow::csv::Writer<W>>),
    Json(arrow::json::ArrayWriter<W>),
    Ndjson(arrow::json::LineDelimitedWriter<W>),
    Arrow(arrow::ipc::writer::FileWriter<W>),
    Parquet(Box<ArrowWriter<W>>),
}

impl<W: Write + Send> Export<W> {
    /// Begins: headers are written even if no rows follow.
    ///
    /// # Errors
    /// When `out` cannot be written, or a column has a type that the format has no form for.
    pub fn new(mut out: W, format: ExportFormat, schema: &SchemaRef) -> Result<Export<W>, SinkError> {
        let encoder = match format {
            ExportFormat::Table => Encoder::Table(out, SchemaRef::clone(schema), Vec::new()),
            ExportFormat::Csv => {
                csv_header(&mut out, schema).map_err(|e| failed(ArrowError::from(e)))?;
                let builder = arrow::csv::WriterBuilder::new()
                    .with_header(false)
                    .with_date_format("%Y-%m-%d".into())
                    .with_time_format("%H:%M:%S%.f".into())
                    .with_timestamp_format("%Y-%m-%d %H:%M:%S%.f".into())
                    .with_timestamp_tz_format("%Y-%m-%d %H:%M:%S%.f%:z".into());
                Encoder::Csv(Box::new(builder.build(out)))
            }
            ExportFormat::Json => Encoder::Json(arrow::json::WriterBuilder::new().with_explicit_nulls(true).build(out)),
            ExportFormat::Ndjson => Encoder::Ndjson(arrow::json::WriterBuilder::new().with_explicit_nulls(true).build(out)),
            ExportFormat::Arrow => Encoder::Arrow(arrow::ipc::writer::FileWriter::try_new(out, schema).map_err(failed)?),
            ExportFormat::Parquet => {
                let zstd = Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default());
                let properties = WriterProperties::builder().set_compression(zstd).build();
                let writer = ArrowWriter::try_new(out, SchemaRef::clone(schema), Some(properties));
                Encoder::Parquet(Box::new(writer.map_err(|e| failed(e.into()))?))
            }
        };
        Ok(Export { encoder, rows: 0 })
    }

    /// Writes some rows.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.rows += batch.num_rows() as u64;
        let written = match &mut self.encoder {
            Encoder::Table(_, _, batches) => {
                batches.push(batch.clone());
                Ok(())
            }
            Encoder::Csv(writer) => return writer.write(&plain(batch)?).map_err(failed),
            Encoder::Json(writer) => writer.write(batch),
            Encoder::Ndjson(writer) => writer.write(batch),
            Encoder::Arrow(writer) => writer.write(batch),
            Encoder::Parquet(writer) => writer.write(batch).map_err(ArrowError::from),
        };
        written.map_err(failed)
    }

    /// Ends the file. Answers `out`, flushed, and the number of rows.
    ///
    /// # Errors
    /// When the rest cannot be written.
    pub fn finish(self) -> Result<(W, u64), SinkError> {
        let rows = self.rows;
        let out = match self.encoder {
            Encoder::Table(mut out, schema, mut batches) => {
                let options = FormatOptions::new().with_null("").with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"));
                let options = options.with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"));
                if batches.is_empty() {
                    batches.push(RecordBatch::new_empty(schema));
                }
                let text = arrow::util::pretty::pretty_format_batches_with_options(&batches, &options).map_err(failed)?;
                writeln!(out, "{text}").map_err(|e| failed(e.into()))?;
                out
            }
            Encoder::Csv(writer) => writer.into_inner(),
            Encoder::Json(mut writer) => {
                writer.finish().map_err(failed)?;
                let mut out = writer.into_inner();
                out.write_all(b"\n").map_err(|e| failed(e.into()))?;
                out
            }
            Encoder::Ndjson(mut writer) => {
                writer.finish().map_err(failed)?;
                writer.into_inner()
            }
            Encoder::Arrow(writer) => writer.into_inner().map_err(failed)?,
            Encoder::Parquet(writer) => writer.into_inner().map_err(|e| failed(e.into()))?,
        };
        let mut out = out;
        out.flush().map_err(|e| failed(e.into()))?;
        Ok((out, rows))
    }
}

fn failed(error: ArrowError) -> SinkError {
    SinkError::arrow("write the rows")(error)
}

/// The header line: names as they are, quoted where CSV needs it.
fn csv_header(out: &mut impl Write, schema: &Schema) -> std::io::Result<()> {
    let names = schema.fields().iter().map(|f| match f.name().contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", f.name().replace('"', "\"\"")),
        false => f.name().clone(),
    });
    writeln!(out, "{}", names.collect::<Vec<_>>().join(","))
}

/// CSV has no nested values and no bytes: lists are written as text, bytes in hexadecimal by the writer itself.
fn plain(batch: &RecordBatch) -> Result<RecordBatch, SinkError> {
    let nested = |t: &DataType| matches!(t, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..));
    if !batch.schema().fields().iter().any(|f| nested(f.data_type())) {
        return Ok(batch.clone());
    }
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| match nested(field.data_type()) {
        true => cast_column("the rows", field.name(), column, &DataType::Utf8),
        false => Ok(column.clone()),
    });
    let named: Vec<_> = schema.fields().iter().map(|f| f.name().clone()).zip(columns.collect::<Result<Vec<_>, _>>()?).collect();
    RecordBatch::try_from_iter(named).map_err(failed)
}

/// A file that appears under its name when it is complete.
#[derive(Debug)]
pub struct ExportFile {
    export: Option<Export<BufWriter<File>>>,
    temporary: PathBuf,
    path: PathBuf,
}

impl ExportFile {
    /// Begins a file at `path`, which may exist and is replaced at the end.
    ///
    /// # Errors
    /// In words, when the folder is missing or cannot be written.
    pub fn create(path: &Path, format: ExportFormat, schema: &SchemaRef) -> Result<ExportFile, SinkError> {
        if path.is_dir() {
            return Err(SinkError::Option(format!("{} is a folder: name a file in it", path.display())));
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(SinkError::Option(format!("the folder {} does not exist: make it first", folder.display())));
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = folder.join(format!(".{name}.{}.part", uuid::Uuid::new_v4().simple()));
        let file = File::create_new(&temporary).map_err(SinkError::file("write", path))?;
        let mut made = ExportFile { export: None, temporary, path: path.to_path_buf() };
        made.export = Some(Export::new(BufWriter::new(file), format, schema)?);
        Ok(made)
    }

    /// Writes some rows.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        match &mut self.export {
            Some(export) => export.write(batch),
            None => Ok(()),
        }
    }

    /// Completes the file and gives it its name. Answers the number of rows.
    ///
    /// # Errors
    /// When the rest cannot be written; nothing is there then under the file's name but what was there before.
    pub fn finish(mut self) -> Result<u64, SinkError> {
        let Some(export) = self.export.take() else { return Ok(0) };
        let (out, rows) = export.finish()?;
        let file = out.into_inner().map_err(|e| SinkError::file("write", &self.path)(e.into_error()))?;
        file.sync_all().map_err(SinkError::file("write", &self.path))?;
        std::fs::rename(&self.temporary, &self.path).map_err(SinkError::file("write", &self.path))?;
        Ok(rows)
    }
}

impl Drop for ExportFile {
    fn drop(&mut self) {
        // After a rename there is nothing under this name; after a failure what there is, is of no use.
        let _gone = std::fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests;
