//! What passes between the engine's handle and its workers, and the promises on both sides.
//!
//! Every worker gets the same commands in the same order (a sequencing lock in the handle sees to that), because timely
//! needs all workers to build the same dataflows in the same order. A command is never answered with a lie: where its
//! precondition does not hold, the answer is [`EngineError`] (for commands that owe one) or the relation fails loudly.
//!
//! # Stages of a relation
//! created → (fed and advanced)* → dropped. A view may be created at any time over relations that exist; it starts with
//! their contents at the engine's current timestamp and is complete as soon as its frontier passes that.
//!
//! # Time
//! Timestamps are microseconds since 1970 UTC. [`Push`](crate::handle::EngineHandle::push)ed rows belong to the tick that the next
//! [`advance_to`](crate::handle::EngineHandle::advance_to) closes: all of them become visible together, at that tick's timestamp.

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::plan::{Plan, RelationId};

/// Microseconds since 1970-01-01 UTC: the one clock of ticks, answers, subscriptions and commits.
pub type Timestamp = u64;

/// How the rows pushed into a source become its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// Rows are counted as their [`Op`] says: insert adds one, retract takes one away.
    Append,
    /// One row per key at most: an upsert replaces the key's row, a delete removes it; the old row comes from the engine's own
    /// state, never from the message. Later rows win, in the order of pushing.
    Upsert,
}

/// What a pushed row does. The discriminants are the codes in `ops` of [`InputBatch::Rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// One more of this row ([`Envelope::Append`]).
    Insert = 0,
    /// One fewer of this row ([`Envelope::Append`]).
    Retract = 1,
    /// This is now the key's row ([`Envelope::Upsert`]).
    Upsert = 2,
    /// The key has no row any more; only the key columns are looked at ([`Envelope::Upsert`]).
    Delete = 3,
}

/// Rows on their way into a source.
#[derive(Clone, Debug)]
pub enum InputBatch {
    /// Changed rows, in order.
    Rows {
        /// Columns as in [`SourceSpec::schema`].
        rows: RecordBatch,
        /// One [`Op`] code a row; absent: all `Insert` (append) or all `Upsert` (upsert).
        ops: Option<Vec<u8>>,
    },
    /// All rows so far are gone (TRUNCATE, or a snapshot that begins anew).
    Truncate,
}

/// A base relation to create.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// Its id, new.
    pub id: RelationId,
    /// For logs and operator names.
    pub name: String,
    /// Columns that will be pushed.
    pub schema: SchemaRef,
    /// Columns of the primary key; must not be empty for [`Envelope::Upsert`].
    pub key: Vec<usize>,
    /// How pushed rows act.
    pub envelope: Envelope,
    /// Whether the rows are arranged even if no view needs them so: what [`peek`](crate::handle::EngineHandle::peek) and
    /// [`subscribe`](crate::handle::EngineHandle::subscribe) need. Upsert sources are always arranged.
    pub keep: bool,
    /// A promise that rows only come: no [`Op::Retract`], no truncation. Views over it keep less then.
    pub only_inserts: bool,
}

/// A maintained view to create.
#[derive(Clone, Debug)]
pub struct ViewSpec {
    /// Its id, new.
    pub id: RelationId,
    /// For logs and operator names.
    pub name: String,
    /// What it computes.
    pub plan: Plan,
    /// Columns of the output that identify a row, for seeks; empty: the whole row.
    pub key: Vec<usize>,
    /// The id, new, of a relation with the errors of its present input, in the columns of [`error_schema`](crate::errors::error_schema): it
    /// is read and followed like others, and goes with the view. Absent: errors are only reported.
    pub errors: Option<RelationId>,
}

/// A read of one relation at one timestamp.
#[derive(Clone, Debug)]
pub struct PeekRequest {
    /// Which relation; it must be arranged (views are, sources if kept).
    pub id: RelationId,
    /// The timestamp; must not be before the relation's compaction frontier. Answered once the relation's frontier passes it.
    pub as_of: Timestamp,
    /// A seek: one row of key columns (in the order of the relation's key); absent: all rows.
    pub key: Option<RecordBatch>,
    /// At most this many rows (which, is not defined); absent: all.
    pub limit: Option<usize>,
    /// Columns to return, in this order; absent: all.
    pub projection: Option<Vec<usize>>,
}

/// Changes of a relation: rows with how many of them came (above zero) or went (below).
#[derive(Clone, Debug)]
pub struct Changes {
    /// When: all of them at this timestamp.
    pub as_of: Timestamp,
    /// The rows.
    pub rows: RecordBatch,
    /// One per row, never zero.
    pub diffs: Int64Array,
}

/// What a subscriber is told, in this order of timestamps: the snapshot as changes at its `as_of`, then changes, with progress
/// marks between. Rows of one timestamp are consolidated: no two entries are the same row.
#[derive(Clone, Debug)]
pub enum SubscriptionEvent {
    /// Rows that changed. Several may carry the same timestamp.
    Changes(Changes),
    /// Everything before this timestamp has been sent.
    Progress(Timestamp),
    /// The relation failed or was dropped; nothing follows.
    End(Option<EngineError>),
}

/// What can go wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No relation of that id.
    #[error("relation {0} does not exist in the engine")]
    UnknownRelation(RelationId),
    /// The id is in use.
    #[error("relation {0} exists already in the engine")]
    DuplicateRelation(RelationId),
    /// The relation's rows are not kept, so they can be neither read nor subscribed to.
    #[error("the rows of {0} are not kept in memory: read a view over it, or create the source with `keep`")]
    NotArranged(RelationId),
    /// The timestamp asked for has been compacted away.
    #[error("timestamp {as_of} is no longer kept: the oldest that can be read is {since}")]
    Compacted {
        /// What was asked for.
        as_of: Timestamp,
        /// What can be had.
        since: Timestamp,
    },
    /// A view that others read cannot be dropped.
    #[error("{relation} is read by {reader}")]
    InUse {
        /// The one to drop.
        relation: RelationId,
        /// One that reads it.
        reader: RelationId,
    },
    /// A view's errors go with the view.
    #[error("{relation} belongs to {view} and is dropped with it")]
    PartOf {
        /// The one to drop.
        relation: RelationId,
        /// What it is a part of.
        view: RelationId,
    },
    /// An expression failed on data, or the plan cannot be rendered; the view is stopped, others go on.
    #[error("view {0} failed: {1}")]
    ViewFailed(RelationId, String),
    /// A worker thread panicked.
    #[error("an engine worker stopped: {0}")]
    WorkerPanicked(String),
    /// The engine has been stopped.
    #[error("the engine is stopped")]
    Stopped,
}
