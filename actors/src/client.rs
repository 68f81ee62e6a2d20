//! Asking a running lake over HTTP: what `livelake sql`, `subscribe` and `export` do. Blocking, and written to any [`Write`].
//!
//! Rows travel as an Arrow stream wherever they are printed as a table or written as Parquet; other formats are passed through as the server
//! sends them, byte by byte.

use std::io::{Read, Write};
use std::path::Path;

use arrow::ipc::reader::StreamReader;
use arrow::record_batch::RecordBatch;

pub mod connection;
pub mod prompt;
pub mod table;

use connection::{Connection, Reply};

/// Where a lake listens unless told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8000";

/// How an answer is printed or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// Aligned columns, for people.
    Table,
    /// Comma-separated with a header.
    Csv,
    /// The server's envelope: one JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// Arrow IPC stream.
    Arrow,
    /// A Parquet file (zstd).
    Parquet,
}

impl OutputFormat {
    /// The format that a file's name ends in.
    pub fn of_path(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Self::Csv,
            "json" => Self::Json,
            "ndjson" | "jsonl" => Self::Ndjson,
            "arrow" | "arrows" => Self::Arrow,
            "parquet" => Self::Parquet,
            "txt" => Self::Table,
            _ => return None,
        })
    }

    fn accept(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Table | Self::Arrow | Self::Parquet => "application/vnd.apache.arrow.stream",
        }
    }
}

