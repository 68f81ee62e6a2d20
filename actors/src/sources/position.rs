//! Where reading goes on after a restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How far one partition of a source has been read. Recorded with each epoch, so its form may grow but not change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Position {
    /// A file.
    File {
        /// Its size when it was last looked at, in bytes.
        size: u64,
        /// When it was last changed, microseconds since 1970 UTC.
        modified: i64,
        /// A hash of the beginning of its content, and of how many bytes: tells a file that has grown from one that was replaced.
        fingerprint: Fingerprint,
        /// Bytes used up (of the file as it lies, so 0 or `size` if compressed or Parquet).
        bytes: u64,
        /// Lines or rows used up, a CSV header included.
        rows: u64,
        /// Whether all of `size` is used up.
        done: bool,
    },
    /// A generator.
    Generator {
        /// Messages read so far.
        message: u64,
        /// Where the made-up past ended, microseconds since 1970 UTC.
        origin_us: i64,
    },
    /// A partition of a topic.
    Kafka {
        /// The next offset to read.
        offset: i64,
    },
}

impl Position {
    /// Whether reading has come as far as it once was. A file that was replaced since then never gets there.
    pub fn reaches(&self, recorded: &Position) -> bool {
        match (self, recorded) {
            (
                Position::File { bytes, rows, done, .. },
                Position::File { bytes: bytes_then, rows: rows_then, done: done_then, .. },
            ) => bytes >= bytes_then && rows >= rows_then && (*done || !done_then),
            (Position::Generator { message, .. }, Position::Generator { message: then, .. }) => message >= then,
            (Position::Kafka { offset }, Position::Kafka { offset: then }) => offset >= then,
            _ => false,
        }
    }
}

/// A hash over the first `length` bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// How many bytes.
    pub length: u64,
    /// FNV-1a, 64 bits.
    pub hash: u64,
}

impl Fingerprint {
    /// Bytes that are hashed at most.
    pub const LENGTH_MAX: usize = 4096;

    /// Hashes the beginning of a file's content.
    pub fn of(beginning: &[u8]) -> Self {
        let beginning = &beginning[..beginning.len().min(Self::LENGTH_MAX)];
        let hash = beginning
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        Fingerprint { length: beginning.len() as u64, hash }
    }
}

/// The positions of all partitions of a source: file paths (relative to the lake's folder where they lie in it) or
/// `topic/partition`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(pub BTreeMap<String, Position>);

impl Positions {
    /// Records how far a partition has been read.
    pub fn set(&mut self, partition: impl Into<String>, position: Position) {
        self.0.insert(partition.into(), position);
    }

    /// How far a partition has been read.
    pub fn get(&self, partition: &str) -> Option<&Position> {
        self.0.get(partition)
    }

    /// Whether reading has come as far as it once was, in every partition.
    pub fn reach(&self, recorded: &Positions) -> bool {
        recorded.0.iter().all(|(partition, then)| self.get(partition).is_some_and(|now| now.reaches(then)))
    }
}
