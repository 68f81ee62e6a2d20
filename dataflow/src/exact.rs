//! Exact sums of floats: a wide fixed-point number instead of a float.
//!
//! A sum is a signed integer of 320 bits that counts units of 2^-160. Every finite double below 2^126 in magnitude, and every
//! product of two of them below that, is added to the last bit that is not smaller than a unit (7e-49); adding and then taking away
//! gives back the same bits, in any order, which floating-point addition does not. Only reading rounds, once, to the nearest
//! double. NaN and the infinities are counted beside the sum, so they leave no trace when they are retracted; a value too large for the range
//! counts as a NaN, so that the answer is "not a number" rather than a wrong number while it is there.
//!
//! The idea is Kulisch's long accumulator, shortened to the range that data has: 40 bytes instead of 280 a group.

use crate::lanes::add_i64;

/// Words of the sum itself.
pub const SUM_WORDS: usize = 5;
/// Words of a whole accumulator: the sum, then how many NaNs, positive and negative infinities.
pub const FLOAT_WORDS: usize = SUM_WORDS + 3;
/// Lanes of a whole accumulator.
pub const FLOAT_LANES: [usize; 4] = [SUM_WORDS, 1, 1, 1];

/// The weight of the lowest bit is 2 to the minus this.
const UNIT_BITS: i32 = 160;
/// Magnitudes from 2 to this on are out of range; leaves 32 bits for the number of values.
const LIMIT_BITS: i32 = 126;

/// Mantissa and exponent: `value = mantissa * 2^exponent`, for finite values.
#[inline]
fn split(value: f64) -> (u64, i32) {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    if exponent == 0 { (fraction, -1074) } else { (fraction | (1 << 52), exponent - 1075) }
}

/// Adds `value` `times` times (negative: takes it away) to an accumulator of [`FLOAT_WORDS`] words.
#[inline]
pub fn add(words: &mut [u64], value: f64, times: i64) {
    if !value.is_finite() {
        return add_special(&mut words[SUM_WORDS..], value, times);
    }
    let (mantissa, exponent) = split(value);
    if mantissa == 0 {
        return;
    }
    if exponent + 53 > LIMIT_BITS {
        return add_special(&mut words[SUM_WORDS..], f64::NAN, times);
    }
    let magnitude = u128::from(mantissa) * u128::from(times.unsigned_abs());
    add_shifted(
        &mut words[..SUM_WORDS],
        [magnitude as u64, (magnitude >> 64) as u64, 0],
        exponent,
        value.is_sign_negative() != (times < 0),
    );
}

/// Adds the exact product of two floats `times` times to a sum of [`SUM_WORDS`] words, and what is special about it to `special`
/// (the three words after a sum).
#[inline]
pub fn add_product(sum: &mut [u64], special: Option<&mut [u64]>, left: f64, right: f64, times: i64) {
    if !left.is_finite() || !right.is_finite() {
        if let Some(special) = special {
            add_special(special, left * right, times);
        }
        return;
    }
    let ((a, a_exponent), (b, b_exponent)) = (split(left), split(right));
    if a == 0 || b == 0 {
        return;
    }
    let exponent = a_exponent + b_exponent;
    if exponent + 106 > LIMIT_BITS {
        if let Some(special) = special {
            add_special(special, f64::NAN, times);
        }
        return;
    }
    let product = u128::from(a) * u128::from(b);
    let count = u128::from(times.unsigned_abs());
    let low = u128::from(product as u64) * count;
    let high = (product >> 64) * count + (low >> 64);
    let negative = (left.is_sign_negative() != right.is_sign_negative()) != (times < 0);
    add_shifted(&mut sum[..SUM_WORDS], [low as u64, high as u64, (high >> 64) as u64], exponent, negative);
}

#[inline]
fn add_special(words: &mut [u64], value: f64, times: i64) {
    let slot = if value.is_nan() {
        0
    } else if value > 0.0 {
        1
    } else {
        2
    };
    add_i64(&mut words[slot..=slot], times);
}

