//! From a source's declaration to a reader: which connector, which decoder, with which options.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use livelake_dataflow::protocol::Envelope;
use livelake_queries::catalog::{Detail, Relation};
use livelake_queries::plan::{StoredColumns, expression};
use livelake_queries::statement::{Column, Columns, Options};
use livelake_queries::{SqlError, SqlErrorKind};

use crate::decode::{
    DecimalHandling, DecodeSpec, EnvelopeMode, ErrorPolicy, Format, TIME_PRECISION, TimePrecision, metadata_field,
};
use crate::sources::checked::{Checked, Checks, POSITION_COLUMNS};
use crate::sources::files::{Compression, FilesOptions, format_by_suffix};
use crate::sources::generated::{self, GeneratedOptions};
use crate::sources::generator::{GeneratorOptions, Kind, OPTION_NAMES};
use crate::sources::kafka::{KafkaOptions, Start};
use crate::sources::schedule::Schedule;
use crate::sources::{Positions, SourceError, SourceReader, files, kafka};

/// A source that can be read.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `schema.name`.
    pub name: String,
    /// `files`, `kafka` or `generator`.
    pub connector: &'static str,
    /// How its bytes become rows.
    pub spec: Arc<DecodeSpec>,
    /// What its rows must meet; there are columns in `spec` for that alone then.
    checks: Option<Checks>,
    origin: Origin,
}

#[derive(Clone, Debug)]
enum Origin {
    Files(FilesOptions),
    Kafka(KafkaOptions),
    Generator(GeneratedOptions),
}

/// How the lake runs, as far as sources need to know.
#[derive(Clone, Copy, Debug)]
pub struct ReadMode {
    /// Stop at the present end.
    pub once: bool,
    /// Threads that one source may use for decoding.
    pub threads: usize,
}

impl Connection {
    /// Makes the connection that a source's statement describes.
    ///
    /// # Errors
    /// An unknown or contradictory option, with its place.
    pub fn new(relation: &Relation, stored: &StoredColumns, folder: &Path, mode: ReadMode) -> Result<Connection, SqlError> {
        let Detail::Source { columns, options } = &relation.detail else {
            return Err(SqlError::new(
                SqlErrorKind::Invalid,
                relation.position.clone(),
                format!("{} is not a source", relation.name),
            ));
        };
        let options = options.resolve(&|name| std::env::var(name).ok())?;
        let connector = options.one_of("connector", &["files", "kafka", "generator", "postgres", "http"])?.ok_or_else(|| {
            SqlError::new(SqlErrorKind::InvalidOption, relation.position.clone(), "the option connector is missing")
                .with_hint("add connector = 'files', 'kafka' or 'generator' to WITH (…)")
        })?;
        let (connector, origin) = match connector {
            "files" => ("files", Origin::Files(files_options(&options, folder, mode)?)),
            "kafka" => ("kafka", Origin::Kafka(kafka_options(&options, mode)?)),
            "generator" => ("generator", Origin::Generator(generator_options(&options, relation, mode)?)),
            other => {
                let message = format!("the connector {other} is not supported yet");
                return Err(SqlError::new(SqlErrorKind::Unsupported, relation.position.clone(), message));
            }
        };
        let format = format(&options, &origin, relation)?;
        let declared = declared_schema(&columns.columns);
        let key = columns.key.iter().map(|index| columns.columns[*index].name.clone()).collect();
        let mut spec = DecodeSpec::new(relation.name.to_string(), declared, key, format);
        spec.schema = wanted(relation, stored, &columns.columns);
        decoding_options(&mut spec, &options, relation)?;
        if matches!(&origin, Origin::Generator(options) if options.generator.kind.is_debezium()) {
            spec.decimal_handling = DecimalHandling::Double;
            spec.time_precision = TimePrecision::Adaptive;
        }
        let checks = checks(relation, columns, &mut spec)?;
        spec.validate()
            .map_err(|error| SqlError::new(SqlErrorKind::InvalidOption, relation.position.clone(), error.to_string()))?;
        Ok(Connection { name: relation.name.to_string(), connector, spec: Arc::new(spec), checks, origin })
    }

    /// How the engine takes its rows.
    pub fn envelope(&self) -> Envelope {
        if self.spec.envelope == EnvelopeMode::Upsert { Envelope::Upsert } else { Envelope::Append }
    }

    /// Whether its rows only come: none is changed or taken away later.
    pub fn only_inserts(&self) -> bool {
        matches!(self.spec.envelope, EnvelopeMode::Append | EnvelopeMode::Events)
    }

    /// Whether a restart can read it again from its beginning and get the same rows.
    pub fn is_repeatable(&self) -> bool {
        match &self.origin {
            Origin::Files(_) => true,
            Origin::Kafka(_) => false,
            // without a start its past ends at the moment of its first start, which only its position remembers
            Origin::Generator(options) => options.generator.start_us.is_some(),
        }
    }

