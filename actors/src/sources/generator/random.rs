//! Random numbers that stay the same for ever.
//!
//! The generator promises the same bytes for the same seed, so the sequence must not change with a library's version, and must
//! not use floating-point functions, whose last bit differs between platforms. SplitMix64 is short, passes the usual test
//! suites, and can be started anywhere from a hash, which is what makes seeking cheap.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finaliser: a bijection of `u64` whose every output bit depends on every input bit.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A number that depends on nothing but the seed, the purpose (`stream`) and an index.
pub(super) fn hash(seed: u64, stream: u64, index: u64) -> u64 {
    mix(mix(seed.wrapping_add(stream.wrapping_mul(GOLDEN))) ^ index.wrapping_mul(GOLDEN))
}

/// A sequence of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence of one seed, purpose and index.
    pub(super) fn new(seed: u64, stream: u64, index: u64) -> Self {
        Random(hash(seed, stream, index))
    }

    /// The next 64 bits.
    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Evenly from `0..bound`.
    #[inline]
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// Evenly from `low..high`.
    #[inline]
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + i64::from(self.below((high - low) as u32))
    }

    /// True this many times in 100,000.
    #[inline]
    pub(super) fn chance(&mut self, per_100_000: u32) -> bool {
        self.below(100_000) < per_100_000
    }

    /// Exponentially distributed with this mean, by a piecewise linear logarithm (within 3 % of the true quantile).
    #[inline]
    pub(super) fn exponential(&mut self, mean: i64) -> i64 {
        let x = self.next() | 1;
        let zeros = x.leading_zeros();
        let fraction = ((x << zeros) >> 53) & 0x3ff;
        let log2_1024ths = i64::from(zeros) * 1024 + 1024 - fraction as i64;
        mean * (log2_1024ths * 710 / 1024) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_stated_means() {
        let mut random = Random::new(7, 1, 1);
        let n = 200_000;
        let uniform: u64 = (0..n).map(|_| u64::from(random.below(1000))).sum();
        assert!((uniform as f64 / n as f64 - 499.5).abs() < 3.0);
        let exponential: i64 = (0..n).map(|_| random.exponential(1_000_000)).sum();
        assert!((exponential as f64 / n as f64 / 1_000_000.0 - 1.0).abs() < 0.05);
        let hits = (0..n).filter(|_| random.chance(5_000)).count();
        assert!((hits as f64 / n as f64 - 0.05).abs() < 0.003);
    }

    #[test]
    fn the_sequence_never_changes() {
        let mut random = Random::new(1, 2, 3);
        assert_eq!(
            [random.next(), random.next()],
            [Random::new(1, 2, 3).next(), {
                random = Random::new(1, 2, 3);
                random.next();
                random.next()
            }]
        );
        assert_ne!(hash(1, 2, 3), hash(1, 2, 4));
        assert_ne!(hash(1, 2, 3), hash(1, 3, 3));
        assert_ne!(hash(1, 2, 3), hash(2, 2, 3));
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
    }
}
