//! Debezium's change messages as JSON: `{"before", "after", "source", "op", …}`, bare, inside `{"schema", "payload"}`, or inside the
//! record of a dumped topic (`{"topic", "partition", "offset", "key", "value"}`).
//!
//! What is believed of a message:
//! * `after` is the row. It is decoded as soon as it is met, straight into the columns, and taken back if the rest of the message
//!   turns out wrong.
//! * `before` is never taken for the old row where the relation has a key: under PostgreSQL's default replica identity everything in
//!   it but the key is filler. Its key says which row a delete removes, and whether an update changed the key. Without a primary key
//!   (which needs REPLICA IDENTITY FULL) it is the row to retract.
//! * A tombstone says what the delete before it said; on a compacted topic it may be all that is left, so it deletes too.

use std::sync::Arc;

use livelake_dataflow::protocol::Op;

use super::cursor::{Cursor, Fault};
use super::errors::Place;
use super::json::message_metadata;
use super::lines::{BYTE_ORDER_MARK, each_line};
use super::rows::{Metadata, Rows};
use super::shape::{Shape, UNKNOWN};
use super::spec::{DecodeSpec, EnvelopeMode, SpecError};
use super::{DecodeError, Decoded, Decoder, Input};

mod envelope;
mod schema;

use envelope::{Envelope, Shapes};
use schema::SchemaCache;

/// See the module.
pub(crate) struct DebeziumDecoder {
    rows: Rows,
    /// Where the fields of `after` are.
    row: Shape,
    /// Where the fields of `before` are, when it is read as a row.
    old_row: Shape,
    /// Where the key's fields are in `before` and in message keys.
    key: Shape,
    shapes: Shapes,
    schemas: SchemaCache,
    wants_source: bool,
}

impl DebeziumDecoder {
    pub(crate) fn new(spec: &Arc<DecodeSpec>) -> Result<Self, SpecError> {
        let rows = Rows::new(spec)?;
        let wants_source = rows.wants_source_metadata();
        Ok(DebeziumDecoder {
            row: rows.row_shape(),
            old_row: rows.row_shape(),
            key: rows.key_shape(),
            shapes: Shapes::new(),
            schemas: SchemaCache::new(&rows.readings),
            wants_source,
            rows,
        })
    }

