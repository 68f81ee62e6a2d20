//! Files that match a glob, read in the order of their names.
//!
//! ```text
//!  glob ─▶ listing (new, grown, replaced?) ─▶ one file at a time ─┬─ JSON lines: ranges of it, decoded by several threads
//!                                                                 ├─ CSV, compressed text: a stream, decoded here
//!                                                                 └─ Parquet: row groups, decoded here
//! ```
//!
//! Batches come out in the order of names and lines whatever the number of threads, because a later file wins over an earlier one
//! where they have keys in common. A file that has grown is read on where reading stopped; one that was replaced or cut is reported,
//! and read again from its beginning only under upsert, where that cannot double anything.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::schedule::Schedule;
use super::{Budget, Position, Positions, SourceError, SourceEvent, SourceReader};
use crate::decode::{DecodeSpec, EnvelopeMode, Format, decoder};

mod listing;
mod ranges;
mod rowgroups;
mod stream;

use listing::{FileToRead, Listing, Look};

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, any number of members.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// What a file name's suffix says.
    pub fn by_suffix(path: &str) -> Self {
        match path.rsplit('.').next().map(str::to_ascii_lowercase).as_deref() {
            Some("gz" | "gzip") => Compression::Gzip,
            Some("zst" | "zstd") => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// What to read and how.
#[derive(Clone, Debug)]
pub struct FilesOptions {
    /// The lake's folder, which `path` is relative to.
    pub folder: PathBuf,
    /// A glob.
    pub path: String,
    /// Whether files that appear or grow later are read too; otherwise reading is [`Done`](SourceEvent::Done) at the end.
    pub watch: bool,
    /// How often to look for new files.
    pub poll: Duration,
    /// When to look for new files, instead of every so often. The first look is at the start, for what came meanwhile.
    pub schedule: Option<Schedule>,
    /// How the files are packed; absent: each as its suffix says. Parquet packs itself.
    pub compression: Option<Compression>,
    /// Threads that decode JSON lines; at least one is used.
    pub threads: usize,
}

impl FilesOptions {
    /// Options with their defaults: watching every second, compression by suffix, one thread.
    pub fn new(folder: impl Into<PathBuf>, path: impl Into<String>) -> Self {
        FilesOptions {
            folder: folder.into(),
            path: path.into(),
            watch: true,
            poll: Duration::from_secs(1),
            schedule: None,
            compression: None,
            threads: 1,
        }
    }
}

/// Opens the reader of a file source. Nothing is read yet.
///
/// # Errors
/// An impossible glob, a contradictory specification.
pub fn open(options: FilesOptions, spec: Arc<DecodeSpec>, from: &Positions) -> Result<Box<dyn SourceReader>, SourceError> {
    decoder(&spec)?; // so that a contradiction is known now and not when the first file comes
    let listing = Listing::new(&options, &spec, from.clone())?;
    Ok(Box::new(FilesReader {
        options,
        spec,
        listing,
        queue: VecDeque::new(),
        ranges: None,
        current: None,
        next_look: Instant::now(),
    }))
}

/// The format that a file name's suffix says, passing over `.gz` and `.zst`: csv, tsv (CSV with tabs), parquet, ndjson, jsonl, json.
pub fn format_by_suffix(path: &str) -> Option<Format> {
    let lower = path.to_ascii_lowercase();
    let plain = lower.strip_suffix(".gz").or_else(|| lower.strip_suffix(".zst")).unwrap_or(&lower);
    match plain.rsplit('.').next()? {
        "csv" | "tsv" => Some(Format::Csv),
        "parquet" => Some(Format::Parquet),
        "ndjson" | "jsonl" | "json" => Some(Format::Json),
        _ => None,
    }
}

/// Reads one file to its present end.
trait FileReading: Send {
    /// The next batch with its position; `None` at the end.
    fn next(&mut self, budget: Budget) -> Result<Option<FileBatch>, SourceError>;
}

/// What one step through a file brought.
struct FileBatch {
    decoded: crate::decode::Decoded,
    /// Bytes and rows used up since the file's beginning, and whether that is all.
    bytes_done: u64,
    rows_done: u64,
    done: bool,
    /// Bytes read for this batch.
    bytes: u64,
}

struct FilesReader {
    options: FilesOptions,
    spec: Arc<DecodeSpec>,
    listing: Listing,
    queue: VecDeque<FileToRead>,
    current: Option<(FileToRead, Box<dyn FileReading>)>,
    /// The threads for JSON lines, once there is a file for them. Dropped after `current`, which can still give them work.
    ranges: Option<ranges::Workers>,
    next_look: Instant,
}

impl FilesReader {
    fn open_file(&mut self, file: &FileToRead) -> Result<Box<dyn FileReading>, SourceError> {
        let compression = self.options.compression.unwrap_or_else(|| Compression::by_suffix(&file.name));
        Ok(match (self.spec.format, compression) {
            (Format::Parquet, _) => Box::new(rowgroups::RowGroups::open(file, &self.spec)?),
            (Format::Json | Format::DebeziumJson, Compression::None) => {
                let workers = match self.ranges.take() {
                    Some(workers) => workers,
                    None => ranges::Workers::start(self.options.threads.max(1), &self.spec)?,
                };
                let reading = ranges::Ranges::open(file, &workers, self.spec.format == Format::DebeziumJson)?;
                self.ranges = Some(workers);
                Box::new(reading)
            }
            (_, compression) => Box::new(stream::Stream::open(file, compression, &self.spec)?),
        })
    }

    /// Looks what there is to read. `None`: files were put into the queue.
    fn look(&mut self) -> Result<Option<SourceEvent>, SourceError> {
        let upsert = self.spec.envelope == EnvelopeMode::Upsert;
        self.next_look = match &self.options.schedule {
            Some(schedule) => schedule.next(),
            None => Instant::now() + self.options.poll,
        };
        Ok(match self.listing.look(upsert)? {
            Look::Files(files) => {
                self.queue.extend(files);
                None
            }
            Look::Notice(notice) => {
                self.next_look = Instant::now();
                Some(SourceEvent::Notice(notice))
            }
            Look::NothingEver if self.options.watch => Some(SourceEvent::Waiting {
                message: format!("no file matches {} yet", self.options.path),
                until: self.next_look,
            }),
            Look::NothingEver => return Err(SourceError::NoFiles(self.options.path.clone())),
            Look::NothingNew if self.options.watch => Some(SourceEvent::Idle { until: self.next_look }),
            Look::NothingNew => Some(SourceEvent::Done),
        })
    }
}

impl SourceReader for FilesReader {
    fn next(&mut self, budget: Budget) -> Result<SourceEvent, SourceError> {
        loop {
            if let Some((file, reading)) = &mut self.current {
                match reading.next(budget)? {
                    Some(batch) => {
                        let position = Position::File {
                            size: file.size,
                            modified: file.modified,
                            fingerprint: file.fingerprint,
                            bytes: batch.bytes_done,
                            rows: batch.rows_done,
                            done: batch.done,
                        };
                        self.listing.record(&file.name, position.clone());
                        let partition = file.name.to_string();
                        return Ok(SourceEvent::Batch { partition, decoded: batch.decoded, position, bytes: batch.bytes });
                    }
                    None => self.current = None,
                }
            }
            if let Some(file) = self.queue.pop_front() {
                let reading = self.open_file(&file)?;
                self.current = Some((file, reading));
                continue;
            }
            if self.options.watch && Instant::now() < self.next_look {
                return Ok(SourceEvent::Idle { until: self.next_look });
            }
            if let Some(event) = self.look()? {
                return Ok(event);
            }
        }
    }
}

#[cfg(test)]
mod tests;
