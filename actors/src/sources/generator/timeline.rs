//! When each message comes.
//!
//! Time is cut into bins of an hour at most. A bin knows which messages fall into it; within a bin they lie evenly, jittered. So
//! the instant of any message is found by a search, without going through those before it, and is the same whichever way one came
//! there.
//!
//! ```text
//!   origin - history                                origin            now
//!   ├──────┬──────┬──────┬─ … ─┬──────┬─────────────┼──────┬──────┬────┴──▶
//!    by rhythm and weather      last hour at the     by `rate`; made as they are needed
//!                               live rate
//! ```

use chrono::{DateTime, Datelike, Offset, TimeZone, Timelike, Utc};

use super::options::{GeneratorOptions, HISTORY_EVENTS_MAX, RATE_DEFAULT};
use super::random::hash;
use super::weather::{Weather, weather};

pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 3600 * SECOND;

/// Trips by hour of a weekday, of a Saturday, of a Sunday, in thousandths of the week's mean (made even by [`rhythm_permille`]).
const WEEKDAY: [i64; 24] = [
    390, 230, 150, 120, 160, 280, 600, 950, 1130, 1100, 1060, 1110, 1180, 1190, 1270, 1310, 1290, 1450, 1560, 1450, 1290, 1220,
    1060, 730,
];
const SATURDAY: [i64; 24] = [
    960, 800, 640, 450, 280, 190, 250, 380, 580, 830, 1020, 1160, 1250, 1270, 1280, 1300, 1310, 1400, 1470, 1390, 1220, 1230,
    1280, 1190,
];
const SUNDAY: [i64; 24] = [
    1080, 950, 790, 580, 360, 210, 220, 300, 450, 710, 940, 1090, 1170, 1180, 1180, 1160, 1130, 1110, 1060, 950, 830, 740, 630,
    490,
];

/// What the generator knows about an hour.
#[derive(Clone, Copy, Debug)]
pub(super) struct HourInfo {
    /// Hour of the week in New York, Monday's first being 0.
    pub hour_of_week: u8,
    /// Its weather.
    pub weather: Weather,
}

/// The last hours that were asked for, because the time zone's rules are slow to look up.
#[derive(Debug)]
pub(super) struct Hours {
    seed: u64,
    known: Vec<(i64, HourInfo)>,
}

impl Hours {
    const SLOTS: usize = 64;

    pub(super) fn new(seed: u64) -> Self {
        Hours { seed, known: vec![(i64::MIN, hour_info(seed, 0)); Self::SLOTS] }
    }

    /// The hour that contains an instant.
    #[inline]
    pub(super) fn at(&mut self, us: i64) -> HourInfo {
        let hour = us.div_euclid(HOUR);
        let slot = hour.rem_euclid(Self::SLOTS as i64) as usize;
        if self.known[slot].0 != hour {
            self.known[slot] = (hour, hour_info(self.seed, hour));
        }
        self.known[slot].1
    }
}

fn hour_info(seed: u64, hour: i64) -> HourInfo {
    let utc = DateTime::<Utc>::from_timestamp(hour * 3600, 0).unwrap_or_default().naive_utc();
    let local = utc + chrono_tz::America::New_York.offset_from_utc_datetime(&utc).fix();
    let hour_of_week = local.weekday().num_days_from_monday() * 24 + local.hour();
    HourInfo { hour_of_week: hour_of_week as u8, weather: weather(seed, hour) }
}

/// How busy an hour is, against 1000 for the mean of a week in fair weather.
fn rhythm_permille(info: &HourInfo) -> f64 {
    let (day, hour) = (usize::from(info.hour_of_week / 24), usize::from(info.hour_of_week % 24));
    let by_hour = |day: usize, hour: usize| {
        if day == 5 {
            SATURDAY[hour]
        } else if day == 6 {
            SUNDAY[hour]
        } else {
            WEEKDAY[hour]
        }
    };
    let week: i64 = (0..7).flat_map(|day| (0..24).map(move |hour| by_hour(day, hour))).sum();
    by_hour(day, hour) as f64 * 168_000.0 / week as f64 * info.weather.condition.demand_permille() as f64 / 1000.0
}

/// Some of the time, and the messages in it.
#[derive(Clone, Copy, Debug)]
struct Bin {
    start_us: i64,
    length_us: i64,
    first: u64,
    count: u64,
}

