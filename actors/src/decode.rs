//! Turns bytes into Arrow batches with operations.
//!
//! ```text
//!   lines of a file ─┐                  ┌─ InputBatch::Rows { rows, ops }  ─┐
//!   Kafka messages  ─┼─▶ dyn Decoder ───┼─ InputBatch::Truncate             ├─ in the order of the input
//!   Parquet batches ─┘   (one per       ├─ errors: rows of `name$errors`    ┘
//!                         thread)       └─ counters
//! ```
//!
//! A decoder writes each wanted field straight into its column's buffer: no tree per message, no allocation per row, and what
//! nothing reads is skipped. A row that cannot be taken is rolled back and becomes an error row; all others stand.
//!
//! # What is checked and what is not
//! All text is checked to be UTF-8. Of a JSON message the frame, every field of the row and every value that is wanted are
//! checked; the inside of nested objects and arrays that nobody reads (Debezium's `source`, an unread `before`) is skipped by
//! counting brackets and quotes, so a slip in there goes unseen. Columns that are declared but not read are looked at for
//! NOT NULL only, never for their type.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use livelake_dataflow::protocol::InputBatch;

mod column;
pub(crate) mod csv;
mod cursor;
mod debezium;
mod errors;
mod json;
mod lines;
#[cfg(test)]
mod model;
mod number;
pub(crate) mod parquet;
mod reading;
mod rows;
mod shape;
mod spec;
mod time;
mod zone;

pub(crate) use errors::{ErrorRows, Place};
pub use spec::{DecimalHandling, DecodeSpec, EnvelopeMode, ErrorPolicy, Format, SpecError, TIME_PRECISION, TimePrecision, Zone};

/// Columns that every source offers beside its own. They are decoded when [`DecodeSpec::schema`] names them.
///
/// `_op` TEXT (`r`, `c`, `u`, `d`, `t`), `_source_ts` TIMESTAMPTZ, `_lsn` BIGINT, `_tx_id` BIGINT, `_topic` TEXT, `_partition`
/// INTEGER, `_offset` BIGINT, `_file` TEXT, `_row_number` BIGINT (line of a text file, row of a Parquet file, from 1).
pub const METADATA_COLUMNS: [&str; 9] =
    ["_op", "_source_ts", "_lsn", "_tx_id", "_topic", "_partition", "_offset", "_file", "_row_number"];

/// Name and type of a metadata column, for planners; `None` if it is not one of [`METADATA_COLUMNS`].
pub fn metadata_field(name: &str) -> Option<Field> {
    let data_type = match name {
        "_op" | "_topic" | "_file" => DataType::Utf8,
        "_source_ts" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "_lsn" | "_tx_id" | "_offset" | "_row_number" => DataType::Int64,
        "_partition" => DataType::Int32,
        _ => return None,
    };
    Some(Field::new(name, data_type, true))
}

/// Where a piece of input comes from.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Text of a file that begins at the beginning of a line.
    Lines {
        /// The file, as error rows and `_file` show it.
        file: &'a Arc<str>,
        /// Number of the first line in `bytes`, from 1 (a CSV header counts).
        first_line: u64,
        /// The text.
        bytes: &'a [u8],
        /// The CSV file's header line, where it has one; it is not part of `bytes`.
        header: Option<&'a [u8]>,
        /// Whether the file ends here: what is left without a line end is a line too.
        last: bool,
    },
    /// One message of a topic.
    Message(Message<'a>),
    /// Rows of a Parquet file, with the columns that the file has.
    Rows {
        /// The file.
        file: &'a Arc<str>,
        /// Number of the first row, from 1.
        first_row: u64,
        /// The rows.
        rows: &'a RecordBatch,
    },
}

/// One Kafka message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its topic.
    pub topic: &'a Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; absent in a tombstone.
    pub value: Option<&'a [u8]>,
}

