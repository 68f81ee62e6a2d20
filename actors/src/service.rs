//! The lake as its servers and commands see it: one trait, so that HTTP and PostgreSQL wire are written and tested without a running
//! engine. `lake` implements it; tests have small doubles.
//!
//! All answers carry the timestamp at which they are exact (`as_of`, microseconds since 1970 UTC).

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::prelude::SessionContext;
use futures::stream::BoxStream;
use livelake_dataflow::protocol::{SubscriptionEvent, Timestamp};
use livelake_sinks::RowCounts;
use serde::Serialize;

use crate::lake::hydration::HydrationStatus;

/// What kind of relation a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationKind {
    /// `CREATE SOURCE`.
    Source,
    /// `CREATE TABLE`.
    Table,
    /// `CREATE VIEW`: a name for a query, nothing kept.
    View,
    /// `CREATE MATERIALIZED VIEW`.
    MaterializedView,
    /// `name$errors`: the rows that a source could not take, or that a view could not compute.
    Errors,
}

/// A relation and how it is doing.
#[derive(Clone, Debug, Serialize)]
pub struct RelationStatus {
    /// `schema.name`.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Its columns in order.
    #[serde(skip)]
    pub schema: SchemaRef,
    /// Names of the columns that identify a row; empty: the whole row.
    pub key: Vec<String>,
    /// Rows at `as_of`, where they are kept in memory.
    pub rows: Option<u64>,
    /// Bytes of state, where known.
    pub bytes: Option<u64>,
    /// All changes up to this timestamp are in it.
    pub as_of: Timestamp,
    /// Why it stopped, if it did.
    pub failure: Option<String>,
    /// The statement that made it.
    pub sql: String,
}

impl RelationStatus {
    /// Schema and name; a name without schema lives in `public`.
    pub fn parts(&self) -> (&str, &str) {
        self.name.split_once('.').unwrap_or(("public", &self.name))
    }

    /// `schema.name`, the schema always being written.
    pub fn full_name(&self) -> String {
        let (schema, name) = self.parts();
        format!("{schema}.{name}")
    }
}

/// A source and how its reading goes.
#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    /// `schema.name`.
    pub name: String,
    /// `files`, `kafka`, `generator`, …
    pub connector: String,
    /// `running`, `waiting`, `retrying`, `failed`, `done`.
    pub state: String,
    /// Rows taken in since the start.
    pub rows: u64,
    /// Bytes read since the start.
    pub bytes: u64,
    /// Rows put aside in `name$errors` since the start.
    pub errors: u64,
    /// Fields that the input has and the declaration does not, seen since the start.
    pub ignored_fields: u64,
    /// Rows a second over the last ten seconds.
    pub rows_per_second: f64,
    /// How far behind the origin the source is, in rows, where the origin says so.
    pub lag: Option<u64>,
    /// What it waits for or why it failed, in words.
    pub message: Option<String>,
    /// How often it was restarted.
    pub restarts: u64,
}

/// One commit over all tables.
#[derive(Clone, Debug, Serialize)]
pub struct EpochStatus {
    /// Its number, from 1 without gaps.
    pub epoch: u64,
    /// The cut that it holds.
    pub as_of: Timestamp,
    /// When it was committed, microseconds since 1970 UTC.
    pub committed_at: Timestamp,
    /// How long the commit took, in milliseconds.
    pub milliseconds: u64,
    /// Tables that it changed, with their new snapshot ids.
    pub tables: Vec<(String, i64)>,
    /// Rows that came to and went from each of them.
    pub rows: BTreeMap<String, RowCounts>,
}

/// Whether the lake can be relied on.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// `starting` (hydrating: views answer only when whole), `running`, `failed`, `stopping`.
    pub status: String,
    /// Everything that is wrong, in words; empty when `running`.
    pub problems: Vec<String>,
    /// While rows are read back from the tables: how far that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hydration: Option<HydrationStatus>,
}

/// The outcome of one statement.
pub struct Answer {
    /// Columns of `rows`; empty for statements that give none.
    pub schema: SchemaRef,
    /// When the answer is exact.
    pub as_of: Timestamp,
    /// The rows.
    pub rows: BoxStream<'static, Result<RecordBatch, LakeError>>,
    /// PostgreSQL's command tag without a row count for SELECT: `SELECT`, `INSERT 0 3`, `CREATE MATERIALIZED VIEW`, `DROP VIEW`, `SHOW`, …
    pub tag: String,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("schema", &self.schema)
            .field("as_of", &self.as_of)
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

/// What a subscriber asks for.
#[derive(Clone, Debug, Default)]
pub struct SubscribeOptions {
    /// Begin after this timestamp rather than now; must be within the relation's retention.
    pub as_of: Option<Timestamp>,
    /// Leave out the snapshot and send only what changes after it.
    pub no_snapshot: bool,
    /// Leave out progress marks.
    pub no_progress: bool,
}

/// A running subscription; dropping it ends it.
pub struct Subscription {
    /// Columns of the changed rows.
    pub schema: SchemaRef,
    /// Columns by which changes are to be sent as upserts, if that was asked for.
    pub upsert_key: Option<Vec<usize>>,
    /// Snapshot, changes and progress. Bounded: a reader that is too slow gets an error with code `slow_subscriber` and the end.
    pub events: BoxStream<'static, Result<SubscriptionEvent, LakeError>>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// An error for a client: a stable code, PostgreSQL's SQLSTATE, an HTTP status and words that say what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct LakeError {
    /// Stable and machine-readable, such as `unknown_relation`, `invalid_sql`, `not_supported`, `unavailable`, `internal`.
    pub code: &'static str,
    /// Five characters, such as `42P01`.
    pub sqlstate: &'static str,
    /// Such as 400 or 404.
    pub http_status: u16,
    /// What happened and where.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Everything that a server needs of the lake.
#[async_trait]
pub trait LakeService: Send + Sync + 'static {
    /// Runs one statement of any kind with its parameters (`$1` …, as literals of their types) put in.
    async fn execute(&self, sql: &str, parameters: Vec<datafusion::common::ScalarValue>) -> Result<Answer, LakeError>;

    /// Columns of a statement's answer and types of its parameters, without running it.
    async fn describe(&self, sql: &str) -> Result<(SchemaRef, Vec<DataType>), LakeError>;

    /// A DataFusion session over all relations at the newest complete timestamp, which is returned too: for catalog queries and
    /// tools that need one. All tables in it answer at that one timestamp.
    async fn session(&self) -> Result<(SessionContext, Timestamp), LakeError>;

    /// Every relation, sorted by name.
    fn relations(&self) -> Vec<RelationStatus>;

    /// Every source, sorted by name.
    fn sources(&self) -> Vec<SourceStatus>;

    /// The newest epochs first, at most `limit`.
    fn epochs(&self, limit: usize) -> Vec<EpochStatus>;

    /// Whether the lake can be relied on.
    fn health(&self) -> Health;

    /// All metrics as Prometheus text.
    fn metrics(&self) -> String;

    /// Follows a relation. `relation` is `schema.name`.
    async fn subscribe(&self, relation: &str, options: SubscribeOptions) -> Result<Subscription, LakeError>;

    /// Follows a query's rows: `SUBSCRIBE …` as a statement, already recognised by the caller from its first word.
    async fn subscribe_sql(&self, sql: &str) -> Result<Subscription, LakeError>;

    /// Inserts rows into a table (`COPY … FROM STDIN`); returns how many. Columns by name.
    async fn insert(&self, table: &str, rows: Vec<RecordBatch>) -> Result<u64, LakeError>;
}
