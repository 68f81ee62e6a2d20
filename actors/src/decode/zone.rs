//! Local time to universal time.

use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone};

use super::spec::{SpecError, Zone};

impl Zone {
    /// Universal time of a local one, both in microseconds since 1970.
    ///
    /// As PostgreSQL decides it: a time that a clock shows twice (in autumn) is the second one, standard time; a time that a clock
    /// leaves out (in spring) is read with the offset from before the gap, so `02:30` becomes what is `03:30` on that morning.
    /// `None` outside the calendar (about 262,000 years either way).
    pub fn to_utc(self, local: i64) -> Option<i64> {
        match self {
            Zone::Utc => Some(local),
            Zone::Fixed(seconds_east) => local.checked_sub(i64::from(seconds_east) * 1_000_000),
            Zone::Named(zone) => {
                let naive = DateTime::from_timestamp_micros(local)?.naive_utc();
                let instant = match zone.offset_from_local_datetime(&naive) {
                    chrono::LocalResult::Single(offset) => shifted(naive, offset.fix().local_minus_utc())?,
                    chrono::LocalResult::Ambiguous(earlier, later) => {
                        // The smaller offset from universal time is the one after the clock was put back.
                        let seconds = earlier.fix().local_minus_utc().min(later.fix().local_minus_utc());
                        shifted(naive, seconds)?
                    }
                    chrono::LocalResult::None => {
                        // No gap is longer than a day; the offset of the day before is the one before the gap.
                        let before = naive.checked_sub_signed(TimeDelta::days(1))?;
                        let offset = zone.offset_from_local_datetime(&before).earliest()?;
                        shifted(naive, offset.fix().local_minus_utc())?
                    }
                };
                Some(instant.and_utc().timestamp_micros())
            }
        }
    }
}

fn shifted(local: NaiveDateTime, seconds_east: i32) -> Option<NaiveDateTime> {
    local.checked_sub_signed(TimeDelta::seconds(i64::from(seconds_east)))
}

/// `UTC`, an IANA name (`America/New_York`), or an offset (`-05:00`, `+0530`).
impl FromStr for Zone {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        if text.eq_ignore_ascii_case("utc") || text.eq_ignore_ascii_case("z") {
            return Ok(Zone::Utc);
        }
        if let Some(seconds) = offset(text.as_bytes()) {
            return Ok(Zone::Fixed(seconds));
        }
        text.parse().map(Zone::Named).map_err(|_| {
            SpecError::new(format!(
                "time_zone {text} is unknown: give a name such as America/New_York or an offset such as -05:00"
            ))
        })
    }
}

/// `±HH`, `±HHMM`, `±HH:MM`, `±HH:MM:SS` in seconds.
pub(crate) fn offset(text: &[u8]) -> Option<i32> {
    let (sign, rest) = match text.first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let two = |at: usize| -> Option<i32> {
        let (tens, ones) = (rest.get(at)?, rest.get(at + 1)?);
        (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i32::from(tens - b'0') * 10 + i32::from(ones - b'0'))
    };
    let colon = |at: usize| rest.get(at) == Some(&b':');
    let (minutes, seconds) = match rest.len() {
        2 => (0, 0),
        4 => (two(2)?, 0),
        5 if colon(2) => (two(3)?, 0),
        8 if colon(2) && colon(5) => (two(3)?, two(6)?),
        _ => return None,
    };
    let hours = two(0)?;
    (hours <= 18 && minutes < 60 && seconds < 60).then_some(sign * (hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_york(text: &str) -> String {
        let local = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros();
        let utc = Zone::from_str("America/New_York").unwrap().to_utc(local).unwrap();
        DateTime::from_timestamp_micros(utc).unwrap().format("%Y-%m-%d %H:%M").to_string()
    }

    #[test]
    fn gaps_and_overlaps_are_decided_as_postgresql_does() {
        assert_eq!(new_york("2021-01-15 12:00"), "2021-01-15 17:00");
        assert_eq!(new_york("2021-07-15 12:00"), "2021-07-15 16:00");
        assert_eq!(new_york("2021-03-14 02:30"), "2021-03-14 07:30", "left out: read with the offset before");
        assert_eq!(new_york("2021-11-07 01:30"), "2021-11-07 06:30", "shown twice: the second, standard time");
    }

    #[test]
    fn zones_are_named_or_given_as_offsets() {
        assert_eq!("-05:00".parse(), Ok(Zone::Fixed(-18_000)));
        assert_eq!("+0530".parse(), Ok(Zone::Fixed(19_800)));
        assert_eq!("utc".parse(), Ok(Zone::Utc));
        assert_eq!("Asia/Kolkata".parse(), Ok(Zone::Named(chrono_tz::Asia::Kolkata)));
        assert!("New York".parse::<Zone>().is_err());
        assert_eq!(Zone::Fixed(-18_000).to_utc(0), Some(18_000_000_000));
    }
}
