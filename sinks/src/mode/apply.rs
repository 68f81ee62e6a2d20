//! An epoch's changes of one table: new files, files that lose rows, files that are written anew.
//!
//! Rows that came go into new files. Rows that went are sought in their partition's files ([`crate::seek`]). A file that has some is
//! written anew without them where that is little work or where it has lost many; else a delete file says what is gone. So an epoch costs
//! what changed, and no reader has to pass over more than a share of the rows.

use std::collections::{HashMap, HashSet};

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use iceberg::spec::Struct;
use roaring::RoaringBitmap;

use super::{Context, SinkMode, TableChange, with_ops};
use crate::compaction;
use crate::error::SinkError;
use crate::hydrate::Rows;
use crate::producer::files::TableWriter;
use crate::producer::turnover::Turnover;
use crate::producer::{LiveFile, TableState};
use crate::schema::conform;
use crate::seek::Sought;

/// What changes in one partition: rows of the epoch's batches.
#[derive(Default)]
struct Part {
    /// Batch, and rows to write, each as often as it came.
    came: Vec<(usize, UInt32Array)>,
    /// Batch, rows that went, and how often.
    went: Vec<(usize, UInt32Array, Vec<u64>)>,
}

/// Writes the rows that came and says what happens to the files that are there.
pub(super) async fn apply(
    context: &Context,
    change: &TableChange,
    base: &TableState,
    writer: &mut TableWriter<'_>,
) -> Result<Turnover, SinkError> {
    let (batches, parts) = deal(context, change, writer)?;
    let spec_id = base.metadata.default_partition_spec_id();
    let mut files: HashMap<&Struct, Vec<&LiveFile>> = HashMap::new();
    for (_, file) in base.live().filter(|(spec, file)| *spec == spec_id && parts.contains_key(&file.partition)) {
        files.entry(&file.partition).or_default().push(file);
    }
    let mut turnover = Turnover::default();
    for (partition, part) in &parts {
        let mut files = files.remove(partition).unwrap_or_default();
        let mut touched = HashSet::new();
        for (file, gone) in lose(change, base, writer, &batches, part, &files)? {
            touched.insert(&file.path);
            if context.rules.rewrites(file, gone.len()) {
                rewrite(base, writer, file, Some(&gone)).await?;
                turnover.removed.insert(file.path.clone());
            } else {
                turnover.thinned.push((file.clone(), gone));
            }
        }
        for (batch, rows) in &part.came {
            let batch = &batches[*batch];
            let whole = rows.len() == batch.num_rows() && rows.values().iter().zip(0..).all(|(row, at)| *row == at);
            let rows = match whole {
                true => batch.clone(),
                false => take_record_batch(batch, rows).map_err(SinkError::arrow("choose rows"))?,
            };
            writer.add(partition.clone(), rows).await?;
        }
        files.retain(|file| !touched.contains(&file.path));
        for file in compaction::small(files, context.rules.small_files, context.rules.target_bytes) {
            rewrite(base, writer, file, base.deletes.of(&file.path).map(|gone| gone.as_ref())).await?;
            turnover.removed.insert(file.path.clone());
        }
    }
    Ok(turnover)
}

/// Puts what is left of a file into a new one.
pub(crate) async fn rewrite(
    base: &TableState,
    writer: &mut TableWriter<'_>,
    file: &LiveFile,
    gone: Option<&RoaringBitmap>,
) -> Result<(), SinkError> {
    tracing::trace!(path = file.path, rows = file.records, "a file is written anew");
    for batch in Rows::open(writer.storage(), &file.path, base.metadata.current_schema(), &writer.arrow)?.left(gone)? {
        writer.add(file.partition.clone(), batch?).await?;
    }
    Ok(())
}

