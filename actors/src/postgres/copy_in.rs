//! `COPY table FROM STDIN`: text or CSV from the client, into Arrow columns as it comes, into the table when all of it is there: a copy is
//! taken whole or not at all.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use futures::{Sink, SinkExt};
use pgwire::api::copy::CopyHandler;
use pgwire::api::{ClientInfo, PgWireConnectionState};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyFail};

use super::copy::Options;
use super::error::{of_arrow, of_lake, wire};
use super::handlers::{Backend, complete};
use super::parameters::unhex;
use super::session::session_of;
use crate::service::RelationKind;

/// Rows that make a batch.
const BATCH_ROWS: usize = 8_192;
/// What one copy may hold in memory before it is refused.
const COPY_BYTES_MAX: usize = 1 << 30;

/// A copy that is being fed.
#[derive(Debug)]
pub(super) struct CopyIn {
    table: String,
    schema: SchemaRef,
    options: Options,
    /// Bytes after the last whole row.
    rest: Vec<u8>,
    columns: Vec<StringBuilder>,
    rows_waiting: usize,
    /// The line of the first waiting row.
    first_line: usize,
    batches: Vec<RecordBatch>,
    bytes: usize,
    /// Lines read, for messages.
    line: usize,
    header_due: bool,
    ended: bool,
    failed: Option<PgWireError>,
}

impl CopyIn {
    pub(super) async fn open(backend: &Backend, table: &str, columns: &[String], options: Options) -> PgWireResult<Self> {
        let relations = backend.service.relations();
        let relation = relations.into_iter().find(|relation| relation.full_name() == table);
        let relation = relation
            .ok_or_else(|| wire("42P01", format!("there is no table {table}"), Some("SHOW TABLES lists them".to_owned())))?;
        if relation.kind != RelationKind::Table {
            let hint = Some("copy into a table made by CREATE TABLE".to_owned());
            return Err(wire("42809", format!("{table} is not a table, so rows cannot be copied into it"), hint));
        }
        let schema = if columns.is_empty() {
            relation.schema
        } else {
            let field = |column: &String| {
                let found = relation.schema.fields().iter().find(|field| field.name() == column);
                found.cloned().ok_or_else(|| wire("42703", format!("{table} has no column {column}"), None))
            };
            Arc::new(Schema::new(columns.iter().map(field).collect::<PgWireResult<Vec<_>>>()?))
        };
        let columns = schema.fields().iter().map(|_| StringBuilder::new()).collect();
        let header_due = options.header;
        let table = table.to_owned();
        Ok(Self {
            table,
            schema,
            options,
            rest: Vec::new(),
            columns,
            rows_waiting: 0,
            first_line: 0,
            batches: Vec::new(),
            bytes: 0,
            line: 0,
            header_due,
            ended: false,
            failed: None,
        })
    }

    /// How many columns a line has.
    pub(super) fn columns(&self) -> usize {
        self.schema.fields().len()
    }

    /// Takes bytes in; an error is kept for the end, since the client sends on anyway.
    fn feed(&mut self, data: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        self.bytes += data.len();
        let fed = if self.bytes > COPY_BYTES_MAX {
            let hint = Some("copy in several parts".to_owned());
            Err(wire("54000", format!("one COPY may bring {} MiB at most", COPY_BYTES_MAX >> 20), hint))
        } else {
            self.rest.extend_from_slice(data);
            self.whole_rows(false)
        };
        if let Err(error) = fed {
            self.failed = Some(error);
            self.rest = Vec::new();
            self.batches = Vec::new();
        }
    }

    /// The batches, once all is there.
    fn finish(mut self) -> PgWireResult<(String, Vec<RecordBatch>)> {
        if self.failed.is_none() {
            self.whole_rows(true)?;
            self.cut_batch()?;
        }
        match self.failed {
            Some(error) => Err(error),
            None => Ok((self.table, self.batches)),
        }
    }

