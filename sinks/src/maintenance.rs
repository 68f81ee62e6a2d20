//! Keeping tables healthy between epochs: small files become one, files that lost rows are written anew, files that nobody reaches go.
//!
//! Commits merge what they touch; this looks after the rest: a partition that is written no more keeps the few small files of its last
//! epochs otherwise, for ever. The work is done beside the commits, on the state that a table has when it begins. Then, between two
//! commits, the result replaces the files if they are still as they were; if not, it is thrown away. So there are no conflicts, and a commit
//! waits for a metadata file and one catalog transaction at most. The rows stay the same: the snapshot is a `replace`, and belongs to the epoch
//! of the table's last change.

mod orphans;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use iceberg::spec::Struct;

use crate::compaction;
use crate::epoch::{Lake, RowCounts};
use crate::error::SinkError;
use crate::mode::apply::rewrite;
use crate::producer::attempt::Attempt;
use crate::producer::files::TableWriter;
use crate::producer::turnover::{Settled, Turnover};
use crate::producer::{Change, LiveFile, TableState, stage};
use crate::storage::TableName;

/// What one pass writes anew of one table at most, bytes: what has to fit on the disk beside it. The rest is left for the next pass.
const PASS_BYTES: u64 = 2 << 30;
/// Of the share of lost rows at which a commit writes a file anew: from here on maintenance does, where commits no longer come.
const QUIET_SHARE: f64 = 0.25;

/// What to look after.
#[derive(Clone, Debug)]
pub struct MaintainOptions {
    /// Only this table; else all that the lake made.
    pub table: Option<TableName>,
    /// Also partitions that changed since the last pass; else those are left to their commits.
    pub busy: bool,
    /// Files that nobody reaches go once they are this old.
    pub orphans_after: Duration,
}

/// What was done for one table.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct TableMaintenance {
    /// Which table.
    pub table: String,
    /// Data files that were written anew.
    pub files_rewritten: usize,
    /// Data files that they became.
    pub files_written: usize,
    /// Delete files that went.
    pub deletes_removed: usize,
    /// Bytes of the files that were written anew.
    pub bytes_rewritten: u64,
    /// Files that nobody reached, deleted.
    pub orphans_removed: usize,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// The table changed meanwhile, so its new files were thrown away; the next pass tries again.
    pub changed_meanwhile: bool,
}

impl TableMaintenance {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        self.files_rewritten == 0 && self.orphans_removed == 0 && !self.changed_meanwhile
    }
}

/// Of each partition of each table: its files as the last pass saw them, as a hash.
pub(crate) type Seen = HashMap<TableName, HashMap<Struct, u64>>;

impl Lake {
    /// Looks after the tables once; answers those for which there was something to do.
    ///
    /// # Errors
    /// The lake was opened for reading; the first table that could not be looked after (the others are, nevertheless).
    pub async fn maintain(&self, options: &MaintainOptions) -> Result<Vec<TableMaintenance>, SinkError> {
        let pointers = self.pointers().await?;
        // one pass at a time
        let mut seen = self.seen().lock().await;
        if let Some(table) = options.table.as_ref().filter(|table| pointers.iter().all(|(name, _)| name != *table)) {
            return Err(SinkError::NoTable(table.clone()));
        }
        let (mut done, mut failure) = (Vec::new(), None);
        for (table, _) in pointers.into_iter().filter(|(name, _)| options.table.as_ref().is_none_or(|table| table == name)) {
            match self.maintain_table(&table, options, &mut seen).await {
                Ok(report) if report.is_idle() => {}
                Ok(report) => done.push(report),
                Err(error) => {
                    tracing::warn!(table = %table, %error, "the table could not be looked after");
                    failure = failure.or(Some(error));
                }
            }
        }
        if options.table.is_none() {
            let (orphans_removed, orphan_bytes) = self.remove_abandoned(options.orphans_after).await?;
            if orphans_removed > 0 {
                let table = "(tables that never were)".to_owned();
                done.push(TableMaintenance { table, orphans_removed, orphan_bytes, ..TableMaintenance::default() });
            }
        }
        failure.map_or(Ok(done), Err)
    }

    async fn maintain_table(
        &self,
        table: &TableName,
        options: &MaintainOptions,
        seen: &mut Seen,
    ) -> Result<TableMaintenance, SinkError> {
        let mut report = TableMaintenance { table: table.to_string(), ..TableMaintenance::default() };
        let state = self.state(table).await?;
        if !state.is_ours() {
            return Ok(report);
        }
        let chosen = self.choose(&state, options.busy, seen);
        if !chosen.is_empty() {
            report.files_rewritten = chosen.len();
            report.bytes_rewritten = chosen.iter().map(|file| file.bytes).sum();
            self.rearrange(&state, chosen, &mut report).await?;
        }
        (report.orphans_removed, report.orphan_bytes) = self.remove_orphans(table, options.orphans_after).await?;
        if !report.is_idle() {
            tracing::info!(
                table = report.table,
                rewritten = report.files_rewritten,
                written = report.files_written,
                orphans = report.orphans_removed,
                changed_meanwhile = report.changed_meanwhile,
                "table maintained"
            );
        }
        Ok(report)
    }

