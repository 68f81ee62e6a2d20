//! Finding rows in data files: where the rows that a relation lost are.
//!
//! No index from rows to positions is kept, because it would be a second copy of the relation's keys in memory. Instead the columns of the
//! key (all columns, where there is none) are read from those row groups whose statistics say that they may have one of the rows, newest
//! files first, until all are found. Rows are compared as [`arrow::row`] encodes them, so NULLs and NaNs are equal to themselves.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use arrow::row::{RowConverter, Rows as Encoded, SortField};
use hashbrown::HashTable;
use iceberg::spec::Schema;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use roaring::RoaringBitmap;

use crate::error::SinkError;
use crate::hydrate::Rows;
use crate::schema::cast_column;
use crate::storage::files::Files;

/// Rows that are looked for in the files of one partition.
pub(crate) struct Sought {
    /// The columns that are compared.
    target: ArrowSchemaRef,
    converter: RowConverter,
    /// The different rows.
    rows: Encoded,
    /// How many of each are not found yet.
    missing: Vec<u64>,
    /// Their places in `rows`, by hash.
    places: HashTable<usize>,
    hasher: ahash::RandomState,
    /// Of each column: the least and the greatest value, where statistics can be compared with it.
    bounds: Vec<Option<Bounds>>,
    /// How many rows are not found yet.
    pub(crate) left: u64,
}

/// A column's least and greatest value among the rows, encoded.
struct Bounds {
    converter: RowConverter,
    least: Box<[u8]>,
    greatest: Box<[u8]>,
}

fn failed(source: arrow::error::ArrowError) -> SinkError {
    SinkError::arrow("compare rows with those of a file")(source)
}

impl Sought {
    /// Looks for rows, each with how often it is to be found, by `columns` of `schema`.
    ///
    /// # Errors
    /// A type that has no order.
    pub(crate) fn new(
        schema: &ArrowSchemaRef,
        columns: &[usize],
        batches: &[(RecordBatch, Vec<u64>)],
    ) -> Result<Sought, SinkError> {
        let target = Arc::new(schema.project(columns).map_err(failed)?);
        let picked = batches.iter().map(|(batch, _)| batch.project(columns)).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let whole = concat_batches(picked.first().map_or(&target, RecordBatch::schema_ref), &picked).map_err(failed)?;
        let fields = target.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(failed)?;
        let rows = converter.convert_columns(whole.columns()).map_err(failed)?;
        let hasher = ahash::RandomState::new();
        let mut missing = vec![0; rows.num_rows()];
        let mut places = HashTable::with_capacity(rows.num_rows());
        let mut left = 0;
        for (place, count) in batches.iter().flat_map(|(_, counts)| counts.iter()).enumerate() {
            let hash = hasher.hash_one(rows.row(place).data());
            let entry = places.entry(
                hash,
                |known| rows.row(*known).data() == rows.row(place).data(),
                |known| hasher.hash_one(rows.row(*known).data()),
            );
            let first = *entry.or_insert(place).get();
            missing[first] += count;
            left += count;
        }
        let bounds = whole.columns().iter().map(bounds_of).collect::<Result<Vec<_>, _>>()?;
        Ok(Sought { target, converter, rows, missing, places, hasher, bounds, left })
    }

    /// The positions in a file of rows that are looked for; what is `gone` of it already does not count.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn find(
        &mut self,
        files: &Files,
        path: &str,
        table: &Schema,
        gone: Option<&RoaringBitmap>,
    ) -> Result<RoaringBitmap, SinkError> {
        let mut found = RoaringBitmap::new();
        let file = Rows::open(files, path, table, &self.target)?;
        let promising = self.promising(path, &file)?;
        let mut start = 0u32;
        for (group, wanted) in promising.into_iter().enumerate() {
            let rows = file.metadata().metadata().row_group(group).num_rows();
            let next = start.saturating_add(u32::try_from(rows).unwrap_or(u32::MAX));
            if wanted && self.left > 0 {
                let mut at = start;
                for batch in file.group(group)? {
                    let batch = batch?;
                    let encoded = self.converter.convert_columns(batch.columns()).map_err(failed)?;
                    for (position, row) in (at..).zip(encoded.iter()) {
                        let hash = self.hasher.hash_one(row.data());
                        let place = self.places.find(hash, |known| self.rows.row(*known).data() == row.data());
                        let Some(place) = place.copied().filter(|place| self.missing[*place] > 0) else { continue };
                        if gone.is_none_or(|gone| !gone.contains(position)) {
                            found.insert(position);
                            self.missing[place] -= 1;
                            self.left -= 1;
                        }
                    }
                    at = at.saturating_add(u32::try_from(batch.num_rows()).unwrap_or(u32::MAX));
                }
            }
            start = next;
        }
        Ok(found)
    }

    /// Of each row group: whether its statistics leave room for one of the rows.
    fn promising(&self, path: &str, file: &Rows) -> Result<Vec<bool>, SinkError> {
        let metadata = file.metadata().metadata();
        let groups = metadata.row_groups();
        let mut promising = vec![true; groups.len()];
        for ((root, bounds), field) in file.roots.iter().zip(&self.bounds).zip(self.target.fields()) {
            let (Some(root), Some(bounds)) = (root, bounds) else { continue };
            let name = file.metadata().schema().field(*root).name();
            let Ok(statistics) = StatisticsConverter::try_new(name, file.metadata().schema(), file.metadata().parquet_schema())
            else {
                continue;
            };
            let (Ok(least), Ok(greatest)) = (statistics.row_group_mins(groups.iter()), statistics.row_group_maxes(groups.iter()))
            else {
                continue;
            };
            let encode = |values: &ArrayRef| -> Result<Encoded, SinkError> {
                let values = cast_column(path, field.name(), values, field.data_type())?;
                bounds.converter.convert_columns(&[values]).map_err(failed)
            };
            let (low, high) = (encode(&least)?, encode(&greatest)?);
            for (group, promising) in promising.iter_mut().enumerate() {
                if least.is_valid(group) && greatest.is_valid(group) {
                    let beyond = high.row(group).data() < &*bounds.least || low.row(group).data() > &*bounds.greatest;
                    *promising &= !beyond;
                }
            }
        }
        Ok(promising)
    }
}

/// Bounds of a column's values. None where a value is NULL, or may be NaN: statistics do not count those.
fn bounds_of(values: &ArrayRef) -> Result<Option<Bounds>, SinkError> {
    if values.null_count() > 0 || values.is_empty() || values.data_type().is_floating() {
        return Ok(None);
    }
    let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())]).map_err(failed)?;
    let encoded = converter.convert_columns(std::slice::from_ref(values)).map_err(failed)?;
    let least = encoded.iter().min().map(|row| row.data().into());
    let greatest = encoded.iter().max().map(|row| row.data().into());
    Ok(least.zip(greatest).map(|(least, greatest)| Bounds { converter, least, greatest }))
}
