//! Reading data files: the rows that are left in them, with our own Parquet reading.
//!
//! The crate's scan is not used: it plans with the snapshot's schema rather than the table's, copies more than it must, and does not tell
//! a row's position.

use std::collections::HashMap;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use iceberg::spec::{Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, RowSelection, RowSelector};
use roaring::RoaringBitmap;

use crate::error::SinkError;
use crate::failpoint;
use crate::producer::deletes::Gone;
use crate::schema::cast_column;
use crate::storage::files::Files;
use crate::storage::parquet_file::{ParquetFile, Part};

/// A data file that was opened for some columns of its table. A column is found by its name in the table's schema and by the field's id in
/// the file; one that the table or the file does not have is NULL.
pub(crate) struct Rows {
    path: String,
    file: ParquetFile,
    target: ArrowSchemaRef,
    /// Of each wanted column: which of the file's it is.
    pub(crate) roots: Vec<Option<usize>>,
}

impl Rows {
    /// Opens `path` for the columns of `target`.
    ///
    /// # Errors
    /// A file that is not there, or is not Parquet.
    pub(crate) fn open(files: &Files, path: &str, table: &Schema, target: &ArrowSchemaRef) -> Result<Rows, SinkError> {
        let file = ParquetFile::open(files, path)?;
        let metadata = &file.metadata;
        let fields = metadata.parquet_schema().root_schema().get_fields();
        let ids: HashMap<i32, usize> = (0..)
            .zip(fields)
            .filter(|(_, field)| field.get_basic_info().has_id())
            .map(|(at, field)| (field.get_basic_info().id(), at))
            .collect();
        let place = |name: &str| table.field_by_name(name).and_then(|field| ids.get(&field.id)).copied();
        let roots = target.fields().iter().map(|field| place(field.name())).collect();
        Ok(Rows { path: path.to_string(), file, target: ArrowSchemaRef::clone(target), roots })
    }

    /// What the file's footer says.
    pub(crate) fn metadata(&self) -> &ArrowReaderMetadata {
        &self.file.metadata
    }

    /// The rows but those of `gone`.
    ///
    /// # Errors
    /// What Parquet says; then, for each batch, values that do not fit the wanted type.
    pub(crate) fn left(
        &self,
        gone: Option<&RoaringBitmap>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, SinkError>> + Send + use<>, SinkError> {
        let selection = gone.filter(|gone| !gone.is_empty()).map(|gone| self.without(gone));
        self.read(selection, None)
    }

    /// The rows of one row group, in order.
    ///
    /// # Errors
    /// As [`Rows::left`].
    pub(crate) fn group(
        &self,
        group: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, SinkError>> + Send + use<>, SinkError> {
        self.read(None, Some(group))
    }

    /// All rows but some.
    fn without(&self, gone: &RoaringBitmap) -> RowSelection {
        let mut selectors = Vec::new();
        let mut at = 0u64;
        for position in gone {
            let position = u64::from(position);
            if position > at {
                selectors.push(RowSelector::select(usize::try_from(position - at).unwrap_or(usize::MAX)));
            }
            selectors.push(RowSelector::skip(1));
            at = position + 1;
        }
        let rows = self.metadata().metadata().file_metadata().num_rows().unsigned_abs();
        if rows > at {
            selectors.push(RowSelector::select(usize::try_from(rows - at).unwrap_or(usize::MAX)));
        }
        selectors.into()
    }

    fn read(
        &self,
        selection: Option<RowSelection>,
        group: Option<usize>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, SinkError>> + Send + use<>, SinkError> {
        let mut chosen: Vec<usize> = self.roots.iter().flatten().copied().collect();
        chosen.sort_unstable();
        chosen.dedup();
        let mask = ProjectionMask::roots(self.metadata().parquet_schema(), chosen.iter().copied());
        // Where each wanted column is among those that are read.
        let places: Vec<Option<usize>> =
            self.roots.iter().map(|root| root.and_then(|root| chosen.binary_search(&root).ok())).collect();
        let reader = self.file.read(Part { columns: Some(mask), rows: selection, group })?;
        let (path, target) = (self.path.clone(), ArrowSchemaRef::clone(&self.target));
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
}

/// A table's files to read, each with what is gone of it: shared by the threads that read them.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// Where the files are.
    pub(crate) storage: Files,
    pub(crate) files: Vec<(String, Option<Gone>)>,
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
    while let Some((path, gone)) = scan.files.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
        failpoint::reach("hydrate");
        for batch in Rows::open(&scan.storage, path, &scan.schema, target)?.left(gone.as_deref())? {
            let batch = batch?;
            count += batch.num_rows() as u64;
            if rows.blocking_send(batch).is_err() {
                return Ok(count);
            }
        }
    }
    Ok(count)
}
