//! Rows on their way out: Arrow batches as JSON, NDJSON, CSV or an Arrow IPC stream.
//!
//! A [`BatchEncoder`] turns one batch at a time into bytes, so an answer of any size passes through a bounded buffer. Per batch each
//! column is downcast once; per row only bytes are written: there is no tree and no intermediate value for a row.
//!
//! What a value looks like (the same for JSON and CSV unless said otherwise):
//! * integers of all widths and decimals: their exact digits, as JSON numbers;
//! * floats: the shortest text that reads back as the same number; NaN and infinities as the strings `"NaN"`, `"Infinity"`, `"-Infinity"`;
//! * timestamps: RFC 3339, `…Z` with a time zone (always shown in UTC), without zone otherwise; dates `YYYY-MM-DD`;
//! * binary: lower-case hexadecimal;
//! * lists, structs and maps: JSON (inside a CSV field too).

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;

pub mod csv;
pub mod json;
pub mod text;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFormat {
    /// Objects separated by commas, without the brackets around them: whoever writes the document adds those.
    Json,
    /// One object a line.
    Ndjson,
    /// A header line, then one line a row (RFC 4180, line feeds).
    Csv,
    /// Arrow IPC stream format: schema, batches, end mark.
    Arrow,
}

impl RowFormat {
    /// The media type of a whole document in this format.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Writes batches of one schema in one format.
pub struct BatchEncoder {
    state: State,
    wrote_rows: bool,
}

enum State {
    Json(RowFormat),
    Csv,
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl std::fmt::Debug for BatchEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchEncoder").finish_non_exhaustive()
    }
}

impl BatchEncoder {
    /// Begins a document; what stands before the first row (a CSV header, an Arrow schema) is appended to `out`.
    ///
    /// # Errors
    /// A schema that the format cannot hold.
    pub fn begin(format: RowFormat, schema: &SchemaRef, out: &mut Vec<u8>) -> Result<Self, ArrowError> {
        let state = match format {
            RowFormat::Json | RowFormat::Ndjson => State::Json(format),
            RowFormat::Csv => {
                csv::write_header(schema, out);
                State::Csv
            }
            RowFormat::Arrow => {
                let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
                out.append(writer.get_mut());
                State::Arrow(Box::new(writer))
            }
        };
        Ok(Self { state, wrote_rows: false })
    }

    /// Appends a batch's rows to `out`.
    ///
    /// # Errors
    /// A column type that the format cannot hold.
    pub fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        match &mut self.state {
            State::Json(format) => {
                let options = json::options();
                let mut rows = json::JsonRows::new(batch, &options)?;
                for row in 0..batch.num_rows() {
                    if *format == RowFormat::Json && (self.wrote_rows || row > 0) {
                        out.extend_from_slice(b",\n");
                    }
                    rows.write(row, out);
                    if *format == RowFormat::Ndjson {
                        out.push(b'\n');
                    }
                }
            }
            State::Csv => csv::write_rows(batch, out)?,
            State::Arrow(writer) => {
                writer.write(batch)?;
                out.append(writer.get_mut());
            }
        }
        self.wrote_rows = true;
        Ok(())
    }

    /// Appends what stands after the last row.
    ///
    /// # Errors
    /// Only if the encoder was finished before.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        if let State::Arrow(writer) = &mut self.state {
            writer.finish()?;
            out.append(writer.get_mut());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
