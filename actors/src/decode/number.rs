//! Numbers from their texts: exact, without a detour over binary fractions.

/// Why a text is not the number that a column wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberFault {
    /// It is not a number.
    Syntax,
    /// It is one, but outside the column's range.
    Range,
    /// It has a fraction, and the column holds integers.
    Fraction,
}

/// Ten to the power of 0 to 38, all that a `Decimal128` can hold.
pub(crate) const POWERS_OF_TEN: [i128; 39] = {
    let mut powers = [1_i128; 39];
    let mut at = 1;
    while at < 39 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// A decimal number taken apart: `mantissa · 10^exponent`, and whether digits beyond the mantissa's reach were cut off.
struct Parts {
    negative: bool,
    mantissa: u128,
    exponent: i32,
    /// Digits cut off: none, or how they compare with half a unit of the mantissa's last place.
    rest: Rest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    BelowHalf,
    Half,
    AboveHalf,
}

/// The greatest mantissa: every number of 38 digits.
const MANTISSA_MAX: u128 = 10_u128.pow(38) - 1;

/// Reads `[+-]digits[.digits][e[+-]digits]`, all of it.
fn parts(text: &[u8]) -> Result<Parts, NumberFault> {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mut mantissa, mut exponent, mut rest) = (0_u128, 0_i32, Rest::Nothing);
    let (mut seen, mut after_point, mut at, mut cut) = (false, false, 0, 0_u64);
    while at < digits.len() {
        let byte = digits[at];
        match byte {
            b'0'..=b'9' => {
                seen = true;
                let digit = u128::from(byte - b'0');
                if cut == 0 && mantissa <= (MANTISSA_MAX - digit) / 10 {
                    mantissa = mantissa * 10 + digit;
                    exponent -= i32::from(after_point);
                } else {
                    // The mantissa is full: remember only how what follows compares with a half.
                    exponent += i32::from(!after_point);
                    rest = match (rest, digit) {
                        (Rest::Nothing, 0) => Rest::Nothing,
                        (Rest::Nothing, 5) if cut == 0 => Rest::Half,
                        (Rest::Nothing, 6..) if cut == 0 => Rest::AboveHalf,
                        (Rest::Nothing, _) => Rest::BelowHalf,
                        (Rest::Half, 1..) => Rest::AboveHalf,
                        (same, _) => same,
                    };
                    cut += 1;
                }
            }
            b'.' if !after_point => after_point = true,
            b'e' | b'E' if seen => {
                let given: i32 =
                    std::str::from_utf8(&digits[at + 1..]).ok().and_then(|e| e.parse().ok()).ok_or(NumberFault::Syntax)?;
                exponent = exponent.saturating_add(given);
                break;
            }
            _ => return Err(NumberFault::Syntax),
        }
        at += 1;
    }
    if seen { Ok(Parts { negative, mantissa, exponent, rest }) } else { Err(NumberFault::Syntax) }
}

/// The unscaled value of a decimal with this precision and scale; digits beyond the scale are rounded half to even.
pub(crate) fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, NumberFault> {
    if let Some(value) = short_decimal(text, scale) {
        return within(value, precision);
    }
    let parts = parts(text)?;
    let shift = parts.exponent.saturating_add(i32::from(scale));
    let magnitude = if parts.mantissa == 0 {
        0
    } else if shift >= 0 {
        if parts.rest != Rest::Nothing {
            return Err(NumberFault::Range); // more than 37 digits before the last one kept
        }
        let factor = usize::try_from(shift).ok().and_then(|shift| POWERS_OF_TEN.get(shift)).ok_or(NumberFault::Range)?;
        i128::try_from(parts.mantissa).ok().and_then(|mantissa| mantissa.checked_mul(*factor)).ok_or(NumberFault::Range)?
    } else {
        rounded(parts.mantissa, shift.unsigned_abs(), parts.rest)?
    };
    within(if parts.negative { -magnitude } else { magnitude }, precision)
}

