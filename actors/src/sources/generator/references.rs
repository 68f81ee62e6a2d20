//! The small tables beside `trips`: a snapshot of all rows, then now and then an update.

use super::envelope::{self, Event};
use super::options::{GeneratorOptions, Kind};
use super::random::hash;
use super::timeline::{HOUR, SECOND};
use super::{Schedule, Truth, text};

/// Seven hours between two updates where no rate is given.
const PAUSE: i64 = 7 * HOUR;

/// Rows of `payment_types`: number, description, and what the description is changed to and back.
const PAYMENT_TYPES: [(u8, &str, &str); 7] = [
    (0, "Flex fare", "Flex fare (app)"),
    (1, "Credit card", "Credit or debit card"),
    (2, "Cash", "Cash (US dollars)"),
    (3, "No charge", "No charge (courtesy)"),
    (4, "Dispute", "Disputed"),
    (5, "Unknown", "Not recorded"),
    (6, "Voided trip", "Voided"),
];

/// Rows of `vendors`: number, name, and the other name.
const VENDORS: [(u8, &str, &str); 4] = [
    (1, "Creative Mobile Technologies", "Creative Mobile Technologies, LLC"),
    (2, "Curb Mobility", "Curb Mobility, LLC"),
    (6, "Myle Technologies", "Myle Technologies Inc"),
    (7, "Helix", "Helix Mobility"),
];

/// See the module. A row's version follows from the number of updates before, so there is no state but the message's number.
#[derive(Debug)]
pub(super) struct ReferenceStream {
    seed: u64,
    vendors: bool,
    begin_us: i64,
    pause_us: i64,
    message: u64,
    truth: Truth,
}

impl ReferenceStream {
    /// The stream from its snapshot on, which is taken at the beginning of the past.
    pub(super) fn new(options: &GeneratorOptions, origin_us: i64) -> Self {
        let pause = options.rate.filter(|rate| *rate > 0.0).map_or(PAUSE, |rate| ((SECOND as f64 / rate) as i64).max(1));
        ReferenceStream {
            seed: options.seed,
            vendors: options.kind == Kind::Vendors,
            begin_us: origin_us - options.history_us,
            pause_us: pause,
            message: 0,
            truth: Truth::default(),
        }
    }

    fn rows(&self) -> &'static [(u8, &'static str, &'static str)] {
        if self.vendors { &VENDORS } else { &PAYMENT_TYPES }
    }

    fn snapshot_rows(&self) -> u64 {
        self.rows().len() as u64
    }

    fn us_of(&self, message: u64) -> i64 {
        match (message + 1).checked_sub(self.snapshot_rows()) {
            None | Some(0) => self.begin_us,
            Some(update) => self.begin_us.saturating_add(i64::try_from(update).unwrap_or(i64::MAX).saturating_mul(self.pause_us)),
        }
    }

    /// Updates go round the rows, and each changes the row to its other form.
    fn write_row(&self, out: &mut Vec<u8>, place: usize, version: u64, updated_us: i64) {
        let (id, first, other) = self.rows()[place];
        let name = if version.is_multiple_of(2) { first } else { other };
        out.extend_from_slice(b"{\"id\":");
        text::unsigned(out, u64::from(id));
        out.extend_from_slice(if self.vendors { b",\"name\":\"" } else { b",\"description\":\"" });
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
        if self.vendors {
            out.extend_from_slice(b",\"active\":true,\"updated_at\":\"");
            text::instant(out, updated_us, true);
            out.push(b'"');
        }
        out.push(b'}');
    }
}

impl Schedule for ReferenceStream {
    fn next_us(&mut self) -> i64 {
        self.us_of(self.message)
    }

    fn may_pause(&self) -> bool {
        true
    }

    fn write_next(&mut self, out: &mut Vec<u8>) {
        let message = self.message;
        let committed_us = self.us_of(message);
        let bits = hash(self.seed, 0x4ef, message);
        let lsn = 26_441_048 + message * 680 + bits % 200;
        let mut event = Event {
            op: b'r',
            table: if self.vendors { "vendors" } else { "payment_types" },
            committed_us,
            seen_us: committed_us + 3_000 + (bits % 400_000) as i64,
            tx_id: 735 + message,
            lsn: 26_441_048,
            last_lsn: None,
        };
        envelope::open(out);
        match message.checked_sub(self.snapshot_rows()) {
            None => {
                out.extend_from_slice(b"null");
                envelope::after(out);
                self.write_row(out, message as usize, 0, self.begin_us);
                event.tx_id = 735;
            }
            Some(update) => {
                let (place, version) = ((update % self.snapshot_rows()) as usize, update / self.snapshot_rows());
                let before_us = if version == 0 { self.begin_us } else { self.us_of(message - self.snapshot_rows()) };
                self.write_row(out, place, version, before_us);
                envelope::after(out);
                self.write_row(out, place, version + 1, committed_us);
                (event.op, event.lsn, event.last_lsn) = (b'u', lsn, Some(lsn - 56));
            }
        }
        envelope::close(out, &event);
        self.skip();
    }

    fn skip(&mut self) {
        self.truth.messages += 1;
        if self.message < self.snapshot_rows() {
            self.truth.snapshot_rows += 1;
            self.truth.live_rows += 1;
        } else {
            self.truth.updates += 1;
        }
        self.message += 1;
    }

    fn seek(&mut self, message: u64) {
        self.message = message;
        self.truth = Truth::default();
    }

    fn message(&self) -> u64 {
        self.message
    }

    fn truth(&self) -> Truth {
        self.truth
    }
}
