//! Forgetting old snapshots, and deleting the files that only they reached.
//!
//! Metadata goes with the commit that makes a snapshot the (keep+1)th; files go after the flip, when nothing can point at them
//! any more. A process that dies between the two leaves files behind, never a table with files missing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use iceberg::Result;
use iceberg::io::FileIO;
use iceberg::spec::{ManifestFile, Snapshot, TableMetadata};

use super::manifests::live_files;
use super::{LiveFile, Staged, read_list};

/// Which snapshots a table keeps: so many at least, and all that are young.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// At least one.
    pub(crate) at_least: usize,
    /// Snapshots are kept for this long.
    pub(crate) younger_than: Duration,
}

/// The snapshots to forget when one more is added at `now` (milliseconds since 1970): the oldest, except those that a tag or branch holds.
pub(crate) fn beyond(metadata: &TableMetadata, protected: &HashSet<i64>, keep: Keep, now: i64) -> Vec<Arc<Snapshot>> {
    let mut old: Vec<_> = metadata.snapshots().filter(|s| !protected.contains(&s.snapshot_id())).cloned().collect();
    old.sort_by_key(|s| s.sequence_number());
    old.truncate((old.len() + 1).saturating_sub(keep.at_least.max(1)));
    let age = i64::try_from(keep.younger_than.as_millis()).unwrap_or(i64::MAX);
    old.retain(|snapshot| now.saturating_sub(snapshot.timestamp_ms()) >= age);
    old
}

/// What a committed change has left without a reader: the files to delete. A failure is logged, and costs disk space only.
pub(crate) async fn garbage(io: &FileIO, staged: &mut Staged) -> Vec<String> {
    let mut paths = std::mem::take(&mut staged.old_metadata);
    if !staged.expired.is_empty() {
        match unreachable(io, staged).await {
            Ok(found) => paths.extend(found),
            Err(error) => tracing::warn!(table = %staged.state.name, %error, "files of expired snapshots stay behind"),
        }
    }
    paths
}

/// Files that an expired snapshot reaches and no retained one. What this process wrote or read before comes from memory.
async fn unreachable(io: &FileIO, staged: &mut Staged) -> Result<Vec<String>> {
    let metadata = Arc::clone(&staged.state.metadata);
    let mut known = Reach { lists: staged.state.reach.as_ref().clone(), live: staged.state.past.as_ref().clone() };
    for manifest in &staged.state.manifests {
        known.live.insert(manifest.file.manifest_path.clone(), Arc::clone(&manifest.live));
    }
    let mut kept: HashSet<String> = HashSet::new();
    for snapshot in metadata.snapshots() {
        kept.extend(known.list(io, snapshot, &metadata).await?.iter().map(|m| m.manifest_path.clone()));
    }
    let mut gone = Vec::new();
    let mut old: HashMap<String, ManifestFile> = HashMap::new();
    for snapshot in &staged.expired {
        let listed = known.list(io, snapshot, &metadata).await?;
        old.extend(listed.iter().filter(|m| !kept.contains(&m.manifest_path)).map(|m| (m.manifest_path.clone(), m.clone())));
        gone.push(snapshot.manifest_list().to_string());
    }
    // A file's last living entry is in the manifest that was replaced when it went: the live ones are enough.
    let mut candidates: HashSet<String> = HashSet::new();
    for manifest in old.values() {
        candidates.extend(known.live(io, manifest).await?.iter().map(|f| f.path.clone()));
    }
    for snapshot in metadata.snapshots() {
        if candidates.is_empty() {
            break;
        }
        for manifest in known.list(io, snapshot, &metadata).await?.iter() {
            for file in known.live(io, manifest).await?.iter() {
                candidates.remove(&file.path);
            }
        }
    }
    gone.extend(old.into_keys());
    gone.extend(candidates);
    known.lists.retain(|id, _| metadata.snapshot_by_id(*id).is_some());
    known.live.retain(|path, _| kept.contains(path));
    staged.state.reach = Arc::new(known.lists);
    staged.state.past = Arc::new(known.live);
    Ok(gone)
}

/// Manifest lists and live files that were read or written before.
struct Reach {
    lists: HashMap<i64, Arc<Vec<ManifestFile>>>,
    live: HashMap<String, Arc<Vec<LiveFile>>>,
}

impl Reach {
    async fn list(&mut self, io: &FileIO, snapshot: &Snapshot, metadata: &TableMetadata) -> Result<Arc<Vec<ManifestFile>>> {
        if let Some(list) = self.lists.get(&snapshot.snapshot_id()) {
            return Ok(Arc::clone(list));
        }
        let list = Arc::new(read_list(io, snapshot, metadata).await?);
        self.lists.insert(snapshot.snapshot_id(), Arc::clone(&list));
        Ok(list)
    }

    async fn live(&mut self, io: &FileIO, manifest: &ManifestFile) -> Result<Arc<Vec<LiveFile>>> {
        if let Some(live) = self.live.get(&manifest.manifest_path) {
            return Ok(Arc::clone(live));
        }
        let live = Arc::new(live_files(io, manifest).await?);
        self.live.insert(manifest.manifest_path.clone(), Arc::clone(&live));
        Ok(live)
    }
}
