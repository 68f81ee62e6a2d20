//! Text that can only be read from its beginning on: CSV (a line end may stand in a quoted field), and everything compressed.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::listing::FileToRead;
use super::{Compression, FileBatch, FileReading};
use crate::decode::csv::{End, Records};
use crate::decode::{DecodeSpec, Decoder, Format, Input, decoder};
use crate::sources::transaction::{TRANSACTION_MAX, whole_transactions};
use crate::sources::{Budget, SourceError};

/// A record may be this long, in bytes.
const RECORD_MAX: usize = 256 << 20;

/// One file.
pub(super) struct Stream {
    file: FileToRead,
    input: Box<dyn Read + Send>,
    compressed: bool,
    decoder: Box<dyn Decoder>,
    /// Its lines are change messages, and what is handed out must not end within a transaction.
    transactions: bool,
    header: Option<Vec<u8>>,
    /// What was read and is not decoded yet.
    buffer: Vec<u8>,
    /// Bytes of the (unpacked) text used up, and lines.
    bytes_done: u64,
    lines_done: u64,
    /// Lines to pass over without decoding them, in a compressed file that was read in part before.
    lines_to_skip: u64,
    at_end: bool,
    finished: bool,
}

impl Stream {
    pub(super) fn open(file: &FileToRead, compression: Compression, spec: &Arc<DecodeSpec>) -> Result<Self, SourceError> {
        let handle = File::open(&file.path).map_err(|error| file.error(error))?;
        // No more than the size that is recorded, so that a line that is being written meanwhile is left for the next time.
        let handle = handle.take(file.size);
        let input: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(handle),
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(1 << 20, handle))),
            Compression::Zstd => Box::new(zstd::Decoder::new(handle).map_err(|error| file.error(error))?),
        };
        let mut stream = Stream {
            file: file.clone(),
            input,
            compressed: compression != Compression::None,
            decoder: decoder(spec)?,
            transactions: spec.format == Format::DebeziumJson,
            header: None,
            buffer: Vec::new(),
            bytes_done: 0,
            lines_done: 0,
            lines_to_skip: 0,
            at_end: false,
            finished: false,
        };
        if spec.format == Format::Csv && spec.header {
            stream.read_header(spec.delimiter)?;
        }
        if file.bytes_done > stream.bytes_done && compression == Compression::None {
            let mut handle = File::open(&file.path).map_err(|error| file.error(error))?;
            handle.seek(SeekFrom::Start(file.bytes_done)).map_err(|error| file.error(error))?;
            stream.input = Box::new(handle.take(file.size.saturating_sub(file.bytes_done)));
            stream.buffer.clear();
            stream.at_end = false;
            (stream.bytes_done, stream.lines_done) = (file.bytes_done, file.rows_done);
        } else if stream.compressed {
            stream.lines_to_skip = file.rows_done.saturating_sub(stream.lines_done);
        }
        Ok(stream)
    }

    /// Reads more into the buffer, about this many bytes.
    fn fill(&mut self, bytes: usize) -> Result<(), SourceError> {
        let before = self.buffer.len();
        let read = self.input.by_ref().take(bytes as u64).read_to_end(&mut self.buffer);
        match read {
            Ok(read) => self.at_end = read < bytes,
            Err(error) if self.compressed && error.kind() != std::io::ErrorKind::Interrupted => {
                self.buffer.truncate(before);
                return Err(self.file.malformed("a compressed file", error));
            }
            Err(error) => return Err(self.file.error(error)),
        }
        Ok(())
    }

    fn read_header(&mut self, delimiter: u8) -> Result<(), SourceError> {
        let mut records = Records::new(delimiter);
        loop {
            self.fill(64 << 10)?;
            records.reset();
            let length = match records.read(&self.buffer, self.at_end) {
                End::Record { length, .. } => length,
                End::Unfinished if self.buffer.len() < RECORD_MAX => continue,
                End::Unfinished => return Err(self.file.malformed("CSV", "its header has no end")),
                End::Nothing => return Ok(()),
            };
            let header: Vec<u8> = self.buffer.drain(..length).collect();
            self.bytes_done = length as u64;
            self.lines_done = memchr::memchr_iter(b'\n', &header).count() as u64;
            self.header = Some(header);
            return Ok(());
        }
    }

    /// Takes whole lines off the buffer that a run before this one has decoded.
    fn skip_lines(&mut self) {
        let mut end = 0;
        for at in memchr::memchr_iter(b'\n', &self.buffer) {
            if self.lines_to_skip == 0 {
                break;
            }
            self.lines_to_skip -= 1;
            self.lines_done += 1;
            end = at + 1;
        }
        self.bytes_done += end as u64;
        self.buffer.drain(..end);
    }
}

impl FileReading for Stream {
    fn next(&mut self, budget: Budget) -> Result<Option<FileBatch>, SourceError> {
        if self.finished {
            return Ok(None);
        }
        let mut wanted = budget.bytes.clamp(64 << 10, 64 << 20);
        loop {
            if !self.at_end {
                self.fill(wanted)?;
            }
            self.skip_lines();
            if self.lines_to_skip > 0 && !self.at_end {
                continue;
            }
            let mut whole = self.buffer.len();
            if self.transactions && !self.at_end {
                whole = whole_transactions(&self.buffer);
                if whole == 0 && (self.buffer.len() as u64) < TRANSACTION_MAX {
                    wanted = self.buffer.len().max(64 << 10); // a long transaction: read as much again
                    continue;
                }
                if whole == 0 {
                    whole = self.buffer.len();
                }
            }
            let last = self.at_end && (self.file.ended || self.compressed);
            let input = Input::Lines {
                file: &self.file.name,
                first_line: self.lines_done + 1,
                bytes: &self.buffer[..whole],
                header: self.header.as_deref(),
                last,
            };
            let used = self.decoder.decode(input)?;
            if used == 0 && !self.at_end {
                if self.buffer.len() > RECORD_MAX {
                    return Err(self
                        .file
                        .malformed("text", format!("the line at byte {} is longer than 256 MB", self.bytes_done)));
                }
                wanted = self.buffer.len(); // a long record: read as much again
                continue;
            }
            let taken = &self.buffer[..used];
            let unended = u64::from(last && taken.last().is_some_and(|byte| *byte != b'\n'));
            self.lines_done += memchr::memchr_iter(b'\n', taken).count() as u64 + unended;
            self.bytes_done += used as u64;
            self.buffer.drain(..used);
            self.finished = self.at_end;
            let done = self.at_end && self.buffer.is_empty();
            let bytes_done = match (self.compressed, done) {
                (true, true) => self.file.size,
                (true, false) => 0,
                (false, _) => self.bytes_done,
            };
            let decoded = self.decoder.take();
            return Ok(Some(FileBatch { decoded, bytes_done, rows_done: self.lines_done, done, bytes: used as u64 }));
        }
    }
}
