//! Dates and times as text, without a formatting machinery in between: the calendar is a few integer operations.

use arrow::datatypes::TimeUnit;

const DAY_MICROS: i64 = 86_400_000_000;

/// Year, month and day of a day number since 1970-01-01 in the proleptic Gregorian calendar (after Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// Writes an unsigned number with at least `width` digits.
fn digits(mut value: u64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = [b'0'; 20];
    let mut at = buffer.len();
    while value > 0 {
        at -= 1;
        buffer[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    let start = at.min(buffer.len() - width);
    out.extend_from_slice(&buffer[start..]);
}

/// `YYYY-MM-DD`; a year before 1 as ISO 8601 writes it, with a minus.
pub fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(days);
    if year < 0 {
        out.push(b'-');
    }
    digits(year.unsigned_abs(), 4, out);
    out.push(b'-');
    digits(u64::from(month), 2, out);
    out.push(b'-');
    digits(u64::from(day), 2, out);
}

/// `HH:MM:SS` and, if not zero, the fraction without trailing zeros.
pub fn write_time(nanos_of_day: i64, out: &mut Vec<u8>) {
    let seconds = (nanos_of_day / 1_000_000_000) as u64;
    let mut fraction = (nanos_of_day % 1_000_000_000) as u64;
    digits(seconds / 3_600, 2, out);
    out.push(b':');
    digits(seconds / 60 % 60, 2, out);
    out.push(b':');
    digits(seconds % 60, 2, out);
    if fraction > 0 {
        let mut width = 9;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        out.push(b'.');
        digits(fraction, width, out);
    }
}

/// Date, `separator`, time of a timestamp in `unit`s since 1970.
pub fn write_timestamp(value: i64, unit: TimeUnit, separator: u8, out: &mut Vec<u8>) {
    let per_second: i64 = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let per_day = per_second * 86_400;
    write_date(value.div_euclid(per_day), out);
    out.push(separator);
    write_time(value.rem_euclid(per_day) * (1_000_000_000 / per_second), out);
}

/// An RFC 3339 time in UTC, from microseconds since 1970.
pub fn rfc3339(micros: u64) -> String {
    let mut out = Vec::with_capacity(27);
    let micros = i64::try_from(micros).unwrap_or(i64::MAX - DAY_MICROS);
    write_timestamp(micros, TimeUnit::Microsecond, b'T', &mut out);
    out.push(b'Z');
    // Only ASCII digits and punctuation are ever written.
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_agrees_with_chrono() {
        for day in (-800_000..800_000).step_by(97) {
            let mut out = Vec::new();
            write_date(day, &mut out);
            let expected = chrono::DateTime::from_timestamp(day * 86_400, 0).unwrap().date_naive();
            if chrono::Datelike::year(&expected) > 0 {
                assert_eq!(String::from_utf8(out).unwrap(), expected.to_string());
            }
        }
    }
}
