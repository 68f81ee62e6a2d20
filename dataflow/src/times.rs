//! The times of many updates, as short as they are: one for all while they are equal, which is what compaction makes of old batches; then
//! half a word each, counted from the first, which reaches half an hour both ways; else a word each.

use crate::protocol::Timestamp;

/// See the module's text.
#[derive(Debug)]
pub enum Times {
    /// All are this one.
    One(Timestamp),
    /// Distances from the first time, in microseconds.
    Near(Timestamp, Vec<i32>),
    /// As they are.
    Each(Vec<Timestamp>),
}

#[inline]
fn distance(from: Timestamp, to: Timestamp) -> Option<i32> {
    i32::try_from(to.wrapping_sub(from) as i64).ok()
}

impl Times {
    /// The time at a position.
    #[inline]
    pub fn get(&self, index: usize) -> Timestamp {
        match self {
            Times::One(time) => *time,
            Times::Near(first, distances) => first.wrapping_add_signed(i64::from(distances[index])),
            Times::Each(times) => times[index],
        }
    }

    /// Appends a time as number `index`.
    #[inline]
    pub fn push(&mut self, time: Timestamp, index: usize) {
        match self {
            Times::One(only) if index == 0 => *only = time,
            Times::One(only) if *only == time => {}
            Times::Near(first, distances) if distance(*first, time).is_some() => {
                distances.push(time.wrapping_sub(*first) as i32);
            }
            Times::Each(times) => times.push(time),
            _ => self.widen(time, index),
        }
    }

    #[cold]
    fn widen(&mut self, time: Timestamp, index: usize) {
        *self = match self {
            Times::One(only) if distance(*only, time).is_some() => {
                let mut distances = vec![0; index];
                distances.push(time.wrapping_sub(*only) as i32);
                Times::Near(*only, distances)
            }
            _ => Times::Each((0..index).map(|at| self.get(at)).chain([time]).collect()),
        };
    }

    /// All different times, ascending.
    pub fn distinct(&self) -> Vec<Timestamp> {
        let mut times = match self {
            Times::One(time) => vec![*time],
            Times::Near(first, distances) => {
                let mut distances = distances.clone();
                distances.sort_unstable();
                distances.dedup();
                distances.into_iter().map(|distance| first.wrapping_add_signed(i64::from(distance))).collect()
            }
            Times::Each(times) => times.clone(),
        };
        times.sort_unstable();
        times.dedup();
        times
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        match self {
            Times::One(_) => 0,
            Times::Near(_, distances) => distances.capacity() * 4,
            Times::Each(times) => times.capacity() * 8,
        }
    }

    /// Gives back memory that is not used.
    pub fn shrink(&mut self) {
        match self {
            Times::One(_) => {}
            Times::Near(_, distances) => distances.shrink_to_fit(),
            Times::Each(times) => times.shrink_to_fit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_widen_and_keep_what_they_held() {
        let hour = 3_600_000_000;
        let now = 1_795_418_105_487_404;
        for wanted in [vec![now; 3], vec![now, now, now - 5, now + hour / 2], vec![now, now + 1, now - hour, 0, Timestamp::MAX]] {
            let mut times = Times::One(0);
            wanted.iter().enumerate().for_each(|(at, time)| times.push(*time, at));
            assert_eq!((0..wanted.len()).map(|at| times.get(at)).collect::<Vec<_>>(), wanted);
            let mut distinct = wanted.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(times.distinct(), distinct);
        }
    }
}
