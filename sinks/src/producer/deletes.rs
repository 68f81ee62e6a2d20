//! Position deletes: which rows of a data file are gone although the file still has them.
//!
//! A large file that loses a few rows is not written anew: a small *delete file* says which of its rows no longer count. Ours are about one
//! data file each, and there is at most one of them per data file: it is replaced when more rows go, and both go when the data file is
//! written anew. Other programs' may be about several. Format: Iceberg V2, position delete files; all readers of
//! `docs/internals/epochs.md` apply them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::metadata_columns::{delete_file_path_field, delete_file_pos_field};
use iceberg::spec::{DataContentType, DataFile, DataFileFormat, ManifestContentType, Schema, Struct};
use iceberg::writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriterBuilder};
use iceberg::{Error, ErrorKind, Result};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use roaring::RoaringBitmap;

use super::attempt::Attempt;
use super::{LiveFile, Manifest};
use crate::storage::files::Files;
use crate::storage::parquet_file::{ParquetFile, Part};

/// Positions (from 0) of rows of one data file that are gone.
pub(crate) type Gone = Arc<RoaringBitmap>;

/// All position deletes of a table's newest snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletions {
    /// By data file.
    rows: HashMap<String, Gone>,
    /// By delete file: the data files that it is about.
    files: HashMap<String, Vec<String>>,
    /// A delete file of a kind that is not read here (equality deletes, deletion vectors), if there is one.
    pub(crate) unreadable: Option<String>,
}

impl Deletions {
    /// Reads the delete files that manifests list. Blocks.
    pub(crate) fn read(files: &Files, manifests: &[Manifest]) -> Result<Deletions> {
        let mut all = Deletions::default();
        let deletes = manifests.iter().filter(|manifest| manifest.file.content == ManifestContentType::Deletes);
        let alive: HashSet<&str> = manifests.iter().flat_map(|manifest| manifest.live.iter().map(|f| f.path.as_str())).collect();
        let mut rows: HashMap<String, RoaringBitmap> = HashMap::new();
        for file in deletes.flat_map(|manifest| manifest.live.iter()) {
            if file.content != DataContentType::PositionDeletes || file.format != DataFileFormat::Parquet {
                all.unreadable = Some(file.path.clone());
                continue;
            }
            let about = all.files.entry(file.path.clone()).or_default();
            read_file(files, &file.path, |data, position| {
                if about.last().is_none_or(|last| last != data) && !about.iter().any(|known| known == data) {
                    about.push(data.to_string());
                }
                if alive.contains(data) {
                    match rows.get_mut(data) {
                        Some(rows) => drop(rows.insert(position)),
                        None => drop(rows.insert(data.to_string(), RoaringBitmap::from_iter([position]))),
                    }
                }
            })?;
        }
        all.rows = rows.into_iter().map(|(data, rows)| (data, Arc::new(rows))).collect();
        Ok(all)
    }

    /// What is gone of a data file.
    pub(crate) fn of(&self, data: &str) -> Option<&Gone> {
        self.rows.get(data)
    }

    /// How many rows of a data file are gone.
    pub(crate) fn count(&self, data: &str) -> u64 {
        self.of(data).map_or(0, |gone| gone.len())
    }

    /// Notes a new delete file that says all that is gone of `data`, and those that a change no longer needs: `settled` are the data files
    /// that went, or have a new delete file. Answers the delete files that go.
    pub(crate) fn replace(&mut self, settled: &HashSet<&str>, new: Vec<(String, String, RoaringBitmap)>) -> HashSet<String> {
        let over: HashSet<String> = self
            .files
            .iter()
            .filter(|(_, about)| about.iter().all(|data| settled.contains(data.as_str())))
            .map(|(path, _)| path.clone())
            .collect();
        self.files.retain(|path, _| !over.contains(path));
        self.rows.retain(|data, _| !settled.contains(data.as_str()));
        for (path, data, gone) in new {
            self.files.insert(path, vec![data.clone()]);
            self.rows.insert(data, Arc::new(gone));
        }
        over
    }
}

/// Calls `each` for every row of a position delete file.
fn read_file(files: &Files, path: &str, mut each: impl FnMut(&str, u32)) -> Result<()> {
    let wrong = |what: &str| Error::new(ErrorKind::DataInvalid, format!("the delete file {path} {what}"));
    let file = ParquetFile::open(files, path).map_err(|e| wrong("cannot be opened").with_source(e))?;
    for batch in file.read(Part::default()).map_err(|e| wrong("cannot be read").with_source(e))? {
        let batch = batch.map_err(|e| wrong("cannot be read").with_source(e))?;
        let column = |name: &str, as_type: &DataType| {
            let column = batch.column_by_name(name).ok_or_else(|| wrong("has no columns file_path and pos"))?;
            arrow::compute::cast(column, as_type).map_err(|e| wrong("has columns of other types").with_source(e))
        };
        let (paths, positions) = (column("file_path", &DataType::Utf8)?, column("pos", &DataType::Int64)?);
        for (data, position) in paths.as_string::<i32>().iter().zip(positions.as_primitive::<Int64Type>()) {
            let position = position.and_then(|position| u32::try_from(position).ok());
            let (Some(data), Some(position)) = (data, position) else { return Err(wrong("has a row without a position")) };
            each(data, position);
        }
    }
    Ok(())
}

/// Writes the delete file of one data file.
///
/// # Errors
/// The file cannot be written.
pub(crate) async fn write(
    attempt: &Attempt,
    path: &str,
    data: &LiveFile,
    spec_id: i32,
    gone: &RoaringBitmap,
) -> Result<DataFile> {
    let fields = [delete_file_path_field(), delete_file_pos_field()].map(Arc::clone);
    let schema = Arc::new(Schema::builder().with_fields(fields).build()?);
    // Without their whole length the bounds of the path are dropped, and readers open every delete file for every data file.
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default()))
        .set_statistics_truncate_length(None)
        .build();
    let arrow = Arc::new(schema_to_arrow_schema(&schema)?);
    let mut writer = ParquetWriterBuilder::new(properties, schema).build(attempt.output(path)?).await?;
    let count = usize::try_from(gone.len()).unwrap_or(usize::MAX);
    let paths = StringArray::from_iter_values(std::iter::repeat_n(data.path.as_str(), count));
    let positions = Int64Array::from_iter_values(gone.iter().map(i64::from));
    let rows = RecordBatch::try_new(arrow, vec![Arc::new(paths), Arc::new(positions)]);
    writer.write(&rows.map_err(|e| Error::new(ErrorKind::Unexpected, "delete file").with_source(e))?).await?;
    let mut written = writer.close().await?;
    let mut file = written.pop().ok_or_else(|| Error::new(ErrorKind::Unexpected, "a delete file without rows"))?;
    file.content(DataContentType::PositionDeletes)
        .partition(Struct::clone(&data.partition))
        .partition_spec_id(spec_id)
        .referenced_data_file(Some(data.path.clone()))
        .build()
        .map_err(|e| Error::new(ErrorKind::Unexpected, "a delete file's description is not complete").with_source(e))
}
