//! JSON lines of an uncompressed file, decoded by several threads: the file is cut into ranges at line ends (and, for change
//! messages, between two transactions), each thread reads and
//! decodes one range after the other, and the results are handed out in the order of the ranges.
//!
//! How many lines came before a range is known only once the ranges before it are decoded. So each range is decoded with its own
//! numbers, and the sum is passed from one to the next.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::listing::FileToRead;
use super::{FileBatch, FileReading};
use crate::decode::{DecodeError, DecodeSpec, Decoded, Decoder, Input, decoder};
use crate::sources::transaction::{TRANSACTION_MAX, transaction_of};
use crate::sources::{Budget, SourceError};

/// A line may be this long, in bytes.
const LINE_MAX: u64 = 256 << 20;
/// Bytes looked at at once for a line's end.
const PROBE: usize = 16 << 10;

type Outcome = Result<RangeDone, SourceError>;

/// A range to read and decode.
struct Job {
    file: Arc<FileToRead>,
    handle: Arc<File>,
    start: u64,
    end: u64,
    last: bool,
    /// Lines before this range.
    lines_before: Receiver<u64>,
    /// Lines before the next one.
    lines_after: Sender<u64>,
    outcome: Sender<Outcome>,
}

struct RangeDone {
    decoded: Decoded,
    used: u64,
    lines_done: u64,
}

/// Threads that decode, each with a decoder of its own. They end when this is dropped.
pub(super) struct Workers {
    jobs: Sender<Job>,
    count: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(super) fn start(count: usize, spec: &Arc<DecodeSpec>) -> Result<Self, SourceError> {
        let (jobs, inbox) = bounded::<Job>(2 * count);
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let (inbox, mut decoder) = (inbox.clone(), decoder(spec)?);
            let name = format!("decode-{number}");
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                let mut buffer = Vec::new();
                for job in inbox {
                    let outcome = run(&job, decoder.as_mut(), &mut buffer);
                    // The reader may be gone; then nobody asks any more.
                    let _ = job.outcome.send(outcome);
                }
            });
            threads.push(thread.map_err(|error| SourceError::Io { path: "a new thread".into(), error })?);
        }
        Ok(Workers { jobs, count, threads })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let (nowhere, _) = bounded(0);
        self.jobs = nowhere;
        for thread in self.threads.drain(..) {
            // A panic of a worker has been seen already by whoever waited for its outcome.
            let _ = thread.join();
        }
    }
}

fn run(job: &Job, decoder: &mut dyn Decoder, buffer: &mut Vec<u8>) -> Outcome {
    let length = usize::try_from(job.end - job.start).unwrap_or(usize::MAX);
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    let bytes = &mut buffer[..length];
    job.handle.read_exact_at(bytes, job.start).map_err(|error| job.file.error(error))?;
    let input = Input::Lines { file: &job.file.name, first_line: 1, bytes, header: None, last: job.last };
    let outcome = decoder.decode(input);
    // Where the channel is closed the reader is gone, and the number does not matter.
    let lines_before = job.lines_before.recv().unwrap_or(0);
    let used = match outcome {
        Ok(used) => used,
        Err(error) => return Err(with_line(error, lines_before).into()),
    };
    let lines = count_lines(&bytes[..used]);
    let lines_done = lines_before + lines;
    let _ = job.lines_after.send(lines_done);
    decoder.shift_lines(lines_before);
    Ok(RangeDone { decoded: decoder.take(), used: used as u64, lines_done })
}

/// Lines in whole lines; an unended last one counts.
fn count_lines(bytes: &[u8]) -> u64 {
    let ends = memchr::memchr_iter(b'\n', bytes).count() as u64;
    ends + u64::from(bytes.last().is_some_and(|byte| *byte != b'\n'))
}

/// An error's position with the lines before its range.
fn with_line(mut error: DecodeError, lines_before: u64) -> DecodeError {
    if let Some((file, line)) = error.position.rsplit_once(':')
        && let Ok(line) = line.parse::<u64>()
    {
        error.position = format!("{file}:{}", line + lines_before);
    }
    error
}

/// One file.
pub(super) struct Ranges {
    file: Arc<FileToRead>,
    handle: Arc<File>,
    jobs: Sender<Job>,
    ahead: usize,
    transactions: bool,
    /// Where the next range begins.
    start: u64,
    /// Ranges given to the threads: beginning, end, what comes of them.
    waiting: VecDeque<(u64, u64, Receiver<Outcome>)>,
    lines: Receiver<u64>,
    finished: bool,
}

