//! What a table shows of its relation, and which files an epoch's changes make and unmake.
//!
//! | mode | rows of the table | from |
//! |---|---|---|
//! | snapshot | exactly the relation's rows at the epoch's timestamp | inserts, and copy-on-write of partitions that lost rows |
//! | append | every row that ever came | inserts only; a retraction is an error |
//! | changelog | every net change of an epoch, with `_op` and `_timestamp` | inserts and retractions |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use iceberg::spec::Struct;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::Timestamp;
use tokio::sync::mpsc;

use crate::error::SinkError;
use crate::hydrate;
use crate::partition::PartitionBy;
use crate::producer::attempt::Attempt;
use crate::producer::files::TableWriter;
use crate::producer::{Change, EPOCH_KEY, Staged, TableState, reshaped, stage};
use crate::schema::{conform, evolved, notes};
use crate::storage::{Storage, TableName};

/// A partition with this many files below [`SMALL_FILE`] has them made into one with the next rows that it gets.
const SMALL_FILES: usize = 16;
/// What a small file is.
const SMALL_FILE: u64 = 32 << 20;

/// The option `mode` of an Iceberg sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SinkMode {
    /// The relation's rows.
    #[default]
    Snapshot,
    /// The relation's rows, which are only ever added.
    Append,
    /// Every change: the relation's columns, then `_op` (`+I` a row came, `-D` it went; an update is both) and `_timestamp`
    /// (timestamptz: the epoch's timestamp). Changes within one epoch that cancel out do not appear.
    Changelog,
}

impl std::str::FromStr for SinkMode {
    type Err = SinkError;

    fn from_str(text: &str) -> Result<SinkMode, SinkError> {
        match text.to_ascii_lowercase().as_str() {
            "snapshot" => Ok(SinkMode::Snapshot),
            "append" => Ok(SinkMode::Append),
            "changelog" => Ok(SinkMode::Changelog),
            _ => Err(SinkError::Option(format!("mode = '{text}': it is snapshot, append or changelog"))),
        }
    }
}

/// What an epoch does to one table.
#[derive(Clone, Debug)]
pub struct TableChange {
    /// The Iceberg table; it is made if it is not there.
    pub table: TableName,
    /// The relation behind it, for [`RowReader::read`].
    pub relation: RelationId,
    /// The relation's columns. A field's metadata [`crate::schema::COMMENT_KEY`] becomes the column's comment. Differs it from
    /// the table's, the table's columns are changed along.
    pub schema: SchemaRef,
    /// How the table is divided.
    pub partition_by: PartitionBy,
    /// What it shows.
    pub mode: SinkMode,
    /// Net changes since the last epoch, columns as in `schema`: rows and how many of each came (above zero) or went (below).
    /// For a table that is not there yet ([`crate::Lake::tables`] tells): all rows that it is to have, or `replace`.
    pub changes: Vec<(RecordBatch, Int64Array)>,
    /// Snapshot mode: forget the table's rows and write those that [`RowReader::read`] gives (`changes` are not looked at).
    /// For a relation whose definition changed, or a table that is to be repaired.
    pub replace: bool,
    /// The table's comment, set when it is made.
    pub comment: Option<String>,
}

/// A table that leaves the catalog with an epoch.
#[derive(Clone, Debug)]
pub struct TableDrop {
    /// Which table; one that is not there is passed over.
    pub table: TableName,
    /// Whether its files are deleted once the epoch is committed.
    pub purge: bool,
}