/// `sum ±= magnitude * 2^exponent`; bits below the unit are cut off, the same ones on every way in and out.
#[inline]
fn add_shifted(sum: &mut [u64], mut magnitude: [u64; 3], exponent: i32, negative: bool) {
    let mut shift = exponent + UNIT_BITS;
    while shift < 0 {
        let bits = (-shift).min(63) as u32;
        magnitude[0] = (magnitude[0] >> bits) | (magnitude[1] << (64 - bits));
        magnitude[1] = (magnitude[1] >> bits) | (magnitude[2] << (64 - bits));
        magnitude[2] >>= bits;
        shift += bits as i32;
        if magnitude == [0; 3] {
            return;
        }
    }
    let (word, bit) = ((shift / 64) as usize, (shift % 64) as u32);
    let spread = if bit == 0 {
        [magnitude[0], magnitude[1], magnitude[2], 0]
    } else {
        [
            magnitude[0] << bit,
            (magnitude[1] << bit) | (magnitude[0] >> (64 - bit)),
            (magnitude[2] << bit) | (magnitude[1] >> (64 - bit)),
            magnitude[2] >> (64 - bit),
        ]
    };
    let mut carry = false;
    for (offset, target) in sum[word..].iter_mut().enumerate() {
        let part = spread.get(offset).copied().unwrap_or(0);
        if offset >= 4 && !carry {
            break;
        }
        if negative {
            let (partial, first) = target.overflowing_sub(part);
            let (total, second) = partial.overflowing_sub(u64::from(carry));
            *target = total;
            carry = first | second;
        } else {
            let (partial, first) = target.overflowing_add(part);
            let (total, second) = partial.overflowing_add(u64::from(carry));
            *target = total;
            carry = first | second;
        }
    }
}

/// The sum as the nearest double, ties to even; NaN and infinities as addition would have made them.
pub fn read(words: &[u64]) -> f64 {
    special(&words[SUM_WORDS..FLOAT_WORDS]).unwrap_or_else(|| round(&words[..SUM_WORDS]))
}

/// What the counts of special values make of a sum; nothing if there are none.
pub fn special(counts: &[u64]) -> Option<f64> {
    match (counts[0], counts[1], counts[2]) {
        (0, 0, 0) => None,
        (0, _, 0) => Some(f64::INFINITY),
        (0, 0, _) => Some(f64::NEG_INFINITY),
        _ => Some(f64::NAN),
    }
}

/// A sum of [`SUM_WORDS`] words as the nearest double.
pub fn round(sum: &[u64]) -> f64 {
    let negative = (sum[SUM_WORDS - 1] as i64) < 0;
    let mut magnitude = [0u64; SUM_WORDS];
    let mut carry = true;
    for (target, word) in magnitude.iter_mut().zip(sum) {
        if negative {
            let (value, overflow) = (!word).overflowing_add(u64::from(carry));
            *target = value;
            carry = overflow;
        } else {
            *target = *word;
        }
    }
    let Some(top_word) = magnitude.iter().rposition(|word| *word != 0) else { return 0.0 };
    let top = top_word as i32 * 64 + 63 - magnitude[top_word].leading_zeros() as i32;
    let lowest = top - 52;
    // bits from a position on, which may be below the first
    let bits = |from: i32| -> u64 {
        if from < 0 {
            return if from > -64 { magnitude[0] << -from } else { 0 };
        }
        let (word, bit) = (from as usize / 64, from % 64);
        let above = magnitude.get(word + 1).copied().unwrap_or(0);
        if bit == 0 { magnitude[word] } else { (magnitude[word] >> bit) | (above << (64 - bit)) }
    };
    let mut mantissa = bits(lowest) & ((1 << 53) - 1);
    if lowest > 0 && bits(lowest - 1) & 1 == 1 {
        let sticky_end = lowest - 1;
        let whole = (sticky_end / 64) as usize;
        let sticky = magnitude[..whole].iter().any(|word| *word != 0)
            || (sticky_end % 64 != 0 && magnitude[whole] & ((1 << (sticky_end % 64)) - 1) != 0);
        if sticky || mantissa & 1 == 1 {
            mantissa += 1;
        }
    }
    // the mantissa has at most 54 bits and the exponent is in the normal range, so both factors are exact
    let value = mantissa as f64 * f64::from_bits(((lowest - UNIT_BITS + 1023) as u64) << 52);
    if negative { -value } else { value }
}