impl Ranges {
    /// Opens a file. `transactions`: its lines are change messages, and a range must not end within a transaction.
    pub(super) fn open(file: &FileToRead, workers: &Workers, transactions: bool) -> Result<Self, SourceError> {
        let handle = File::open(&file.path).map_err(|error| file.error(error))?;
        let (first, lines) = bounded(1);
        // There is room for one, so this cannot fail.
        let _ = first.send(file.rows_done);
        Ok(Ranges {
            start: file.bytes_done,
            file: Arc::new(file.clone()),
            handle: Arc::new(handle),
            jobs: workers.jobs.clone(),
            ahead: workers.count + 1,
            transactions,
            waiting: VecDeque::new(),
            lines,
            finished: false,
        })
    }

    /// Where a range that should end about here ends: after a whole line, and after a whole transaction if there are any.
    fn range_end(&self, about: u64) -> Result<u64, SourceError> {
        let mut end = self.line_end(about.saturating_sub(1).max(self.start))?;
        if !self.transactions {
            return Ok(end);
        }
        let mut before: Option<Vec<u8>> = None;
        let latest = end.saturating_add(TRANSACTION_MAX);
        while end < self.file.size && end < latest {
            let next = self.line_end(end)?;
            let mut line = vec![0; usize::try_from(next - end).unwrap_or(0)];
            self.handle.read_exact_at(&mut line, end).map_err(|error| self.file.error(error))?;
            let Some(transaction) = transaction_of(&line) else { return Ok(end) };
            if before.as_deref().is_some_and(|before| before != transaction) {
                return Ok(end);
            }
            before = Some(transaction.to_vec());
            end = next;
        }
        Ok(end)
    }

    /// Where the line ends that the byte `from` is on, or the end of the file.
    fn line_end(&self, from: u64) -> Result<u64, SourceError> {
        let mut at = from;
        let mut probe = vec![0; PROBE];
        while at < self.file.size {
            let length = usize::try_from(self.file.size - at).unwrap_or(PROBE).min(PROBE);
            let bytes = &mut probe[..length];
            self.handle.read_exact_at(bytes, at).map_err(|error| self.file.error(error))?;
            if let Some(end) = memchr::memchr(b'\n', bytes) {
                return Ok(at + end as u64 + 1);
            }
            at += length as u64;
            if at - self.start > LINE_MAX {
                return Err(self.file.malformed("JSON lines", format!("the line at byte {} is longer than 256 MB", self.start)));
            }
        }
        Ok(self.file.size)
    }

    fn submit(&mut self, bytes: usize) -> Result<(), SourceError> {
        while self.start < self.file.size && self.waiting.len() < self.ahead {
            let end = match self.start + bytes as u64 {
                end if end >= self.file.size => self.file.size,
                end => self.range_end(end)?,
            };
            let (outcome, result) = bounded(1);
            let (lines_after, next_lines) = bounded(1);
            let job = Job {
                file: Arc::clone(&self.file),
                handle: Arc::clone(&self.handle),
                start: self.start,
                end,
                last: end == self.file.size && self.file.ended,
                lines_before: std::mem::replace(&mut self.lines, next_lines),
                lines_after,
                outcome,
            };
            if self.jobs.send(job).is_err() {
                return Err(self.file.malformed("JSON lines", "the threads that decode have stopped"));
            }
            self.waiting.push_back((self.start, end, result));
            self.start = end;
        }
        Ok(())
    }
}

impl FileReading for Ranges {
    fn next(&mut self, budget: Budget) -> Result<Option<FileBatch>, SourceError> {
        if self.finished {
            return Ok(None);
        }
        self.submit(budget.bytes.clamp(64 << 10, 64 << 20))?;
        let Some((start, end, result)) = self.waiting.pop_front() else {
            // An empty file, which is read as soon as it is seen.
            self.finished = true;
            let (bytes_done, rows_done) = (self.start, self.file.rows_done);
            return Ok(Some(FileBatch { decoded: Decoded::default(), bytes_done, rows_done, done: true, bytes: 0 }));
        };
        let done = result.recv().map_err(|_| self.file.malformed("JSON lines", "decoding it panicked"))??;
        let bytes_done = start + done.used;
        let at_end = end == self.file.size;
        self.finished = at_end;
        Ok(Some(FileBatch {
            decoded: done.decoded,
            bytes_done,
            rows_done: done.lines_done,
            done: at_end && bytes_done == self.file.size,
            bytes: done.used,
        }))
    }
}
