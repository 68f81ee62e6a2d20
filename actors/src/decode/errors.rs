//! Rows of `name$errors`: what could not be taken, where it stood and why.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, StringArray, TimestampMicrosecondArray};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::{Message, errors_schema};

/// Raw input is kept up to this length, in bytes.
const PAYLOAD_MAX: usize = 64 << 10;

/// Where a piece of input stood.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A line of a text file or a row of a Parquet file, from 1.
    File(Arc<str>, u64),
    /// A message.
    Message(Arc<str>, i32, i64),
}

impl Place {
    pub(crate) fn of_message(message: &Message<'_>) -> Self {
        Place::Message(Arc::clone(message.topic), message.partition, message.offset)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(file, line) => write!(f, "{file}:{line}"),
            Place::Message(topic, partition, offset) => write!(f, "{topic}/{partition}/{offset}"),
        }
    }
}

struct ErrorRow {
    place: Place,
    payload: Option<String>,
    reason: String,
    at: i64,
}

/// Gathers error rows.
#[derive(Default)]
pub(crate) struct ErrorRows(Vec<ErrorRow>);

impl ErrorRows {
    pub(crate) fn push(&mut self, place: Place, payload: Option<&[u8]>, reason: String) {
        let payload = payload.map(|payload| {
            let mut text = String::from_utf8_lossy(&payload[..payload.len().min(PAYLOAD_MAX)]).into_owned();
            if payload.len() > PAYLOAD_MAX {
                text.push_str(&format!("… (cut off: {} bytes in all)", payload.len()));
            }
            text
        });
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX);
        self.0.push(ErrorRow { place, payload, reason, at });
    }

    /// Adds to the line numbers of all rows gathered.
    pub(crate) fn shift_lines(&mut self, lines: u64) {
        for row in &mut self.0 {
            if let Place::File(_, line) = &mut row.place {
                *line += lines;
            }
        }
    }

    /// Hands out the rows as a batch of the errors schema.
    pub(crate) fn finish(&mut self, source: &str) -> Result<Option<RecordBatch>, ArrowError> {
        let rows = std::mem::take(&mut self.0);
        if rows.is_empty() {
            return Ok(None);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|_| source))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.place.to_string()))),
            Arc::new(rows.iter().map(|row| row.payload.as_deref()).collect::<StringArray>()),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.reason.as_str()))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.at)).with_timezone("UTC")),
        ];
        RecordBatch::try_new(errors_schema(), columns).map(Some)
    }
}