/// `mantissa / 10^places`, half to even.
fn rounded(mantissa: u128, places: u32, rest: Rest) -> Result<i128, NumberFault> {
    let Some(divisor) = usize::try_from(places).ok().and_then(|places| POWERS_OF_TEN.get(places)) else {
        return Ok(0); // below a hundredth of the last place
    };
    let divisor = divisor.unsigned_abs();
    let (quotient, remainder) = (mantissa / divisor, mantissa % divisor);
    let half = divisor / 2;
    let up = match remainder.cmp(&half) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => rest != Rest::Nothing || quotient % 2 == 1,
    };
    i128::try_from(quotient + u128::from(up)).map_err(|_| NumberFault::Range)
}

fn within(value: i128, precision: u8) -> Result<i128, NumberFault> {
    match POWERS_OF_TEN.get(usize::from(precision)) {
        Some(limit) if value.abs() < *limit => Ok(value),
        _ => Err(NumberFault::Range),
    }
}

/// Brings an unscaled value from one scale to another, half to even.
pub(crate) fn rescale(value: i128, from: i8, to: i8, precision: u8) -> Result<i128, NumberFault> {
    let shift = i32::from(to) - i32::from(from);
    let magnitude = if shift >= 0 {
        let factor = usize::try_from(shift).ok().and_then(|shift| POWERS_OF_TEN.get(shift)).ok_or(NumberFault::Range)?;
        value.checked_mul(*factor).ok_or(NumberFault::Range)?
    } else {
        let magnitude = rounded(value.unsigned_abs(), shift.unsigned_abs(), Rest::Nothing)?;
        if value < 0 { -magnitude } else { magnitude }
    };
    within(magnitude, precision)
}

/// The common case: at most 18 digits, no exponent, no more places than the scale. `None` for all others, right or wrong.
#[inline]
fn short_decimal(text: &[u8], scale: i8) -> Option<i128> {
    let (value, length) = short_decimal_prefix(text, scale)?;
    (length == text.len()).then_some(value)
}

/// Reads a number of the common case off the beginning of a text; gives the unscaled value and how many bytes it took. The byte
/// after it is not looked at, except that it is no digit, point or exponent.
#[inline]
pub(crate) fn short_decimal_prefix(text: &[u8], scale: i8) -> Option<(i128, usize)> {
    let negative = *text.first()? == b'-';
    let start = usize::from(negative);
    let (mut value, mut at) = (0_u64, start);
    while let Some(digit) = digit_at(text, at) {
        value = value.wrapping_mul(10).wrapping_add(digit);
        at += 1;
    }
    let integers = at - start;
    if integers == 0 || integers > 1 && text[start] == b'0' {
        return None;
    }
    let mut places = 0_usize;
    if text.get(at) == Some(&b'.') {
        let point = at;
        at += 1;
        while let Some(digit) = digit_at(text, at) {
            value = value.wrapping_mul(10).wrapping_add(digit);
            at += 1;
        }
        places = at - point - 1;
        if places == 0 {
            return None;
        }
    }
    let missing = usize::try_from(scale).ok()?.checked_sub(places)?;
    if integers + places + missing > 18 || matches!(text.get(at), Some(b'e' | b'E' | b'.')) {
        return None;
    }
    let value = i64::try_from(value).ok()? * SMALL_POWERS[missing];
    Some((i128::from(if negative { -value } else { value }), at))
}

#[inline]
fn digit_at(text: &[u8], at: usize) -> Option<u64> {
    let digit = text.get(at)?.wrapping_sub(b'0');
    (digit <= 9).then_some(u64::from(digit))
}

