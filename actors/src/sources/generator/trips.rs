//! The stream of changes to the table `trips`.
//!
//! Messages come in blocks of [`BLOCK`]. A block starts from nothing but the seed and its number, so reading can go on anywhere at the
//! cost of half a block; what a block needs of earlier ones it computes anew:
//!
//! ```text
//!   block b:  ├── 64 inserts, kept ──┼── inserts · updates · deletes ──┤
//!                                       of this block's own trips, and of trips kept by
//!                                       blocks b-1, b-2, b-3, b-5, … b-1597 (each once at the most)
//! ```
//!
//! So most corrections come soon, but some touch rows of weeks ago. A trip's number is that of its insert's message, and a trip
//! follows from its number. Nothing is allocated per message.

use super::envelope::{self, Event};
use super::options::GeneratorOptions;
use super::random::{Random, hash};
use super::timeline::{Hours, Timeline};
use super::trip::Trip;
use super::zones::Zones;
use super::{Schedule, Truth};

const BLOCK: u64 = 4096;
const KEPT_PER_DELAY: u64 = 4;
/// How many blocks later a block's kept trips are touched.
const DELAYS: [u64; 16] = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597];
const KEPT: u64 = KEPT_PER_DELAY * DELAYS.len() as u64;

/// In 100,000: a little over 5 and 2 %, because the beginning of a block has inserts only.
const UPDATES: u32 = 5_110;
const DELETES: u32 = 2_045;
const BROKEN_LATEST_CUT: u32 = 300;

/// Bytes of write-ahead log between two changes.
const LSN_STEP: u64 = 600;
const LSN_BASE: u64 = 66_756_334_904;
const TX_BASE: u64 = 2_218_863;

/// What a message says.
#[derive(Clone, Copy, Debug)]
enum Change {
    Insert(Trip),
    Update {
        before: Trip,
        after: Trip,
    },
    Delete(Trip),
    /// An insert that got lost on its way to us.
    Broken {
        trip: Trip,
        how: Fault,
    },
}

/// What is wrong with a broken message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It ends in the middle.
    Truncated,
    /// `id` is a text.
    WrongType,
    /// `pickup_location_id`, which may not be null, is not there.
    MissingColumn,
    /// Neither `before` nor `after`.
    NoRow,
    /// A byte that no UTF-8 text has.
    InvalidText,
}

/// See the module.
#[derive(Debug)]
pub(super) struct TripStream {
    seed: u64,
    broken_per_100_000: u32,
    zones: Zones,
    hours: Hours,
    timeline: Timeline,
    /// Number of the next message.
    message: u64,
    /// First message of the transaction that the last message was in.
    tx_first: u64,
    tx_us: i64,
    random: Random,
    /// Live trips of this block that are not kept.
    live: Vec<Trip>,
    /// How many of the kept trips of earlier blocks this block has touched.
    kept_touched: u64,
    truth: Truth,
}

impl TripStream {
    /// The stream from its first message on.
    pub(super) fn new(options: &GeneratorOptions, origin_us: i64) -> Self {
        TripStream {
            seed: options.seed,
            broken_per_100_000: options.broken_per_100_000,
            zones: Zones::new(),
            hours: Hours::new(options.seed),
            timeline: Timeline::new(options, origin_us),
            message: 0,
            tx_first: 0,
            tx_us: 0,
            random: Random::new(options.seed, 0xb10c, 0),
            live: Vec::with_capacity(BLOCK as usize),
            kept_touched: 0,
            truth: Truth::default(),
        }
    }

    /// Whether a message is the first of its transaction. Kept trips have transactions of their own.
    fn begins_transaction(&self, message: u64) -> bool {
        message % BLOCK <= KEPT || hash(self.seed, 0x7a, message) % 100 < 85
    }

    /// Draws the next message and applies it to the live trips.
    fn step(&mut self) -> Change {
        let message = self.message;
        let slot = message % BLOCK;
        if slot == 0 {
            self.random = Random::new(self.seed, 0xb10c, message / BLOCK);
            self.live.clear();
            self.kept_touched = 0;
        }
        if self.begins_transaction(message) {
            self.tx_first = message;
            self.tx_us = self.timeline.at(message);
        }
        self.message += 1;
        if slot < KEPT {
            return Change::Insert(Trip::draw(&self.zones, &mut self.hours, self.seed, message + 1, self.tx_us));
        }
        let kind = self.random.below(100_000);
        if kind >= UPDATES + DELETES || self.live.len() < 16 {
            let trip = Trip::draw(&self.zones, &mut self.hours, self.seed, message + 1, self.tx_us);
            if self.random.chance(self.broken_per_100_000) {
                return Change::Broken { trip, how: self.draw_fault() };
            }
            self.live.push(trip);
            return Change::Insert(trip);
        }
        let kept = if self.random.chance(25_000) { self.next_kept(message / BLOCK) } else { None };
        let place = self.random.below(self.live.len() as u32) as usize;
        let before = kept.unwrap_or(self.live[place]);
        if kind < DELETES {
            if kept.is_none() {
                self.live.swap_remove(place);
            }
            return Change::Delete(before);
        }
        let mut after = before;
        after.correct(&mut self.random);
        if kept.is_none() {
            self.live[place] = after;
        }
        Change::Update { before, after }
    }

