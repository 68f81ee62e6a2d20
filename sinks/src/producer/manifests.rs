//! Rewriting manifests: files are taken out, many small manifests become one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile, ManifestContentType, ManifestFile, ManifestWriter, ManifestWriterBuilder, PartitionSpec,
    SchemaRef, TableMetadata,
};
use iceberg::{Error, ErrorKind, Result};

use super::attempt::Attempt;
use super::{LiveFile, Manifest, spec_of};

/// A table with more manifests than this has its small ones merged with the next commit: readers open every one.
const MERGE_ABOVE: usize = 100;
/// Manifests from this size on are left alone by a merge.
const MERGE_SMALLER_THAN: i64 = 8 << 20;

/// The live files of a manifest.
pub(crate) async fn live_files(io: &FileIO, file: &ManifestFile) -> Result<Vec<LiveFile>> {
    let manifest = file.load_manifest(io).await?;
    let alive = manifest.entries().iter().filter(|e| e.is_alive());
    Ok(alive.map(|e| live(e.data_file())).collect())
}

fn live(file: &DataFile) -> LiveFile {
    LiveFile {
        path: file.file_path().to_string(),
        partition: file.partition().clone(),
        records: file.record_count(),
        bytes: file.file_size_in_bytes(),
        content: file.content_type(),
        format: file.file_format(),
    }
}

/// The manifests of the next snapshot.
pub(crate) struct Rewritten {
    pub(crate) manifests: Vec<Manifest>,
    /// Files taken out.
    pub(crate) removed: Vec<DataFile>,
}

/// What all manifests of one snapshot have in common.
pub(crate) struct Rewrite<'a> {
    pub(crate) attempt: &'a Attempt,
    pub(crate) metadata: &'a TableMetadata,
    pub(crate) folder: &'a str,
    pub(crate) snapshot_id: i64,
    pub(crate) sequence: i64,
}

impl Rewrite<'_> {
    /// Old manifests with `removed` taken out and merged where there are too many, and new ones for the data and the delete files of `added`.
    ///
    /// # Errors
    /// Among others, when one of `removed` is in no manifest: the caller's idea of the table is wrong then.
    pub(crate) async fn run(&self, old: Vec<Manifest>, removed: &HashSet<String>, added: &[DataFile]) -> Result<Rewritten> {
        let mut result = Rewritten { manifests: Vec::with_capacity(old.len() + 1), removed: Vec::new() };
        for (is_data, content) in [(true, ManifestContentType::Data), (false, ManifestContentType::Deletes)] {
            let files: Vec<&DataFile> =
                added.iter().filter(|file| (file.content_type() == DataContentType::Data) == is_data).collect();
            if files.is_empty() {
                continue;
            }
            let spec = self.metadata.default_partition_spec().as_ref().clone();
            let mut writer = self.writer(self.metadata.current_schema().clone(), spec, content)?;
            for file in &files {
                writer.add_file((*file).clone(), -1)?;
            }
            let file = writer.write_manifest_file().await?;
            result.manifests.push(Manifest { file, live: Arc::new(files.into_iter().map(live).collect()) });
        }

        // A manifest that only remembers what an earlier snapshot took out is of no use to later ones.
        let old: Vec<Manifest> = old.into_iter().filter(|m| !m.live.is_empty()).collect();
        let merge = old.len() + result.manifests.len() > MERGE_ABOVE;
        let mut groups: HashMap<(i32, bool), Vec<Manifest>> = HashMap::new();
        for manifest in old {
            let hit = !removed.is_empty() && manifest.live.iter().any(|f| removed.contains(&f.path));
            let small = merge && manifest.file.manifest_length < MERGE_SMALLER_THAN;
            let data = manifest.file.content == ManifestContentType::Data;
            match (small, hit) {
                (true, _) => groups.entry((manifest.file.partition_spec_id, data)).or_default().push(manifest),
                (false, true) => self.rewrite(vec![manifest], removed, &mut result).await?,
                (false, false) => result.manifests.push(manifest),
            }
        }
        for group in groups.into_values() {
            self.rewrite(group, removed, &mut result).await?;
        }
        if result.removed.len() != removed.len() {
            return Err(Error::new(
                ErrorKind::DataInvalid,
                format!("{} files were to be removed, the table has {} of them", removed.len(), result.removed.len()),
            ));
        }
        Ok(result)
    }

    /// Makes one manifest of several that share spec and content.
    async fn rewrite(&self, group: Vec<Manifest>, removed: &HashSet<String>, result: &mut Rewritten) -> Result<()> {
        let Some(first) = group.first() else { return Ok(()) };
        let spec = spec_of(self.metadata, first.file.partition_spec_id)?;
        let content = first.file.content;
        let mut writer: Option<ManifestWriter> = None;
        let mut kept = Vec::new();
        for manifest in &group {
            let loaded = manifest.file.load_manifest(&self.attempt.files.io).await?;
            let out = match &mut writer {
                Some(writer) => writer,
                none => {
                    // Not the table's schema: it may have lost a column that an old spec is about.
                    let schema = loaded.metadata().schema().clone();
                    none.insert(self.writer(schema, spec.clone(), content)?)
                }
            };
            for entry in loaded.entries().iter().filter(|e| e.is_alive()) {
                let sequence = entry.sequence_number().unwrap_or(self.sequence);
                let file = entry.data_file().clone();
                if removed.contains(entry.file_path()) {
                    out.add_delete_file(file.clone(), sequence, entry.file_sequence_number)?;
                    result.removed.push(file);
                } else {
                    kept.push(live(&file));
                    out.add_existing_file(
                        file,
                        entry.snapshot_id().unwrap_or(self.snapshot_id),
                        sequence,
                        entry.file_sequence_number,
                    )?;
                }
            }
        }
        if let Some(writer) = writer {
            let file = writer.write_manifest_file().await?;
            result.manifests.push(Manifest { file, live: Arc::new(kept) });
        }
        Ok(())
    }

    fn writer(&self, schema: SchemaRef, spec: PartitionSpec, content: ManifestContentType) -> Result<ManifestWriter> {
        let path = format!("{}/{}-m0.avro", self.folder, uuid::Uuid::new_v4());
        let builder = ManifestWriterBuilder::new(self.attempt.output(&path)?, Some(self.snapshot_id), schema, spec);
        Ok(match content {
            ManifestContentType::Data => builder.build_v2_data(),
            ManifestContentType::Deletes => builder.build_v2_deletes(),
        })
    }
}
