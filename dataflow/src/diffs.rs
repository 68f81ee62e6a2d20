//! The diffs of many updates, as short as they are.
//!
//! Nearly all updates of a relation say "one more of this row", some "one less". So plain multiplicities take no memory while all are one, a
//! byte each while they are small, and a word each only beyond that; diffs of several lanes (aggregates) are words side by side.

use serde::{Deserialize, Serialize};

/// See the module's text. A diff is `stride` words; `stride` is the caller's to know (see [`Lanes`](crate::lanes::Lanes)).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Diffs {
    /// This many times one. Single-word diffs only.
    Ones(usize),
    /// Small ones. Single-word diffs only.
    Bytes(Vec<i8>),
    /// Words, `stride` an update.
    Words(Vec<u64>),
}

/// Every byte as the word that it stands for, so that a diff can be lent whatever it is kept as.
static WORDS: [u64; 256] = {
    let mut words = [0u64; 256];
    let mut byte = 0;
    while byte < 256 {
        words[byte] = byte as u8 as i8 as i64 as u64;
        byte += 1;
    }
    words
};

impl Diffs {
    /// No diffs of so many words each, with room for some.
    pub fn with_capacity(stride: usize, updates: usize) -> Diffs {
        if stride == 1 { Diffs::Ones(0) } else { Diffs::Words(Vec::with_capacity(updates * stride)) }
    }

    /// How many there are.
    #[inline]
    pub fn len(&self, stride: usize) -> usize {
        match self {
            Diffs::Ones(count) => *count,
            Diffs::Bytes(bytes) => bytes.len(),
            Diffs::Words(words) => words.len() / stride,
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len(1) == 0
    }

    /// The diff at a position.
    ///
    /// # Panics
    /// Beyond the end.
    #[inline]
    pub fn get(&self, index: usize, stride: usize) -> &[u64] {
        match self {
            Diffs::Ones(count) => {
                debug_assert!(index < *count);
                &WORDS[1..2]
            }
            Diffs::Bytes(bytes) => {
                let at = usize::from(bytes[index] as u8);
                &WORDS[at..at + 1]
            }
            Diffs::Words(words) => &words[index * stride..(index + 1) * stride],
        }
    }

    /// Appends a diff of any number of words.
    #[inline]
    pub fn push(&mut self, diff: &[u64]) {
        match (&mut *self, diff) {
            (Diffs::Words(words), _) => words.extend_from_slice(diff),
            (_, [count]) => self.push_count(*count as i64),
            // only diffs of one word are kept short
            (_, _) => {
                debug_assert!(self.is_empty());
                *self = Diffs::Words(diff.to_vec());
            }
        }
    }

    /// Appends a multiplicity.
    #[inline]
    pub fn push_count(&mut self, count: i64) {
        match self {
            Diffs::Ones(ones) if count == 1 => *ones += 1,
            Diffs::Bytes(bytes) if i8::try_from(count).is_ok() => bytes.push(count as i8),
            Diffs::Words(words) => words.push(count as u64),
            _ => self.widen(count),
        }
    }

    #[cold]
    fn widen(&mut self, count: i64) {
        *self = match (&*self, i8::try_from(count)) {
            (Diffs::Ones(ones), Ok(small)) => {
                let mut bytes = vec![1i8; *ones];
                bytes.push(small);
                Diffs::Bytes(bytes)
            }
            (short, _) => {
                let mut words: Vec<u64> = (0..short.len(1)).map(|index| short.get(index, 1)[0]).collect();
                words.push(count as u64);
                Diffs::Words(words)
            }
        };
    }

    /// Appends a range of another's.
    pub fn extend(&mut self, other: &Diffs, range: std::ops::Range<usize>, stride: usize) {
        match (&mut *self, other) {
            (Diffs::Ones(count), Diffs::Ones(_)) => *count += range.len(),
            (Diffs::Bytes(bytes), Diffs::Bytes(others)) => bytes.extend_from_slice(&others[range]),
            (Diffs::Words(words), Diffs::Words(others)) => {
                words.extend_from_slice(&others[range.start * stride..range.end * stride])
            }
            (Diffs::Bytes(bytes), Diffs::Ones(_)) => bytes.resize(bytes.len() + range.len(), 1),
            _ => range.for_each(|index| self.push(other.get(index, stride))),
        }
    }

    /// Sum of the first words: how many rows more there are, or fewer.
    pub fn row_count(&self, stride: usize) -> i64 {
        match self {
            Diffs::Ones(count) => *count as i64,
            Diffs::Bytes(bytes) => bytes.iter().map(|byte| i64::from(*byte)).sum(),
            Diffs::Words(words) => words.iter().step_by(stride).fold(0, |sum, word| sum.wrapping_add(*word as i64)),
        }
    }

    /// How many are below zero, of single-word diffs.
    pub fn negatives(&self) -> usize {
        match self {
            Diffs::Ones(_) => 0,
            Diffs::Bytes(bytes) => bytes.iter().filter(|byte| **byte < 0).count(),
            Diffs::Words(words) => words.iter().filter(|word| (**word as i64) < 0).count(),
        }
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        match self {
            Diffs::Ones(_) => 0,
            Diffs::Bytes(bytes) => bytes.capacity(),
            Diffs::Words(words) => words.capacity() * 8,
        }
    }

    /// Gives back memory that is not used.
    pub fn shrink(&mut self) {
        match self {
            Diffs::Ones(_) => {}
            Diffs::Bytes(bytes) => bytes.shrink_to_fit(),
            Diffs::Words(words) => words.shrink_to_fit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_widen_and_keep_what_they_held() {
        let counts = [1, 1, -1, 127, -128, 128, i64::MIN, 1];
        for cut in 0..counts.len() {
            let (mut one, mut other) = (Diffs::with_capacity(1, 0), Diffs::with_capacity(1, 0));
            counts[..cut].iter().for_each(|count| one.push_count(*count));
            counts[cut..].iter().for_each(|count| other.push(&[*count as u64]));
            one.extend(&other, 0..counts.len() - cut, 1);
            assert_eq!(one.len(1), counts.len());
            let held: Vec<i64> = (0..counts.len()).map(|index| one.get(index, 1)[0] as i64).collect();
            assert_eq!(held, counts);
            assert_eq!(one.negatives(), 3);
        }
    }

    #[test]
    fn lanes_stay_words() {
        let mut diffs = Diffs::with_capacity(2, 4);
        diffs.push(&[1, 2]);
        diffs.push(&[3, 4]);
        let copy = diffs.clone();
        diffs.extend(&copy, 1..2, 2);
        assert_eq!((diffs.len(2), diffs.get(2, 2)), (3, &[3u64, 4][..]));
    }
}
