//! `COPY … TO STDOUT`: rows, or a subscription's changes, as lines of text or CSV.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::StreamExt;
use futures::stream::BoxStream;
use livelake_dataflow::protocol::{SubscriptionEvent, Timestamp};
use pgwire::error::{PgWireError, PgWireResult};

use super::copy::{Options, Source};
use super::error::{of_arrow, of_lake, wire};
use super::handlers::{Backend, Outcome};
use super::session::Session;
use crate::encode::csv;
use crate::encode::text::{Style, TextColumn, plain};

/// Copied lines on their way.
pub(super) struct CopyOut {
    /// Columns of a line.
    pub(super) columns: i16,
    /// The lines, a batch at a time.
    pub(super) pieces: BoxStream<'static, PgWireResult<Piece>>,
}

/// Some lines: PostgreSQL sends one message a line, and clients rely on it.
pub(super) struct Piece {
    pub(super) lines: Vec<Bytes>,
    /// How many of them are rows (a header is not).
    pub(super) rows: usize,
}

impl CopyOut {
    pub(super) async fn open(
        backend: &Backend,
        source: &Source,
        options: &Options,
        parameters: Vec<ScalarValue>,
    ) -> PgWireResult<Self> {
        match source {
            Source::Query(sql) => {
                // A query inside COPY reads no setting of the session and opens no transaction.
                let outcome = Box::pin(backend.run(&Session::default(), sql, parameters)).await?;
                let Outcome::Rows { schema, rows, .. } = outcome else {
                    return Err(wire(
                        "42601",
                        "COPY takes a query that gives rows",
                        Some("write COPY (SELECT …) TO STDOUT".to_owned()),
                    ));
                };
                let header = header(&[], &schema, options);
                let options = options.clone();
                let pieces = rows.map(move |batch| lines(&batch?, &options, |_| Vec::new()));
                Ok(Self { columns: width(schema.fields().len()), pieces: futures::stream::iter(header).chain(pieces).boxed() })
            }
            Source::Subscription(sql) => {
                let subscription = backend.service.subscribe_sql(sql).await.map_err(of_lake)?;
                if subscription.upsert_key.is_some() {
                    let hint = "leave it out, or send the statement over HTTP".to_owned();
                    return Err(wire(
                        "0A000",
                        "ENVELOPE UPSERT is not supported in COPY: its lines have a diff each",
                        Some(hint),
                    ));
                }
                let width = width(subscription.schema.fields().len() + 3);
                let header = header(&["as_of", "diff", "progress"], &subscription.schema, options);
                let options = options.clone();
                let columns = subscription.schema.fields().len();
                let pieces = subscription.events.filter_map(move |event| {
                    let piece = match event {
                        Ok(SubscriptionEvent::Changes(changes)) => Some(lines(&changes.rows, &options, |row| {
                            vec![changes.as_of.to_string(), changes.diffs.value(row).to_string(), "f".to_owned()]
                        })),
                        Ok(SubscriptionEvent::Progress(timestamp)) => Some(Ok(progress(timestamp, columns, &options))),
                        Ok(SubscriptionEvent::End(None)) => None,
                        Ok(SubscriptionEvent::End(Some(cause))) => Some(Err(ended(&cause.to_string()))),
                        Err(error) => Some(Err(of_lake(error))),
                    };
                    futures::future::ready(piece)
                });
                Ok(Self { columns: width, pieces: futures::stream::iter(header).chain(pieces).boxed() })
            }
        }
    }
}

fn ended(cause: &str) -> PgWireError {
    wire("58000", format!("the subscription ended: {cause}"), None)
}

fn width(columns: usize) -> i16 {
    i16::try_from(columns).unwrap_or(i16::MAX)
}

fn header(first: &[&str], schema: &Schema, options: &Options) -> Option<PgWireResult<Piece>> {
    options.header.then(|| {
        let mut line = Vec::new();
        let names = first.iter().copied().chain(schema.fields().iter().map(|field| field.name().as_str()));
        for (index, name) in names.enumerate() {
            separate(index, options, &mut line);
            write_value(name.as_bytes(), options, &mut line);
        }
        line.push(b'\n');
        Ok(Piece { lines: vec![line.into()], rows: 0 })
    })
}

fn progress(timestamp: Timestamp, columns: usize, options: &Options) -> Piece {
    let mut line = timestamp.to_string().into_bytes();
    for index in 0..columns + 2 {
        line.push(options.delimiter);
        match index {
            1 => line.push(b't'),
            _ => line.extend_from_slice(options.null.as_bytes()),
        }
    }
    line.push(b'\n');
    Piece { lines: vec![line.into()], rows: 1 }
}

/// A batch's rows as lines, each with what `first` puts before the row's own columns.
fn lines(batch: &RecordBatch, options: &Options, first: impl Fn(usize) -> Vec<String>) -> PgWireResult<Piece> {
    let broken = |error: arrow::error::ArrowError| of_arrow(&error);
    let arrays = batch.columns().iter().map(plain).collect::<Result<Vec<_>, _>>().map_err(broken)?;
    let columns =
        arrays.iter().map(|array| TextColumn::new(array, Style::Postgres)).collect::<Result<Vec<_>, _>>().map_err(broken)?;
    let nulls: Vec<_> = arrays.iter().map(|array| array.logical_nulls()).collect();
    let mut lines = Vec::with_capacity(batch.num_rows());
    let mut value = Vec::new();
    for row in 0..batch.num_rows() {
        let mut line = Vec::with_capacity(64);
        let mut index = 0;
        for field in first(row) {
            separate(index, options, &mut line);
            line.extend_from_slice(field.as_bytes());
            index += 1;
        }
        for (column, nulls) in columns.iter().zip(&nulls) {
            separate(index, options, &mut line);
            index += 1;
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                line.extend_from_slice(options.null.as_bytes());
                continue;
            }
            value.clear();
            column.write(row, &mut value);
            write_value(&value, options, &mut line);
        }
        line.push(b'\n');
        lines.push(line.into());
    }
    Ok(Piece { lines, rows: batch.num_rows() })
}

fn separate(index: usize, options: &Options, line: &mut Vec<u8>) {
    if index > 0 {
        line.push(options.delimiter);
    }
}

fn write_value(value: &[u8], options: &Options, line: &mut Vec<u8>) {
    if options.csv {
        // A value that reads like NULL is quoted, so that it is not taken for it.
        if value == options.null.as_bytes() || value.contains(&options.quote) {
            line.push(options.quote);
            for byte in value {
                if *byte == options.quote {
                    line.push(options.quote);
                }
                line.push(*byte);
            }
            line.push(options.quote);
        } else {
            csv::write_field(value, options.delimiter, line);
        }
        return;
    }
    for byte in value {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            0x08 => line.extend_from_slice(b"\\b"),
            0x0b => line.extend_from_slice(b"\\v"),
            0x0c => line.extend_from_slice(b"\\f"),
            byte if *byte == options.delimiter => line.extend_from_slice(&[b'\\', *byte]),
            byte => line.push(*byte),
        }
    }
}