/// What was counted since the last [`Decoder::take`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows given out, deletes and retractions included.
    pub rows: u64,
    /// Rows put aside as errors.
    pub errors: u64,
    /// Fields that the input has and the declaration does not.
    pub ignored_fields: u64,
    /// Messages that carry no row: tombstones, heartbeats, transaction marks, logical messages.
    pub ignored_messages: u64,
    /// Updates, deletes and truncates that an append-only source passes over.
    pub not_inserts: u64,
    /// Fields that could not be read and became NULL under [`ErrorPolicy::Null`].
    pub nulled_fields: u64,
    /// Input lines, messages or rows looked at.
    pub inputs: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        self.rows += other.rows;
        self.errors += other.errors;
        self.ignored_fields += other.ignored_fields;
        self.ignored_messages += other.ignored_messages;
        self.not_inserts += other.not_inserts;
        self.nulled_fields += other.nulled_fields;
        self.inputs += other.inputs;
    }
}

/// What came out of some input.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// Rows and truncations in the order of the input; empty if there were none. What [`EngineHandle::push`] takes, with the
    /// columns of [`DecodeSpec::schema`].
    ///
    /// [`EngineHandle::push`]: livelake_dataflow::handle::EngineHandle
    pub inputs: Vec<InputBatch>,
    /// Rows of `name$errors` ([`errors_schema`]), if there are any.
    pub errors: Option<RecordBatch>,
    /// Counts.
    pub counters: Counters,
}

/// A decoder's own failure: the first row that could not be taken, under [`ErrorPolicy::Fail`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{source_name} at {position}: {reason}")]
pub struct DecodeError {
    /// The relation.
    pub source_name: String,
    /// `file:line` or `topic/partition/offset`.
    pub position: String,
    /// What is wrong.
    pub reason: String,
}

/// Decodes the input of one source (or of one part of it). Not shared between threads: each thread has its own.
///
/// # Contract
/// [`decode`](Decoder::decode) may be called any number of times before [`take`](Decoder::take) hands out what has gathered; order
/// is kept. After an error the decoder must not be used further.
pub trait Decoder: Send {
    /// Decodes some input and gathers the rows. Returns the number of bytes of [`Input::Lines`] that were used up: the rest is the
    /// beginning of a line and must be given again with what follows it (0 for the other kinds of input).
    ///
    /// # Errors
    /// Only under [`ErrorPolicy::Fail`]: the first row that could not be taken.
    fn decode(&mut self, input: Input<'_>) -> Result<usize, DecodeError>;

    /// Hands out what has gathered since the last time.
    fn take(&mut self) -> Decoded;

    /// Adds to all line and row numbers gathered so far, for a reader that learns only after decoding how many lines came before.
    fn shift_lines(&mut self, lines: u64);

    /// Rows gathered so far.
    fn pending_rows(&self) -> usize;
}

/// Makes the decoder for a specification.
///
/// # Errors
/// Where the specification contradicts itself: a wanted column that is not declared, an upsert source whose key is not wanted.
pub fn decoder(spec: &Arc<DecodeSpec>) -> Result<Box<dyn Decoder>, SpecError> {
    spec.validate()?;
    Ok(match spec.format {
        Format::DebeziumJson => Box::new(debezium::DebeziumDecoder::new(spec)?),
        Format::Json => Box::new(json::JsonDecoder::new(spec)?),
        Format::Csv => Box::new(csv::CsvDecoder::new(spec)?),
        Format::Parquet => Box::new(parquet::BatchDecoder::new(spec)?),
    })
}

/// Columns of every `name$errors`: `source` TEXT, `position` TEXT (`file:line` or `topic/partition/offset`), `payload` TEXT (the raw
/// input, bad UTF-8 replaced, cut beyond 64 KiB with a note), `reason` TEXT, `at` TIMESTAMPTZ (when it was met).
pub fn errors_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("position", DataType::Utf8, false),
        Field::new("payload", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]))
}

#[cfg(test)]
mod tests;