/// The epoch's batches in the table's columns, and which of their rows concern which partition.
fn deal(
    context: &Context,
    change: &TableChange,
    writer: &TableWriter<'_>,
) -> Result<(Vec<RecordBatch>, HashMap<Struct, Part>), SinkError> {
    let table = &change.table;
    let mut batches = Vec::with_capacity(change.changes.len());
    let mut parts: HashMap<Struct, Part> = HashMap::new();
    for (index, (rows, diffs)) in change.changes.iter().enumerate() {
        if rows.num_rows() != diffs.len() {
            let reason = format!("{} rows came with {} counts: this is a fault of the caller", rows.num_rows(), diffs.len());
            return Err(SinkError::Rows { table: table.clone(), reason });
        }
        let retracted = |diff: &i64| *diff < 0;
        if change.mode == SinkMode::Append && diffs.values().iter().any(retracted) {
            let reason = "its mode is append, but a row was taken back: use mode = 'snapshot' or 'changelog'".into();
            return Err(SinkError::Rows { table: table.clone(), reason });
        }
        let rows = match change.mode {
            SinkMode::Changelog => with_ops(rows, diffs, context.timestamp)?,
            _ => rows.clone(),
        };
        let batch = conform(&table.to_string(), &rows, &writer.arrow)?;
        for (partition, members) in writer.split(&batch)? {
            let all = || UInt32Array::from_iter_values(0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX));
            let members = members.unwrap_or_else(all);
            let part = parts.entry(partition).or_default();
            let (came, went) = sort_out(change.mode, members.values(), diffs);
            if !came.is_empty() {
                part.came.push((index, came.into()));
            }
            if !went.0.is_empty() {
                part.went.push((index, went.0.into(), went.1));
            }
        }
        batches.push(batch);
    }
    Ok((batches, parts))
}

/// Of some rows: those to write, each as often as it came, and those that went, with how often. A changelog writes both.
fn sort_out(mode: SinkMode, members: &[u32], diffs: &Int64Array) -> (Vec<u32>, (Vec<u32>, Vec<u64>)) {
    let (mut came, mut went) = (Vec::with_capacity(members.len()), (Vec::new(), Vec::new()));
    for row in members {
        let diff = diffs.value(*row as usize);
        if diff > 0 || mode == SinkMode::Changelog {
            came.extend(std::iter::repeat_n(*row, usize::try_from(diff.unsigned_abs()).unwrap_or(usize::MAX)));
        } else if diff < 0 {
            went.0.push(*row);
            went.1.push(diff.unsigned_abs());
        }
    }
    (came, went)
}

/// The files of a partition that lose rows, each with all that is gone of it then.
fn lose<'f>(
    change: &TableChange,
    base: &TableState,
    writer: &TableWriter<'_>,
    batches: &[RecordBatch],
    part: &Part,
    files: &[&'f LiveFile],
) -> Result<Vec<(&'f LiveFile, RoaringBitmap)>, SinkError> {
    let mut losses = Vec::new();
    if part.went.is_empty() {
        return Ok(losses);
    }
    let mut picked = Vec::with_capacity(part.went.len());
    for (batch, rows, counts) in &part.went {
        let rows = take_record_batch(&batches[*batch], rows).map_err(SinkError::arrow("choose rows"))?;
        picked.push((rows, counts.clone()));
    }
    let columns: Vec<usize> = match change.key.is_empty() {
        true => (0..writer.arrow.fields().len()).collect(),
        false => change.key.clone(),
    };
    let mut sought = Sought::new(&writer.arrow, &columns, &picked)?;
    for file in files {
        if sought.left == 0 {
            break;
        }
        let gone = base.deletes.of(&file.path).map(|gone| gone.as_ref());
        let found = sought.find(writer.storage(), &file.path, base.metadata.current_schema(), gone)?;
        if !found.is_empty() {
            losses.push((*file, gone.map_or_else(|| found.clone(), |gone| gone | &found)));
        }
    }
    match sought.left {
        0 => Ok(losses),
        left => Err(SinkError::Mismatch {
            table: change.table.clone(),
            reason: format!(
                "{left} rows that the relation lost are not in the table: nothing is written; if another program changed the table, \
                 replace its rows"
            ),
        }),
    }
}