const SMALL_POWERS: [i64; 19] = {
    let mut powers = [1_i64; 19];
    let mut at = 1;
    while at < 19 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// An integer. `12.0` and `1.2e1` are integers too, `12.5` is not.
pub(crate) fn integer(text: &[u8]) -> Result<i64, NumberFault> {
    if let Some((value, length)) = short_integer_prefix(text)
        && length == text.len()
    {
        return Ok(value);
    }
    let parts = parts(text)?;
    let magnitude = match parts.exponent {
        0 => i128::try_from(parts.mantissa).map_err(|_| NumberFault::Range)?,
        1.. => {
            let factor = usize::try_from(parts.exponent).ok().and_then(|e| POWERS_OF_TEN.get(e));
            let mantissa = i128::try_from(parts.mantissa).map_err(|_| NumberFault::Range)?;
            if mantissa == 0 { 0 } else { factor.and_then(|factor| mantissa.checked_mul(*factor)).ok_or(NumberFault::Range)? }
        }
        _ => {
            let divisor = usize::try_from(parts.exponent.unsigned_abs()).ok().and_then(|e| POWERS_OF_TEN.get(e));
            let mantissa = i128::try_from(parts.mantissa).map_err(|_| NumberFault::Range)?;
            match divisor {
                Some(divisor) if mantissa % divisor == 0 => mantissa / divisor,
                None if mantissa == 0 => 0,
                _ => return Err(NumberFault::Fraction),
            }
        }
    };
    if parts.rest != Rest::Nothing {
        return Err(NumberFault::Range);
    }
    i64::try_from(if parts.negative { -magnitude } else { magnitude }).map_err(|_| NumberFault::Range)
}

/// Reads an integer of at most 18 digits off the beginning of a text, as JSON writes it; gives the value and its length.
#[inline]
pub(crate) fn short_integer_prefix(text: &[u8]) -> Option<(i64, usize)> {
    let negative = *text.first()? == b'-';
    let start = usize::from(negative);
    let (mut value, mut at) = (0_u64, start);
    while let Some(digit) = digit_at(text, at) {
        value = value.wrapping_mul(10).wrapping_add(digit);
        at += 1;
    }
    let digits = at - start;
    if digits == 0 || digits > 18 || digits > 1 && text[start] == b'0' || matches!(text.get(at), Some(b'.' | b'e' | b'E')) {
        return None;
    }
    let value = value.cast_signed();
    Some((if negative { -value } else { value }, at))
}

/// Reads a number of at most 15 digits and 22 places off the beginning of a text, where one division of two exact floats gives the
/// correctly rounded value; gives it and its length.
#[inline]
pub(crate) fn short_float_prefix(text: &[u8]) -> Option<(f64, usize)> {
    let negative = *text.first()? == b'-';
    let start = usize::from(negative);
    let (mut value, mut at) = (0_u64, start);
    while let Some(digit) = digit_at(text, at) {
        value = value.wrapping_mul(10).wrapping_add(digit);
        at += 1;
    }
    let integers = at - start;
    if integers == 0 || integers > 1 && text[start] == b'0' {
        return None;
    }
    let mut places = 0;
    if text.get(at) == Some(&b'.') {
        let point = at;
        at += 1;
        while let Some(digit) = digit_at(text, at) {
            value = value.wrapping_mul(10).wrapping_add(digit);
            at += 1;
        }
        places = at - point - 1;
        if places == 0 {
            return None;
        }
    }
    if integers + places > 15 || matches!(text.get(at), Some(b'e' | b'E' | b'.')) {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 15 digits, exact in a float")]
    let value = value as f64 / FLOAT_POWERS[places];
    Some((if negative { -value } else { value }, at))
}

const FLOAT_POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// A float: a number, correctly rounded, or one of the names that Debezium and PostgreSQL write for what is none.
pub(crate) fn float(text: &[u8]) -> Result<f64, NumberFault> {
    if let Some((value, length)) = short_float_prefix(text)
        && length == text.len()
    {
        return Ok(value);
    }
    let text = std::str::from_utf8(text).map_err(|_| NumberFault::Syntax)?;
    let named = |name: &str| text.eq_ignore_ascii_case(name);
    if named("NaN") {
        return Ok(f64::NAN);
    }
    if named("Infinity") || named("+Infinity") || named("inf") {
        return Ok(f64::INFINITY);
    }
    if named("-Infinity") || named("-inf") {
        return Ok(f64::NEG_INFINITY);
    }
    if text.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
        return Err(NumberFault::Syntax);
    }
    let value: f64 = text.parse().map_err(|_| NumberFault::Syntax)?;
    if value.is_finite() { Ok(value) } else { Err(NumberFault::Range) }
}

#[cfg(test)]
mod tests;