    fn whole_rows(&mut self, last: bool) -> PgWireResult<()> {
        let mut rest = std::mem::take(&mut self.rest);
        if last && !rest.is_empty() && rest.last() != Some(&b'\n') {
            rest.push(b'\n');
        }
        let mut at = 0;
        while let Some(end) = self.row_end(&rest, at) {
            self.row(&rest[at..end])?;
            at = end + 1;
        }
        if last && at < rest.len() {
            return Err(self.bad("a quoted field is not closed"));
        }
        rest.drain(..at);
        self.rest = rest;
        Ok(())
    }

    /// The line end that closes the row beginning at `at`.
    fn row_end(&self, bytes: &[u8], at: usize) -> Option<usize> {
        if !self.options.csv {
            let mut from = at;
            loop {
                let end = from + memchr::memchr(b'\n', &bytes[from..])?;
                // An escaped line end is part of the row.
                let escapes = bytes[at..end].iter().rev().take_while(|byte| **byte == b'\\').count();
                if escapes % 2 == 0 {
                    return Some(end);
                }
                from = end + 1;
            }
        }
        let mut quoted = false;
        for (offset, byte) in bytes[at..].iter().enumerate() {
            if *byte == self.options.quote {
                quoted = !quoted;
            } else if *byte == b'\n' && !quoted {
                return Some(at + offset);
            }
        }
        None
    }

    fn bad(&self, what: &str) -> PgWireError {
        wire("22P04", format!("COPY {}, line {}: {what}", self.table, self.line), None)
    }

    fn row(&mut self, line: &[u8]) -> PgWireResult<()> {
        self.line += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if std::mem::take(&mut self.header_due) || self.ended {
            return Ok(());
        }
        if line == b"\\." {
            self.ended = true;
            return Ok(());
        }
        let fields = if self.options.csv { self.csv_fields(line) } else { self.text_fields(line) };
        if fields.len() != self.columns.len() {
            return Err(self.bad(&format!("{} fields where {} columns are expected", fields.len(), self.columns.len())));
        }
        for (index, field) in fields.into_iter().enumerate() {
            match field {
                None => self.columns[index].append_null(),
                Some(value) => match std::str::from_utf8(&value) {
                    Ok(text) => self.columns[index].append_value(text),
                    Err(_) => return Err(wire("22021", format!("COPY {}, line {}: not UTF-8", self.table, self.line), None)),
                },
            }
        }
        if self.rows_waiting == 0 {
            self.first_line = self.line;
        }
        self.rows_waiting += 1;
        if self.rows_waiting == BATCH_ROWS { self.cut_batch() } else { Ok(()) }
    }

    fn text_fields(&self, line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut fields = Vec::with_capacity(self.columns.len());
        let mut start = 0;
        let mut at = 0;
        while at <= line.len() {
            if at == line.len() || line[at] == self.options.delimiter {
                let raw = &line[start..at];
                fields.push(if raw == self.options.null.as_bytes() { None } else { Some(unescaped(raw)) });
                start = at + 1;
            } else if line[at] == b'\\' {
                at += 1;
                if at == line.len() {
                    continue;
                }
            }
            at += 1;
        }
        fields
    }

    fn csv_fields(&self, line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut fields = Vec::with_capacity(self.columns.len());
        let (mut value, mut quoted, mut was_quoted) = (Vec::new(), false, false);
        let mut at = 0;
        while at <= line.len() {
            if at == line.len() || (line[at] == self.options.delimiter && !quoted) {
                let is_null = !was_quoted && value == self.options.null.as_bytes();
                let field = std::mem::take(&mut value);
                fields.push(if is_null { None } else { Some(field) });
                was_quoted = false;
            } else if line[at] == self.options.quote {
                if quoted && line.get(at + 1) == Some(&self.options.quote) {
                    value.push(self.options.quote);
                    at += 1;
                } else {
                    quoted = !quoted;
                    was_quoted = true;
                }
            } else {
                value.push(line[at]);
            }
            at += 1;
        }
        fields
    }

