//! The lake's durable side: which relation is kept in which Iceberg table, and how a start takes up where the last epoch ended.
//!
//! What is durable is the base relations. One with a snapshot sink is read back from that sink's table, and its source goes on at the
//! epoch's positions; a table, or a source that its origin cannot give again, has a table in namespace `_base` if it has no sink. All
//! other sources are read again from their beginning, and views are recomputed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::Timestamp;
use livelake_queries::catalog::{Catalog, Detail, Relation};
use livelake_queries::plan::StoredColumns;
use livelake_queries::statement::RelationKind;
use livelake_queries::{SqlError, SqlErrorKind};
use livelake_sinks::schema::COMMENT_KEY;
use livelake_sinks::{
    CommitReport, Epoch, EpochRecord, Lake as Tables, LakeOptions, PartitionBy, RowReader, SinkError, SinkMode, TableChange,
    TableDrop, TableName, WantedTable,
};

use crate::clock::AllPositions;
use crate::config::Config;
use crate::lake::connect::{Connection, ReadMode};
use crate::lake::failure::internal;
use crate::lake::folder::LakeFolder;
use crate::lake::{Definitions, RunOptions, stored_columns};
use crate::service::{EpochStatus, LakeError};

/// The namespace of base relations that have no sink of their own.
const BASE_NAMESPACE: &str = "_base";

/// One table and the relation that it holds.
#[derive(Clone, Debug)]
pub struct SinkPlan {
    /// The table.
    pub table: TableName,
    /// The relation.
    pub relation: RelationId,
    /// The relation's columns.
    pub schema: SchemaRef,
    /// How the table is divided.
    pub partition_by: PartitionBy,
    /// What the table shows.
    pub mode: SinkMode,
    /// A base relation whose rows are taken from this table at a start.
    pub hydrates: bool,
    /// How much time passes at least between two epochs that write it; absent: every epoch does.
    pub every: Option<Duration>,
    /// Which of the columns are the relation's key; empty: the whole row is.
    pub key: Vec<usize>,
    /// Whether it can be had again from other relations: a view's.
    pub derived: bool,
}

impl SinkPlan {
    /// The table as it is defined.
    pub(crate) fn wanted(&self) -> WantedTable {
        WantedTable {
            table: self.table.clone(),
            schema: Arc::clone(&self.schema),
            partition_by: self.partition_by.clone(),
            mode: self.mode,
        }
    }
}

/// Some columns of a relation with their comments, as the tables keep them.
fn commented(relation: &Relation, schema: SchemaRef) -> SchemaRef {
    let comments: HashMap<&str, &str> = relation.comments().collect();
    if comments.is_empty() {
        return schema;
    }
    let noted = schema.fields().iter().map(|field| match comments.get(field.name().as_str()) {
        None => Arc::clone(field),
        Some(comment) => {
            let mut metadata = field.metadata().clone();
            metadata.insert(COMMENT_KEY.to_owned(), (*comment).to_owned());
            Arc::new(field.as_ref().clone().with_metadata(metadata))
        }
    });
    Arc::new(Schema::new(noted.collect::<Vec<_>>()))
}

/// Where a relation's key is among some of its columns; empty if a part of it is not there.
fn key_within(relation: &Relation, schema: &SchemaRef) -> Vec<usize> {
    let places = relation.key_names().into_iter().map(|name| schema.index_of(name));
    places.collect::<Result<Vec<_>, _>>().unwrap_or_default()
}

/// Who makes an epoch visible: the tables, or a test between them and the driver.
#[async_trait]
pub trait EpochWriter: std::fmt::Debug + Send + Sync {
    /// See [`livelake_sinks::Lake::commit`]: an epoch that is there already is found.
    ///
    /// # Errors
    /// Why it is not known to be there.
    async fn commit(
        &self,
        epoch: &Epoch,
        changes: Vec<TableChange>,
        drops: &[TableDrop],
        rows: Arc<dyn RowReader>,
    ) -> Result<CommitReport, SinkError>;
}

#[async_trait]
impl EpochWriter for Tables {
    async fn commit(
        &self,
        epoch: &Epoch,
        changes: Vec<TableChange>,
        drops: &[TableDrop],
        rows: Arc<dyn RowReader>,
    ) -> Result<CommitReport, SinkError> {
        Tables::commit(self, epoch, changes, drops, rows).await
    }
}

