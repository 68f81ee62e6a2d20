//! Files that nobody reaches: what a killed process wrote and never committed, or had no time to delete.
//!
//! A file is reached if the table's metadata names it, or a manifest list, manifest or data file of a snapshot that is kept does. All others
//! in the table's folder go once they are old enough not to be somebody's who is at work just now.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use iceberg::io::FileIO;

use crate::epoch::Lake;
use crate::error::SinkError;
use crate::producer::{TableState, read_list};
use crate::storage::{TableName, local_path};

/// What a table's files are called; anything else in its folder is not ours to judge.
const SUFFIXES: [&str; 3] = [".parquet", ".avro", ".metadata.json"];

impl Lake {
    /// Deletes a table's files that nobody reaches; how many, and their bytes.
    pub(super) async fn remove_orphans(&self, table: &TableName, age: Duration) -> Result<(usize, u64), SinkError> {
        // Listed before the commits are held up: what comes meanwhile is young, and reached.
        let folder = local_path(self.state(table).await?.metadata.location());
        let listed = tokio::task::spawn_blocking(move || old_files(&folder, age)).await;
        let candidates = listed.map_err(|e| SinkError::Thread(e.to_string()))??;
        if candidates.is_empty() {
            return Ok((0, 0));
        }
        let commit = self.begin(table).await?;
        let Some(state) = commit.state(self).await? else { return Ok((0, 0)) };
        let reached = reached(self.io(), &state).await.map_err(SinkError::table("find the files", table))?;
        let orphans: Vec<(PathBuf, u64)> = candidates.into_iter().filter(|(path, _)| !reached.contains(path)).collect();
        let (mut count, mut bytes) = (0, 0);
        for (path, size) in orphans {
            match std::fs::remove_file(&path) {
                Ok(()) => (count, bytes) = (count + 1, bytes + size),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a file that nobody reaches stays behind"),
            }
        }
        drop(commit);
        Ok((count, bytes))
    }
}

/// Files of a table's folder that have not changed for that long, with their bytes.
fn old_files(folder: &Path, age: Duration) -> Result<Vec<(PathBuf, u64)>, SinkError> {
    let now = SystemTime::now();
    let mut files = Vec::new();
    for part in ["data", "metadata"].map(|part| folder.join(part)) {
        let entries = match std::fs::read_dir(&part) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(SinkError::file("list the folder", &part))?,
        };
        for entry in entries {
            let entry = entry.map_err(SinkError::file("list the folder", &part))?;
            let name = entry.file_name();
            let is_known = SUFFIXES.iter().any(|suffix| name.to_string_lossy().ends_with(suffix));
            // one that is gone by now was somebody's to delete
            let Ok(found) = entry.metadata() else { continue };
            let rested = found.modified().ok().and_then(|changed| now.duration_since(changed).ok());
            if is_known && found.is_file() && rested.is_some_and(|rested| rested >= age) {
                files.push((entry.path(), found.len()));
            }
        }
    }
    Ok(files)
}

/// All files that a table's metadata leads to.
async fn reached(io: &FileIO, state: &TableState) -> iceberg::Result<HashSet<PathBuf>> {
    let metadata = &state.metadata;
    let mut reached = HashSet::from([local_path(&state.location)]);
    reached.extend(metadata.metadata_log().iter().map(|log| local_path(&log.metadata_file)));
    reached.extend(metadata.statistics_iter().map(|file| local_path(&file.statistics_path)));
    let mut known = HashSet::new();
    for snapshot in metadata.snapshots() {
        reached.insert(local_path(snapshot.manifest_list()));
        let list = match state.reach.get(&snapshot.snapshot_id()) {
            Some(list) => list.as_ref().clone(),
            None => read_list(io, snapshot, metadata).await?,
        };
        for manifest in list {
            if !known.insert(manifest.manifest_path.clone()) {
                continue;
            }
            reached.insert(local_path(&manifest.manifest_path));
            for entry in manifest.load_manifest(io).await?.entries().iter().filter(|entry| entry.is_alive()) {
                reached.insert(local_path(entry.file_path()));
            }
        }
    }
    Ok(reached)
}
