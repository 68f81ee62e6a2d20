//! The engine seen from outside: start it, say what to maintain, feed it, read it. Only this handle crosses threads.
//!
//! All calls return at once except where they say so; answers come by callback from a thread of the engine's, so that callers of
//! any runtime can turn them into their own kind of future. Callbacks must not block.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::plan::RelationId;
use crate::protocol::{EngineError, InputBatch, PeekRequest, SourceSpec, SubscriptionEvent, Timestamp, ViewSpec};

/// How to run the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Timely worker threads, at least one. They are named `engine-worker-N`.
    pub workers: usize,
    /// How many microseconds of history every arrangement keeps for `AS OF`.
    pub retention_us: u64,
}

/// Names a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionId(pub u64);

/// Called with the rows of a peek, or why there are none.
pub type PeekCallback = Box<dyn FnOnce(Result<Vec<RecordBatch>, EngineError>) + Send>;
/// Called for every event of a subscription, in order.
pub type SubscriptionCallback = Box<dyn FnMut(SubscriptionEvent) + Send>;
