//! Comma-separated values: records by csv-core's state machine, fields by the header's names, a bad record put aside alone.
//!
//! Decided here, as PostgreSQL's COPY does: an empty field is NULL, a quoted empty field (`""`) in a text column is the empty string.
//! LF, CRLF and a mixture of them end records; empty lines are nothing. A quote that is never closed costs the line that it begins on,
//! not the rest of the file.

use std::sync::Arc;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use livelake_dataflow::protocol::Op;

use super::cursor::Fault;
use super::errors::Place;
use super::lines::BYTE_ORDER_MARK;
use super::rows::{Metadata, Rows};
use super::shape::{Shape, Target, UNKNOWN};
use super::spec::{DecodeSpec, EnvelopeMode, SpecError};
use super::{DecodeError, Decoded, Decoder, Input};

/// A record may be this long, in bytes; what is longer is an unclosed quote.
const RECORD_MAX: usize = 32 << 20;

/// See the module.
pub(crate) struct CsvDecoder {
    rows: Rows,
    row: Shape,
    records: Records,
    /// The header that `fields` was made of.
    header: Option<Vec<u8>>,
    /// What each field of a record is.
    fields: Vec<Target>,
    /// How many of them are not declared.
    unknown: u64,
}

impl CsvDecoder {
    pub(crate) fn new(spec: &Arc<DecodeSpec>) -> Result<Self, SpecError> {
        let rows = Rows::new(spec)?;
        let row = rows.row_shape();
        let fields = spec.declared.fields().iter().map(|field| row.find(field.name()).target).collect();
        Ok(CsvDecoder { row, records: Records::new(spec.delimiter), header: None, fields, unknown: 0, rows })
    }

    /// Finds out what the fields are from a header line.
    fn take_header(&mut self, header: &[u8]) {
        if self.header.as_deref() == Some(header) {
            return;
        }
        self.header = Some(header.to_vec());
        let text = header.strip_prefix(BYTE_ORDER_MARK).unwrap_or(header);
        self.records.reset();
        self.records.read(text, true);
        let names: Vec<String> =
            (0..self.records.count()).map(|at| String::from_utf8_lossy(self.records.field(at)).into_owned()).collect();
        let found: Vec<_> = names
            .iter()
            .map(|name| match self.row.find(name) {
                found if found.target == UNKNOWN => self.row.find(name.trim()),
                found => found,
            })
            .collect();
        self.unknown = found.iter().filter(|found| found.target == UNKNOWN).count() as u64;
        // Of several fields for one column the exactly named one counts, then the first.
        self.fields = (0..found.len())
            .map(|at| {
                let better =
                    |other: usize| found[other].target == found[at].target && (found[at].loose, at) > (found[other].loose, other);
                if (0..found.len()).any(better) { super::shape::KNOWN } else { found[at].target }
            })
            .collect();
    }

    fn record(&mut self, raw: &[u8], metadata: &Metadata<'_>) -> Result<(), Fault> {
        let count = self.records.count();
        if count != self.fields.len() {
            let wanted = self.fields.len();
            let place = if self.header.is_some() { "the header has" } else { "the source declares" };
            return Err(Fault::new(format!("the record has {count} fields, {place} {wanted}")));
        }
        let text = std::str::from_utf8(self.records.bytes()).map_err(|_| Fault::new("the record is not UTF-8"))?;
        let mut quoted = None;
        self.rows.begin();
        for (at, target) in self.fields.iter().enumerate() {
            if *target >= super::shape::KNOWN {
                continue;
            }
            let (start, end) = self.records.range(at);
            let field = text.get(start..end).ok_or_else(|| Fault::new("the record is not UTF-8"))?;
            let empty_text = field.is_empty() && self.rows.is_text(*target) && {
                let quoted = quoted.get_or_insert_with(|| quoted_fields(raw, self.rows.spec.delimiter));
                quoted.get(at).copied().unwrap_or(false)
            };
            let null = field.is_empty() && !empty_text || self.rows.spec.null_markers.iter().any(|marker| marker == field);
            self.rows.text_field(*target, (!null).then_some(field))?;
        }
        self.rows.end()?;
        self.rows.counters.ignored_fields += self.unknown;
        let op = if self.rows.spec.envelope == EnvelopeMode::Upsert { Op::Upsert } else { Op::Insert };
        self.rows.commit(op, metadata);
        Ok(())
    }
}