/// What can go wrong between here and the lake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no lake answers at {url}: {reason} (start one with `livelake run DIR`, or name another with --url)")]
    Unreachable {
        /// The address tried.
        url: String,
        /// What the connection said.
        reason: String,
    },
    /// The lake answered with an error.
    #[error("{message}{}", .hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Refused {
        /// HTTP status.
        status: u16,
        /// The stable code.
        code: String,
        /// In words.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The answer broke off or is not what was asked for.
    #[error("the answer from {url} is broken: {reason}")]
    Broken {
        /// Who sent it.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The output cannot be written.
    #[error("cannot write {what}")]
    Output {
        /// A file, or `the output`.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ClientError {
    fn output(source: std::io::Error) -> Self {
        Self::Output { what: "the output".to_owned(), source }
    }
}

/// Runs statements (one or several, separated by semicolons) and prints what they answer. A `SUBSCRIBE` is followed until it ends.
///
/// # Errors
/// [`ClientError`]; statements before the one that failed have been carried out and printed.
pub fn sql(url: &str, sql: &str, format: OutputFormat, out: &mut (dyn Write + Send)) -> Result<(), ClientError> {
    let connection = Connection::new(url);
    for statement in crate::statements::split(sql) {
        run(&connection, statement.text, format, out)?;
    }
    Ok(())
}

fn run(connection: &Connection, statement: &str, format: OutputFormat, out: &mut (dyn Write + Send)) -> Result<(), ClientError> {
    let first = crate::statements::tokens(statement).first().copied().unwrap_or_default();
    if first.eq_ignore_ascii_case("subscribe") {
        let reply = connection.sql(statement, "application/x-ndjson")?;
        return copy(&reply_url(connection), &mut reply.body(), out);
    }
    write_reply(connection, connection.sql(statement, format.accept())?, format, out)
}

/// Follows a relation: one message a line (`json`), or the changed rows as they come (`table`: as-of, diff, then the row).
///
/// # Errors
/// [`ClientError`]; code `slow_subscriber` if this end read too slowly. Returns when the subscription ends.
pub fn subscribe(
    url: &str,
    view: &str,
    format: OutputFormat,
    as_of: Option<u64>,
    no_snapshot: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), ClientError> {
    let connection = Connection::new(url);
    let mut path = format!("/api/v1/views/{}/subscribe?snapshot={}", connection::encoded(view), !no_snapshot);
    if let Some(as_of) = as_of {
        path.push_str(&format!("&as_of={as_of}"));
    }
    let reply = connection.get(&path, "text/event-stream")?;
    let mut events = connection::Events::new(reply.body());
    let mut changes = table::ChangePrinter::default();
    while let Some(event) = events.next_event().map_err(|reason| broken(&connection, &reason))? {
        if event.name == "error" {
            return Err(connection::refusal(503, event.data.as_bytes()));
        }
        if format == OutputFormat::Table {
            changes.print(&event.data, out).map_err(|error| match error.kind() {
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => broken(&connection, &error),
                _ => ClientError::output(error),
            })?;
        } else {
            writeln!(out, "{}", event.data).map_err(ClientError::output)?;
        }
        out.flush().map_err(ClientError::output)?;
    }
    Ok(())
}

/// Writes all rows of a relation to a file, which appears under its name only when it is whole. The format is the given one, else the one
/// that the file's name ends in, else Parquet. `progress` is told the bytes of the file as they are written. Returns the timestamp of the rows.
///
/// # Errors
/// [`ClientError`].
pub fn export(
    url: &str,
    view: &str,
    file: &Path,
    format: Option<OutputFormat>,
    as_of: Option<u64>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<u64, ClientError> {
    let format = format.or_else(|| OutputFormat::of_path(file)).unwrap_or(OutputFormat::Parquet);
    let connection = Connection::new(url);
    let mut path = format!("/api/v1/views/{}", connection::encoded(view));
    if let Some(as_of) = as_of {
        path.push_str(&format!("?as_of={as_of}"));
    }
    let reply = connection.get(&path, format.accept())?;
    let as_of = reply.as_of;
    let failed = |source| ClientError::Output { what: file.display().to_string(), source };
    let mut name = file.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    let part = file.with_file_name(name);
    let written = std::fs::File::create(&part).map_err(failed).and_then(|created| {
        let mut writer = std::io::BufWriter::new(Counted { file: created, bytes: 0, progress });
        write_reply(&connection, reply, format, &mut writer)?;
        writer.into_inner().map_err(|error| failed(error.into_error()))?.file.sync_all().map_err(failed)
    });
    match written.and_then(|()| std::fs::rename(&part, file).map_err(failed)) {
        Ok(()) => Ok(as_of),
        Err(error) => {
            // Half a file helps nobody; if it cannot be removed either, the error at hand says more.
            let _ = std::fs::remove_file(&part);
            Err(error)
        }
    }
}

/// A file that tells how large it has got.
struct Counted<'p> {
    file: std::fs::File,
    bytes: u64,
    progress: &'p mut (dyn FnMut(u64) + Send),
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.bytes += count as u64;
        (self.progress)(self.bytes);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn broken(connection: &Connection, reason: &dyn std::fmt::Display) -> ClientError {
    ClientError::Broken { url: reply_url(connection), reason: reason.to_string() }
}

fn reply_url(connection: &Connection) -> String {
    connection.url().to_owned()
}

fn write_reply(
    connection: &Connection,
    reply: Reply,
    format: OutputFormat,
    out: &mut (dyn Write + Send),
) -> Result<(), ClientError> {
    match format {
        OutputFormat::Csv | OutputFormat::Json | OutputFormat::Ndjson | OutputFormat::Arrow => {
            copy(&reply_url(connection), &mut reply.body(), out)
        }
        OutputFormat::Table => {
            let tag = reply.tag.clone();
            let (schema, batches) = batches(connection, reply)?;
            if schema.fields().is_empty() {
                return writeln!(out, "{tag}").map_err(ClientError::output);
            }
            table::print(&schema, &batches, out).map_err(|error| match error {
                arrow::error::ArrowError::IoError(_, source) => ClientError::output(source),
                other => broken(connection, &other),
            })
        }
        OutputFormat::Parquet => {
            let reader = StreamReader::try_new(reply.body(), None).map_err(|error| broken(connection, &error))?;
            let compression = parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default());
            let properties = parquet::file::properties::WriterProperties::builder().set_compression(compression).build();
            let failed = |error: parquet::errors::ParquetError| ClientError::output(std::io::Error::other(error));
            let mut writer =
                parquet::arrow::ArrowWriter::try_new(&mut *out, reader.schema(), Some(properties)).map_err(failed)?;
            for batch in reader {
                writer.write(&batch.map_err(|error| broken(connection, &error))?).map_err(failed)?;
            }
            writer.close().map_err(failed)?;
            out.flush().map_err(ClientError::output)
        }
    }
}

fn batches(connection: &Connection, reply: Reply) -> Result<(arrow::datatypes::SchemaRef, Vec<RecordBatch>), ClientError> {
    let reader = StreamReader::try_new(reply.body(), None).map_err(|error| broken(connection, &error))?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| broken(connection, &error))?;
    Ok((schema, batches))
}

fn copy(url: &str, body: &mut dyn Read, out: &mut (dyn Write + Send)) -> Result<(), ClientError> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count =
            body.read(&mut buffer).map_err(|error| ClientError::Broken { url: url.to_owned(), reason: error.to_string() })?;
        if count == 0 {
            return out.flush().map_err(ClientError::output);
        }
        out.write_all(&buffer[..count]).and_then(|()| out.flush()).map_err(ClientError::output)?;
    }
}

#[cfg(test)]
mod tests;
