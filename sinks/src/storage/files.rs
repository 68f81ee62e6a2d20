//! A lake's files, be they in a folder or in a bucket: what Iceberg's own file interface does not offer, said once for both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use iceberg::io::{FileIO, FileIOBuilder};

use super::bucket::Bucket;
use crate::error::SinkError;
use crate::failpoint;

/// A file that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Where, as [`Files::same`] writes it or as it would be written.
    pub(crate) location: String,
    pub(crate) bytes: u64,
    /// When it was last written.
    pub(crate) changed: SystemTime,
}

/// Where files are. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// Reads and writes whole files.
    pub(crate) io: FileIO,
    bucket: Option<Bucket>,
}

impl Files {
    /// The local file system.
    pub(crate) fn local() -> Files {
        Files { io: FileIO::new_with_fs(), bucket: None }
    }

    /// A bucket, by its name.
    ///
    /// # Errors
    /// Settings in the environment that make no sense.
    pub(crate) fn bucket(name: &str) -> Result<Files, SinkError> {
        let bucket = Bucket::new(name)?;
        Ok(Files { io: FileIOBuilder::new(Arc::new(bucket.clone())).build(), bucket: Some(bucket) })
    }

    /// Whether files are on this machine's file system.
    pub(crate) fn is_local(&self) -> bool {
        self.bucket.is_none()
    }

    /// One spelling for the many of a location (`file:/a`, `file:///a`; `s3a://`, `s3://`), to compare them.
    pub(crate) fn same(&self, location: &str) -> String {
        match (&self.bucket, location.split_once("://")) {
            (Some(_), Some((_, rest))) => format!("s3://{rest}"),
            (Some(_), None) => location.to_owned(),
            (None, _) => format!("file://{}", local_path(location).display()),
        }
    }

    /// Deletes files. What cannot be deleted is logged, and costs space only; whether all are gone.
    pub(crate) async fn discard(&self, locations: Vec<String>) -> bool {
        let failures: Vec<(String, String)> = match &self.bucket {
            Some(bucket) => {
                locations.iter().for_each(|_| failpoint::reach("sweep"));
                bucket.remove(locations).await.into_iter().map(|(location, error)| (location, error.to_string())).collect()
            }
            None => {
                let removed = tokio::task::spawn_blocking(move || remove_local(locations)).await;
                removed.unwrap_or_else(|stopped| vec![("files".to_owned(), stopped.to_string())])
            }
        };
        for (location, error) in &failures {
            tracing::warn!(location, error, "an old file stays behind");
        }
        failures.is_empty()
    }

    /// Deletes the folders that a table's file is in, as far as they are empty then. Buckets have none.
    pub(crate) fn remove_empty_folders(&self, location: &str) {
        if self.is_local() {
            // data or metadata, then the table's; one that is not empty stays, which is no error
            let path = local_path(location);
            let mut folders = path.ancestors().skip(1).take(2).map(Path::to_path_buf);
            let _ = folders.try_for_each(std::fs::remove_dir);
        }
    }

