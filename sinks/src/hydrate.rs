//! Reading tables back: the files that the newest snapshot's manifests list, with our own Parquet reading.
//!
//! The crate's scan is not used: it plans with the snapshot's schema rather than the table's, and copies more than it must.

use std::collections::HashMap;
use std::fs::File;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use iceberg::spec::{Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::SinkError;
use crate::schema::cast_column;
use crate::storage::local_path;

/// Rows in a batch that is read.
const BATCH_ROWS: usize = 65_536;

/// The rows of a data file as batches of `target`'s columns. A column is found by its name in the table's schema and by the
/// field's id in the file; one that the table or the file does not have is NULL.
pub(crate) fn file_batches(
    path: &str,
    table: &Schema,
    target: &ArrowSchemaRef,
) -> Result<impl Iterator<Item = Result<RecordBatch, SinkError>> + Send + use<>, SinkError> {
    let local = local_path(path);
    let file = File::open(&local).map_err(SinkError::file("open the data file", &local))?;
    let wrong = |path: &str| {
        let path = path.to_string();
        move |source| SinkError::Parquet { what: "read", path: path.clone(), source }
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(wrong(path))?;
    let ids: HashMap<i32, usize> = builder
        .parquet_schema()
        .root_schema()
        .get_fields()
        .iter()
        .enumerate()
        .filter(|(_, f)| f.get_basic_info().has_id())
        .map(|(at, f)| (f.get_basic_info().id(), at))
        .collect();
    let roots: Vec<Option<usize>> =
        target.fields().iter().map(|f| table.field_by_name(f.name()).and_then(|f| ids.get(&f.id)).copied()).collect();
    let mut chosen: Vec<usize> = roots.iter().flatten().copied().collect();
    chosen.sort_unstable();
    chosen.dedup();
    let mask = ProjectionMask::roots(builder.parquet_schema(), chosen.iter().copied());
    // Where each wanted column is among those that are read.
    let places: Vec<Option<usize>> = roots.iter().map(|r| r.and_then(|r| chosen.binary_search(&r).ok())).collect();
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(wrong(path))?;
    let (path, target) = (path.to_string(), ArrowSchemaRef::clone(target));
    Ok(reader.map(move |batch| {
        let batch = batch.map_err(SinkError::arrow(format!("read {path}")))?;
        let columns = target.fields().iter().zip(&places).map(|(field, place)| match place {
            Some(at) => cast_column(&path, field.name(), batch.column(*at), field.data_type()),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(ArrowSchemaRef::clone(&target), columns, &options)
            .map_err(SinkError::arrow(format!("fit the rows of {path} to the relation's columns")))
    }))
}

/// A table's files to read: shared by the threads that read them.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub(crate) files: Vec<String>,
    pub(crate) schema: SchemaRef,
}

/// Reads files one after the other from a shared list and sends their rows, until the list is empty or nobody listens. Blocks.
pub(crate) fn read_files(
    scan: &Scan,
    next: &std::sync::atomic::AtomicUsize,
    target: &ArrowSchemaRef,
    rows: &tokio::sync::mpsc::Sender<RecordBatch>,
) -> Result<u64, SinkError> {
    let mut count = 0;
    while let Some(path) = scan.files.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
        for batch in file_batches(path, &scan.schema, target)? {
            let batch = batch?;
            count += batch.num_rows() as u64;
            if rows.blocking_send(batch).is_err() {
                return Ok(count);
            }
        }
    }
    Ok(count)
}