    /// Decodes one message; what it did to the columns must be taken back if it fails.
    fn message<'a>(&mut self, key: Option<&'a str>, value: Option<&'a str>, mut metadata: Metadata<'a>) -> Result<(), Fault> {
        let Some(text) = value else { return self.tombstone(key, &metadata) };
        let start = self.rows.len();
        let mut envelope = Envelope { key, ..Envelope::default() };
        let mut cursor = Cursor::new(text);
        self.walk(&mut cursor, &mut envelope)?;
        cursor.end()?;
        // A record of a dumped topic, then a schema with its payload, hold the message one level further down each.
        if let Some(record) = envelope.record.take() {
            metadata.topic = envelope.topic.or(metadata.topic);
            metadata.partition = envelope.partition.or(metadata.partition);
            metadata.offset = envelope.offset.or(metadata.offset);
            envelope = Envelope { key: envelope.recorded_key.or(key), ..Envelope::default() };
            if record == "null" {
                return self.tombstone(envelope.key, &metadata);
            }
            self.walk(&mut Cursor::new(record), &mut envelope)?;
        }
        if let Some(payload) = envelope.payload.take() {
            if let Some(schema) = envelope.schema {
                self.schemas.apply(schema, &self.rows.columns, &mut self.rows.readings);
            }
            envelope = Envelope { key: envelope.key, ..Envelope::default() };
            if payload == "null" {
                return self.tombstone(envelope.key, &metadata);
            }
            self.walk(&mut Cursor::new(payload), &mut envelope)?;
        }
        metadata.op = envelope.op;
        if let Some(source) = envelope.source {
            self.shapes.source_metadata(source, &mut metadata)?;
        }
        if envelope.has_row {
            self.rows.end()?;
        }
        self.apply(start, &envelope, &metadata)
    }

    /// Walks over a message (or what surrounds one) and decodes `after` on the way.
    fn walk<'a>(&mut self, cursor: &mut Cursor<'a>, envelope: &mut Envelope<'a>) -> Result<(), Fault> {
        let (rows, row, wants_source) = (&mut self.rows, &mut self.row, self.wants_source);
        self.shapes.message.walk(cursor, |cursor, found| match found.target {
            envelope::AFTER => match cursor.byte() {
                Some(b'{') => {
                    if envelope.has_row {
                        return Err(Fault::new("the message has two `after`"));
                    }
                    envelope.has_row = true;
                    rows.begin();
                    row.walk(cursor, |cursor, found| rows.field(cursor, found))
                }
                _ if cursor.null() => {
                    envelope.is_change = true;
                    Ok(())
                }
                _ => {
                    cursor.skip()?;
                    Err(Fault::new("`after` is neither an object nor null"))
                }
            },
            envelope::BEFORE => {
                envelope.is_change = true;
                let raw = cursor.raw()?;
                match raw.as_bytes().first() {
                    Some(b'{') => envelope.before = Some(raw),
                    Some(b'n') => {}
                    _ => return Err(Fault::new("`before` is neither an object nor null")),
                }
                Ok(())
            }
            envelope::SOURCE if wants_source => {
                envelope.source = Some(cursor.raw()?).filter(|raw| raw.starts_with('{'));
                Ok(())
            }
            UNKNOWN | envelope::SOURCE | envelope::OTHER => cursor.skip(),
            field => envelope.frame(field, cursor),
        })
    }

    /// Does what the message says.
    fn apply(&mut self, start: usize, envelope: &Envelope<'_>, metadata: &Metadata<'_>) -> Result<(), Fault> {
        let mode = self.rows.spec.envelope;
        let Some(op) = envelope.op else {
            return if envelope.has_row || envelope.is_change {
                Err(Fault::new("the message has no `op`"))
            } else if envelope.is_mark {
                self.pass_over(start)
            } else {
                Err(Fault::new("the message has neither `before` nor `after`"))
            };
        };
        match (op, mode) {
            (b'm', _) => self.pass_over(start),
            (b'u' | b'd' | b't', EnvelopeMode::Append) => {
                self.rows.roll_back(start);
                self.rows.counters.not_inserts += 1;
                Ok(())
            }
            (b't', EnvelopeMode::Events) => {
                self.rows.roll_back(start);
                self.rows.end_of_nothing()?;
                self.rows.commit(Op::Insert, metadata);
                Ok(())
            }
            (b't', _) => {
                self.rows.roll_back(start);
                self.rows.truncate_relation();
                Ok(())
            }
            (b'c' | b'r' | b'u', _) if !envelope.has_row => Err(Fault::new(if envelope.before.is_some() {
                format!("the message has no `after`, which `op` {:?} needs", char::from(op))
            } else {
                "the message has neither `before` nor `after`".to_owned()
            })),
            (b'c' | b'r', EnvelopeMode::Upsert) => {
                self.rows.commit(Op::Upsert, metadata);
                Ok(())
            }
            (b'c' | b'r' | b'u', EnvelopeMode::Append | EnvelopeMode::Events) | (b'c' | b'r', EnvelopeMode::Changes) => {
                self.rows.commit(Op::Insert, metadata);
                Ok(())
            }
            (b'u', EnvelopeMode::Upsert) => {
                self.rows.commit(Op::Upsert, metadata);
                match envelope.before {
                    Some(before) => self.delete_changed_key(before, metadata),
                    None => Ok(()),
                }
            }
            (b'u', EnvelopeMode::Changes) => {
                self.rows.commit(Op::Insert, metadata);
                self.old_row(envelope, Op::Retract, metadata)
            }
            (b'd', _) if envelope.has_row => Err(Fault::new("a delete has an `after`")),
            (b'd', EnvelopeMode::Upsert) => {
                self.rows.begin();
                self.key_of(envelope)?;
                self.rows.end_of_key()?;
                self.rows.commit(Op::Delete, metadata);
                Ok(())
            }
            (b'd', EnvelopeMode::Changes) => self.old_row(envelope, Op::Retract, metadata),
            (b'd', EnvelopeMode::Events) => self.old_row(envelope, Op::Insert, metadata),
            _ => Err(Fault::new(format!("`op` is {:?}, which is none of r, c, u, d, t, m", char::from(op)))),
        }
    }

    /// A message without a row: a heartbeat, the beginning or end of a transaction, a logical message.
    fn pass_over(&mut self, start: usize) -> Result<(), Fault> {
        self.rows.roll_back(start);
        self.rows.counters.ignored_messages += 1;
        Ok(())
    }

    fn tombstone(&mut self, key: Option<&str>, metadata: &Metadata<'_>) -> Result<(), Fault> {
        let key = key.filter(|key| *key != "null" && self.rows.spec.envelope == EnvelopeMode::Upsert);
        let Some(key) = key else {
            self.rows.counters.ignored_messages += 1;
            return Ok(());
        };
        self.rows.begin();
        self.message_key(key)?;
        self.rows.end_of_key()?;
        self.rows.commit(Op::Delete, metadata);
        Ok(())
    }

    /// Takes the key of a delete from `before`, else from the message's key.
    fn key_of(&mut self, envelope: &Envelope<'_>) -> Result<(), Fault> {
        match (envelope.before, envelope.key) {
            (Some(before), _) => {
                let (rows, shape) = (&mut self.rows, &mut self.key);
                shape.walk(&mut Cursor::new(before), |cursor, found| match found.target {
                    UNKNOWN => cursor.skip(),
                    _ => rows.field(cursor, found),
                })
            }
            (None, Some(key)) => self.message_key(key),
            (None, None) => Err(Fault::new("a delete has neither `before` nor a message key")),
        }
    }

    /// Reads a message's key: an object of the key's columns, with or without a schema around it, or one bare value.
    fn message_key(&mut self, key: &str) -> Result<(), Fault> {
        let key = envelope::payload_of_key(key)?;
        let rows = &mut self.rows;
        let mut cursor = Cursor::new(key);
        if key.starts_with('{') {
            return self.key.walk(&mut cursor, |cursor, found| match found.target {
                UNKNOWN => cursor.skip(),
                _ => rows.field(cursor, found),
            });
        }
        match rows.key.as_slice() {
            [place] => {
                let target = u16::try_from(*place).unwrap_or(UNKNOWN);
                rows.field(&mut cursor, super::shape::Found { target, loose: false })?;
                cursor.end()
            }
            _ => Err(Fault::new("the message's key is one value, but the relation's key has several columns")),
        }
    }

    /// After an update was taken in: removes the row under the key it had before, if that was another.
    fn delete_changed_key(&mut self, before: &str, metadata: &Metadata<'_>) -> Result<(), Fault> {
        let (rows, shape) = (&mut self.rows, &mut self.key);
        let old = rows.len();
        rows.begin();
        shape.walk(&mut Cursor::new(before), |cursor, found| match found.target {
            UNKNOWN => cursor.skip(),
            _ => rows.field(cursor, found),
        })?;
        if rows.end_of_key().is_err() || rows.same_key(old - 1, old) {
            rows.roll_back(old);
        } else {
            rows.commit(Op::Delete, metadata);
        }
        Ok(())
    }

    /// Takes `before` in as a row.
    fn old_row(&mut self, envelope: &Envelope<'_>, op: Op, metadata: &Metadata<'_>) -> Result<(), Fault> {
        let Some(before) = envelope.before else {
            return Err(Fault::new(
                "the message has no `before`, which a source without a primary key needs: set REPLICA IDENTITY FULL on the table",
            ));
        };
        let (rows, shape) = (&mut self.rows, &mut self.old_row);
        rows.begin();
        shape.walk(&mut Cursor::new(before), |cursor, found| rows.field(cursor, found))?;
        rows.end()?;
        rows.commit(op, metadata);
        Ok(())
    }
}

