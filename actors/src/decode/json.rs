//! Plain JSON: one object a line or a message, its fields being the columns.

use std::sync::Arc;

use livelake_dataflow::protocol::Op;

use super::cursor::{Cursor, Fault};
use super::errors::Place;
use super::lines::{BYTE_ORDER_MARK, each_line};
use super::rows::{Metadata, Rows};
use super::shape::Shape;
use super::spec::{DecodeSpec, EnvelopeMode, SpecError};
use super::{DecodeError, Decoded, Decoder, Input, Message};

/// See the module.
pub(crate) struct JsonDecoder {
    rows: Rows,
    row: Shape,
    key: Shape,
}

impl JsonDecoder {
    pub(crate) fn new(spec: &Arc<DecodeSpec>) -> Result<Self, SpecError> {
        let rows = Rows::new(spec)?;
        Ok(JsonDecoder { row: rows.row_shape(), key: rows.key_shape(), rows })
    }

    fn row(&mut self, text: &str, metadata: &Metadata<'_>) -> Result<(), Fault> {
        let (rows, shape) = (&mut self.rows, &mut self.row);
        let mut cursor = Cursor::new(text);
        rows.begin();
        shape.walk(&mut cursor, |cursor, found| rows.field(cursor, found))?;
        cursor.end()?;
        rows.end()?;
        let op = if rows.spec.envelope == EnvelopeMode::Upsert { Op::Upsert } else { Op::Insert };
        rows.commit(op, metadata);
        Ok(())
    }

    /// A message without a value: the key's row is gone.
    fn tombstone(&mut self, message: &Message<'_>, metadata: &Metadata<'_>) -> Result<(), Fault> {
        let key = match message.key {
            Some(key) if self.rows.spec.envelope == EnvelopeMode::Upsert => key,
            _ => {
                self.rows.counters.ignored_messages += 1;
                return Ok(());
            }
        };
        let text = std::str::from_utf8(key).map_err(|_| Fault::new("the message's key is not UTF-8"))?;
        let (rows, shape) = (&mut self.rows, &mut self.key);
        let mut cursor = Cursor::new(text);
        rows.begin();
        shape.walk(&mut cursor, |cursor, found| rows.field(cursor, found))?;
        rows.end_of_key()?;
        rows.commit(Op::Delete, metadata);
        Ok(())
    }
}

impl Decoder for JsonDecoder {
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
                        Ok(text) => self.row(text, &metadata),
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
                let metadata = message_metadata(&message);
                let outcome = match message.value.map(std::str::from_utf8) {
                    None => self.tombstone(&message, &metadata),
                    Some(Ok(text)) => self.row(text, &metadata),
                    Some(Err(_)) => Err(Fault::new("the message is not UTF-8")),
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

/// What a message's place in its topic says.
pub(crate) fn message_metadata<'a>(message: &Message<'a>) -> Metadata<'a> {
    Metadata {
        topic: Some(message.topic.as_ref()),
        partition: Some(i64::from(message.partition)),
        offset: Some(message.offset),
        ..Metadata::default()
    }
}
