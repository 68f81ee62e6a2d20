//! The files of one try to commit, so that a try that is known to have failed leaves none.
//!
//! Tries that fail follow each other for as long as the cause lasts; without this each would leave what it wrote, on a disk that may be full.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use iceberg::Result;
use iceberg::io::{FileIO, OutputFile};

use super::expiry;
use crate::failpoint;
use crate::storage::local_path;

/// See the module.
pub(crate) struct Attempt {
    pub(crate) io: FileIO,
    paths: Mutex<Vec<String>>,
}

impl Attempt {
    pub(crate) fn new(io: FileIO) -> Attempt {
        Attempt { io, paths: Mutex::default() }
    }

    /// A new file.
    pub(crate) fn output(&self, path: &str) -> Result<OutputFile> {
        self.note(path);
        failpoint::reach("file");
        self.io.new_output(path)
    }

    /// A file that is about to be written.
    pub(crate) fn note(&self, path: &str) {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
    }

    /// Deletes what was written, and folders that are empty then. Blocks. Only for a try of which nothing can be visible, and which
    /// nobody is at work on any more.
    pub(crate) fn discard(&self) {
        let paths = std::mem::take(&mut *self.paths.lock().unwrap_or_else(PoisonError::into_inner));
        expiry::discard(&paths);
        for path in &paths {
            // data or metadata, then the table's; one that is not empty stays, which is no error
            let folders = local_path(path);
            let folders = folders.ancestors().skip(1).take(2).map(Path::to_path_buf);
            let _ = folders.into_iter().try_for_each(std::fs::remove_dir);
        }
    }
}