    fn cut_batch(&mut self) -> PgWireResult<()> {
        if self.rows_waiting == 0 {
            return Ok(());
        }
        let first_line = self.first_line;
        let mut columns = Vec::with_capacity(self.columns.len());
        for (field, builder) in self.schema.fields().iter().zip(&mut self.columns) {
            let strings = builder.finish();
            let typed = typed(&strings, field.data_type()).map_err(|(row, why)| {
                let line = first_line + row;
                wire("22P02", format!("COPY {}, line {line}, column {}: {why}", self.table, field.name()), None)
            })?;
            if !field.is_nullable()
                && let Some(row) = (0..typed.len()).find(|row| typed.is_null(*row))
            {
                let line = first_line + row;
                return Err(wire(
                    "23502",
                    format!("COPY {}, line {line}: column {} must not be NULL", self.table, field.name()),
                    None,
                ));
            }
            columns.push(typed);
        }
        self.rows_waiting = 0;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|error| of_arrow(&error))?;
        self.batches.push(batch);
        Ok(())
    }
}

/// Text's backslash escapes undone.
fn unescaped(raw: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => value.push(b'\n'),
            Some(b'r') => value.push(b'\r'),
            Some(b't') => value.push(b'\t'),
            Some(b'b') => value.push(0x08),
            Some(b'f') => value.push(0x0c),
            Some(b'v') => value.push(0x0b),
            Some(other) => value.push(other),
            None => value.push(b'\\'),
        }
    }
    value
}

/// Strings as a column of a type; else the first row that is none, and why.
fn typed(strings: &StringArray, data_type: &DataType) -> Result<ArrayRef, (usize, String)> {
    let source: ArrayRef = Arc::new(strings.clone());
    if matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView) {
        let mut bytes = BinaryBuilder::new();
        for (row, text) in strings.iter().enumerate() {
            match text {
                None => bytes.append_null(),
                Some(text) => match text.strip_prefix("\\x").and_then(|digits| unhex(digits.as_bytes())) {
                    Some(value) => bytes.append_value(value),
                    None => return Err((row, format!("{text:?} is no bytea: write \\x and hexadecimal digits"))),
                },
            }
        }
        let bytes: ArrayRef = Arc::new(bytes.finish());
        return arrow::compute::cast(&bytes, data_type).map_err(|error| (0, error.to_string()));
    }
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let typed = cast_with_options(&source, data_type, &lenient).map_err(|error| (0, error.to_string()))?;
    match (0..typed.len()).find(|row| typed.is_null(*row) && !strings.is_null(*row)) {
        None => Ok(typed),
        Some(row) => Err((row, format!("{:?} is no {}", strings.value(row), crate::encode::text::type_name(data_type)))),
    }
}

#[async_trait]
impl CopyHandler for Backend {
    async fn on_copy_data<C>(&self, client: &mut C, data: CopyData) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if let Some(copy) = session_of(client).copying().as_mut() {
            copy.feed(&data.data);
        }
        Ok(())
    }

    async fn on_copy_done<C>(&self, client: &mut C, _done: CopyDone) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let copy = session_of(client).copying().take();
        let Some(copy) = copy else {
            return Err(wire("08P01", "no COPY is going on", None));
        };
        let (table, batches) = copy.finish()?;
        let count = if batches.is_empty() { 0 } else { self.service.insert(&table, batches).await.map_err(of_lake)? };
        client.send(complete("COPY", usize::try_from(count).unwrap_or(usize::MAX))).await?;
        // In the extended protocol a Sync follows, which is heeded only outside of a copy.
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    async fn on_copy_fail<C>(&self, client: &mut C, fail: CopyFail) -> PgWireError
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        drop(session_of(client).copying().take());
        wire("57014", format!("COPY from STDIN failed: {}", fail.message), None)
    }
}