/// The instants of all messages.
#[derive(Debug)]
pub(super) struct Timeline {
    seed: u64,
    rate: f64,
    rhythm: bool,
    bins: Vec<Bin>,
    /// Messages that were due by the end of the last bin, unrounded.
    due: f64,
    last: usize,
}

impl Timeline {
    /// Messages about the past, then `rate` a second from the origin on.
    pub(super) fn new(options: &GeneratorOptions, origin_us: i64) -> Self {
        let seconds = (options.history_us as f64 / SECOND as f64).max(1.0);
        let rate = options.rate.unwrap_or(RATE_DEFAULT);
        let by_rate = if rate > 0.0 { ((rate * seconds) as u64).min(HISTORY_EVENTS_MAX) } else { HISTORY_EVENTS_MAX };
        let all_of_them = options.events.filter(|_| rate == 0.0);
        let mut count = options.history_events.or(all_of_them).unwrap_or(by_rate);
        if options.history_us == 0 {
            count = 0;
        }
        let live_rate = if rate > 0.0 {
            rate
        } else if count > 0 {
            count as f64 / seconds
        } else {
            RATE_DEFAULT
        };
        let bins = history(options, origin_us, count, rate);
        let start = Bin { start_us: origin_us, length_us: 0, first: count, count: 0 };
        let mut timeline =
            Timeline { seed: options.seed, rate: live_rate, rhythm: options.rhythm, bins, due: count as f64, last: 0 };
        timeline.bins.push(start);
        timeline
    }

    /// When a message comes, microseconds since 1970 UTC; never before the one before it.
    #[inline]
    pub(super) fn at(&mut self, message: u64) -> i64 {
        let bin = self.bins[self.last];
        let bin = if message >= bin.first && message < bin.first + bin.count { bin } else { self.search(message) };
        let jitter = (hash(self.seed, 0x71_3e, message) >> 11) as f64 / (1_u64 << 53) as f64;
        let place = ((message - bin.first) as f64 + jitter) * (bin.length_us as f64 / bin.count as f64);
        bin.start_us + (place as i64).min(bin.length_us - 1)
    }

    fn search(&mut self, message: u64) -> Bin {
        while self.bins.last().is_some_and(|bin| message >= bin.first + bin.count) {
            self.grow();
        }
        self.last = self.bins.partition_point(|bin| bin.first + bin.count <= message);
        self.bins[self.last]
    }

    /// Adds one more hour of live time. Empty hours (rates below one an hour) make the last bin longer, never a new one.
    fn grow(&mut self) {
        let Some(last) = self.bins.last().copied() else { return };
        let start_us = last.start_us + last.length_us;
        let length_us = HOUR - start_us.rem_euclid(HOUR);
        let share = if self.rhythm { rhythm_permille(&hour_info(self.seed, start_us.div_euclid(HOUR))) / 1000.0 } else { 1.0 };
        self.due += self.rate * share * length_us as f64 / SECOND as f64;
        let first = last.first + last.count;
        let count = (self.due as u64).saturating_sub(first);
        if count == 0 && last.count == 0 {
            if let Some(last) = self.bins.last_mut() {
                last.length_us += length_us;
            }
        } else {
            self.bins.push(Bin { start_us, length_us, first, count });
        }
    }
}

