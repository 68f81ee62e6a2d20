//! A Parquet file of a table, opened: on the local file system with plain reads, in a bucket with requests for the columns that are wanted.

use std::fs::File;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use futures::StreamExt;
use futures::executor::block_on;
use iceberg::arrow::ArrowFileReader;
use iceberg::io::{FileIO, FileMetadata};
use parquet::arrow::arrow_reader::{
    ArrowReaderBuilder, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;

use super::files::{Files, local_path};
use crate::error::SinkError;

/// Rows in a batch that is read.
const BATCH_ROWS: usize = 65_536;

/// See the module. All of it blocks: for threads that may.
pub(crate) struct ParquetFile {
    location: String,
    source: Source,
    pub(crate) metadata: ArrowReaderMetadata,
}

enum Source {
    File(File),
    Object { io: FileIO, bytes: u64 },
}

/// What to read of a file; by default all of it.
#[derive(Default)]
pub(crate) struct Part {
    /// Only these columns.
    pub(crate) columns: Option<ProjectionMask>,
    /// Only these rows.
    pub(crate) rows: Option<RowSelection>,
    /// Only this row group.
    pub(crate) group: Option<usize>,
}

/// Rows that are being read.
pub(crate) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

impl ParquetFile {
    /// Opens a file and reads its footer.
    ///
    /// # Errors
    /// A file that is not there, or is not Parquet.
    pub(crate) fn open(files: &Files, location: &str) -> Result<ParquetFile, SinkError> {
        let (source, metadata) = match files.is_local() {
            true => {
                let path = local_path(location);
                let file = File::open(&path).map_err(SinkError::file("open the data file", &path))?;
                let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new());
                (Source::File(file), metadata)
            }
            false => {
                let absent = |source| SinkError::Store {
                    what: "open the data file",
                    location: location.to_owned(),
                    source: Box::new(source),
                };
                let io = files.io.clone();
                let found = wait(async { io.new_input(location)?.metadata().await }).map_err(absent)?;
                let metadata = wait(async {
                    let mut reader = object(&io, location, found.size).await?;
                    ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await
                });
                (Source::Object { io, bytes: found.size }, metadata)
            }
        };
        let metadata = metadata.map_err(wrong(location))?;
        Ok(ParquetFile { location: location.to_owned(), source, metadata })
    }

    /// Reads rows, in the order in which the file has them.
    ///
    /// # Errors
    /// What Parquet or the store says; then again for each batch.
    pub(crate) fn read(&self, part: Part) -> Result<Batches, SinkError> {
        let metadata = self.metadata.clone();
        let batches = match &self.source {
            Source::File(file) => {
                let file = file.try_clone().map_err(SinkError::file("open the data file", local_path(&self.location)))?;
                let builder = part.of(ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata));
                builder.build().map(|reader| Box::new(reader) as Batches)
            }
            Source::Object { io, bytes } => wait(object(io, &self.location, *bytes)).and_then(|reader| {
                let mut stream = part.of(ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)).build()?;
                let batches = std::iter::from_fn(move || wait(stream.next()));
                Ok(Box::new(batches.map(|batch| batch.map_err(ArrowError::from))) as Batches)
            }),
        };
        batches.map_err(wrong(&self.location))
    }
}

impl Part {
    fn of<T>(self, mut builder: ArrowReaderBuilder<T>) -> ArrowReaderBuilder<T> {
        if let Some(columns) = self.columns {
            builder = builder.with_projection(columns);
        }
        if let Some(rows) = self.rows {
            builder = builder.with_row_selection(rows);
        }
        if let Some(group) = self.group {
            builder = builder.with_row_groups(vec![group]);
        }
        builder.with_batch_size(BATCH_ROWS)
    }
}

/// Waits for an answer of the store. Not by tokio, because callers are within a task of tokio's that blocks its thread; and outside of that
/// task's budget: once it was used up, whatever is waited for would say `try again later` for ever.
fn wait<F: Future>(answer: F) -> F::Output {
    block_on(tokio::task::unconstrained(answer))
}

async fn object(io: &FileIO, location: &str, bytes: u64) -> Result<ArrowFileReader, ParquetError> {
    let opened = async { io.new_input(location)?.reader().await };
    let reader = opened.await.map_err(|error| ParquetError::External(Box::new(error)))?;
    Ok(ArrowFileReader::new(FileMetadata { size: bytes }, reader))
}

/// Turns what Parquet says of a file into ours.
fn wrong(location: &str) -> impl Fn(ParquetError) -> SinkError {
    let location = location.to_owned();
    move |source| SinkError::Parquet { what: "read", path: location.clone(), source }
}
