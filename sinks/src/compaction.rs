//! Which files of a partition become one.
//!
//! Files of like sizes are merged, the smallest first, so that a row is written anew only when its file is merged into one at least half
//! again as large: as often as the logarithm of its partition's size, not with every merge. (The rule of size-tiered stores.)

use crate::producer::LiveFile;

/// Files below this are merged whatever their sizes.
const TINY_BYTES: u64 = 1 << 20;

/// What a table's files should be like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FileRules {
    /// A file is closed when it has got this large, bytes.
    pub target_bytes: u64,
    /// A smaller file that loses rows is written anew, bytes; a larger one gets a delete file.
    pub thinned_from_bytes: u64,
    /// A file that has lost this share of its rows is written anew.
    pub most_gone: f64,
    /// While rows are committed: that many small files of a partition before they are merged. Maintenance merges two.
    pub small_files: usize,
}

impl Default for FileRules {
    fn default() -> FileRules {
        FileRules { target_bytes: 128 << 20, thinned_from_bytes: 1 << 20, most_gone: 0.2, small_files: 16 }
    }
}

impl FileRules {
    /// Whether a file with so many rows gone is written anew rather than thinned.
    pub(crate) fn rewrites(&self, file: &LiveFile, gone: u64) -> bool {
        file.bytes < self.thinned_from_bytes || gone as f64 >= file.records as f64 * self.most_gone
    }
}

/// Those of a partition's files that are to become one: at least `least` of them, together no larger than `target` bytes; or none.
pub(crate) fn small<'f>(files: impl IntoIterator<Item = &'f LiveFile>, least: usize, target: u64) -> Vec<&'f LiveFile> {
    let mut files: Vec<&LiveFile> = files.into_iter().collect();
    files.sort_by_key(|file| file.bytes);
    let mut sum = 0;
    let alike = files.iter().take_while(|file| {
        let fits = (file.bytes <= TINY_BYTES || file.bytes <= 2 * sum) && sum + file.bytes <= target;
        sum += file.bytes;
        fits
    });
    let count = alike.count();
    files.truncate(if count >= least.max(2) { count } else { 0 });
    files
}

/// As [`small`], for files that no commit waits for: should a partition keep more than twice the files that its bytes need, those that fit
/// into one become one, however different their sizes.
pub(crate) fn few<'f>(files: &[&'f LiveFile], target: u64) -> Vec<&'f LiveFile> {
    let alike = small(files.iter().copied(), 2, target);
    let ideal = files.iter().map(|file| file.bytes).sum::<u64>().div_ceil(target.max(1)).max(1);
    let left = files.len() - alike.len().saturating_sub(1);
    if left as u64 <= ideal * 2 {
        return alike;
    }
    let mut files = files.to_vec();
    files.sort_by_key(|file| file.bytes);
    let mut sum = 0;
    let count = files.iter().take_while(|file| {
        sum += file.bytes;
        sum <= target
    });
    let count = count.count();
    files.truncate(if count >= 2 { count } else { 0 });
    files
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{DataContentType, DataFileFormat, Struct};

    use super::*;

    fn files(bytes: &[u64]) -> Vec<LiveFile> {
        let file = |bytes: &u64| LiveFile {
            path: String::new(),
            partition: Struct::empty(),
            records: 1,
            bytes: *bytes,
            content: DataContentType::Data,
            format: DataFileFormat::Parquet,
        };
        bytes.iter().map(file).collect()
    }

    fn sizes(bytes: &[u64], least: usize) -> Vec<u64> {
        let files = files(bytes);
        small(&files, least, 128 << 20).iter().map(|file| file.bytes).collect()
    }

    #[test]
    fn files_of_like_sizes_are_merged() {
        let mega = 1 << 20;
        assert_eq!(sizes(&[10, 30, 20], 3), [10, 20, 30]);
        assert!(sizes(&[10, 30, 20], 4).is_empty());
        assert_eq!(
            sizes(&[mega, mega, 100 * mega], 2),
            [mega, mega],
            "a large file is left alone for the sake of two small ones"
        );
        assert_eq!(sizes(&[60 * mega, 70 * mega, 5 * mega], 2), [0u64; 0], "none is like another");
        assert_eq!(sizes(&[mega, 2 * mega, 4 * mega, 120 * mega], 2), [mega, 2 * mega, 4 * mega]);
        assert!(sizes(&[10], 1).is_empty(), "one file is one file");
    }

    #[test]
    fn no_more_than_twice_the_files_that_are_needed() {
        let mega = 1 << 20;
        let merged = |bytes: &[u64]| -> Vec<u64> {
            let files = files(bytes);
            few(&files.iter().collect::<Vec<_>>(), 128 << 20).iter().map(|file| file.bytes).collect()
        };
        assert_eq!(merged(&[60 * mega, 5 * mega]), [0u64; 0], "two, where one would do");
        assert_eq!(merged(&[60 * mega, 20 * mega, 5 * mega]), [5 * mega, 20 * mega, 60 * mega]);
        assert_eq!(merged(&[mega, mega, 60 * mega]), [mega, mega], "two are left");
        assert_eq!(merged(&[100 * mega, 120 * mega, 30 * mega, 10 * mega]), [0u64; 0], "four, where three are needed");
    }
}
