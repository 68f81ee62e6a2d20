//! The order in which rows are sealed: by key, compared as numbers as far as that goes.
//!
//! Of a key only 16 bytes are looked at first, those behind the ones that all keys have in common: encoded keys begin with bytes that
//! hardly differ (a mark for "not NULL", the high bytes of a time). What is equal there is compared in full, if there is more.

use std::cmp::Ordering;

/// A row to be sorted: 16 bytes of its key, then its list and its position there.
pub type Entry = (u128, u32, u32);

/// 16 bytes of a row, from a position on, as a number that orders like them; zeros beyond the end.
#[inline]
fn number(row: &[u8], from: usize) -> u128 {
    let row = row.get(from..).unwrap_or(&[]);
    match row.first_chunk::<16>() {
        Some(bytes) => u128::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0u8; 16];
            bytes[..row.len()].copy_from_slice(row);
            u128::from_be_bytes(bytes)
        }
    }
}

/// How the rows of one key are ordered.
pub type Within<'a> = &'a dyn Fn(&Entry, &Entry) -> Ordering;

/// Rows of several lists in the order of their keys.
#[derive(Debug)]
pub struct KeyOrder {
    entries: Vec<Entry>,
    /// Whether equal numbers are equal keys.
    whole: bool,
}

impl KeyOrder {
    /// Sorts the rows, given as list and position there, by key. `total` is how many they are, `width` that of all keys, if they have one.
    pub fn new<'k>(
        total: usize,
        width: Option<usize>,
        rows: impl Iterator<Item = (u32, u32)>,
        key: impl Fn(u32, u32) -> &'k [u8],
    ) -> KeyOrder {
        let mut entries: Vec<Entry> = Vec::with_capacity(total);
        entries.extend(rows.map(|(list, row)| (number(key(list, row), 0), list, row)));
        let mut common = 0;
        if width.is_none_or(|width| width > 16)
            && let Some((first, _, _)) = entries.first().copied()
        {
            let differing = entries.iter().fold(0, |bits, entry| bits | (entry.0 ^ first));
            common = differing.leading_zeros() as usize / 8;
            if common > 0 {
                entries.iter_mut().for_each(|entry| entry.0 = number(key(entry.1, entry.2), common));
            }
        }
        entries.sort_unstable();
        let whole = width.is_some_and(|width| width <= common + 16);
        if !whole {
            for ties in entries.chunk_by_mut(|left, right| left.0 == right.0).filter(|ties| ties.len() > 1) {
                ties.sort_unstable_by(|left, right| key(left.1, left.2).cmp(key(right.1, right.2)).then_with(|| left.cmp(right)));
            }
        }
        KeyOrder { entries, whole }
    }

    /// Calls for each key, ascending, with its rows, in the order of lists and positions, or as `within` sorts them.
    pub fn for_each_key<'k>(
        mut self,
        key: impl Fn(u32, u32) -> &'k [u8],
        within: Option<Within<'_>>,
        mut f: impl FnMut(&'k [u8], &[Entry]),
    ) {
        let mut at = 0;
        while at < self.entries.len() {
            let (number, list, row) = self.entries[at];
            let this_key = key(list, row);
            let same = |entry: &Entry| entry.0 == number && (self.whole || key(entry.1, entry.2) == this_key);
            let end = at + 1 + self.entries[at + 1..].iter().take_while(|entry| same(entry)).count();
            let run = &mut self.entries[at..end];
            if let Some(within) = within
                && run.len() > 1
            {
                run.sort_unstable_by(within);
            }
            f(this_key, run);
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(keys: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u32>)> {
        let width = keys.first().map(|key| key.len()).filter(|width| keys.iter().all(|key| key.len() == *width));
        let key = |_: u32, row: u32| keys[row as usize];
        let mut seen = Vec::new();
        KeyOrder::new(keys.len(), width, (0..keys.len() as u32).map(|row| (0, row)), key).for_each_key(key, None, |key, rows| {
            seen.push((key.to_vec(), rows.iter().map(|entry| entry.2).collect()));
        });
        seen
    }

    #[test]
    fn keys_of_any_length_come_in_the_order_of_their_bytes() {
        let long = |end: &[u8]| [&[1u8, 128, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7][..], end].concat();
        let keys =
            [vec![], vec![0], vec![0, 0], long(b"b"), long(b"a"), long(b"ab"), long(b""), long(&[0]), vec![1], vec![255; 40]];
        for (from, to) in [(0, keys.len()), (3, 8), (0, 3), (3, 5), (4, 5), (0, 0)] {
            // every key twice
            let mut rows: Vec<&[u8]> = keys[from..to].iter().map(Vec::as_slice).collect();
            rows.extend_from_within(..);
            let mut expected: Vec<(Vec<u8>, Vec<u32>)> =
                (0..to - from).map(|at| (keys[from + at].clone(), vec![at as u32, (to - from + at) as u32])).collect();
            expected.sort();
            assert_eq!(sorted(&rows), expected);
        }
    }
}