    /// The next trip that an earlier block kept for this one.
    fn next_kept(&mut self, block: u64) -> Option<Trip> {
        let delay = DELAYS.get((self.kept_touched / KEPT_PER_DELAY) as usize)?;
        let message = block.checked_sub(*delay)? * BLOCK + self.kept_touched;
        self.kept_touched += 1;
        let written = self.timeline.at(message);
        Some(Trip::draw(&self.zones, &mut self.hours, self.seed, message + 1, written))
    }

    fn draw_fault(&mut self) -> Fault {
        [Fault::Truncated, Fault::WrongType, Fault::MissingColumn, Fault::NoRow, Fault::InvalidText]
            [self.random.below(5) as usize]
    }

    /// Counts a message.
    fn record(&mut self, change: &Change) {
        let truth = &mut self.truth;
        truth.messages += 1;
        let cents = match change {
            Change::Insert(trip) => {
                truth.inserts += 1;
                truth.live_rows += 1;
                truth.late += u64::from(trip.dropoff.max(trip.pickup) < self.tx_us - super::LATE_US);
                trip.total()
            }
            Change::Update { before, after } => {
                truth.updates += 1;
                after.total() - before.total()
            }
            Change::Delete(trip) => {
                truth.deletes += 1;
                truth.live_rows -= 1;
                -trip.total()
            }
            Change::Broken { .. } => {
                truth.broken += 1;
                0
            }
        };
        truth.total_amount_cents += cents;
    }

    /// Appends a message, without a line end.
    fn write(&mut self, out: &mut Vec<u8>, change: &Change) {
        let message = self.message - 1;
        let start = out.len();
        let bits = hash(self.seed, 0x15e, message);
        let mut event = Event {
            op: b'c',
            table: "trips",
            committed_us: self.tx_us,
            seen_us: self.tx_us + 3_000 + (bits % 400_000) as i64,
            tx_id: TX_BASE + self.tx_first,
            lsn: LSN_BASE + message * LSN_STEP + bits % 256,
            last_lsn: Some(LSN_BASE + self.tx_first * LSN_STEP - 56),
        };
        envelope::open(out);
        match change {
            Change::Insert(trip) => {
                out.extend_from_slice(b"null");
                envelope::after(out);
                trip.write(out);
            }
            Change::Update { before, after } => {
                event.op = b'u';
                before.write(out);
                envelope::after(out);
                after.write(out);
            }
            Change::Delete(trip) => {
                event.op = b'd';
                trip.write(out);
                envelope::after(out);
                out.extend_from_slice(b"null");
            }
            Change::Broken { trip, how } => {
                out.extend_from_slice(b"null");
                envelope::after(out);
                write_broken_row(out, trip, *how);
            }
        }
        envelope::close(out, &event);
        match change {
            // Somewhere in the middle of the row.
            Change::Broken { how: Fault::Truncated, .. } => out.truncate(start + 60 + self.random_cut(bits)),
            Change::Broken { how: Fault::InvalidText, .. } => {
                if let Some(at) = memchr::memmem::find(&out[start..], b"fwd_flag\":\"") {
                    out[start + at + 11] = 0xff;
                }
            }
            _ => {}
        }
    }

    fn random_cut(&self, bits: u64) -> usize {
        ((bits >> 32) % u64::from(BROKEN_LATEST_CUT)) as usize
    }
}

fn write_broken_row(out: &mut Vec<u8>, trip: &Trip, how: Fault) {
    match how {
        Fault::Truncated | Fault::InvalidText => trip.write(out),
        Fault::NoRow => out.extend_from_slice(b"null"),
        Fault::WrongType => {
            out.extend_from_slice(b"{\"id\":\"trip ");
            super::text::unsigned(out, trip.id);
            out.push(b'"');
            trip.write_rest(out, true);
        }
        Fault::MissingColumn => {
            out.extend_from_slice(b"{\"id\":");
            super::text::unsigned(out, trip.id);
            trip.write_rest(out, false);
        }
    }
}

impl Schedule for TripStream {
    fn next_us(&mut self) -> i64 {
        if self.begins_transaction(self.message) { self.timeline.at(self.message) } else { self.tx_us }
    }

    fn may_pause(&self) -> bool {
        self.begins_transaction(self.message)
    }

    fn write_next(&mut self, out: &mut Vec<u8>) {
        let change = self.step();
        self.record(&change);
        self.write(out, &change);
    }

    fn skip(&mut self) {
        let change = self.step();
        self.record(&change);
    }

    /// Goes to a message by drawing the beginning of its block again.
    fn seek(&mut self, message: u64) {
        self.message = message - message % BLOCK;
        while self.message < message {
            self.step();
        }
        self.truth = Truth::default();
    }

    fn message(&self) -> u64 {
        self.message
    }

    fn truth(&self) -> Truth {
        self.truth
    }
}
