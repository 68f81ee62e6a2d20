//! What a decoder is told about its source.

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};

use super::metadata_field;

/// How the bytes are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Debezium's change messages, with or without their `schema` part.
    DebeziumJson,
    /// One JSON object a line or a message, its fields being the columns.
    Json,
    /// Comma-separated values.
    Csv,
    /// Parquet files.
    Parquet,
}

/// What a message does to the relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeMode {
    /// One row per primary key, later messages win: the engine's `Envelope::Upsert`. The old row is never taken from a message.
    Upsert,
    /// A Debezium source without a primary key: `before` is retracted, `after` inserted (`Envelope::Append`).
    Changes,
    /// Every row read is inserted; of Debezium messages only creations and snapshot rows (`Envelope::Append`).
    Append,
    /// Every change event is one inserted row, deletes with their `before` (`Envelope::Append`).
    Events,
}

/// What becomes of a row that cannot be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorPolicy {
    /// It goes to `name$errors`.
    #[default]
    Quarantine,
    /// Reading fails.
    Fail,
    /// The field that cannot be read becomes NULL; where that is not possible the row is quarantined.
    Null,
}

/// Debezium's `time.precision.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimePrecision {
    /// Microseconds, or milliseconds for columns declared with a precision of three or less ([`TIME_PRECISION`]).
    #[default]
    Adaptive,
    /// The same, but time of day always in microseconds.
    AdaptiveTimeMicroseconds,
    /// Milliseconds throughout.
    Connect,
    /// ISO 8601 text.
    IsoString,
}

/// Debezium's `decimal.handling.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DecimalHandling {
    /// Base64 of the unscaled value; the scale is the declared type's.
    #[default]
    Precise,
    /// A JSON number.
    Double,
    /// Text.
    String,
}

/// Key in a declared field's metadata that holds the precision of its time type (`3` for `TIMESTAMP(3)`), which decides the unit of
/// Debezium's adaptive numbers where messages carry no schema. Absent: 6.
pub const TIME_PRECISION: &str = "time_precision";

/// Where stamps without a zone are local.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zone {
    /// Coordinated universal time.
    #[default]
    Utc,
    /// This many seconds east of it, always.
    Fixed(i32),
    /// A zone of the IANA database.
    Named(chrono_tz::Tz),
}

/// A contradiction in a specification, in words for the one who wrote the source's declaration.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct SpecError(String);

impl SpecError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        SpecError(message.into())
    }
}

/// Everything that a decoder needs to know.
#[derive(Clone, Debug)]
pub struct DecodeSpec {
    /// `schema.relation`, for error rows.
    pub name: String,
    /// The columns that something reads, in this order: a part of `declared`, and metadata columns.
    pub schema: SchemaRef,
    /// All columns as declared; `NOT NULL` is a field's nullability.
    pub declared: SchemaRef,
    /// Names of the primary key's columns; for upsert they must be in `schema`.
    pub key: Vec<String>,
    /// How the bytes are laid out.
    pub format: Format,
    /// What a message does.
    pub envelope: EnvelopeMode,
    /// Unit of Debezium's times, where messages carry no schema.
    pub time_precision: TimePrecision,
    /// Form of Debezium's decimals, where messages carry no schema.
    pub decimal_handling: DecimalHandling,
    /// Where stamps without a zone are local, for columns with one (`TIMESTAMPTZ`).
    pub zone: Zone,
    /// How times are written in text: a `strftime` pattern, or `epoch_s`, `epoch_ms`, `epoch_us`, `epoch_ns` for numbers. Absent: ISO
    /// 8601 and its relatives; numbers are then refused rather than guessed at.
    pub time_format: Option<String>,
    /// What becomes of rows that cannot be taken.
    pub errors: ErrorPolicy,
    /// Texts that mean NULL in CSV, beside the empty field (such as `NULL`, `\N`, `NA`).
    pub null_markers: Vec<String>,
    /// CSV: whether the first line of a file names the columns; otherwise they are the declared ones in their order.
    pub header: bool,
    /// CSV: what stands between two fields.
    pub delimiter: u8,
}

impl DecodeSpec {
    /// A specification with the defaults for everything that has one: all of `declared` wanted, quarantine, UTC, a header, commas.
    pub fn new(name: impl Into<String>, declared: SchemaRef, key: Vec<String>, format: Format) -> Self {
        let envelope = match (key.is_empty(), format) {
            (false, _) => EnvelopeMode::Upsert,
            (true, Format::DebeziumJson) => EnvelopeMode::Changes,
            (true, _) => EnvelopeMode::Append,
        };
        DecodeSpec {
            name: name.into(),
            schema: Arc::clone(&declared),
            declared,
            key,
            format,
            envelope,
            time_precision: TimePrecision::default(),
            decimal_handling: DecimalHandling::default(),
            zone: Zone::default(),
            time_format: None,
            errors: ErrorPolicy::default(),
            null_markers: Vec::new(),
            header: true,
            delimiter: b',',
        }
    }

    /// Checks that the parts agree.
    ///
    /// # Errors
    /// Names what does not.
    pub fn validate(&self) -> Result<(), SpecError> {
        let declared = |name: &str| self.declared.fields().iter().any(|field| field.name() == name);
        for field in self.schema.fields() {
            if !declared(field.name()) && metadata_field(field.name()).is_none() {
                return Err(SpecError::new(format!("column {} of {} is wanted but not declared", field.name(), self.name)));
            }
        }
        for key in &self.key {
            if !declared(key) {
                return Err(SpecError::new(format!("{} has no column {key}, which its primary key names", self.name)));
            }
            if self.envelope == EnvelopeMode::Upsert && self.schema.column_with_name(key).is_none() {
                return Err(SpecError::new(format!("key column {key} of {} must be decoded for upsert", self.name)));
            }
        }
        if self.envelope == EnvelopeMode::Upsert && self.key.is_empty() {
            return Err(SpecError::new(format!(
                "{} has no primary key, which upsert needs: declare one or set envelope",
                self.name
            )));
        }
        Ok(())
    }

    /// The declared field of a wanted column, or its metadata field.
    pub(crate) fn is_metadata(&self, field: &Field) -> bool {
        metadata_field(field.name()).is_some() && self.declared.column_with_name(field.name()).is_none()
    }
}
