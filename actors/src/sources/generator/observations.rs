//! The weather feed: a row when an hour begins, and the same hour once more, measured to its end, when the next one begins. A reader
//! that keys by location and hour ends with one row per hour, the corrected one.

use super::options::GeneratorOptions;
use super::random::hash;
use super::timeline::HOUR;
use super::weather::weather;
use super::{Schedule, Truth, text};

/// Trips may be a day late and hours long: their weather must be there.
const HOURS_BEFORE_HISTORY: i64 = 48;

/// See the module. Message 2n tells hour n, message 2n + 1 corrects hour n - 1 (the first is corrected in advance, by repetition).
#[derive(Debug)]
pub(super) struct ObservationStream {
    seed: u64,
    first_hour: i64,
    message: u64,
    truth: Truth,
}

impl ObservationStream {
    /// The feed from two days before the past's beginning on.
    pub(super) fn new(options: &GeneratorOptions, origin_us: i64) -> Self {
        let first_hour = (origin_us - options.history_us).div_euclid(HOUR) - HOURS_BEFORE_HISTORY;
        ObservationStream { seed: options.seed, first_hour, message: 0, truth: Truth::default() }
    }

    fn hour(&self) -> i64 {
        self.first_hour + (self.message / 2) as i64
    }

    fn is_correction(&self) -> bool {
        self.message % 2 == 1
    }
}

impl Schedule for ObservationStream {
    fn next_us(&mut self) -> i64 {
        self.hour().saturating_mul(HOUR)
    }

    fn may_pause(&self) -> bool {
        true
    }

    fn write_next(&mut self, out: &mut Vec<u8>) {
        let final_value = self.is_correction();
        let hour = (self.hour() - i64::from(final_value)).max(self.first_hour);
        let mut weather = weather(self.seed, hour);
        if !final_value {
            let bits = hash(self.seed, 0x0b5, hour as u64);
            weather.temperature += (bits % 7) as i64 - 3;
            weather.humidity_percent = (weather.humidity_percent + (bits >> 8) as i64 % 3).min(100);
        }
        out.extend_from_slice(b"{\"location\":\"New York\",\"observed_at\":\"");
        text::instant(out, hour * HOUR, false);
        out.extend_from_slice(b"\",\"latitude\":40.7128,\"longitude\":-74.006,\"temperature_celsius\":");
        text::tenths(out, weather.temperature);
        out.extend_from_slice(b",\"humidity_percent\":");
        text::signed(out, weather.humidity_percent);
        out.extend_from_slice(b",\"pressure_hpa\":");
        text::tenths(out, weather.pressure);
        out.extend_from_slice(b",\"wind_speed_kmh\":");
        text::tenths(out, weather.wind);
        out.extend_from_slice(b",\"precipitation_mm\":");
        text::hundredths(out, weather.precipitation);
        out.extend_from_slice(b",\"snowfall_cm\":");
        text::hundredths(out, weather.snowfall);
        out.extend_from_slice(b",\"cloud_cover_percent\":");
        text::signed(out, weather.cloud_percent);
        out.extend_from_slice(b",\"visibility_km\":");
        text::hundredths(out, weather.visibility);
        out.push(b'}');
        self.skip();
    }

    fn skip(&mut self) {
        self.truth.messages += 1;
        if self.is_correction() {
            self.truth.updates += 1;
        } else {
            self.truth.inserts += 1;
            self.truth.live_rows += 1;
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
