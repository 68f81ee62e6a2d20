//! Dates, times of day and instants from their texts and numbers.

use chrono::format::{Item, Parsed, StrftimeItems};

use super::spec::{SpecError, Zone};
use super::zone::offset;

/// Microseconds in a day.
pub(crate) const DAY: i64 = 86_400_000_000;
/// What Debezium writes for PostgreSQL's `infinity` where it has a number, and what the word becomes here, in microseconds.
const INFINITY: i64 = 9_223_372_036_825_200_000;
/// The same for `-infinity`.
const MINUS_INFINITY: i64 = -9_223_372_036_832_400_000;

/// What one is, in a number that means a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl Unit {
    /// In microseconds, rounded towards the past; `None` if that overflows.
    #[inline]
    pub(crate) fn to_micros(self, number: i64) -> Option<i64> {
        match self {
            Unit::Seconds => number.checked_mul(1_000_000),
            Unit::Milliseconds => number.checked_mul(1000),
            Unit::Microseconds => Some(number),
            Unit::Nanoseconds => Some(number.div_euclid(1000)),
        }
    }
}

/// How a source writes times.
#[derive(Clone, Debug)]
pub(crate) enum TimeText {
    /// ISO 8601 and its relatives.
    Iso,
    /// Numbers of this unit.
    Epoch(Unit),
    /// As `strftime` would write them.
    Pattern(Vec<Item<'static>>),
}

impl TimeText {
    /// Reads the `time_format` option.
    pub(crate) fn from_option(option: Option<&str>) -> Result<Self, SpecError> {
        Ok(match option {
            None => TimeText::Iso,
            Some("epoch_s") => TimeText::Epoch(Unit::Seconds),
            Some("epoch_ms") => TimeText::Epoch(Unit::Milliseconds),
            Some("epoch_us") => TimeText::Epoch(Unit::Microseconds),
            Some("epoch_ns") => TimeText::Epoch(Unit::Nanoseconds),
            Some(pattern) => {
                let items: Vec<Item<'static>> = StrftimeItems::new(pattern).map(Item::to_owned).collect();
                if items.contains(&Item::Error) || !pattern.contains('%') {
                    return Err(SpecError::new(format!(
                        "time_format {pattern} is neither a strftime pattern (%Y-%m-%d %H:%M:%S) nor epoch_s, epoch_ms, epoch_us, epoch_ns"
                    )));
                }
                TimeText::Pattern(items)
            }
        })
    }

    /// Microseconds since 1970 of a stamp: universal time if it names its zone, otherwise local time of the zone given. Without a
    /// zone given a stamp's own is passed over, as PostgreSQL does for TIMESTAMP.
    pub(crate) fn stamp(&self, text: &str, zone: Option<Zone>) -> Option<i64> {
        let (local, offset_seconds) = match self {
            TimeText::Pattern(items) => by_pattern(text, items)?,
            _ => match text {
                "infinity" => return Some(INFINITY),
                "-infinity" => return Some(MINUS_INFINITY),
                _ => iso_stamp(text.as_bytes())?,
            },
        };
        match (zone, offset_seconds) {
            (None, _) => Some(local),
            (Some(_), Some(seconds)) => local.checked_sub(i64::from(seconds) * 1_000_000),
            (Some(zone), None) => zone.to_utc(local),
        }
    }

    /// Days since 1970.
    pub(crate) fn date(&self, text: &str) -> Option<i32> {
        let micros = match self {
            TimeText::Pattern(items) => by_pattern(text, items)?.0,
            _ => match iso_date(text.as_bytes()) {
                Some((days, rest)) if rest.is_empty() || rest == b"Z" => return i32::try_from(days).ok(),
                Some(_) => iso_stamp(text.as_bytes())?.0,
                None => return None,
            },
        };
        i32::try_from(micros.div_euclid(DAY)).ok()
    }

