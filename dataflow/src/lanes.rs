//! How a diff is laid out in 64-bit words.
//!
//! A diff is a row of *lanes*, each a signed two's-complement integer of one or more words, least significant word first. Adding two
//! diffs adds lane by lane with carries, so every aggregate that is a sum of integers (counts, sums of integers and decimals,
//! and sums of floats as wide fixed-point numbers, see [`crate::exact`]) can be added, retracted and merged exactly by one small loop.

/// Widths of the lanes. Plain multiplicity is one lane of one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// For each word, all ones if the carry of the word before flows into it (same lane), else zero.
    carries: std::sync::Arc<[u64]>,
}

impl Lanes {
    /// One lane of one word: how often a row is there.
    pub fn multiplicity() -> Lanes {
        Lanes::new(&[1])
    }

    /// Lanes of these widths, in words.
    pub fn new(widths: &[usize]) -> Lanes {
        let mut carries = Vec::new();
        for width in widths {
            carries.push(0);
            carries.resize(carries.len() + width - 1, u64::MAX);
        }
        Lanes { carries: carries.into() }
    }

    /// Words in a diff.
    #[inline]
    pub fn stride(&self) -> usize {
        self.carries.len()
    }

    /// `sum += other`, wrapping in each lane.
    #[inline]
    pub fn add(&self, sum: &mut [u64], other: &[u64]) {
        if let ([sum], [other]) = (&mut *sum, other) {
            *sum = sum.wrapping_add(*other);
            return;
        }
        self.add_at(sum, 0, other);
    }

    /// `sum += other`, of which only the words from `at` on are given: whole lanes. The others are zero.
    #[inline]
    pub fn add_at(&self, sum: &mut [u64], at: usize, other: &[u64]) {
        let mut carry = 0u64;
        for ((sum, other), keep) in sum[at..].iter_mut().zip(other).zip(&self.carries[at..]) {
            let (partial, first) = sum.overflowing_add(*other);
            let (total, second) = partial.overflowing_add(carry & keep);
            *sum = total;
            carry = u64::from(first | second);
        }
    }

    /// Whether nothing is left of it.
    #[inline]
    pub fn is_zero(&self, words: &[u64]) -> bool {
        words.iter().all(|word| *word == 0)
    }

    /// `words = -words`, lane by lane.
    pub fn negate(&self, words: &mut [u64]) {
        let mut carry = 1u64;
        for (word, keep) in words.iter_mut().zip(self.carries.iter()) {
            let carry_in = if *keep == 0 { 1 } else { carry };
            let (negated, overflow) = (!*word).overflowing_add(carry_in);
            *word = negated;
            carry = u64::from(overflow);
        }
    }
}

/// Adds a signed 64-bit number into a lane of `width` words that begins at `words[0]`.
#[inline]
pub fn add_i64(words: &mut [u64], value: i64) {
    let extension = (value >> 63) as u64;
    let (sum, mut carry) = words[0].overflowing_add(value as u64);
    words[0] = sum;
    for word in &mut words[1..] {
        let (partial, first) = word.overflowing_add(extension);
        let (total, second) = partial.overflowing_add(u64::from(carry));
        *word = total;
        carry = first | second;
    }
}

/// Adds a signed 128-bit number into a lane of two words.
#[inline]
pub fn add_i128(words: &mut [u64], value: i128) {
    let sum = read_i128(words).wrapping_add(value);
    words[0] = sum as u64;
    words[1] = (sum >> 64) as u64;
}

/// A lane of two words as a number.
#[inline]
pub fn read_i128(words: &[u64]) -> i128 {
    ((words[1] as i128) << 64) | words[0] as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_do_not_leak_into_each_other() {
        let lanes = Lanes::new(&[1, 2, 1]);
        let mut sum = vec![0; 4];
        add_i64(&mut sum[0..1], -1);
        add_i128(&mut sum[1..3], -1);
        add_i64(&mut sum[3..4], 7);
        let mut negative = sum.clone();
        lanes.negate(&mut negative);
        let mut doubled = sum.clone();
        lanes.add(&mut doubled, &sum);
        assert_eq!(doubled[0] as i64, -2);
        assert_eq!(read_i128(&doubled[1..3]), -2);
        assert_eq!(doubled[3], 14);
        lanes.add(&mut sum, &negative);
        assert!(lanes.is_zero(&sum));
    }
}