/// The tables and where they were left.
#[derive(Clone, Debug)]
pub struct Store {
    /// The tables.
    pub tables: Tables,
    /// The newest epoch, if there is any.
    pub newest: Option<EpochRecord>,
}

impl Store {
    /// Opens a lake's tables for writing.
    ///
    /// # Errors
    /// The folder cannot be written, another process writes, or the catalog cannot be read; in words.
    pub async fn open(folder: &std::path::Path, config: &Config) -> Result<Store, LakeError> {
        let options = table_options(folder, config);
        let tables = Tables::open(&options).await.map_err(internal)?;
        let newest = tables.newest().await.map_err(internal)?;
        Ok(Store { tables, newest })
    }

    /// Where sources that are hydrated go on.
    pub fn positions(&self) -> AllPositions {
        let recorded = self.newest.as_ref().map(|epoch| epoch.positions.clone()).unwrap_or_default();
        serde_json::from_value(recorded).unwrap_or_default()
    }
}

/// How a lake's tables are opened.
pub fn table_options(folder: &std::path::Path, config: &Config) -> LakeOptions {
    let mut options = LakeOptions::new(folder);
    options.catalog.clone_from(&config.storage.catalog);
    options.warehouse.clone_from(&config.storage.warehouse);
    options.keep = config.epochs.keep;
    options.keep_for = config.epochs.keep_for;
    options.files = config.maintenance.files();
    options.writer = "livelake".to_owned();
    options
}

/// All tables that a lake writes: its sinks, and `_base` for what could not be had again otherwise.
///
/// # Errors
/// A sink's option that makes no sense, with its place.
pub fn sink_plans(
    catalog: &Catalog,
    stored: &StoredColumns,
    is_repeatable: &dyn Fn(&Relation) -> bool,
) -> Result<Vec<SinkPlan>, SqlError> {
    // a sink's table has no hidden columns, so it cannot give them back to views that read them
    let whole = |relation: &Relation| stored.of(relation).iter().all(|column| *column < relation.visible);
    let mut plans = Vec::new();
    for sink in catalog.of_kind(RelationKind::Sink) {
        let Detail::Sink { from, options } = &sink.detail else { continue };
        let options = options.resolve(&|name| std::env::var(name).ok())?;
        options.check_known(&["connector", "table", "partition_by", "mode", "every"])?;
        if let Some(entry) = options.entry("connector")
            && entry.value != "iceberg"
        {
            let message = format!("sinks with connector = '{}' are not supported yet", entry.value);
            return Err(
                SqlError::new(SqlErrorKind::Unsupported, entry.position.clone(), message).with_hint("use connector = 'iceberg'")
            );
        }
        let Some(relation) = catalog.by_id(*from) else { continue };
        let schema = commented(relation, relation.visible_schema());
        let wrong = |name: &str, error: &dyn std::fmt::Display| {
            let position = options.entry(name).map_or_else(|| sink.position.clone(), |entry| entry.position.clone());
            SqlError::new(SqlErrorKind::InvalidOption, position, error.to_string())
        };
        let partition_by = PartitionBy::parse(options.get("partition_by").unwrap_or(""), &schema)
            .map_err(|error| wrong("partition_by", &error))?;
        let mode: SinkMode = options.get("mode").unwrap_or("snapshot").parse().map_err(|error| wrong("mode", &error))?;
        let table = options.get("table").map_or_else(|| TableName::new(&sink.name.schema, &sink.name.name), TableName::parse);
        let complete = mode == SinkMode::Snapshot || (mode == SinkMode::Append && relation.key.is_empty());
        let every = match options.entry("every") {
            None => None,
            Some(entry) => match humantime::parse_duration(&entry.value) {
                Ok(every) if !every.is_zero() => Some(every),
                _ => return Err(options.invalid(entry, "a duration such as 1m")),
            },
        };
        let first = !plans.iter().any(|plan: &SinkPlan| plan.hydrates && plan.relation == *from);
        // every epoch says how far the sources were read, so a table that stays behind cannot be what a start goes on from
        let hydrates = relation.is_base() && complete && first && whole(relation) && every.is_none();
        let key = key_within(relation, &schema);
        let derived = !relation.is_base();
        plans.push(SinkPlan { table, relation: *from, schema, partition_by, mode, hydrates, every, key, derived });
    }
    for relation in catalog.iter().filter(|relation| relation.is_base()) {
        let hydrated = |id: RelationId| plans.iter().any(|plan| plan.hydrates && plan.relation == id);
        let needed = match &relation.detail {
            Detail::Table { .. } => true,
            Detail::Source { .. } => !is_repeatable(relation),
            // errors of a source that goes on in the middle do not come again
            Detail::Errors { source } => hydrated(*source) || catalog.by_id(*source).is_some_and(|source| !is_repeatable(source)),
            _ => false,
        };
        if needed && !hydrated(relation.id) {
            let name = format!("{}__{}", relation.name.schema, relation.name.name);
            let table = if relation.kind == RelationKind::Errors {
                TableName::new(&relation.name.schema, &relation.name.name)
            } else {
                TableName::new(BASE_NAMESPACE, name)
            };
            let schema = commented(relation, stored.schema(relation));
            plans.push(SinkPlan {
                table,
                relation: relation.id,
                key: key_within(relation, &schema),
                schema,
                partition_by: PartitionBy::default(),
                mode: SinkMode::Snapshot,
                hydrates: true,
                every: None,
                derived: false,
            });
        }
    }
    Ok(plans)
}

