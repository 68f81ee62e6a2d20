//! A made-up New York: writes the bytes that the real sources would send, so that a lake can be tried with no other software.
//!
//! ```text
//!   options + origin ─▶ timeline ──▶ trips         Debezium JSON: inserts, 5 % updates, 2 % deletes, late and broken ones
//!                       (when)       references    Debezium JSON: payment types, vendors: a snapshot, rare updates
//!                                    observations  JSON rows: hourly weather, corrected after an hour
//!   zones, weather ────────────────▶ (what)
//! ```
//!
//! It only makes bytes: they go through the same decoders as a file or a topic would. The bytes are a function of the
//! [`GeneratorOptions`] and the origin (the instant where the made-up past ends), so a reader that kept the [`GeneratorPosition`]
//! goes on after a restart exactly where it was, and a test can ask for the [`Truth`] about any number of messages. The clock
//! decides only *when* a message may be had, never what it says.
//!
//! A message's own time is its place on the timeline: first the past, which can be had at once, then `rate` messages a second.

use serde::{Deserialize, Serialize};

mod envelope;
pub mod lake;
mod observations;
mod options;
mod random;
mod references;
mod text;
mod timeline;
mod trip;
mod trips;
mod weather;
mod zones;

#[cfg(test)]
mod tests;

pub use options::{GeneratorError, GeneratorOptions, HISTORY_EVENTS_MAX, Kind, OPTION_NAMES, RATE_DEFAULT};
pub use zones::ZONES_CSV;

/// A trip that is written this long after it ended counts as [late](Truth::late): five minutes.
pub const LATE_US: i64 = 300_000_000;

/// Where reading goes on. Recorded with each epoch, so its form may grow but not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratorPosition {
    /// Messages read so far.
    pub message: u64,
    /// Where the past ended, microseconds since 1970 UTC.
    pub origin_us: i64,
}

/// Some messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// One message a line. A broken message may be cut short or hold bytes that are not UTF-8, but never a line end.
    pub bytes: Vec<u8>,
    /// How many there are.
    pub messages: usize,
    /// Where reading goes on after them.
    pub position: GeneratorPosition,
    /// When the next message may be had, microseconds since 1970 UTC; absent: never, all are read.
    pub next_due_us: Option<i64>,
}

/// What a reader must end with that has read the first messages. Computed while generating, without decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Truth {
    /// Messages, broken ones included.
    pub messages: u64,
    /// Messages with op `r`.
    pub snapshot_rows: u64,
    /// Messages with op `c` that are whole; for weather, hours told for the first time.
    pub inserts: u64,
    /// Messages with op `u`; for weather, hours told again.
    pub updates: u64,
    /// Messages with op `d`.
    pub deletes: u64,
    /// Messages that cannot be taken and belong into `name$errors`.
    pub broken: u64,
    /// Inserts that came more than [`LATE_US`] after the trip's end.
    pub late: u64,
    /// Rows there are, by primary key.
    pub live_rows: u64,
    /// Sum of `total_amount` over these rows, cents; 0 for what is not trips.
    pub total_amount_cents: i64,
}

/// A stream of messages with instants.
trait Schedule: std::fmt::Debug + Send {
    /// When the next message comes.
    fn next_us(&mut self) -> i64;
    /// Whether the next message begins a transaction, so that a chunk may end before it.
    fn may_pause(&self) -> bool;
    /// Appends the next message, without a line end.
    fn write_next(&mut self, out: &mut Vec<u8>);
    /// Passes over the next message, counting it.
    fn skip(&mut self);
    /// Goes to a message; counts begin anew.
    fn seek(&mut self, message: u64);
    /// Number of the next message, from 0.
    fn message(&self) -> u64;
    /// What was counted since the beginning or the last [`seek`](Schedule::seek).
    fn truth(&self) -> Truth;
}

/// Generates the messages of one source in order. Not shared between threads: each source has its own.
#[derive(Debug)]
pub struct Generator {
    stream: Box<dyn Schedule>,
    origin_us: i64,
    waits_for_clock: bool,
    end: u64,
}

