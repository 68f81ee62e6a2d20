//! Data files: rows dealt over partitions, sorted where that is cheap, written as Parquet of sane sizes.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use iceberg::spec::{DataFile, SchemaRef, Struct, TableMetadata, Transform};
use iceberg::writer::CurrentFileStatus;
use iceberg::writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriter, ParquetWriterBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::compaction::FileRules;
use crate::error::SinkError;
use crate::partition::{Splitter, pick};
use crate::producer::attempt::Attempt;
use crate::schema::file_schema;
use crate::storage::TableName;
use crate::storage::files::Files;

/// Rows of a row group: large enough to compress well, small enough to skip and to hold in memory.
const ROW_GROUP_ROWS: usize = 262_144;
/// Encoded bytes of a row group: object stores upload one in one request.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Rows waiting for their partition's file, over all partitions.
const BUFFERED_BYTES: usize = 256 << 20;
/// A partition whose waiting rows have got this large goes to its file.
const PARTITION_BYTES: usize = 32 << 20;
/// Files open at a time.
const OPEN_FILES: usize = 32;
/// Up to here a partition's rows are sorted before they are written.
const SORT_ROWS: usize = 262_144;

/// Writes rows of one table into new data files.
pub(crate) struct TableWriter<'a> {
    attempt: &'a Attempt,
    table: &'a TableName,
    /// Columns of the files, with field ids; batches must have exactly these.
    pub(crate) arrow: ArrowSchemaRef,
    schema: SchemaRef,
    spec_id: i32,
    prefix: String,
    properties: WriterProperties,
    /// A file is closed when it has got this large, bytes.
    target: usize,
    splitter: Splitter,
    sort: Vec<usize>,
    partitions: HashMap<Struct, Partition>,
    buffered: usize,
    next_file: usize,
    clock: u64,
    done: Vec<DataFile>,
}

#[derive(Default)]
struct Partition {
    waiting: Vec<RecordBatch>,
    bytes: usize,
    open: Option<ParquetWriter>,
    touched: u64,
}

