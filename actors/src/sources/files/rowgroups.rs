//! Parquet: only the columns that something reads, in batches of a fixed number of rows.

use std::fs::File;
use std::sync::Arc;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::listing::FileToRead;
use super::{FileBatch, FileReading};
use crate::decode::{DecodeSpec, Decoder, Input, decoder};
use crate::sources::{Budget, SourceError};

/// Rows in a batch.
const BATCH_ROWS: usize = 64 << 10;

/// One file.
pub(super) struct RowGroups {
    file: FileToRead,
    reader: ParquetRecordBatchReader,
    decoder: Box<dyn Decoder>,
    rows_total: u64,
    rows_done: u64,
    /// Columns of the file that are not declared.
    unknown: u64,
    finished: bool,
}

impl RowGroups {
    pub(super) fn open(file: &FileToRead, spec: &Arc<DecodeSpec>) -> Result<Self, SourceError> {
        let handle = File::open(&file.path).map_err(|error| file.error(error))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(handle).map_err(|error| file.malformed("Parquet", error))?;
        let rows_total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let named = |name: &str, other: &str| name == other || name.to_lowercase() == other.to_lowercase();
        let (mut wanted, mut unknown) = (Vec::new(), 0);
        for (place, field) in builder.schema().fields().iter().enumerate() {
            match spec.declared.fields().iter().find(|declared| named(declared.name(), field.name())) {
                // A column that nobody reads is needed all the same if it must not be NULL.
                Some(declared) if spec.schema.column_with_name(declared.name()).is_some() || !declared.is_nullable() => {
                    wanted.push(place)
                }
                Some(_) => {}
                None => unknown += 1,
            }
        }
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let reader = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .with_offset(usize::try_from(file.rows_done).unwrap_or(usize::MAX))
            .build()
            .map_err(|error| file.malformed("Parquet", error))?;
        Ok(RowGroups {
            file: file.clone(),
            reader,
            decoder: decoder(spec)?,
            rows_total,
            rows_done: file.rows_done,
            unknown,
            finished: false,
        })
    }
}

impl FileReading for RowGroups {
    fn next(&mut self, _budget: Budget) -> Result<Option<FileBatch>, SourceError> {
        if self.finished {
            return Ok(None);
        }
        let (mut decoded, mut bytes) = (crate::decode::Decoded::default(), 0);
        match self.reader.next() {
            None => self.finished = true,
            Some(batch) => {
                let batch = batch.map_err(|error| self.file.malformed("Parquet", error))?;
                let rows = batch.num_rows() as u64;
                self.decoder.decode(Input::Rows { file: &self.file.name, first_row: self.rows_done + 1, rows: &batch })?;
                self.rows_done += rows;
                decoded = self.decoder.take();
                decoded.counters.ignored_fields += self.unknown * rows;
                bytes = self.file.size.saturating_mul(rows).checked_div(self.rows_total).unwrap_or(0);
                self.finished = self.rows_done >= self.rows_total;
            }
        }
        let bytes_done = if self.finished { self.file.size } else { 0 };
        Ok(Some(FileBatch { decoded, bytes_done, rows_done: self.rows_done, done: self.finished, bytes }))
    }
}