/// The epochs that were committed before this start.
pub(super) async fn known_epochs(store: &Store) -> Result<Vec<EpochStatus>, LakeError> {
    let records = store.tables.epochs(100).await.map_err(internal)?;
    Ok(records.into_iter().map(EpochStatus::from).collect())
}

impl From<EpochRecord> for EpochStatus {
    fn from(record: EpochRecord) -> EpochStatus {
        EpochStatus {
            epoch: record.number,
            as_of: record.timestamp,
            committed_at: record.committed_at.max(0) as Timestamp,
            milliseconds: 0,
            tables: record.tables.into_iter().collect(),
            rows: record.rows,
        }
    }
}

/// A table cannot be written more often than epochs are committed.
pub(super) fn check_intervals(plans: &[SinkPlan], interval: Duration) -> Result<(), LakeError> {
    match plans.iter().find(|plan| plan.every.is_some_and(|every| every < interval)) {
        None => Ok(()),
        Some(plan) => Err(LakeError {
            code: "invalid_sql",
            sqlstate: "22023",
            http_status: 400,
            message: format!(
                "the sink of table {} has every = '{}', but epochs.interval is {}",
                plan.table,
                humantime::format_duration(plan.every.unwrap_or_default()),
                humantime::format_duration(interval)
            ),
            hint: Some("leave every out, or make epochs.interval shorter".to_owned()),
        }),
    }
}

/// All tables that a folder's lake writes when it runs.
///
/// # Errors
/// An option that makes no sense.
pub fn wanted_tables(folder: &LakeFolder) -> Result<Vec<WantedTable>, SqlError> {
    let options = RunOptions { once: false, asked_for: Vec::new() };
    let definitions =
        Definitions { catalog: Arc::new(folder.catalog.clone()), stored: stored_columns(&folder.catalog, &options) };
    Ok(all_sinks(&definitions, &folder.path)?.iter().map(SinkPlan::wanted).collect())
}

/// All tables that a running lake writes.
///
/// # Errors
/// An option that makes no sense.
pub(crate) fn all_sinks(definitions: &Definitions, path: &std::path::Path) -> Result<Vec<SinkPlan>, SqlError> {
    let mode = ReadMode { once: false, threads: 1 };
    let repeatable = |relation: &Relation| {
        Connection::new(relation, &definitions.stored, path, mode).map_or(true, |connection| connection.is_repeatable())
    };
    sink_plans(&definitions.catalog, &definitions.stored, &repeatable)
}

/// The tables that a changed lake writes and the lake before did not: a new sink's, a new table's.
///
/// # Errors
/// An option that makes no sense.
pub(crate) fn new_sinks(
    before: &Definitions,
    after: &Definitions,
    path: &std::path::Path,
    interval: Duration,
) -> Result<Vec<SinkPlan>, LakeError> {
    let known = all_sinks(before, path)?;
    let new: Vec<SinkPlan> =
        all_sinks(after, path)?.into_iter().filter(|plan| known.iter().all(|old| old.table != plan.table)).collect();
    check_intervals(&new, interval)?;
    Ok(new)
}

/// The table that a sink writes.
pub(crate) fn sink_table(sink: &Relation) -> String {
    match &sink.detail {
        Detail::Sink { options, .. } => options.get("table").map_or_else(|| sink.name.to_string(), str::to_owned),
        _ => sink.name.to_string(),
    }
}
