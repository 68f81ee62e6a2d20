//! Our own snapshots: `iceberg` 0.10.1 can only append, and rebases blindly on conflict. Here files can be removed too, and
//! nothing becomes visible before the catalog's pointer moves.
//!
//! A table's [`TableState`] is what its newest metadata says, kept in memory between our own commits: the manifests and, of each
//! live file, path, partition and size, and which rows of it are gone. [`stage`] writes manifests, manifest list and metadata file of the next snapshot and
//! returns the state as it will be; the caller flips the pointer and then calls [`expiry::garbage`].

pub(crate) mod attempt;
pub(crate) mod deletes;
pub(crate) mod expiry;
pub(crate) mod files;
mod manifests;
pub(crate) mod turnover;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;

use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, ManifestContentType, ManifestFile, ManifestList, ManifestListWriter, Operation,
    PartitionSpec, Schema, Snapshot, Struct, Summary, TableMetadata, TableMetadataBuilder, UnboundPartitionSpec,
};
use iceberg::{Error, ErrorKind, MetadataLocation, Result, TableCreation, TableUpdate};

use self::attempt::Attempt;
use self::deletes::Deletions;
use self::expiry::Keep;
use self::turnover::Settled;
use crate::epoch::RowCounts;
use crate::failpoint;
use crate::mode::TableChange;
use crate::storage::TableName;
use crate::storage::files::Files;

/// Metadata files that a table's log remembers; older ones are deleted. A reader that pinned one has this many epochs of time.
const PREVIOUS_VERSIONS: usize = 20;

/// The epoch's number.
pub(crate) const EPOCH_KEY: &str = "livelake.epoch";

/// The epoch's timestamp, microseconds since 1970 UTC.
pub(crate) const TIMESTAMP_KEY: &str = "livelake.timestamp";

/// From where the sources go on after the epoch, as JSON.
pub(crate) const POSITIONS_KEY: &str = "livelake.positions";

/// What an epoch's snapshots and tables say about it.
pub(crate) const STAMP_KEYS: [&str; 3] = [EPOCH_KEY, TIMESTAMP_KEY, POSITIONS_KEY];

/// Property that says what the relation behind a table is: `view` or `base` (a source or table).
pub(crate) const KIND_KEY: &str = "livelake.kind";

/// A data or delete file that the table's newest snapshot has.
#[derive(Clone, Debug)]
pub(crate) struct LiveFile {
    pub(crate) path: String,
    pub(crate) partition: Struct,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) content: DataContentType,
    pub(crate) format: DataFileFormat,
}

/// A manifest and the live files in it. Manifests never change, so the lists are shared between states.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) file: ManifestFile,
    pub(crate) live: Arc<Vec<LiveFile>>,
}

/// A table as its newest metadata file says.
#[derive(Clone, Debug)]
pub(crate) struct TableState {
    pub(crate) name: TableName,
    /// The metadata file; empty for a table that has none yet.
    pub(crate) location: String,
    pub(crate) metadata: Arc<TableMetadata>,
    pub(crate) manifests: Vec<Manifest>,
    /// What is gone of data files that are still there.
    pub(crate) deletes: Arc<Deletions>,
    /// Snapshots that a branch or tag of somebody's holds: never expired by us.
    pub(crate) protected: Arc<HashSet<i64>>,
    /// Manifest lists of retained snapshots, as far as they were read or written.
    pub(crate) reach: Arc<HashMap<i64, Arc<Vec<ManifestFile>>>>,
    /// Live files of manifests that only older snapshots have, as far as they are known.
    pub(crate) past: Arc<HashMap<String, Arc<Vec<LiveFile>>>>,
}

impl TableState {
    /// A table that is not there yet, in memory only.
    pub(crate) fn create(
        name: &TableName,
        location: String,
        schema: Schema,
        spec: UnboundPartitionSpec,
        change: &TableChange,
    ) -> Result<TableState> {
        let mut properties = HashMap::from([
            ("write.metadata.previous-versions-max".to_string(), PREVIOUS_VERSIONS.to_string()),
            ("write.metadata.delete-after-commit.enabled".to_string(), "true".to_string()),
            ("write.parquet.compression-codec".to_string(), "zstd".to_string()),
            (KIND_KEY.to_string(), if change.derived { "view" } else { "base" }.to_string()),
            ("created-by".to_string(), concat!("livelake ", env!("CARGO_PKG_VERSION")).to_string()),
        ]);
        if let Some(comment) = &change.comment {
            properties.insert("comment".into(), comment.clone());
        }
        let creation = TableCreation::builder()
            .name(name.name.clone())
            .location(location)
            .schema(schema)
            .partition_spec(spec)
            .properties(properties)
            .build();
        let metadata = TableMetadataBuilder::from_table_creation(creation)?.build()?.metadata;
        Ok(TableState {
            name: name.clone(),
            location: String::new(),
            metadata: Arc::new(metadata),
            manifests: Vec::new(),
            deletes: Arc::default(),
            protected: Arc::default(),
            reach: Arc::default(),
            past: Arc::default(),
        })
    }

