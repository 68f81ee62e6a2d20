//! Files that nobody reaches: what a killed process wrote and never committed, or had no time to delete.
//!
//! A file is reached if the table's metadata names it, or a manifest list, manifest or data file of a snapshot that is kept does. All others
//! in the table's folder go once they are old enough not to be somebody's who is at work just now.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::epoch::{Lake, folder_of};
use crate::error::SinkError;
use crate::failpoint;
use crate::producer::{TableState, read_list};
use crate::storage::TableName;
use crate::storage::files::{Files, Found};

/// What a table's files are called; anything else in its folder is not ours to judge.
const SUFFIXES: [&str; 4] = [".parquet", ".avro", ".metadata.json", ".intent.json"];

/// The folders of a table that have files.
const PARTS: &[&str] = &["data", "metadata"];

impl Lake {
    /// Deletes a table's files that nobody reaches; how many, and their bytes.
    pub(super) async fn remove_orphans(&self, table: &TableName, age: Duration) -> Result<(usize, u64), SinkError> {
        // Listed before the commits are held up: what comes meanwhile is young, and reached.
        let folder = self.state(table).await?.metadata.location().to_owned();
        let candidates = rested(known(self.files(), &folder).await?, age);
        if candidates.is_empty() {
            return Ok((0, 0));
        }
        let commit = self.begin(table).await?;
        let Some(state) = commit.state(self).await? else { return Ok((0, 0)) };
        let reached = reached(self.files(), &state).await.map_err(SinkError::table("find the files", table))?;
        let orphans: Vec<Found> =
            candidates.into_iter().filter(|found| !reached.contains(&self.files().same(&found.location))).collect();
        let (count, bytes) = (orphans.len(), orphans.iter().map(|found| found.bytes).sum());
        orphans.iter().for_each(|_| failpoint::reach("orphan"));
        let all_gone = self.files().discard(orphans.into_iter().map(|found| found.location).collect()).await;
        drop(commit);
        // what stays is logged, found again by the next look, and counted when it goes
        Ok(if all_gone { (count, bytes) } else { (0, 0) })
    }

    /// Deletes folders of tables that a killed process was making: no table is there, and no epoch ever showed the snapshot in them. How many,
    /// and their bytes.
    pub(super) async fn remove_abandoned(&self, age: Duration) -> Result<(usize, u64), SinkError> {
        let folders = self.table_folders().await?;
        let commit = self.begin_any().await?;
        let pointers = self.pointers().await?;
        let used: HashSet<String> =
            pointers.iter().filter_map(|(_, location)| Some(self.files().same(folder_of(location)?))).collect();
        let (mut count, mut bytes) = (0, 0);
        for folder in folders.into_iter().filter(|folder| !used.contains(&self.files().same(folder))) {
            let files = known(self.files(), &folder).await?;
            let (all, size) = (files.len(), files.iter().map(|found| found.bytes).sum::<u64>());
            // all of its files are old, or somebody is at work
            if rested(files, age).len() != all || self.was_shown(&folder).await? {
                continue;
            }
            match self.files().remove_below(&folder).await {
                Ok(()) => (count, bytes) = (count + all, bytes + size),
                Err(error) => tracing::warn!(folder, %error, "a table that never was stays behind"),
            }
        }
        drop(commit);
        Ok((count, bytes))
    }

    /// Folders that look like tables': namespace, name.
    async fn table_folders(&self) -> Result<Vec<String>, SinkError> {
        let mut tables = Vec::new();
        for namespace in self.files().folders(&self.storage().warehouse).await? {
            for table in self.files().folders(&namespace).await? {
                let parts = self.files().folders(&table).await?;
                if parts.iter().any(|part| PARTS.iter().any(|known| part.trim_end_matches('/').ends_with(&format!("/{known}")))) {
                    tables.push(table);
                }
            }
        }
        Ok(tables)
    }

    /// Whether some epoch showed what is in a folder. If in doubt, yes.
    async fn was_shown(&self, folder: &str) -> Result<bool, SinkError> {
        let mut snapshots = Vec::new();
        for found in self.files().list(folder, &["metadata"]).await? {
            if !found.location.ends_with(".metadata.json") {
                continue;
            }
            // one that was not written to its end was not shown
            let Ok(read) = iceberg::spec::TableMetadata::read_from(&self.files().io, &found.location).await else { continue };
            match (read.properties().contains_key(crate::producer::EPOCH_KEY), read.current_snapshot_id()) {
                (true, Some(snapshot)) => snapshots.push(snapshot),
                _ => return Ok(true),
            }
        }
        Ok(self.epochs(usize::MAX).await?.iter().any(|epoch| epoch.tables.values().any(|shown| snapshots.contains(shown))))
    }
}

/// A table's files in a folder.
async fn known(files: &Files, folder: &str) -> Result<Vec<Found>, SinkError> {
    let mut found = files.list(folder, PARTS).await?;
    found.retain(|found| SUFFIXES.iter().any(|suffix| found.location.ends_with(suffix)));
    Ok(found)
}

/// Those that have not changed for that long.
fn rested(mut found: Vec<Found>, age: Duration) -> Vec<Found> {
    let now = SystemTime::now();
    // a bucket's clock may be ahead of ours
    found.retain(|found| now.duration_since(found.changed).unwrap_or_default() >= age);
    found
}

/// All files that a table's metadata leads to.
async fn reached(files: &Files, state: &TableState) -> iceberg::Result<HashSet<String>> {
    let metadata = &state.metadata;
    let mut reached = HashSet::from([files.same(&state.location)]);
    reached.extend(metadata.metadata_log().iter().map(|log| files.same(&log.metadata_file)));
    reached.extend(metadata.statistics_iter().map(|file| files.same(&file.statistics_path)));
    let mut known = HashSet::new();
    for snapshot in metadata.snapshots() {
        reached.insert(files.same(snapshot.manifest_list()));
        let list = match state.reach.get(&snapshot.snapshot_id()) {
            Some(list) => list.as_ref().clone(),
            None => read_list(&files.io, snapshot, metadata).await?,
        };
        for manifest in list {
            if !known.insert(manifest.manifest_path.clone()) {
                continue;
            }
            reached.insert(files.same(&manifest.manifest_path));
            for entry in manifest.load_manifest(&files.io).await?.entries().iter().filter(|entry| entry.is_alive()) {
                reached.insert(files.same(entry.file_path()));
            }
        }
    }
    Ok(reached)
}