    /// Deletes everything below a location.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn remove_below(&self, location: &str) -> Result<(), SinkError> {
        match &self.bucket {
            Some(_) => self.io.delete_prefix(location).await.map_err(failed("delete the files below", location)),
            None => {
                let path = local_path(location);
                std::fs::remove_dir_all(&path).map_err(SinkError::file("delete the folder", path))
            }
        }
    }

    /// Whether nothing is at or below a location.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn is_free(&self, location: &str) -> Result<bool, SinkError> {
        match &self.bucket {
            Some(bucket) => bucket.is_empty(location).await.map_err(failed("list the files below", location)),
            None => Ok(!local_path(location).exists()),
        }
    }

    /// The files in the folders `parts` of a table's folder; not those in folders of these.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn list(&self, folder: &str, parts: &'static [&'static str]) -> Result<Vec<Found>, SinkError> {
        match &self.bucket {
            Some(bucket) => {
                let mut found = Vec::new();
                for part in parts {
                    let below = format!("{folder}/{part}");
                    let listed = bucket.list(&below).await.map_err(failed("list the files below", &below))?;
                    let direct = |location: &str| {
                        location.strip_prefix(&format!("{}/", self.same(&below))).is_some_and(|name| !name.contains('/'))
                    };
                    found.extend(listed.into_iter().filter(|found| direct(&found.location)));
                }
                Ok(found)
            }
            None => {
                let folder = local_path(folder);
                let listed = tokio::task::spawn_blocking(move || list_local(&folder, parts)).await;
                listed.map_err(|e| SinkError::Thread(e.to_string()))?
            }
        }
    }

    /// The folders directly below a location.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn folders(&self, location: &str) -> Result<Vec<String>, SinkError> {
        match &self.bucket {
            Some(bucket) => bucket.folders(location).await.map_err(failed("list the folders below", location)),
            None => {
                let folder = local_path(location);
                let entries = std::fs::read_dir(&folder).map_err(SinkError::file("list the folder", &folder))?;
                let folders = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
                Ok(folders.map(|path| format!("file://{}", path.display())).collect())
            }
        }
    }

    /// Finds out whether files can be written, by writing one.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn probe(&self, folder: &str) -> Result<(), SinkError> {
        let name = format!("{folder}/.probe-{}", uuid::Uuid::new_v4());
        if self.is_local() {
            let (probe, folder) = (local_path(&name), local_path(folder));
            std::fs::write(&probe, b"").map_err(SinkError::file("write in", &folder))?;
            return std::fs::remove_file(&probe).map_err(SinkError::file("write in", &folder));
        }
        let written = async { self.io.new_output(&name)?.write(bytes::Bytes::new()).await };
        written.await.map_err(failed("write in", folder))?;
        if let Err(error) = self.io.delete(&name).await {
            tracing::warn!(name, %error, "an empty file that was written to see whether it can be stays behind");
        }
        Ok(())
    }

    /// Puts a metadata file and the names of its folder on the disk: the crate's file system layer syncs data files and manifests, but neither
    /// metadata files nor folders, and after a power cut the pointer must not lead nowhere. An object is on disks when it is there.
    pub(crate) fn sync(&self, location: &str, new_table: bool) -> iceberg::Result<()> {
        if !self.is_local() {
            return Ok(());
        }
        let path = local_path(location);
        // Of a new table also the folders that its own folder is in.
        let folders = path.ancestors().skip(1).take(if new_table { 4 } else { 1 }).map(Path::to_path_buf);
        let data = path.parent().and_then(|p| p.parent()).map(|p| p.join("data")).filter(|p| p.is_dir());
        for path in std::iter::once(path.clone()).chain(folders).chain(data) {
            std::fs::File::open(&path).and_then(|f| f.sync_all()).map_err(|e| {
                let message = format!("cannot put {} on the disk: {e}", path.display());
                iceberg::Error::new(iceberg::ErrorKind::Unexpected, message).with_source(e)
            })?;
        }
        Ok(())
    }
}

fn failed(what: &'static str, location: &str) -> impl Fn(iceberg::Error) -> SinkError {
    let location = location.to_owned();
    move |source| SinkError::Store { what, location: location.clone(), source: Box::new(source) }
}

fn remove_local(locations: Vec<String>) -> Vec<(String, String)> {
    let mut failures = Vec::new();
    for location in locations {
        failpoint::reach("sweep");
        match std::fs::remove_file(local_path(&location)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => failures.push((location, error.to_string())),
            _ => {}
        }
    }
    failures
}

fn list_local(folder: &Path, parts: &[&str]) -> Result<Vec<Found>, SinkError> {
    let mut files = Vec::new();
    for part in parts.iter().map(|part| folder.join(part)) {
        let entries = match std::fs::read_dir(&part) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(SinkError::file("list the folder", &part))?,
        };
        for entry in entries {
            let entry = entry.map_err(SinkError::file("list the folder", &part))?;
            // one that is gone by now was somebody's to delete
            let Ok(found) = entry.metadata() else { continue };
            if let Some(changed) = found.modified().ok().filter(|_| found.is_file()) {
                files.push(Found { location: format!("file://{}", entry.path().display()), bytes: found.len(), changed });
            }
        }
    }
    Ok(files)
}

/// The local path of a `file:` location; anything else is returned as it is.
pub(crate) fn local_path(location: &str) -> PathBuf {
    match location.strip_prefix("file://") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(location.strip_prefix("file:").unwrap_or(location)),
    }
}