    /// Microseconds since midnight.
    pub(crate) fn time_of_day(&self, text: &str) -> Option<i64> {
        if let TimeText::Pattern(items) = self {
            let mut parsed = Parsed::new();
            chrono::format::parse(&mut parsed, text, items.iter()).ok()?;
            let time = parsed.to_naive_time().ok()?;
            return Some(
                i64::from(chrono::Timelike::num_seconds_from_midnight(&time)) * 1_000_000
                    + i64::from(chrono::Timelike::nanosecond(&time) / 1000),
            );
        }
        let (micros, rest) = clock(text.as_bytes())?;
        (rest.is_empty() || rest == b"Z" || offset(rest).is_some()).then_some(micros)
    }
}

/// Local microseconds, and seconds east of universal time if the text has them.
fn by_pattern(text: &str, items: &[Item<'static>]) -> Option<(i64, Option<i32>)> {
    let mut parsed = Parsed::new();
    chrono::format::parse(&mut parsed, text, items.iter()).ok()?;
    let date = parsed.to_naive_date();
    if let (Err(_), Some(_)) = (&date, parsed.timestamp()) {
        let instant = parsed.to_naive_datetime_with_offset(0).ok()?;
        return Some((instant.and_utc().timestamp_micros(), Some(0)));
    }
    let time = parsed.to_naive_time().unwrap_or(chrono::NaiveTime::MIN);
    let local = date.ok()?.and_time(time).and_utc().timestamp_micros();
    Some((local, parsed.offset()))
}

/// `date`, `date time`, `dateTtime`, each with `Z` or an offset or nothing after it.
fn iso_stamp(text: &[u8]) -> Option<(i64, Option<i32>)> {
    let (days, rest) = iso_date(text)?;
    let (micros, rest) = match rest.first() {
        Some(b'T' | b't' | b' ') if rest.get(1).is_some_and(u8::is_ascii_digit) => clock(&rest[1..])?,
        _ => (0, rest),
    };
    // The midnight of the first day that fits does not fit itself.
    let local = i64::try_from(i128::from(days) * i128::from(DAY) + i128::from(micros)).ok()?;
    let rest = rest.trim_ascii_start();
    match rest {
        b"" => Some((local, None)),
        b"Z" | b"z" | b"UTC" | b" UTC" => Some((local, Some(0))),
        _ => Some((local, Some(offset(rest)?))),
    }
}

/// `[+-]YYYY-MM-DD` (four digits of year or more): days since 1970 and what follows.
fn iso_date(text: &[u8]) -> Option<(i64, &[u8])> {
    let (negative, digits) = match text.first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(4..=9).contains(&length) {
        return None;
    }
    let year = digits[..length].iter().fold(0_i64, |year, byte| year * 10 + i64::from(byte - b'0'));
    let year = if negative { -year } else { year };
    let rest = &digits[length..];
    let (month, day) = match rest {
        [b'-', m1, m2, b'-', d1, d2, ..] => (two_digits(*m1, *m2)?, two_digits(*d1, *d2)?),
        _ => return None,
    };
    Some((days_from_civil(year, month, day)?, &rest[6..]))
}

/// `HH:MM[:SS[.fraction]]`: microseconds since midnight (rounded at the seventh place) and what follows.
fn clock(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hours, minutes) = match text {
        [h1, h2, b':', m1, m2, ..] => (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?),
        _ => return None,
    };
    let mut rest = &text[5..];
    let (mut seconds, mut micros) = (0, 0_i64);
    if let [b':', s1, s2, ..] = rest {
        seconds = two_digits(*s1, *s2)?;
        rest = &rest[3..];
        if let [b'.' | b',', places @ ..] = rest {
            let length = places.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if length == 0 {
                return None;
            }
            let digits = places[..length].iter().map(|byte| i64::from(byte - b'0'));
            micros = digits.chain(std::iter::repeat(0)).take(6).fold(0, |micros, digit| micros * 10 + digit);
            if length > 6 && places[6] >= b'5' {
                micros += 1;
            }
            rest = &places[length..];
        }
    }
    // 24:00:00 is the end of the day, 23:59:60 a leap second: both count on, as PostgreSQL does.
    let fits = hours < 24 && minutes < 60 && seconds <= 60 || hours == 24 && minutes == 0 && seconds == 0 && micros == 0;
    fits.then_some(((hours * 3600 + minutes * 60 + seconds) * 1_000_000 + micros, rest))
}

#[inline]
fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// Days since 1970 of a date of the proleptic Gregorian calendar (year 0 is 1 BC).
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    const LENGTHS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let length = LENGTHS.get(usize::try_from(month - 1).ok()?)? + i64::from(leap && month == 2);
    if day < 1 || day > length {
        return None;
    }
    // Years begin in March here, so that the leap day is a year's last; 400 years have 146,097 days.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    fn iso(text: &str) -> Option<i64> {
        TimeText::Iso.stamp(text, Some(Zone::Utc))
    }

    #[test]
    fn stamps_are_read_as_they_are_written_in_the_wild() {
        let expected = DateTime::parse_from_rfc3339("2024-03-10T07:30:00.123456Z").unwrap().timestamp_micros();
        for text in [
            "2024-03-10T07:30:00.123456Z",
            "2024-03-10 07:30:00.123456",
            "2024-03-10 02:30:00.123456-05",
            "2024-03-10 02:30:00.123456 -05:00",
            "2024-03-10T07:30:00.1234561+00",
        ] {
            assert_eq!(iso(text), Some(expected), "{text}");
        }
        assert_eq!(iso("2016-01-01T05:00"), iso("2016-01-01 05:00:00"));
        assert_eq!(iso("1970-01-02"), Some(DAY));
        assert_eq!(
            iso("-4712-01-01T00:00:00.000000Z"),
            NaiveDate::from_ymd_opt(-4712, 1, 1).map(|date| i64::from(date.to_epoch_days()) * DAY)
        );
        assert_eq!(iso("+294247-01-10T04:00:25.200000Z"), Some(INFINITY));
        assert_eq!(iso("infinity"), Some(INFINITY));
        for wrong in
            ["", "2024-3-10", "2024-02-30", "2024-03-10T25:00", "2024-03-10T07:30:00.", "yesterday", "2024-03-10 07:30 EST"]
        {
            assert_eq!(iso(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_stamp_without_zone_is_local() {
        let fixed = Some(Zone::Fixed(-18_000));
        assert_eq!(TimeText::Iso.stamp("2024-01-01 00:00:00", fixed), iso("2024-01-01 05:00:00"));
        assert_eq!(TimeText::Iso.stamp("2024-01-01 00:00:00Z", fixed), iso("2024-01-01 00:00:00"));
        assert_eq!(
            TimeText::Iso.stamp("2024-01-01 00:00:00+03", None),
            iso("2024-01-01 00:00:00"),
            "TIMESTAMP keeps the wall clock"
        );
    }

    #[test]
    fn patterns_and_epochs_are_options() {
        let pattern = TimeText::from_option(Some("%m/%d/%Y %I:%M %p")).unwrap();
        assert_eq!(pattern.stamp("03/10/2024 07:30 PM", Some(Zone::Utc)), iso("2024-03-10 19:30:00"));
        assert_eq!(TimeText::from_option(Some("%d.%m.%Y")).unwrap().date("10.03.2024"), Some(19_792));
        assert_eq!(
            TimeText::from_option(Some("%Y-%m-%d %H:%M %z")).unwrap().stamp("2024-03-10 02:30 -0500", Some(Zone::Utc)),
            iso("2024-03-10 07:30")
        );
        assert!(TimeText::from_option(Some("seconds")).is_err());
        assert_eq!(Unit::Milliseconds.to_micros(-1), Some(-1000));
        assert_eq!(Unit::Nanoseconds.to_micros(-1), Some(-1));
        assert_eq!(Unit::Seconds.to_micros(i64::MAX), None);
    }

    #[test]
    fn times_of_day() {
        assert_eq!(TimeText::Iso.time_of_day("02:30:00.123456Z"), Some(9_000_123_456));
        assert_eq!(TimeText::Iso.time_of_day("24:00:00"), Some(DAY));
        assert_eq!(TimeText::Iso.time_of_day("24:00:01"), None);
        assert_eq!(TimeText::Iso.date("2024-03-10Z"), Some(19_792));
        assert_eq!(TimeText::Iso.date("2024-03-10 23:59:59"), Some(19_792));
    }

    proptest! {
        #[test]
        fn days_equal_the_calendar_library(days in -90_000_000_i64..90_000_000) {
            let date = NaiveDate::from_epoch_days(i32::try_from(days).unwrap()).unwrap();
            let text = date.format("%Y-%m-%d").to_string();
            prop_assert_eq!(iso_date(text.as_bytes()).map(|found| found.0), Some(days));
        }
    }
}
