//! The messages between handle and workers. Every worker gets the same commands in the same order, but for pushed rows, which go to
//! one worker each and are in order with the ticks.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use crossbeam_channel::Sender;

use crate::errors::RowError;
use crate::plan::RelationId;
use crate::protocol::{Changes, EngineError, InputBatch, PeekRequest, SourceSpec, Timestamp, ViewSpec};

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Build a base relation. Owes one reply.
    CreateSource(Arc<SourceSpec>, Sender<Result<(), EngineError>>),
    /// Build a view; it begins at the given timestamp, the last closed tick. Owes one reply.
    CreateView(Arc<ViewSpec>, Timestamp, Sender<Result<(), EngineError>>),
    /// Forget a relation that nothing reads. Owes one reply.
    Drop(RelationId, Sender<Result<(), EngineError>>),
    /// Rows for the tick that is open, with their position in the order of pushing.
    Push(RelationId, u64, InputBatch),
    /// Close the tick: all pushed rows count at this timestamp. It is greater than the last one.
    AdvanceTo(Timestamp),
    /// Read. Owes one `Peeked` per worker.
    Peek(u64, PeekRequest),
    /// Follow. Owes `Followed` messages until `Unsubscribe`.
    Subscribe(u64, RelationId, Timestamp),
    /// Stop following.
    Unsubscribe(u64),
    /// Stop the worker.
    Shutdown,
}

/// What a worker says.
#[derive(Debug)]
pub enum Response {
    /// A worker's part of a peek.
    Peeked(u64, Result<Vec<RecordBatch>, EngineError>),
    /// A worker's part of a subscription: changes, and the frontier that they reach.
    Followed {
        /// Which subscription.
        number: u64,
        /// Which worker.
        worker: usize,
        /// In no order.
        changes: Vec<Changes>,
        /// Everything of this worker's before this has been sent.
        upper: Timestamp,
    },
    /// A subscription cannot go on.
    Ended(u64, Option<EngineError>),
    /// Errors of data in a relation's operators.
    Errors(RelationId, Vec<RowError>),
    /// The worker's thread is gone.
    Panicked(String),
    /// The engine is stopping: the last message.
    Stop,
}