    /// Reads a table's newest metadata and its manifests.
    pub(crate) async fn load(files: &Files, name: &TableName, location: &str) -> Result<TableState> {
        let metadata = TableMetadata::read_from(&files.io, location).await?;
        let newest = metadata.current_snapshot().cloned();
        TableState::at(files, name, location, metadata, newest).await
    }

    /// A table as it is, but with the files that it had at one of its snapshots; none: before the first.
    pub(crate) async fn at(
        files: &Files,
        name: &TableName,
        location: &str,
        metadata: TableMetadata,
        snapshot: Option<Arc<Snapshot>>,
    ) -> Result<TableState> {
        let mut manifests = Vec::new();
        let mut reach = HashMap::new();
        if let Some(snapshot) = snapshot {
            let listed = read_list(&files.io, &snapshot, &metadata).await?;
            reach.insert(snapshot.snapshot_id(), Arc::new(listed.clone()));
            for file in listed {
                let live = manifests::live_files(&files.io, &file).await?;
                manifests.push(Manifest { file, live: Arc::new(live) });
            }
        }
        // The crate does not list references; its JSON does.
        let refs = serde_json::to_value(&metadata).map_err(|e| Error::new(ErrorKind::DataInvalid, "metadata").with_source(e))?;
        let protected = refs.get("refs").and_then(|r| r.as_object()).into_iter().flatten();
        let protected = protected.filter(|(name, _)| *name != "main").filter_map(|(_, r)| r.get("snapshot-id")?.as_i64());
        let (listed, from) = (manifests.clone(), files.clone());
        let deletes = tokio::task::spawn_blocking(move || Deletions::read(&from, &listed)).await;
        let deletes = deletes.map_err(|e| Error::new(ErrorKind::Unexpected, "reading delete files stopped").with_source(e))??;
        Ok(TableState {
            name: name.clone(),
            location: location.to_string(),
            protected: Arc::new(protected.collect()),
            metadata: Arc::new(metadata),
            manifests,
            deletes: Arc::new(deletes),
            reach: Arc::new(reach),
            past: Arc::default(),
        })
    }

    /// Live data files, each with the id of the partition spec that its partition value is of.
    pub(crate) fn live(&self) -> impl Iterator<Item = (i32, &LiveFile)> {
        let data = self.manifests.iter().filter(|m| m.file.content == ManifestContentType::Data);
        data.flat_map(|m| m.live.iter().map(|f| (m.file.partition_spec_id, f)))
    }

    /// Rows in the newest snapshot.
    pub(crate) fn records(&self) -> u64 {
        self.live().map(|(_, file)| file.records - self.deletes.count(&file.path)).sum()
    }

    /// Whether the newest snapshot is not one of ours.
    pub(crate) fn is_foreign(&self) -> bool {
        self.metadata.current_snapshot().is_some_and(|s| !s.summary().additional_properties.contains_key(EPOCH_KEY))
    }
}

/// The manifests of a snapshot.
pub(crate) async fn read_list(io: &FileIO, snapshot: &Snapshot, metadata: &TableMetadata) -> Result<Vec<ManifestFile>> {
    let bytes = io.new_input(snapshot.manifest_list())?.read().await?;
    Ok(ManifestList::parse_with_version(&bytes, metadata.format_version())?.consume_entries().into_iter().collect())
}

/// A next state of a table, on disk but not pointed at.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    /// Where the catalog must still point; `None` for a new table.
    pub(crate) from: Option<String>,
    /// The snapshot that it was made on.
    pub(crate) parent: Option<i64>,
    /// What is different from the last state's metadata.
    pub(crate) updates: Vec<TableUpdate>,
    pub(crate) state: TableState,
    /// Metadata files that fell out of the log.
    pub(crate) old_metadata: Vec<String>,
    /// Snapshots that the new metadata no longer has.
    pub(crate) expired: Vec<Arc<Snapshot>>,
    pub(crate) changed: RowCounts,
    pub(crate) files_added: usize,
    pub(crate) files_removed: usize,
}