/// The bins of the past: `count` messages dealt by rhythm and weather; the last hour has the live rate where that is more and
/// leaves enough for the rest, so that what looks at the last hour is alive from the beginning.
fn history(options: &GeneratorOptions, origin_us: i64, count: u64, rate: f64) -> Vec<Bin> {
    let begin = origin_us - options.history_us;
    let mut bins = Vec::new();
    let mut weights = Vec::new();
    let mut at = begin;
    while at < origin_us {
        let end = (at + HOUR - at.rem_euclid(HOUR)).min(origin_us);
        // The last hour is a bin of its own, wherever the hours of the clock begin.
        let end = if at < origin_us - HOUR { end.min(origin_us - HOUR) } else { end };
        bins.push(Bin { start_us: at, length_us: end - at, first: 0, count: 0 });
        weights.push(rhythm_permille(&hour_info(options.seed, at.div_euclid(HOUR))) * (end - at) as f64 / HOUR as f64);
        at = end;
    }
    let is_last_hour = |bin: &Bin| bin.start_us >= origin_us - HOUR;
    let (mut early, mut late) = (0.0, 0.0);
    for (bin, weight) in bins.iter().zip(&weights) {
        if is_last_hour(bin) { late += weight } else { early += weight }
    }
    let wanted = (rate * 3600.0).min(count as f64 / 4.0);
    if early > 0.0 && late > 0.0 && wanted > count as f64 * late / (early + late) {
        let boost = wanted / (count as f64 - wanted) * early / late;
        bins.iter().zip(&mut weights).filter(|(bin, _)| is_last_hour(bin)).for_each(|(_, weight)| *weight *= boost);
    }
    let total: f64 = weights.iter().sum();
    let (mut sum, mut first) = (0.0, 0);
    let bins_count = bins.len();
    for (index, (bin, weight)) in bins.iter_mut().zip(&weights).enumerate() {
        sum += weight;
        let end = if index + 1 == bins_count { count } else { ((sum / total * count as f64) as u64).min(count) };
        (bin.first, bin.count) = (first, end - first);
        first = end;
    }
    bins.retain(|bin| bin.count > 0);
    bins
}

#[cfg(test)]
mod tests {
    use super::super::options::Kind;
    use super::*;

    const ORIGIN: i64 = 1_740_960_000_000_000 + 17 * MINUTE;

    fn options(rate: f64) -> GeneratorOptions {
        GeneratorOptions { rate: Some(rate), ..GeneratorOptions::new(Kind::Trips) }
    }

    #[test]
    fn instants_never_go_back_and_do_not_depend_on_the_way() {
        for options in
            [options(2.0), options(0.0), options(1e5), options(0.0001), GeneratorOptions { rhythm: true, ..options(0.5) }]
        {
            let mut timeline = Timeline::new(&options, ORIGIN);
            let all: Vec<i64> = (0..50_000).map(|message| timeline.at(message * 13)).collect();
            assert!(all.windows(2).all(|pair| pair[0] <= pair[1]), "{options:?}");
            assert!(all[0] >= ORIGIN - options.history_us);
            for message in [49_999, 3, 20_000, 0] {
                assert_eq!(Timeline::new(&options, ORIGIN).at(message as u64 * 13), all[message]);
                assert_eq!(timeline.at(message as u64 * 13), all[message]);
            }
        }
    }

    #[test]
    fn the_past_ends_at_the_origin_and_live_messages_come_at_the_rate() {
        let mut timeline = Timeline::new(&GeneratorOptions { history_events: Some(100_000), ..options(10.0) }, ORIGIN);
        assert!(timeline.at(99_999) < ORIGIN && timeline.at(99_999) > ORIGIN - SECOND);
        assert!(timeline.at(100_000) >= ORIGIN && timeline.at(100_000) < ORIGIN + SECOND);
        let hour = timeline.at(136_000) - ORIGIN;
        assert!((hour - HOUR).abs() < SECOND, "36,000 messages take an hour at 10/s, not {hour} us");
        let day = timeline.at(100_000 + 864_000) - ORIGIN;
        assert!((day - 24 * HOUR).abs() < SECOND);
        // A quarter of the budget is 25,000, less than an hour at this rate.
        let last_hour = (0..100_000).filter(|message| timeline.at(*message) >= ORIGIN - HOUR).count();
        assert!((24_990..=25_010).contains(&last_hour), "{last_hour}");
    }

    #[test]
    fn nights_are_quieter_than_evenings() {
        let mut timeline = Timeline::new(&GeneratorOptions { history_us: 28 * 24 * HOUR, ..options(0.0) }, ORIGIN);
        let mut hours = Hours::new(1);
        let mut by_hour = [0_u32; 24];
        for message in (0..HISTORY_EVENTS_MAX).step_by(7) {
            by_hour[usize::from(hours.at(timeline.at(message)).hour_of_week % 24)] += 1;
        }
        assert!(by_hour[18] > 4 * by_hour[3], "{by_hour:?}");
    }

    #[test]
    fn the_clock_changes_in_new_york_are_known() {
        // At 2025-03-09 07:00 UTC, a Sunday, it becomes 03:00 where it was 01:59 a minute before.
        let hour = 1_741_503_600_000_000 / HOUR;
        assert_eq!(hour_info(1, hour - 1).hour_of_week, 145);
        assert_eq!(hour_info(1, hour).hour_of_week, 147);
    }
}