/// A number as the unevaluated sum of two doubles: about 106 bits, enough that variances do not cancel away.
#[derive(Clone, Copy, Debug)]
pub struct Double2 {
    high: f64,
    low: f64,
}

impl Double2 {
    /// The exact sum, rounded to 106 bits.
    pub fn of_sum(sum: &[u64]) -> Double2 {
        let high = round(sum);
        let mut rest = [0u64; FLOAT_WORDS];
        rest[..SUM_WORDS].copy_from_slice(&sum[..SUM_WORDS]);
        add(&mut rest, high, -1);
        Double2 { high, low: round(&rest[..SUM_WORDS]) }
    }

    /// A whole number below 2^53.
    pub fn of(value: f64) -> Double2 {
        Double2 { high: value, low: 0.0 }
    }

    /// Product.
    pub fn times(self, other: Double2) -> Double2 {
        let high = self.high * other.high;
        let error = self.high.mul_add(other.high, -high) + (self.high * other.low + self.low * other.high);
        Double2::renormalise(high, error)
    }

    /// Difference.
    pub fn minus(self, other: Double2) -> Double2 {
        let high = self.high - other.high;
        let back = high - self.high;
        let error = (self.high - (high - back)) + (-other.high - back) + self.low - other.low;
        Double2::renormalise(high, error)
    }

    fn renormalise(high: f64, error: f64) -> Double2 {
        let sum = high + error;
        Double2 { high: sum, low: error - (sum - high) }
    }

    /// The nearest double.
    pub fn value(self) -> f64 {
        self.high + self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> Vec<u64> {
        let mut words = vec![0; FLOAT_WORDS];
        for value in values {
            add(&mut words, *value, 1);
        }
        words
    }

    #[test]
    fn reads_back_single_values() {
        for value in [0.1, -0.1, 14.27, 1.0, -1e-30, 5e30, 1e38 / 4.0, 123_456_789.123_456_79, 2f64.powi(-100)] {
            assert_eq!(read(&sum(&[value])).to_bits(), value.to_bits(), "{value}");
        }
    }

    #[test]
    fn is_exact_where_floats_are_not() {
        assert_eq!(read(&sum(&[1e16, 1.0, -1e16])), 1.0);
        assert_eq!(read(&sum(&[0.1; 10])), 1.0);
    }

    #[test]
    fn takes_away_to_the_last_bit_in_any_order() {
        let before = sum(&[0.1, 7.25, 1e20]);
        let mut words = before.clone();
        add(&mut words, 3.3e-12, 3);
        add(&mut words, f64::NAN, 1);
        add(&mut words, f64::INFINITY, 2);
        add(&mut words, 1e300, 1);
        assert!(read(&words).is_nan());
        add(&mut words, 1e300, -1);
        add(&mut words, f64::INFINITY, -2);
        add(&mut words, 3.3e-12, -3);
        add(&mut words, f64::NAN, -1);
        assert_eq!(words, before);
    }

    #[test]
    fn variance_survives_a_large_mean() {
        let values = [1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0];
        let (mut total, mut squares) = (vec![0; FLOAT_WORDS], vec![0; SUM_WORDS]);
        for value in values {
            add(&mut total, value, 1);
            add_product(&mut squares, None, value, value, 1);
        }
        let (total, squares) = (Double2::of_sum(&total), Double2::of_sum(&squares));
        let scaled = squares.times(Double2::of(3.0)).minus(total.times(total)).value();
        assert_eq!(scaled / 9.0, 2.0 / 3.0);
    }
}