    /// The data files to write anew.
    fn choose(&self, state: &TableState, busy: bool, seen: &mut Seen) -> Vec<LiveFile> {
        let rules = self.rules();
        let spec_id = state.metadata.default_partition_spec_id();
        let mut partitions: BTreeMap<&str, (&Struct, Vec<&LiveFile>)> = BTreeMap::new();
        let mut by_partition: HashMap<&Struct, Vec<&LiveFile>> = HashMap::new();
        for (_, file) in state.live().filter(|(spec, _)| *spec == spec_id) {
            by_partition.entry(&file.partition).or_default().push(file);
        }
        for (partition, files) in by_partition {
            // in the order of names, so that a pass that is cut short goes on with the next ones
            let first = files.iter().map(|file| file.path.as_str()).min().unwrap_or_default();
            partitions.insert(first, (partition, files));
        }
        let now: HashMap<Struct, u64> =
            partitions.values().map(|(partition, files)| ((*partition).clone(), fingerprint(state, files))).collect();
        let before = seen.insert(state.name.clone(), now.clone()).unwrap_or_default();
        let (mut chosen, mut bytes): (Vec<LiveFile>, u64) = (Vec::new(), 0);
        for (partition, files) in partitions.into_values() {
            if bytes > PASS_BYTES || !(busy || before.get(partition) == now.get(partition)) {
                continue;
            }
            let small = compaction::few(&files, rules.target_bytes);
            let thinned = files.iter().filter(|file| {
                let gone = state.deletes.count(&file.path);
                gone > 0 && rules.rewrites(file, (gone as f64 / QUIET_SHARE) as u64)
            });
            let mut these: Vec<&LiveFile> = small.into_iter().chain(thinned.copied()).collect();
            these.sort_by(|a, b| a.path.cmp(&b.path));
            these.dedup_by(|a, b| a.path == b.path);
            bytes += these.iter().map(|file| file.bytes).sum::<u64>();
            chosen.extend(these.into_iter().cloned());
        }
        chosen
    }

    /// Writes files anew and puts the new ones in their place.
    pub(crate) async fn rearrange(
        &self,
        state: &Arc<TableState>,
        chosen: Vec<LiveFile>,
        report: &mut TableMaintenance,
    ) -> Result<(), SinkError> {
        let attempt = Arc::new(Attempt::new(self.storage()));
        let outcome = self.try_rearrange(state, &chosen, &attempt, report).await;
        let visible = matches!(outcome, Ok(true)) || outcome.as_ref().is_err_and(SinkError::is_unknown);
        if !visible {
            attempt.discard().await;
        }
        outcome.map(|_| ())
    }

    /// Whether the new files are in place.
    async fn try_rearrange(
        &self,
        state: &Arc<TableState>,
        chosen: &[LiveFile],
        attempt: &Arc<Attempt>,
        report: &mut TableMaintenance,
    ) -> Result<bool, SinkError> {
        let table = &state.name;
        let failed = || SinkError::table("prepare the next snapshot", table);
        let (rules, runtime) = (self.rules(), tokio::runtime::Handle::current());
        let (base, files, writing) = (Arc::clone(state), chosen.to_vec(), Arc::clone(attempt));
        let work = move || {
            runtime.block_on(async {
                let mut writer = TableWriter::new(&writing, &base.name, &base.metadata, "merged", &rules)?;
                let prefix = writer.prefix().to_owned();
                for file in &files {
                    let gone = base.deletes.of(&file.path).map(|gone| gone.as_ref());
                    rewrite(&base, &mut writer, file, gone).await?;
                }
                Ok::<_, SinkError>((prefix, writer.finish().await?))
            })
        };
        let (prefix, added) = tokio::task::spawn_blocking(work).await.map_err(|e| SinkError::Thread(e.to_string()))??;
        report.files_written = added.len();

        let mut commit = self.begin(table).await?;
        let Some(now) = commit.state(self).await?.filter(|now| is_as_it_was(state, now, chosen)) else {
            report.changed_meanwhile = true;
            return Ok(false);
        };
        let removed = chosen.iter().map(|file| file.path.clone()).collect();
        let turnover = Turnover { removed, thinned: Vec::new() };
        let spec_id = now.metadata.default_partition_spec_id();
        let settled: Settled = turnover.settle(attempt, &now, spec_id, &prefix, added).await.map_err(failed())?;
        if settled.records != now.records() {
            let reason =
                format!("{} rows became {} while its files were merged: nothing is changed", now.records(), settled.records);
            return Err(SinkError::Mismatch { table: table.clone(), reason });
        }
        report.deletes_removed = settled.removed.len() - chosen.len();
        let stamp = now.stamp();
        let change =
            Change { schema: None, spec: None, settled, rows: RowCounts::default(), is_rearranged: true, is_restored: false };
        let staged = stage(attempt, &now, change, &stamp, self.keep()).await.map_err(failed())?;
        commit.publish(self, staged).await?;
        Ok(true)
    }
}

/// Whether files are as they were: none has gone or lost rows since.
fn is_as_it_was(before: &TableState, now: &TableState, files: &[LiveFile]) -> bool {
    let live: HashMap<&str, u64> = now.live().map(|(_, file)| (file.path.as_str(), now.deletes.count(&file.path))).collect();
    now.metadata.default_partition_spec_id() == before.metadata.default_partition_spec_id()
        && now.metadata.current_schema_id() == before.metadata.current_schema_id()
        && files.iter().all(|file| live.get(file.path.as_str()) == Some(&before.deletes.count(&file.path)))
}

/// A partition's files and what is gone of them.
fn fingerprint(state: &TableState, files: &[&LiveFile]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut paths: Vec<_> = files.iter().map(|file| (&file.path, state.deletes.count(&file.path))).collect();
    paths.sort_unstable();
    paths.hash(&mut hasher);
    hasher.finish()
}