impl Generator {
    /// Starts at the first message. `now_us` (microseconds since 1970 UTC) is where the past ends unless the options say so
    /// themselves; sources of one lake should be given the same.
    pub fn new(options: &GeneratorOptions, now_us: i64) -> Self {
        Generator::resume(options, GeneratorPosition { message: 0, origin_us: options.start_us.unwrap_or(now_us) })
    }

    /// Goes on where a generator with the same options was: writes exactly what that one would have written next. Takes
    /// microseconds, however far the position is.
    pub fn resume(options: &GeneratorOptions, position: GeneratorPosition) -> Self {
        let origin_us = position.origin_us;
        let mut stream: Box<dyn Schedule> = match options.kind {
            Kind::Trips => Box::new(trips::TripStream::new(options, origin_us)),
            Kind::PaymentTypes | Kind::Vendors => Box::new(references::ReferenceStream::new(options, origin_us)),
            Kind::Weather => Box::new(observations::ObservationStream::new(options, origin_us)),
        };
        if position.message > 0 {
            stream.seek(position.message);
        }
        Generator { stream, origin_us, waits_for_clock: options.rate != Some(0.0), end: options.events.unwrap_or(u64::MAX) }
    }

    /// Where reading goes on.
    pub fn position(&self) -> GeneratorPosition {
        GeneratorPosition { message: self.stream.message(), origin_us: self.origin_us }
    }

    /// The messages that are due at `now_us`, about `max_messages` of them: a transaction is never split, except by the end of
    /// `events`. With `rate = 0` everything is due. Never blocks; an empty chunk says when to come again.
    pub fn next_chunk(&mut self, max_messages: usize, now_us: i64) -> Chunk {
        let mut bytes = Vec::with_capacity(max_messages.min(1 << 14) * 1024);
        let messages = self.fill(&mut bytes, max_messages, now_us);
        Chunk { bytes, messages, position: self.position(), next_due_us: self.next_due_us() }
    }

    /// [`next_chunk`](Generator::next_chunk) into a buffer that the caller uses again: appends to it and returns how many messages
    /// there were.
    pub fn fill(&mut self, bytes: &mut Vec<u8>, max_messages: usize, now_us: i64) -> usize {
        let until_us = if self.waits_for_clock { now_us } else { i64::MAX };
        self.fill_until(bytes, max_messages, until_us)
    }

    /// As [`fill`](Generator::fill), with messages up to an instant on the timeline, whatever the clock says and with any `rate`.
    pub fn fill_until(&mut self, bytes: &mut Vec<u8>, max_messages: usize, until_us: i64) -> usize {
        let mut messages = 0;
        while self.stream.message() < self.end {
            if self.stream.may_pause() && (messages >= max_messages || until_us < i64::MAX && self.stream.next_us() > until_us) {
                break;
            }
            self.stream.write_next(bytes);
            bytes.push(b'\n');
            messages += 1;
        }
        messages
    }

    /// When the next message may be had, microseconds since 1970 UTC; `None`: never, all are read.
    pub fn next_due_us(&mut self) -> Option<i64> {
        (self.stream.message() < self.end).then(|| if self.waits_for_clock { self.stream.next_us() } else { 0 })
    }

    /// How many messages are due and not read, at most `limit` of them (counting costs time).
    pub fn lag(options: &GeneratorOptions, position: GeneratorPosition, now_us: i64, limit: u64) -> u64 {
        let mut ahead = Generator::resume(options, position);
        let mut lag = 0;
        while lag < limit && ahead.next_due_us().is_some_and(|due| due <= now_us) {
            ahead.stream.skip();
            lag += 1;
        }
        lag
    }

    /// What a reader of the first `messages` messages must end with. Several million messages a second.
    pub fn truth(options: &GeneratorOptions, origin_us: i64, messages: u64) -> Truth {
        let position = GeneratorPosition { message: 0, origin_us: options.start_us.unwrap_or(origin_us) };
        let mut generator = Generator::resume(options, position);
        while generator.stream.message() < messages.min(generator.end) {
            generator.stream.skip();
        }
        generator.stream.truth()
    }
}
