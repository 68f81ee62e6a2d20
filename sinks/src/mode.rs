//! What a table shows of its relation, and which files an epoch's changes make and unmake.
//!
//! | mode | rows of the table | from |
//! |---|---|---|
//! | snapshot | exactly the relation's rows at the epoch's timestamp | inserts, and files that lose rows ([`apply`]) |
//! | append | every row that ever came | inserts only; a retraction is an error |
//! | changelog | every net change of an epoch, with `_op` and `_timestamp` | inserts and retractions |

pub(crate) mod apply;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::Timestamp;
use tokio::sync::mpsc;

use crate::compaction::FileRules;
use crate::epoch::RowCounts;
use crate::epoch::outlook::parts;
use crate::error::SinkError;
use crate::partition::PartitionBy;
use crate::producer::attempt::Attempt;
use crate::producer::expiry::Keep;
use crate::producer::files::TableWriter;
use crate::producer::turnover::Turnover;
use crate::producer::{Change, EPOCH_KEY, Staged, TableState, reshaped, stage};
use crate::schema::{conform, evolved, notes};
use crate::storage::{Storage, TableName};

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
    /// the table's, the table's columns are changed along; `changes` are then what is different from the rows that the table has in these
    /// columns, with NULL in new ones. (A type that the old one cannot be read as: all rows are written anew.)
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
    /// Which of the relation's columns tell its rows apart: what rows that went are found by. Empty: the whole row does.
    pub key: Vec<usize>,
    /// Whether the relation can be had again from others (a view): noted in the table, for the day that nothing writes it any more.
    pub derived: bool,
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
    pub(crate) keep: Keep,
    pub(crate) rules: FileRules,
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
            let location = context.storage.new_location(table).await?;
            let made = TableState::create(table, location, shape.schema, spec, change).map_err(failed())?;
            (Arc::new(made), None, None)
        }
        Some(state) => {
            if !state.metadata.properties().contains_key(EPOCH_KEY) {
                let reason = "it is there already and was not made by livelake: drop it, or give the sink another table".into();
                return Err(SinkError::Rows { table: table.clone(), reason });
            }
            let current = state.metadata.default_partition_spec().as_ref().clone().into_unbound();
            let moved = parts(current.fields()) != parts(spec.fields());
            (state, shape.changed.then_some(shape.schema), moved.then_some(spec))
        }
    };
    let is_new = base.location.is_empty();
    // Columns that come, go or get wider leave the files as they are: rows that are there read as NULL in new ones.
    let mut replace = change.replace || (!is_new && (shape.incompatible.is_some() || spec.is_some() || base.is_foreign()));
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
    if let Some(path) = base.deletes.unreadable.as_ref().filter(|_| !replace) {
        let reason = format!(
            "another program has put row-level deletes into it that are not read here ({path}): rewrite its files first, or give the \
             sink another table"
        );
        return Err(SinkError::Rows { table: table.clone(), reason });
    }

    let shaped = reshaped(&base, schema.as_ref(), spec.as_ref()).map_err(failed())?;
    let mut writer = TableWriter::new(&context.attempt, table, &shaped, &format!("epoch-{}", context.epoch), &context.rules)?;
    let turnover = match replace {
        true => {
            read_rows(context, change, &mut writer).await?;
            Turnover::all(&base)
        }
        false => apply::apply(context, change, &base, &mut writer).await?,
    };
    let prefix = writer.prefix().to_owned();
    let added = writer.finish().await?;
    let spec_id = shaped.default_partition_spec_id();
    let settled = turnover.settle(&context.attempt, &base, spec_id, &prefix, added).await.map_err(failed())?;
    if !replace {
        let (before, after, expected) = (base.records(), settled.records, expected_rows(change, base.records()));
        if i128::from(after) != expected {
            let reason = format!(
                "it would have {after} rows after epoch {}, but its {before} rows and the epoch's changes make {expected}: nothing is \
                 written; if another program changed the table, replace its rows",
                context.epoch,
            );
            return Err(SinkError::Mismatch { table: table.clone(), reason });
        }
    }
    let rows = match replace {
        true => RowCounts { added: settled.records, removed: base.records() },
        false => counted(change),
    };
    let change = Change { schema, spec, settled, rows, is_rearranged: false, is_restored: false };
    stage(&context.attempt, &base, change, &context.stamp, context.keep).await.map(Some).map_err(failed())
}

/// The rows that come and go.
fn counted(change: &TableChange) -> RowCounts {
    let mut counts = RowCounts::default();
    for diff in change.changes.iter().flat_map(|(_, diffs)| diffs.values()) {
        match *diff < 0 && change.mode != SinkMode::Changelog {
            true => counts.removed += diff.unsigned_abs(),
            false => counts.added += diff.unsigned_abs(),
        }
    }
    counts
}

/// How many rows the table must have afterwards.
fn expected_rows(change: &TableChange, before: u64) -> i128 {
    let counts = counted(change);
    i128::from(before) + i128::from(counts.added) - i128::from(counts.removed)
}

/// Writes all of the relation's rows.
async fn read_rows(context: &Context, change: &TableChange, writer: &mut TableWriter<'_>) -> Result<(), SinkError> {
    let label = change.table.to_string();
    let (sender, mut receiver) = mpsc::channel(4);
    let produce = context.rows.read(change.relation, context.timestamp, sender);
    let consume = async {
        while let Some(batch) = receiver.recv().await {
            writer.deal(&conform(&label, &batch, &writer.arrow)?).await?;
        }
        // The channel must be seen closed by a producer that has more to send after an error here.
        Ok::<_, SinkError>(())
    };
    let produce = async { produce.await.map_err(|source| SinkError::Reader { table: change.table.clone(), source }) };
    futures::try_join!(produce, consume)?;
    Ok(())
}

/// The column of a changelog that says what happened to the row.
pub const OP_COLUMN: &str = "_op";
/// A row came.
pub const INSERTED: &str = "+I";
/// A row went.
pub const RETRACTED: &str = "-D";

/// A changelog table's columns.
pub(crate) fn changelog_schema(table: &str, schema: &SchemaRef) -> Result<SchemaRef, SinkError> {
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