/// What the next snapshot of a table is made of.
pub(crate) struct Change {
    /// New columns, if they change.
    pub(crate) schema: Option<Schema>,
    /// New partitioning, if it changes.
    pub(crate) spec: Option<UnboundPartitionSpec>,
    /// The files that come and go.
    pub(crate) settled: Settled,
    /// The rows that come and go.
    pub(crate) rows: RowCounts,
    /// Whether the files that go held the same rows as files that come (small ones made into a large one) and nothing else.
    pub(crate) is_rearranged: bool,
    /// Whether the state's manifests are not those of its newest snapshot, but an older one's that comes back.
    pub(crate) is_restored: bool,
}

/// The table's metadata with the new columns and partitioning: what data files of the change must be written for.
pub(crate) fn reshaped(
    state: &TableState,
    schema: Option<&Schema>,
    spec: Option<&UnboundPartitionSpec>,
) -> Result<TableMetadata> {
    let metadata = state.metadata.as_ref().clone();
    if schema.is_none() && spec.is_none() {
        return Ok(metadata);
    }
    let mut builder = metadata.into_builder(None);
    if let Some(schema) = schema {
        builder = builder.add_current_schema(schema.clone())?;
    }
    if let Some(spec) = spec {
        builder = builder.add_default_partition_spec(spec.clone())?;
    }
    Ok(builder.build()?.metadata)
}

