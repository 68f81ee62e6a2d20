//! The frame of a Debezium message: which fields there are, and what they say apart from the row.

use crate::decode::cursor::{Cursor, Fault, Token};
use crate::decode::rows::Metadata;
use crate::decode::shape::{Shape, Target};

pub(super) const BEFORE: Target = 0;
pub(super) const AFTER: Target = 1;
pub(super) const SOURCE: Target = 2;
const OP: Target = 3;
const PAYLOAD: Target = 4;
const SCHEMA: Target = 5;
const KEY: Target = 6;
const VALUE: Target = 7;
const TOPIC: Target = 8;
const PARTITION: Target = 9;
const OFFSET: Target = 10;
const MARK: Target = 11;
/// A field of the frame that says nothing that is needed here.
pub(super) const OTHER: Target = 12;

const FIELDS: [(&str, Target); 19] = [
    ("before", BEFORE),
    ("after", AFTER),
    ("source", SOURCE),
    ("op", OP),
    ("payload", PAYLOAD),
    ("schema", SCHEMA),
    ("key", KEY),
    ("value", VALUE),
    ("topic", TOPIC),
    ("partition", PARTITION),
    ("offset", OFFSET),
    // A heartbeat has nothing but ts_ms, a transaction mark has a status.
    ("ts_ms", MARK),
    ("status", MARK),
    ("ts_us", OTHER),
    ("ts_ns", OTHER),
    ("transaction", OTHER),
    ("message", OTHER),
    ("headers", OTHER),
    ("timestamp", OTHER),
];

const TS_MS: Target = 0;
const TS_US: Target = 1;
const LSN: Target = 2;
const TX_ID: Target = 3;

/// What is known of a message once it has been walked over.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    pub(super) op: Option<u8>,
    /// `before`, if it is an object.
    pub(super) before: Option<&'a str>,
    /// Whether `after` is an object; it has been decoded then.
    pub(super) has_row: bool,
    /// Whether there was a `before` or an `after` at all.
    pub(super) is_change: bool,
    /// Whether it may be a heartbeat or a transaction's mark.
    pub(super) is_mark: bool,
    pub(super) source: Option<&'a str>,
    /// The Kafka message's key.
    pub(super) key: Option<&'a str>,
    pub(super) schema: Option<&'a str>,
    pub(super) payload: Option<&'a str>,
    /// Parts of a dumped topic's record.
    pub(super) record: Option<&'a str>,
    pub(super) recorded_key: Option<&'a str>,
    pub(super) topic: Option<&'a str>,
    pub(super) partition: Option<i64>,
    pub(super) offset: Option<i64>,
}

impl<'a> Envelope<'a> {
    /// Takes in a field of the frame that is not the row.
    pub(super) fn frame(&mut self, field: Target, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        match field {
            OP => {
                let raw = cursor.raw()?;
                self.op = match raw.as_bytes() {
                    [b'"', op, b'"'] => Some(*op),
                    b"null" => None,
                    _ => return Err(Fault::new(format!("`op` is {raw}, which is none of r, c, u, d, t, m"))),
                };
            }
            PAYLOAD => self.payload = Some(cursor.raw()?),
            SCHEMA => self.schema = Some(cursor.raw()?).filter(|raw| raw.starts_with('{')),
            KEY => self.recorded_key = Some(cursor.raw()?),
            VALUE => self.record = Some(cursor.raw()?),
            // Topic names have no characters that JSON escapes.
            TOPIC => self.topic = cursor.raw()?.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')),
            PARTITION => self.partition = cursor.raw()?.parse().ok(),
            OFFSET => self.offset = cursor.raw()?.parse().ok(),
            MARK => {
                self.is_mark = true;
                cursor.skip()?;
            }
            _ => cursor.skip()?,
        }
        Ok(())
    }
}

/// Where the fields are in the parts of a message that are not rows.
#[derive(Debug)]
pub(super) struct Shapes {
    pub(super) message: Shape,
    source: Shape,
}

impl Shapes {
    pub(super) fn new() -> Self {
        Shapes {
            message: Shape::new(FIELDS, false),
            source: Shape::new([("ts_ms", TS_MS), ("ts_us", TS_US), ("lsn", LSN), ("txId", TX_ID)], false),
        }
    }

    /// Reads what the origin says of a change: its time, place in the log and transaction. All may be null (incremental snapshots).
    pub(super) fn source_metadata(&mut self, source: &str, metadata: &mut Metadata<'_>) -> Result<(), Fault> {
        let mut scratch = Vec::new();
        let mut milliseconds = None;
        self.source.walk(&mut Cursor::new(source), |cursor, found| {
            if found.target > TX_ID {
                return cursor.skip();
            }
            let number = match cursor.token(&mut scratch)? {
                Token::Number(text) => crate::decode::number::integer(text).ok(),
                _ => None,
            };
            match found.target {
                TS_MS => milliseconds = number,
                TS_US => metadata.source_ts = number,
                LSN => metadata.lsn = number,
                _ => metadata.tx_id = number,
            }
            Ok(())
        })?;
        if metadata.source_ts.is_none() {
            metadata.source_ts = milliseconds.and_then(|ms| ms.checked_mul(1000));
        }
        Ok(())
    }
}

/// The part of a message's key that holds the values.
pub(super) fn payload_of_key(key: &str) -> Result<&str, Fault> {
    if !key.starts_with("{\"schema\"") {
        return Ok(key);
    }
    let mut payload = None;
    Shape::new([("payload", PAYLOAD)], false).walk(&mut Cursor::new(key), |cursor, found| {
        if found.target == PAYLOAD {
            payload = Some(cursor.raw()?);
            return Ok(());
        }
        cursor.skip()
    })?;
    payload.ok_or_else(|| Fault::new("the message's key has a schema but no payload"))
}