    /// Opens a reader that goes on at these positions.
    ///
    /// # Errors
    /// See [`SourceError::is_retryable`].
    pub fn open(&self, from: &Positions) -> Result<Box<dyn SourceReader>, SourceError> {
        let reader = match &self.origin {
            Origin::Files(options) => files::open(options.clone(), Arc::clone(&self.spec), from),
            Origin::Kafka(options) => kafka::open(options.clone(), Arc::clone(&self.spec), from),
            Origin::Generator(options) => generated::open(options.clone(), &self.spec, from),
        }?;
        Ok(match &self.checks {
            None => reader,
            Some(checks) => Box::new(Checked::new(reader, checks.clone())),
        })
    }
}

/// Options that all sources have.
const COMMON: [&str; 12] = [
    "connector",
    "format",
    "envelope",
    "time_zone",
    "errors",
    "time_format",
    "null",
    "header",
    "delimiter",
    "compression",
    "time.precision.mode",
    "decimal.handling.mode",
];

fn check(options: &Options, own: &[&str]) -> Result<(), SqlError> {
    let known: Vec<&str> = COMMON.iter().chain(own).copied().collect();
    options.check_known(&known)
}

fn files_options(options: &Options, folder: &Path, mode: ReadMode) -> Result<FilesOptions, SqlError> {
    check(options, &["path", "watch", "poll", "schedule"])?;
    let mut read = FilesOptions::new(folder, options.require("path")?);
    read.watch = !mode.once && options.boolean("watch")?.unwrap_or(true);
    read.threads = mode.threads;
    if let Some(entry) = options.entry("poll") {
        read.poll = humantime::parse_duration(&entry.value).map_err(|_| options.invalid(entry, "a duration such as 1s"))?;
    }
    if let Some(entry) = options.entry("schedule") {
        if options.boolean("watch")? == Some(false) || options.entry("poll").is_some() {
            return Err(options.invalid(entry, "the only one of schedule, poll and watch = 'false'"));
        }
        let schedule = entry.value.parse::<Schedule>();
        let wanted = |why: String| options.invalid(entry, &format!("five fields of cron or a name such as @hourly ({why})"));
        read.schedule = Some(schedule.map_err(wanted)?);
    }
    read.compression = match options.one_of("compression", &["none", "gz", "gzip", "zst", "zstd"])? {
        None => None,
        Some("none") => Some(Compression::None),
        Some("gz" | "gzip") => Some(Compression::Gzip),
        Some(_) => Some(Compression::Zstd),
    };
    Ok(read)
}

fn kafka_options(options: &Options, mode: ReadMode) -> Result<KafkaOptions, SqlError> {
    check(options, &["brokers", "topic", "start", "properties."])?;
    let properties: BTreeMap<String, String> =
        options.with_prefix("properties.").map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(KafkaOptions {
        brokers: options.require("brokers")?.to_owned(),
        topic: options.require("topic")?.to_owned(),
        start: if options.one_of("start", &["earliest", "latest"])? == Some("latest") { Start::Latest } else { Start::Earliest },
        properties,
        once: mode.once,
    })
}

fn generator_options(options: &Options, relation: &Relation, mode: ReadMode) -> Result<GeneratedOptions, SqlError> {
    check(options, &OPTION_NAMES)?;
    let own = options.iter().filter(|entry| OPTION_NAMES.contains(&entry.name.as_str()));
    let generator = GeneratorOptions::parse(own.map(|entry| (entry.name.as_str(), entry.value.as_str())))
        .map_err(|error| SqlError::new(SqlErrorKind::InvalidOption, relation.position.clone(), error.to_string()))?;
    Ok(GeneratedOptions { generator, once: mode.once })
}

fn format(options: &Options, origin: &Origin, relation: &Relation) -> Result<Format, SqlError> {
    let said = options.one_of("format", &["debezium-json", "json", "ndjson", "csv", "parquet"])?;
    let suffix = || match origin {
        Origin::Files(files) => format_by_suffix(&files.path),
        Origin::Generator(generated) if generated.generator.kind == Kind::Weather => Some(Format::Json),
        Origin::Generator(_) => Some(Format::DebeziumJson),
        Origin::Kafka(_) => Some(Format::Json),
    };
    match said {
        Some("debezium-json") => Ok(Format::DebeziumJson),
        Some("json" | "ndjson") => Ok(Format::Json),
        Some("csv") => Ok(Format::Csv),
        Some(_) => Ok(Format::Parquet),
        None => suffix().ok_or_else(|| {
            SqlError::new(SqlErrorKind::InvalidOption, relation.position.clone(), "the path's suffix does not tell the format")
                .with_hint("add format = 'csv', 'parquet', 'ndjson' or 'debezium-json'")
        }),
    }
}