/// Writes manifests, manifest list and metadata of the table's next snapshot. A change without files makes no snapshot.
pub(crate) async fn stage(
    attempt: &Attempt,
    state: &TableState,
    change: Change,
    stamp: &BTreeMap<String, String>,
    keep: Keep,
) -> Result<Staged> {
    let before = state.metadata.as_ref();
    let Settled { added, removed, deletes, .. } = change.settled;
    let mut builder = before.clone().into_builder((!state.location.is_empty()).then(|| state.location.clone()));
    if let Some(schema) = &change.schema {
        builder = builder.add_current_schema(schema.clone())?;
    }
    if let Some(spec) = &change.spec {
        builder = builder.add_default_partition_spec(spec.clone())?;
    }
    let shaped = reshaped(state, change.schema.as_ref(), change.spec.as_ref())?;

    let mut manifests = state.manifests.clone();
    let mut reach = state.reach.as_ref().clone();
    let mut past = state.past.as_ref().clone();
    past.extend(state.manifests.iter().map(|m| (m.file.manifest_path.clone(), Arc::clone(&m.live))));
    let mut expired = Vec::new();
    if !added.is_empty() || !removed.is_empty() || change.is_restored {
        let snapshot_id = loop {
            let id = rand::random::<i64>() & i64::MAX;
            if id > 0 && before.snapshot_by_id(id).is_none() {
                break id;
            }
        };
        let sequence = before.next_sequence_number();
        let folder = format!("{}/metadata", before.location());
        let work = manifests::Rewrite { attempt, metadata: &shaped, folder: &folder, snapshot_id, sequence };
        let rewritten = work.run(manifests, &removed, &added).await?;
        manifests = rewritten.manifests;

        let parent = before.current_snapshot_id();
        let list = format!("{folder}/snap-{snapshot_id}-1-{}.avro", uuid::Uuid::new_v4());
        let mut writer = ManifestListWriter::v2(attempt.output(&list)?.writer().await?, snapshot_id, parent, sequence);
        writer.add_manifests(manifests.iter().map(|m| m.file.clone()))?;
        writer.close().await?;
        for manifest in &mut manifests {
            // What the list's writer filled in on disk.
            if manifest.file.added_snapshot_id == snapshot_id {
                manifest.file.sequence_number = sequence;
                if manifest.file.min_sequence_number < 0 {
                    manifest.file.min_sequence_number = sequence;
                }
            }
        }
        reach.insert(snapshot_id, Arc::new(manifests.iter().map(|m| m.file.clone()).collect()));

        let operation = match (added.is_empty(), removed.is_empty()) {
            _ if change.is_restored => Operation::Overwrite,
            (false, true) => Operation::Append,
            (true, false) => Operation::Delete,
            _ if change.is_rearranged => Operation::Replace,
            _ => Operation::Overwrite,
        };
        let mut properties = counts(&added, &rewritten.removed);
        properties.extend(totals(&manifests));
        properties.extend(stamp.iter().map(|(k, v)| (k.clone(), v.clone())));
        // A clock that was set back must not stop the lake.
        let now = chrono::Utc::now().timestamp_millis().max(before.last_updated_ms());
        let snapshot = Snapshot::builder()
            .with_snapshot_id(snapshot_id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(sequence)
            .with_timestamp_ms(now)
            .with_manifest_list(list)
            .with_summary(Summary { operation, additional_properties: properties })
            .with_schema_id(shaped.current_schema_id())
            .build();
        builder = builder.set_branch_snapshot(snapshot, "main")?;
        expired = expiry::beyond(before, &state.protected, keep, now);
        let ids: Vec<i64> = expired.iter().map(|s| s.snapshot_id()).collect();
        builder = builder.remove_snapshots(&ids);
    }
    builder = builder.set_properties(stamp.iter().map(|(k, v)| (k.clone(), v.clone())).collect())?;
    let built = builder.build()?;

    let (location, old_metadata) = match attempt.writes_metadata {
        true => (write_metadata(attempt, state, &built.metadata).await?, built.expired_metadata_logs),
        false => (state.location.clone(), Vec::new()),
    };
    Ok(Staged {
        from: (!state.location.is_empty()).then(|| state.location.clone()),
        parent: before.current_snapshot_id(),
        updates: built.changes,
        old_metadata: old_metadata.into_iter().map(|l| l.metadata_file).collect(),
        expired,
        changed: change.rows,
        files_added: added.len(),
        files_removed: removed.len(),
        state: TableState {
            name: state.name.clone(),
            location,
            metadata: Arc::new(built.metadata),
            manifests,
            deletes,
            protected: Arc::clone(&state.protected),
            reach: Arc::new(reach),
            past: Arc::new(past),
        },
    })
}

/// Writes the next metadata file; where.
async fn write_metadata(attempt: &Attempt, state: &TableState, metadata: &TableMetadata) -> Result<String> {
    let next = match state.location.is_empty() {
        true => MetadataLocation::new_with_metadata(metadata.location(), metadata),
        false => MetadataLocation::from_str(&state.location)?.with_next_version().with_new_metadata(metadata),
    };
    let location = next.to_string();
    attempt.note(&location);
    failpoint::reach("metadata");
    metadata.write_to(&attempt.files.io, &next).await?;
    failpoint::reach("metadata-written");
    attempt.files.sync(&location, state.location.is_empty())?;
    Ok(location)
}

/// What came and what went, in a summary's words. Not by the crate's collector, which panics on a file whose partition column
/// has been dropped.
fn counts(added: &[DataFile], removed: &[DataFile]) -> HashMap<String, String> {
    let mut figures: BTreeMap<&str, u64> = BTreeMap::new();
    let mut count = |key, by| *figures.entry(key).or_default() += by;
    for file in added {
        count("added-files-size", file.file_size_in_bytes());
        if file.content_type() == DataContentType::Data {
            count("added-data-files", 1);
            count("added-records", file.record_count());
        } else {
            count("added-delete-files", 1);
            count("added-position-delete-files", 1);
            count("added-position-deletes", file.record_count());
        }
    }
    for file in removed {
        count("removed-files-size", file.file_size_in_bytes());
        match file.content_type() {
            DataContentType::Data => {
                count("deleted-data-files", 1);
                count("deleted-records", file.record_count());
            }
            DataContentType::PositionDeletes => {
                count("removed-delete-files", 1);
                count("removed-position-delete-files", 1);
                count("removed-position-deletes", file.record_count());
            }
            DataContentType::EqualityDeletes => {
                count("removed-delete-files", 1);
                count("removed-equality-deletes", file.record_count());
            }
        }
    }
    let partitions: HashSet<&Struct> =
        added.iter().chain(removed).map(DataFile::partition).filter(|p| !p.fields().is_empty()).collect();
    if !partitions.is_empty() {
        count("changed-partition-count", partitions.len() as u64);
    }
    figures.into_iter().map(|(key, figure)| (key.to_string(), figure.to_string())).collect()
}

/// The `total-…` figures of a summary, counted rather than carried on, so that they cannot drift.
fn totals(manifests: &[Manifest]) -> HashMap<String, String> {
    let mut figures = BTreeMap::from(
        ["data-files", "records", "files-size", "delete-files", "position-deletes", "equality-deletes"].map(|key| (key, 0)),
    );
    for file in manifests.iter().flat_map(|manifest| manifest.live.iter()) {
        let (files, records) = match file.content {
            DataContentType::Data => ("data-files", "records"),
            DataContentType::PositionDeletes => ("delete-files", "position-deletes"),
            DataContentType::EqualityDeletes => ("delete-files", "equality-deletes"),
        };
        for (key, by) in [(files, 1), (records, file.records), ("files-size", file.bytes)] {
            *figures.entry(key).or_default() += by;
        }
    }
    figures.into_iter().map(|(key, figure)| (format!("total-{key}"), figure.to_string())).collect()
}

/// The spec of an id.
pub(crate) fn spec_of(metadata: &TableMetadata, id: i32) -> Result<PartitionSpec> {
    metadata
        .partition_spec_by_id(id)
        .map(|s| s.as_ref().clone())
        .ok_or_else(|| Error::new(ErrorKind::DataInvalid, format!("the table's metadata has no partition spec {id}")))
}