impl Decoder for CsvDecoder {
    fn decode(&mut self, input: Input<'_>) -> Result<usize, DecodeError> {
        let (file, mut line, bytes, last) = match input {
            Input::Lines { file, first_line, bytes, header, last } => {
                if let Some(header) = header {
                    self.take_header(header);
                }
                (file, first_line, bytes, last)
            }
            Input::Message(message) => {
                self.rows.counters.inputs += 1;
                return self.message(&message).map(|()| 0);
            }
            Input::Rows { .. } => return Ok(0),
        };
        let mut start = 0;
        self.records.reset();
        loop {
            let rest = &bytes[start..];
            let end = self.records.read(rest, last);
            let (raw, whole) = match end {
                End::Nothing => return Ok(bytes.len()),
                End::Unfinished if rest.len() <= RECORD_MAX => return Ok(start),
                End::Unfinished => (rest, false),
                End::Record { length, closed } => (&rest[..length], closed),
            };
            // The line feed of the record before may still be ahead of this one.
            let lead = raw.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            line += count_lines(&raw[..lead]);
            self.rows.counters.inputs += 1;
            let first = self.rows.len();
            let (used, outcome) = if whole {
                let metadata =
                    Metadata { file: Some(file.as_ref()), row_number: i64::try_from(line).ok(), ..Metadata::default() };
                (raw.len(), self.record(&raw[lead..], &metadata))
            } else {
                let used = memchr::memchr(b'\n', &raw[lead..]).map_or(raw.len(), |length| lead + length + 1);
                self.records.reset();
                (used, Err(Fault::new("a quote is opened on this line and never closed")))
            };
            if let Err(fault) = outcome {
                let payload = raw[lead..used].trim_ascii_end();
                self.rows.refuse(first, Place::File(Arc::clone(file), line), Some(payload), fault)?;
            }
            line += count_lines(&raw[lead..used]);
            start += used;
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

impl CsvDecoder {
    /// One record in a message; its fields are the declared columns in their order.
    fn message(&mut self, message: &super::Message<'_>) -> Result<(), DecodeError> {
        let Some(value) = message.value else {
            self.rows.counters.ignored_messages += 1;
            return Ok(());
        };
        let first = self.rows.len();
        self.records.reset();
        let outcome = match self.records.read(value, true) {
            End::Record { length, closed: true } if value[length..].trim_ascii().is_empty() => {
                self.record(value, &super::json::message_metadata(message))
            }
            End::Record { closed: true, .. } => Err(Fault::new("the message has more than one record")),
            _ => Err(Fault::new("the message is not a record: it is empty, or a quote is never closed")),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(fault) => self.rows.refuse(first, Place::of_message(message), Some(value), fault),
        }
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// How reading a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// After this many bytes. `closed`: no quote was left open.
    Record { length: usize, closed: bool },
    /// The bytes ran out.
    Unfinished,
    /// There is nothing but line ends.
    Nothing,
}

/// Reads one record after another.
pub(crate) struct Records {
    reader: Reader,
    delimiter: u8,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    bytes_used: usize,
    ends_used: usize,
}

impl Records {
    pub(crate) fn new(delimiter: u8) -> Self {
        let reader = ReaderBuilder::new().delimiter(delimiter).build();
        Records { reader, delimiter, bytes: vec![0; 1024], ends: vec![0; 64], bytes_used: 0, ends_used: 0 }
    }

    pub(crate) fn reset(&mut self) {
        self.reader.reset();
    }

    /// Reads the record at the beginning of `input`; `last`: nothing follows it.
    pub(crate) fn read(&mut self, input: &[u8], last: bool) -> End {
        (self.bytes_used, self.ends_used) = (0, 0);
        let mut used = 0;
        loop {
            let rest = &input[used..];
            if rest.is_empty() && !last {
                return End::Unfinished;
            }
            let (result, read, written, ends) =
                self.reader.read_record(rest, &mut self.bytes[self.bytes_used..], &mut self.ends[self.ends_used..]);
            used += read;
            self.bytes_used += written;
            self.ends_used += ends;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.bytes.resize(self.bytes.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    // Only a record that the end of the input ended may have an open quote.
                    let closed = used < input.len() || !open_quote(input, self.delimiter);
                    return End::Record { length: used, closed };
                }
                ReadRecordResult::End => return End::Nothing,
            }
        }
    }

    fn count(&self) -> usize {
        self.ends_used
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.bytes_used]
    }

    fn range(&self, at: usize) -> (usize, usize) {
        (if at == 0 { 0 } else { self.ends[at - 1] }, self.ends[at])
    }

    fn field(&self, at: usize) -> &[u8] {
        let (start, end) = self.range(at);
        &self.bytes[start..end]
    }
}

/// Whether each field of a record begins with a quote.
fn quoted_fields(raw: &[u8], delimiter: u8) -> Vec<bool> {
    let mut fields = Vec::new();
    scan(raw, delimiter, |quoted| fields.push(quoted));
    fields
}

/// Whether a record ends inside quotes.
fn open_quote(raw: &[u8], delimiter: u8) -> bool {
    scan(raw, delimiter, |_| {})
}

/// Walks over a record as csv-core reads it: a quote counts at the beginning of a field, and a doubled one is a character.
fn scan(raw: &[u8], delimiter: u8, mut on_field: impl FnMut(bool)) -> bool {
    let (mut at_start, mut inside) = (true, false);
    let mut bytes = raw.iter().peekable();
    while let Some(byte) = bytes.next() {
        if inside {
            if *byte == b'"' {
                if bytes.peek() == Some(&&b'"') {
                    bytes.next();
                } else {
                    inside = false;
                }
            }
        } else if at_start {
            inside = *byte == b'"';
            on_field(inside);
            at_start = *byte == delimiter;
        } else {
            at_start = *byte == delimiter || matches!(byte, b'\n' | b'\r');
        }
    }
    if at_start {
        on_field(false);
    }
    inside
}