impl<'a> TableWriter<'a> {
    /// For the current schema and default partition spec of `metadata`; `label` goes into the files' names.
    pub(crate) fn new(
        attempt: &'a Attempt,
        table: &'a TableName,
        metadata: &TableMetadata,
        label: &str,
        rules: &FileRules,
    ) -> Result<Self, SinkError> {
        let error = || SinkError::table("prepare the files", table);
        let schema = metadata.current_schema().clone();
        let spec = metadata.default_partition_spec();
        let arrow = file_schema(&schema).map_err(error())?;
        let ordered = |t: &Transform| matches!(t, Transform::Year | Transform::Month | Transform::Day | Transform::Hour);
        let sources = spec.fields().iter().filter(|f| ordered(&f.transform)).filter_map(|f| schema.field_by_id(f.source_id));
        let sort = sources.filter_map(|f| arrow.index_of(&f.name).ok()).collect();
        let zstd = ZstdLevel::try_new(1).unwrap_or_default();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(zstd))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_created_by(concat!("livelake ", env!("CARGO_PKG_VERSION")).into())
            .build();
        Ok(TableWriter {
            target: usize::try_from(rules.target_bytes).unwrap_or(usize::MAX),
            splitter: Splitter::new(spec, &schema).map_err(error())?,
            spec_id: spec.spec_id(),
            prefix: format!("{}/data/{label}-{}", metadata.location(), uuid::Uuid::new_v4().simple()),
            attempt,
            table,
            arrow,
            schema,
            properties,
            sort,
            partitions: HashMap::new(),
            buffered: 0,
            next_file: 0,
            clock: 0,
            done: Vec::new(),
        })
    }

    /// The batch's rows by partition.
    pub(crate) fn split(&self, batch: &RecordBatch) -> Result<Vec<(Struct, Option<arrow::array::UInt32Array>)>, SinkError> {
        self.splitter.split(batch).map_err(SinkError::table("compute the partitions", self.table))
    }

    /// Takes the rows of a partition, which must all be of that partition.
    pub(crate) async fn add(&mut self, partition: Struct, rows: RecordBatch) -> Result<(), SinkError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let bytes = rows.get_array_memory_size();
        let entry = self.partitions.entry(partition.clone()).or_default();
        entry.bytes += bytes;
        entry.waiting.push(rows);
        self.buffered += bytes;
        if entry.bytes > PARTITION_BYTES {
            self.flush(&partition).await?;
        }
        while self.buffered > BUFFERED_BYTES {
            let Some(largest) = self.partitions.iter().max_by_key(|(_, p)| p.bytes).map(|(k, _)| k.clone()) else { break };
            self.flush(&largest).await?;
        }
        Ok(())
    }

    /// Deals a batch's rows over their partitions.
    pub(crate) async fn deal(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        for (partition, rows) in self.split(batch)? {
            self.add(partition, pick(batch, rows.as_ref())?).await?;
        }
        Ok(())
    }

    /// Where the table's files are.
    pub(crate) fn storage(&self) -> &'a Files {
        &self.attempt.files
    }

    /// What the names of its files begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Writes what waits for a partition.
    async fn flush(&mut self, partition: &Struct) -> Result<(), SinkError> {
        let Some(entry) = self.partitions.get_mut(partition) else { return Ok(()) };
        let waiting = std::mem::take(&mut entry.waiting);
        self.buffered -= std::mem::take(&mut entry.bytes);
        let rows: usize = waiting.iter().map(RecordBatch::num_rows).sum();
        if rows == 0 {
            return Ok(());
        }
        let waiting = match self.sort.is_empty() || rows > SORT_ROWS {
            true => waiting,
            false => vec![sorted(&self.arrow, &waiting, &self.sort).map_err(SinkError::arrow("sort rows"))?],
        };
        let failed = || SinkError::table("write a data file", self.table);
        self.clock += 1;
        entry.touched = self.clock;
        for batch in waiting {
            let mut writer = match entry.open.take() {
                Some(writer) => writer,
                None => {
                    self.next_file += 1;
                    let path = format!("{}-{:05}.parquet", self.prefix, self.next_file);
                    let output = self.attempt.output(&path).map_err(failed())?;
                    let builder = ParquetWriterBuilder::new(self.properties.clone(), self.schema.clone());
                    builder.build(output).await.map_err(failed())?
                }
            };
            writer.write(&batch).await.map_err(failed())?;
            if writer.current_written_size() < self.target {
                entry.open = Some(writer);
            } else {
                close(self.table, &mut self.done, writer, partition, self.spec_id).await?;
            }
        }
        if self.partitions.values().filter(|p| p.open.is_some()).count() > OPEN_FILES {
            let open = self.partitions.iter_mut().filter(|(_, p)| p.open.is_some());
            if let Some((key, idle)) = open.min_by_key(|(_, p)| p.touched)
                && let Some(writer) = idle.open.take()
            {
                close(self.table, &mut self.done, writer, key, self.spec_id).await?;
            }
        }
        Ok(())
    }

    /// Writes and closes everything.
    pub(crate) async fn finish(mut self) -> Result<Vec<DataFile>, SinkError> {
        let keys: Vec<Struct> = self.partitions.keys().cloned().collect();
        for key in keys {
            self.flush(&key).await?;
            if let Some(writer) = self.partitions.remove(&key).and_then(|p| p.open) {
                close(self.table, &mut self.done, writer, &key, self.spec_id).await?;
            }
        }
        Ok(self.done)
    }
}

async fn close(
    table: &TableName,
    done: &mut Vec<DataFile>,
    writer: ParquetWriter,
    partition: &Struct,
    spec_id: i32,
) -> Result<(), SinkError> {
    for mut file in writer.close().await.map_err(SinkError::table("finish a data file", table))? {
        let built = file.partition(partition.clone()).partition_spec_id(spec_id).build().map_err(|e| {
            let error =
                iceberg::Error::new(iceberg::ErrorKind::Unexpected, "a data file's description is not complete").with_source(e);
            SinkError::table("finish a data file", table)(error)
        })?;
        done.push(built);
    }
    Ok(())
}

/// One batch of several, in the order of some columns.
fn sorted(schema: &ArrowSchemaRef, batches: &[RecordBatch], by: &[usize]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let whole = concat_batches(schema, batches)?;
    let columns: Vec<_> = by.iter().map(|i| SortColumn { values: whole.column(*i).clone(), options: None }).collect();
    let order = lexsort_to_indices(&columns, None)?;
    take_record_batch(&whole, &order)
}
