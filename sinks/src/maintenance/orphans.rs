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
use crate::failpoint;
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
            failpoint::reach("orphan");
            match std::fs::remove_file(&path) {
                Ok(()) => (count, bytes) = (count + 1, bytes + size),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a file that nobody reaches stays behind"),
            }
        }
        drop(commit);
        Ok((count, bytes))
    }
}

impl Lake {
    /// Deletes folders of tables that a killed process was making: no table is there, and no epoch ever showed the snapshot in them. How many,
    /// and their bytes.
    pub(super) async fn remove_abandoned(&self, age: Duration) -> Result<(usize, u64), SinkError> {
        let warehouse = self.warehouse_path().to_path_buf();
        let folders = tokio::task::spawn_blocking(move || table_folders(&warehouse)).await;
        let folders = folders.map_err(|e| SinkError::Thread(e.to_string()))??;
        let commit = self.begin_any().await?;
        let used: HashSet<PathBuf> =
            self.pointers().await?.iter().filter_map(|(_, location)| Some(table_folder(location)?.to_path_buf())).collect();
        let (mut count, mut bytes) = (0, 0);
        for folder in folders.into_iter().filter(|folder| !used.contains(folder)) {
            let old = old_files(&folder, age)?;
            // all of its files, or somebody is at work
            if old.len() != old_files(&folder, Duration::ZERO)?.len() || self.was_shown(&folder).await? {
                continue;
            }
            match std::fs::remove_dir_all(&folder) {
                Ok(()) => (count, bytes) = (count + old.len(), bytes + old.iter().map(|(_, size)| size).sum::<u64>()),
                Err(error) => tracing::warn!(folder = %folder.display(), %error, "a table that never was stays behind"),
            }
        }
        drop(commit);
        Ok((count, bytes))
    }

    /// Whether some epoch showed what is in a folder. If in doubt, yes.
    async fn was_shown(&self, folder: &Path) -> Result<bool, SinkError> {
        let metadata = folder.join("metadata");
        let names = std::fs::read_dir(&metadata).map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>());
        let mut snapshots = Vec::new();
        for path in names.unwrap_or_default().iter().filter(|path| path.to_string_lossy().ends_with(".metadata.json")) {
            let location = format!("file://{}", path.display());
            // one that was not written to its end was not shown
            let Ok(read) = iceberg::spec::TableMetadata::read_from(self.io(), &location).await else { continue };
            match (read.properties().contains_key(crate::producer::EPOCH_KEY), read.current_snapshot_id()) {
                (true, Some(snapshot)) => snapshots.push(snapshot),
                _ => return Ok(true),
            }
        }
        Ok(self.epochs(usize::MAX).await?.iter().any(|epoch| epoch.tables.values().any(|shown| snapshots.contains(shown))))
    }
}

/// The folder of a table: the one above its metadata.
fn table_folder(metadata: &str) -> Option<PathBuf> {
    Some(local_path(metadata).parent()?.parent()?.to_path_buf())
}

/// Folders that look like tables': namespace, name.
fn table_folders(warehouse: &Path) -> Result<Vec<PathBuf>, SinkError> {
    let below = |folder: &Path| -> Result<Vec<PathBuf>, SinkError> {
        let entries = std::fs::read_dir(folder).map_err(SinkError::file("list the folder", folder))?;
        Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
    };
    let mut tables = Vec::new();
    for namespace in below(warehouse)? {
        tables.extend(
            below(&namespace)?.into_iter().filter(|table| table.join("data").is_dir() || table.join("metadata").is_dir()),
        );
    }
    Ok(tables)
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