/// Where a relation's rows at a timestamp are had from: the engine's arrangement.
#[async_trait]
pub trait RowReader: Send + Sync {
    /// Sends all rows of `relation` at `as_of` into `rows`, each as often as it is there, then returns. A closed channel means
    /// that no more are wanted.
    async fn read(
        &self,
        relation: RelationId,
        as_of: Timestamp,
        rows: mpsc::Sender<RecordBatch>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// What all tables of an epoch share while they are written.
pub(crate) struct Context {
    pub(crate) attempt: Attempt,
    pub(crate) storage: Storage,
    pub(crate) epoch: u64,
    pub(crate) timestamp: Timestamp,
    /// Summary and table properties.
    pub(crate) stamp: BTreeMap<String, String>,
    pub(crate) rows: Arc<dyn RowReader>,
    pub(crate) keep: usize,
}

/// Rows of one batch of changes that go into files.
struct Dealt {
    batch: RecordBatch,
    /// Per partition: rows to write (each as often as it came).
    inserts: Vec<(Struct, UInt32Array)>,
}

/// Writes the files of a table's next state; `None` when nothing changes.
pub(crate) async fn write_table(
    context: &Context,
    change: &TableChange,
    state: Option<Arc<TableState>>,
) -> Result<Option<Staged>, SinkError> {
    let table = &change.table;
    let label = table.to_string();
    let failed = || SinkError::table("prepare the next snapshot", table);
    let wanted = match change.mode {
        SinkMode::Changelog => changelog_schema(&label, &change.schema)?,
        _ => Arc::clone(&change.schema),
    };
    let old = state.as_ref().map(|s| (s.metadata.current_schema().as_ref(), s.metadata.last_column_id()));
    let shape = evolved(&label, old, &wanted)?;
    let spec = change.partition_by.spec(&shape.schema).map_err(|why| SinkError::Rows { table: table.clone(), reason: why })?;
    let (base, schema, spec) = match state {
        None => {
            notes(&wanted).iter().for_each(|note| tracing::warn!(table = %table, "{note}"));
            let location = context.storage.new_location(table);
            let made = TableState::create(table, location, shape.schema, spec, change.comment.as_deref()).map_err(failed())?;
            (Arc::new(made), None, None)
        }
        Some(state) => {
            if !state.metadata.properties().contains_key(EPOCH_KEY) {
                let reason = "it is there already and was not made by livelake: drop it, or give the sink another table".into();
                return Err(SinkError::Rows { table: table.clone(), reason });
            }
            let fields = |s: &[iceberg::spec::UnboundPartitionField]| -> Vec<_> {
                s.iter().map(|f| (f.source_id, f.transform, f.name.clone())).collect()
            };
            let current = state.metadata.default_partition_spec().as_ref().clone().into_unbound();
            let moved = fields(current.fields()) != fields(spec.fields());
            (state, shape.changed.then_some(shape.schema), moved.then_some(spec))
        }
    };
    let is_new = base.location.is_empty();
    let mut replace = change.replace || (!is_new && (schema.is_some() || spec.is_some() || base.is_foreign()));
    if change.mode != SinkMode::Snapshot {
        if let Some(column) = shape.incompatible.filter(|_| !is_new) {
            let reason = "its type changed to one that earlier files cannot be read as: give the sink another table".into();
            return Err(SinkError::Column { table: label, column, reason });
        }
        replace = false;
    }
    if !replace && !is_new && schema.is_none() && spec.is_none() && change.changes.iter().all(|(b, _)| b.num_rows() == 0) {
        return Ok(None);
    }
    if base.has_deletes() && !replace {
        return Err(SinkError::Rows {
            table: table.clone(),
            reason: "another program has put row-level deletes into it: replace its rows, or give the sink another table".into(),
        });
    }

    let shaped = reshaped(&base, schema.as_ref(), spec.as_ref()).map_err(failed())?;
    let mut writer = TableWriter::new(&context.attempt, table, &shaped, &format!("epoch-{}", context.epoch))?;
    let mut removed: HashSet<String> = HashSet::new();
    if replace {
        removed.extend(base.live().map(|(_, f)| f.path.clone()));
        removed.extend(base.manifests.iter().flat_map(|m| m.live.iter().map(|f| f.path.clone())));
        read_rows(context, change, &mut writer, |_| true).await?;
    } else {
        apply(context, change, &base, &mut writer, &mut removed).await?;
    }
    let added = writer.finish().await?;
    let records = |files: &mut dyn Iterator<Item = u64>| -> u64 { files.sum() };
    let expected = match replace {
        true => None,
        false => expected_rows(change, base.records()),
    };
    let after = base.records() + records(&mut added.iter().map(|f| f.record_count()))
        - records(&mut base.live().filter(|(_, f)| removed.contains(&f.path)).map(|(_, f)| f.records));
    if let Some(expected) = expected.filter(|e| *e != i128::from(after)) {
        return Err(SinkError::Mismatch {
            table: table.clone(),
            reason: format!(
                "it would have {after} rows after epoch {}, but its {} rows and the epoch's changes make {expected}: nothing is \
                 written; if another program changed the table, replace its rows",
                context.epoch,
                base.records()
            ),
        });
    }
    let change = Change { schema, spec, added, removed, only_rearranged: false };
    stage(&context.attempt, &base, change, &context.stamp, context.keep).await.map(Some).map_err(failed())
}

/// How many rows the table must have afterwards.
fn expected_rows(change: &TableChange, before: u64) -> Option<i128> {
    let each = change.changes.iter().flat_map(|(_, diffs)| diffs.values().iter().copied());
    let net: i128 = match change.mode {
        SinkMode::Changelog => each.map(|d| i128::from(d.unsigned_abs())).sum(),
        _ => each.map(i128::from).sum(),
    };
    Some(i128::from(before) + net)
}

/// Turns the net changes into new files and files that go.
async fn apply(
    context: &Context,
    change: &TableChange,
    base: &TableState,
    writer: &mut TableWriter<'_>,
    removed: &mut HashSet<String>,
) -> Result<(), SinkError> {
    let table = &change.table;
    let label = table.to_string();
    let mut dealt = Vec::with_capacity(change.changes.len());
    let mut net: HashMap<Struct, i128> = HashMap::new();
    let mut dirty: HashSet<Struct> = HashSet::new();
    for (rows, diffs) in &change.changes {
        if rows.num_rows() != diffs.len() {
            let reason = format!("{} rows came with {} counts: this is a fault of the caller", rows.num_rows(), diffs.len());
            return Err(SinkError::Rows { table: table.clone(), reason });
        }
        let rows = match change.mode {
            SinkMode::Changelog => with_ops(rows, diffs, context.timestamp)?,
            _ => rows.clone(),
        };
        let batch = conform(&label, &rows, &writer.arrow)?;
        let mut inserts = Vec::new();
        for (partition, members) in writer.split(&batch)? {
            let all = || UInt32Array::from_iter_values(0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX));
            let members = members.unwrap_or_else(all);
            let mut chosen = Vec::with_capacity(members.len());
            let mut sum = 0i128;
            for row in members.values() {
                let diff = diffs.value(*row as usize);
                sum += i128::from(diff);
                let times = if change.mode == SinkMode::Changelog { diff.unsigned_abs() } else { diff.max(0).unsigned_abs() };
                chosen.extend(std::iter::repeat_n(*row, usize::try_from(times).unwrap_or(usize::MAX)));
                if diff < 0 && change.mode == SinkMode::Append {
                    return Err(SinkError::Rows {
                        table: table.clone(),
                        reason: "its mode is append, but a row was taken back: use mode = 'snapshot' or 'changelog'".into(),
                    });
                }
                if diff < 0 && change.mode == SinkMode::Snapshot {
                    dirty.insert(partition.clone());
                }
            }
            *net.entry(partition.clone()).or_default() += sum;
            inserts.push((partition, UInt32Array::from(chosen)));
        }
        dealt.push(Dealt { batch, inserts });
    }

    // Partitions that lost rows: their files go; their rows, where some are left, come from the engine.
    let spec_id = base.metadata.default_partition_spec_id();
    let mut left: HashMap<&Struct, i128> = dirty.iter().map(|p| (p, net.get(p).copied().unwrap_or(0))).collect();
    let mut small: HashMap<&Struct, Vec<(&str, u64)>> = HashMap::new();
    for (spec, file) in base.live().filter(|(spec, _)| *spec == spec_id) {
        debug_assert_eq!(spec, spec_id);
        if let Some(rows) = left.get_mut(&file.partition) {
            *rows += i128::from(file.records);
            removed.insert(file.path.clone());
        } else if file.bytes < SMALL_FILE && net.contains_key(&file.partition) {
            small.entry(&file.partition).or_default().push((&file.path, file.records));
        }
    }
    if let Some((partition, rows)) = left.iter().find(|(_, rows)| **rows < 0) {
        let reason = format!("a partition ({partition:?}) would have {rows} rows: more were taken back than there are");
        return Err(SinkError::Mismatch { table: table.clone(), reason });
    }
    // also where nothing should be left: if rows were taken back that were not there, others still are
    if !left.is_empty() {
        let found = read_rows(context, change, writer, |p| dirty.contains(p)).await?;
        for (partition, rows) in &left {
            let found = found.get(*partition).copied().unwrap_or(0);
            if i128::from(found) != *rows {
                let reason = format!(
                    "a partition ({partition:?}) has {found} rows in the relation, but {rows} by the table and the epoch's changes: \
                     nothing is written; if another program changed the table, replace its rows"
                );
                return Err(SinkError::Mismatch { table: table.clone(), reason });
            }
        }
    }
    for part in dealt {
        for (partition, rows) in part.inserts.into_iter().filter(|(p, rows)| !dirty.contains(p) && !rows.is_empty()) {
            let rows = match rows.len() == part.batch.num_rows() && rows.values().iter().zip(0..).all(|(row, at)| *row == at) {
                true => part.batch.clone(),
                false => take_record_batch(&part.batch, &rows).map_err(SinkError::arrow("choose rows"))?,
            };
            writer.add(partition, rows).await?;
        }
    }
    // Small files become one with the rows that came.
    for (partition, files) in small.into_iter().filter(|(_, files)| files.len() >= SMALL_FILES) {
        for (path, records) in files {
            let schema = base.metadata.current_schema();
            for batch in hydrate::file_batches(path, schema, &writer.arrow)? {
                writer.add(partition.clone(), batch?).await?;
            }
            tracing::trace!(table = %table, path, records, "a small file is made part of a larger one");
            removed.insert(path.to_string());
        }
    }
    Ok(())
}

/// Writes the relation's rows of the wanted partitions; answers how many each has.
async fn read_rows(
    context: &Context,
    change: &TableChange,
    writer: &mut TableWriter<'_>,
    wanted: impl Fn(&Struct) -> bool + Send,
) -> Result<HashMap<Struct, u64>, SinkError> {
    let label = change.table.to_string();
    let (sender, mut receiver) = mpsc::channel(4);
    let produce = context.rows.read(change.relation, context.timestamp, sender);
    let consume = async {
        let mut counts: HashMap<Struct, u64> = HashMap::new();
        while let Some(batch) = receiver.recv().await {
            let batch = conform(&label, &batch, &writer.arrow)?;
            for (partition, rows) in writer.add_where(&batch, &wanted).await? {
                *counts.entry(partition).or_default() += rows;
            }
        }
        // The channel must be seen closed by a producer that has more to send after an error here.
        Ok::<_, SinkError>(counts)
    };
    let produce = async { produce.await.map_err(|source| SinkError::Reader { table: change.table.clone(), source }) };
    let ((), counts) = futures::try_join!(produce, consume)?;
    Ok(counts)
}

/// The column of a changelog that says what happened to the row.
pub const OP_COLUMN: &str = "_op";
/// A row came.
pub const INSERTED: &str = "+I";
/// A row went.
pub const RETRACTED: &str = "-D";

/// A changelog table's columns.
fn changelog_schema(table: &str, schema: &SchemaRef) -> Result<SchemaRef, SinkError> {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    for name in [OP_COLUMN, "_timestamp"] {
        if schema.field_with_name(name).is_ok() {
            let reason = "a changelog has a column of that name of its own: rename the relation's with AS".into();
            return Err(SinkError::Column { table: table.into(), column: name.into(), reason });
        }
    }
    fields.push(Arc::new(Field::new(OP_COLUMN, DataType::Utf8, false)));
    fields.push(Arc::new(Field::new("_timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), false)));
    Ok(Arc::new(ArrowSchema::new(fields)))
}

/// Rows with `_op` and `_timestamp`.
fn with_ops(rows: &RecordBatch, diffs: &Int64Array, timestamp: Timestamp) -> Result<RecordBatch, SinkError> {
    let schema = changelog_schema("", &rows.schema())?;
    let ops: StringArray = diffs.values().iter().map(|d| Some(if *d < 0 { RETRACTED } else { INSERTED })).collect();
    let at = TimestampMicrosecondArray::from_value(timestamp.cast_signed(), rows.num_rows()).with_timezone("+00:00");
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(ops));
    columns.push(Arc::new(at));
    RecordBatch::try_new(schema, columns).map_err(SinkError::arrow("make a changelog"))
}