fn decoding_options(spec: &mut DecodeSpec, options: &Options, relation: &Relation) -> Result<(), SqlError> {
    let wrong = |message: String| SqlError::new(SqlErrorKind::InvalidOption, relation.position.clone(), message);
    spec.envelope = match options.one_of("envelope", &["upsert", "append", "events"])? {
        None => spec.envelope,
        Some("upsert") => EnvelopeMode::Upsert,
        Some("append") => EnvelopeMode::Append,
        Some(_) => EnvelopeMode::Events,
    };
    spec.errors = match options.one_of("errors", &["quarantine", "fail", "null"])? {
        None | Some("quarantine") => ErrorPolicy::Quarantine,
        Some("fail") => ErrorPolicy::Fail,
        Some(_) => ErrorPolicy::Null,
    };
    spec.time_precision =
        match options.one_of("time.precision.mode", &["adaptive", "adaptive_time_microseconds", "connect", "isostring"])? {
            None | Some("adaptive") => TimePrecision::Adaptive,
            Some("adaptive_time_microseconds") => TimePrecision::AdaptiveTimeMicroseconds,
            Some("connect") => TimePrecision::Connect,
            Some(_) => TimePrecision::IsoString,
        };
    spec.decimal_handling = match options.one_of("decimal.handling.mode", &["precise", "double", "string"])? {
        None | Some("precise") => DecimalHandling::Precise,
        Some("double") => DecimalHandling::Double,
        Some(_) => DecimalHandling::String,
    };
    if let Some(zone) = options.get("time_zone") {
        spec.zone = zone.parse().map_err(|error: crate::decode::SpecError| wrong(error.to_string()))?;
    }
    spec.time_format = options.get("time_format").map(str::to_owned);
    if let Some(nulls) = options.get("null") {
        spec.null_markers = nulls.split(',').map(|marker| marker.trim().to_owned()).collect();
    }
    spec.header = options.boolean("header")?.unwrap_or(spec.header);
    if let Some(entry) = options.entry("delimiter") {
        let delimiter = if entry.value == "\\t" { "\t" } else { entry.value.as_str() };
        spec.delimiter = match delimiter.as_bytes() {
            [byte] => *byte,
            _ => return Err(options.invalid(entry, "one character")),
        };
    }
    Ok(())
}

/// The conditions of a source, if it has any; the columns that they need are added to what is decoded.
fn checks(relation: &Relation, columns: &Columns, spec: &mut DecodeSpec) -> Result<Option<Checks>, SqlError> {
    if columns.checks.is_empty() {
        return Ok(None);
    }
    let wanted = spec.schema.fields().len();
    let mut fields: Vec<Field> = spec.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    let positions = POSITION_COLUMNS.into_iter().filter_map(metadata_field);
    for field in columns.columns.iter().map(declared_field).chain(positions) {
        if fields.iter().all(|known| known.name() != field.name()) {
            fields.push(field);
        }
    }
    spec.schema = Arc::new(Schema::new(fields));
    let mut conditions = Vec::with_capacity(columns.checks.len());
    for check in &columns.checks {
        let condition = expression(&spec.schema, &check.condition);
        let misplaced = |error: datafusion::error::DataFusionError| {
            SqlError::new(SqlErrorKind::Invalid, check.position.clone(), error.strip_backtrace())
        };
        conditions.push((check.name.clone(), condition.map_err(misplaced)?));
    }
    let declared = columns.columns.iter().map(|column| column.name.clone()).collect();
    Ok(Some(Checks { name: relation.name.to_string(), conditions, declared, wanted, policy: spec.errors }))
}

/// The declared columns, with the precision of times that Debezium's adaptive mode depends on.
fn declared_schema(columns: &[Column]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(declared_field).collect();
    Arc::new(Schema::new(fields))
}

fn declared_field(column: &Column) -> Field {
    let field = Field::new(&column.name, column.data_type.clone(), !column.not_null);
    let precision = column
        .sql_type
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(digits, _)| digits.trim().to_owned())
        .filter(|digits| digits.parse::<u8>().is_ok());
    match (&column.data_type, precision) {
        (DataType::Timestamp(..) | DataType::Time64(_), Some(precision)) => {
            field.with_metadata(HashMap::from([(TIME_PRECISION.to_owned(), precision)]))
        }
        _ => field,
    }
}

/// The columns that the engine stores, with the declaration's metadata.
fn wanted(relation: &Relation, stored: &StoredColumns, columns: &[Column]) -> SchemaRef {
    let fields: Vec<Field> = stored
        .of(relation)
        .into_iter()
        .map(|index| columns.get(index).map_or_else(|| relation.schema.field(index).clone(), declared_field))
        .collect();
    Arc::new(Schema::new(fields))
}

/// How long a reader may wait for input before it looks whether it should stop.
pub const READ_WAIT: Duration = Duration::from_millis(100);
