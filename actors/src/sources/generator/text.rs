//! Writes numbers as text into a byte buffer, without allocating.

use chrono::{DateTime, Utc};

const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

/// Appends a whole number.
#[inline]
pub(super) fn unsigned(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    while n >= 100 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[(n % 100) as usize]);
        n /= 100;
    }
    if n >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[n as usize]);
    } else {
        at -= 1;
        digits[at] = b'0' + n as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a whole number with its sign.
#[inline]
pub(super) fn signed(out: &mut Vec<u8>, n: i64) {
    if n < 0 {
        out.push(b'-');
    }
    unsigned(out, n.unsigned_abs());
}

/// Appends hundredths as Java prints a double, which is what the connector's JSON has: `14.25`, `14.2`, `20.0`, `-3.07`.
#[inline]
pub(super) fn hundredths(out: &mut Vec<u8>, n: i64) {
    if n < 0 {
        out.push(b'-');
    }
    let n = n.unsigned_abs();
    unsigned(out, n / 100);
    out.push(b'.');
    let pair = PAIRS[(n % 100) as usize];
    out.push(pair[0]);
    if pair[1] != b'0' {
        out.push(pair[1]);
    }
}

/// Appends tenths: `-3.1`.
pub(super) fn tenths(out: &mut Vec<u8>, n: i64) {
    hundredths(out, n * 10);
}

/// Appends an instant as `2025-03-03T00:00:00Z`, with six digits after the second where asked for. Out of chrono's range (years
/// beyond 262,000) it is 1970.
pub(super) fn instant(out: &mut Vec<u8>, us: i64, microseconds: bool) {
    use std::io::Write;
    let at = DateTime::<Utc>::from_timestamp_micros(us).unwrap_or_default();
    let format = if microseconds { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{}", at.format(format));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_read_as_they_should() {
        for n in [0, 7, 10, 99, 100, 101, 12_345, 9_999_999, u64::MAX] {
            assert_eq!(text(|out| unsigned(out, n)), n.to_string());
        }
        assert_eq!(text(|out| signed(out, i64::MIN)), i64::MIN.to_string());
        for (n, expected) in
            [(1425, "14.25"), (1420, "14.2"), (2000, "20.0"), (7, "0.07"), (-307, "-3.07"), (0, "0.0"), (-5, "-0.05")]
        {
            assert_eq!(text(|out| hundredths(out, n)), expected);
        }
        assert_eq!(text(|out| tenths(out, -31)), "-3.1");
        assert_eq!(text(|out| instant(out, 1_740_960_000_000_000, false)), "2025-03-03T00:00:00Z");
        assert_eq!(text(|out| instant(out, 1_740_960_000_000_001, true)), "2025-03-03T00:00:00.000001Z");
    }
}
