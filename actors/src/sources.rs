//! Reads sources from their origins: files and Kafka topics, as plain blocking code.
//!
//! A [`SourceReader`] runs on a blocking thread of its own, one per source; the actor above it owns ticks, backpressure and commits:
//! it calls [`next`](SourceReader::next) only when the source has credit, pushes what comes and remembers the position that came
//! with it. A reader has no state that outlives it but its [`Positions`].
//!
//! Decoding is parallel within a reader (files are cut at line ends and decoded by several threads, batches come out in the order
//! of the input), so that a later file or line always wins over an earlier one, however many threads there are.

use std::time::{Duration, Instant};

use crate::decode::{DecodeError, Decoded, SpecError};

pub mod checked;
pub mod files;
pub mod generated;
pub mod generator;
pub mod kafka;
pub mod position;
pub mod schedule;
mod transaction;

pub use position::{Position, Positions};

/// How much one call of [`SourceReader::next`] may bring and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Return once about this many bytes of input are decoded.
    pub bytes: usize,
    /// Return what there is, or [`SourceEvent::Idle`], after this time.
    pub wait: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { bytes: 8 << 20, wait: Duration::from_millis(100) }
    }
}

/// What a reader has to say.
#[derive(Debug)]
pub enum SourceEvent {
    /// Decoded input. Batches of one partition come in order.
    Batch {
        /// File or `topic/partition`: the key in [`Positions`].
        partition: String,
        /// Rows, truncations, errors, counts.
        decoded: Decoded,
        /// Where reading goes on once this batch is durable: to be put into [`Positions`] under `partition`.
        position: Position,
        /// Bytes of input that were read for it.
        bytes: u64,
    },
    /// Nothing now: ask again then (earlier does no harm).
    Idle {
        /// When something may have come.
        until: Instant,
    },
    /// The origin cannot be reached or is not there yet; the reader keeps trying by itself.
    Waiting {
        /// For what, in words.
        message: String,
        /// When it tries again.
        until: Instant,
    },
    /// Something the operator should know, such as a file that was replaced; reading goes on.
    Notice(String),
    /// All that was there is read; only where reading has an end (`once`, or files without `watch`).
    Done,
}

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {error}")]
    Io {
        /// Which one.
        path: String,
        /// The system's words.
        #[source]
        error: std::io::Error,
    },
    /// The content is not what the format says (a Parquet file without its footer, a broken gzip stream).
    #[error("{path} cannot be read as {format}: {reason}")]
    Malformed {
        /// Which file.
        path: String,
        /// What it should be.
        format: String,
        /// Why it is not.
        reason: String,
    },
    /// Nothing matches the path.
    #[error("no file matches {0}: check `path`, which is relative to the lake's folder")]
    NoFiles(String),
    /// An option makes no sense.
    #[error("{0}")]
    Options(String),
    /// A row could not be taken and the source's policy is to fail.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The declaration contradicts itself.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The broker refuses for good (credentials, an unknown setting).
    #[error("kafka: {0}")]
    Kafka(String),
}

impl SourceError {
    /// Whether trying again later may help without anybody changing the lake: a missing file may come, a right may be given.
    pub fn is_retryable(&self) -> bool {
        match self {
            SourceError::Io { .. } | SourceError::NoFiles(_) => true,
            SourceError::Kafka(_) | SourceError::Malformed { .. } => true,
            SourceError::Options(_) | SourceError::Decode(_) | SourceError::Spec(_) => false,
        }
    }
}

/// Reads one source in order. Blocking; `Send`, so that it can live on any thread, but on one at a time.
pub trait SourceReader: Send {
    /// Waits for input within the budget and returns it decoded.
    ///
    /// # Errors
    /// See [`SourceError::is_retryable`]. After an error the reader is of no more use: open a new one at the recorded positions.
    fn next(&mut self, budget: Budget) -> Result<SourceEvent, SourceError>;

    /// Rows that the origin has and that are not read yet, where it says so.
    fn lag(&self) -> Option<u64> {
        None
    }
}