impl Decoder for DebeziumDecoder {
    fn decode(&mut self, input: Input<'_>) -> Result<usize, DecodeError> {
        match input {
            Input::Lines { file, first_line, bytes, last, .. } => {
                let text = if first_line == 1 { bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes) } else { bytes };
                let (used, _) = each_line(text, last, |line, text| {
                    let number = first_line + line;
                    self.rows.counters.inputs += 1;
                    let start = self.rows.len();
                    let metadata =
                        Metadata { file: Some(file.as_ref()), row_number: i64::try_from(number).ok(), ..Metadata::default() };
                    let outcome = match text {
                        Ok(text) if text.trim_ascii() == "null" => self.message(None, None, metadata),
                        Ok(text) => self.message(None, Some(text), metadata),
                        Err(_) => Err(Fault::new("the line is not UTF-8")),
                    };
                    match outcome {
                        Ok(()) => Ok(()),
                        Err(fault) => {
                            let payload = text.map_or_else(|raw| raw, str::as_bytes);
                            self.rows.refuse(start, Place::File(Arc::clone(file), number), Some(payload), fault)
                        }
                    }
                })?;
                Ok(used + bytes.len() - text.len())
            }
            Input::Message(message) => {
                self.rows.counters.inputs += 1;
                let start = self.rows.len();
                let key = message.key.map(std::str::from_utf8);
                let outcome = match (key.transpose(), message.value.map(std::str::from_utf8).transpose()) {
                    (Ok(key), Ok(value)) => self.message(key, value, message_metadata(&message)),
                    (Err(_), _) => Err(Fault::new("the message's key is not UTF-8")),
                    (_, Err(_)) => Err(Fault::new("the message is not UTF-8")),
                };
                match outcome {
                    Ok(()) => Ok(0),
                    Err(fault) => {
                        self.rows.refuse(start, Place::of_message(&message), message.value.or(message.key), fault).map(|()| 0)
                    }
                }
            }
            Input::Rows { .. } => Ok(0),
        }
    }

    fn take(&mut self) -> Decoded {
        self.rows.take()
    }

    fn pending_rows(&self) -> usize {
        self.rows.pending()
    }

    fn shift_lines(&mut self, lines: u64) {
        self.rows.shift_lines(lines);
    }
}

#[cfg(test)]
mod tests;
