//! The files of one try to commit, so that a try that is known to have failed leaves none.
//!
//! Tries that fail follow each other for as long as the cause lasts; without this each would leave what it wrote, on a disk that may be full.

use std::sync::{Mutex, PoisonError};

use iceberg::Result;
use iceberg::io::OutputFile;

use crate::failpoint;
use crate::storage::Storage;
use crate::storage::files::Files;

/// See the module.
pub(crate) struct Attempt {
    pub(crate) files: Files,
    /// Whether metadata files are written here, and not by the catalog.
    pub(crate) writes_metadata: bool,
    paths: Mutex<Vec<String>>,
}

impl Attempt {
    pub(crate) fn new(storage: &Storage) -> Attempt {
        let writes_metadata = !storage.is_metadata_the_catalogs();
        Attempt { files: storage.files.clone(), writes_metadata, paths: Mutex::default() }
    }

    /// A new file.
    pub(crate) fn output(&self, path: &str) -> Result<OutputFile> {
        self.note(path);
        failpoint::reach("file");
        self.files.io.new_output(path)
    }

    /// A file that is about to be written.
    pub(crate) fn note(&self, path: &str) {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
    }

    /// Deletes what was written, and folders that are empty then. Only for a try of which nothing can be visible, and which nobody is at
    /// work on any more.
    pub(crate) async fn discard(&self) {
        let paths = std::mem::take(&mut *self.paths.lock().unwrap_or_else(PoisonError::into_inner));
        self.files.discard(paths.clone()).await;
        paths.iter().for_each(|path| self.files.remove_empty_folders(path));
    }
}
