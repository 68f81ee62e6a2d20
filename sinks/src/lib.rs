//! Where a lake's tables rest: Apache Iceberg tables that flip together, one *epoch* at a time.
//!
//! ```text
//!   TableChange (net changes of an epoch, per table)
//!        │                                   RowReader (the engine's rows at T, for partitions that lost rows)
//!        ▼                                        │
//!   mode ─── which rows go, which files go ───────┤
//!        ▼                                        ▼
//!   producer ── data files ── manifests ── snapshot ── metadata.json        one table after the other, invisible so far
//!        │
//!        ▼
//!   epoch ───── all metadata pointers, the epoch's row, the writer's token: ONE transaction of the catalog
//!        │
//!        ▼
//!   producer::expiry ── files that only expired snapshots reach are deleted
//!
//!   maintenance ── between epochs: small files become one, files that lost rows are written anew, what nobody reaches goes
//!
//!   hydrate ── newest epoch, tables and their rows, at a start          export ── one relation as a file
//! ```
//!
//! * [`storage`]: where catalog and warehouse are, and who may write ([`storage::fence`]).
//! * [`schema`], [`partition`]: what an Arrow schema and a `partition_by` option become in Iceberg.
//! * [`mode`]: snapshot, append and changelog tables.
//! * [`epoch`]: [`Lake`], the one thing that callers hold.
//!
//! No equality deletes are ever written, and position deletes only for large files: every reader that knows Iceberg V2 reads these tables. The
//! `files` and `kafka` sinks will be modules beside [`epoch`]; they need no Iceberg and share only [`export`]'s encoders.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(missing_docs)]

pub mod compaction;
pub mod epoch;
pub mod error;
pub mod export;
pub mod failpoint;
pub mod hydrate;
pub mod maintenance;
pub mod mode;
pub mod partition;
mod producer;
pub mod schema;
mod seek;
pub mod storage;

pub use compaction::FileRules;
pub use epoch::{CommitReport, Epoch, EpochRecord, Lake, LakeOptions, RowCounts, TableOutlook, WantedTable};
pub use error::SinkError;
pub use maintenance::{MaintainOptions, TableMaintenance};
pub use mode::{RowReader, SinkMode, TableChange, TableDrop};
pub use partition::PartitionBy;
pub use storage::TableName;
