//! [`Lake`]: all tables of a lake, committed together.
//!
//! An epoch is one cut over all tables: a number, the timestamp at which every table shows its relation, and the positions from
//! which sources go on after it. It becomes visible by one transaction of the catalog that moves every changed table's pointer and adds
//! the epoch's row. Before that, nothing that was written can be seen; after it, everything can.
//!
//! # Where an epoch is noted
//! In the database table `livelake_epochs` (what restarts read), in the Iceberg table `livelake._epochs` (what other engines
//! read), and in every changed table's snapshot summary and properties (`livelake.epoch`, `livelake.timestamp`,
//! `livelake.positions`). Tables that did not change get no snapshot.

mod history;
pub(crate) mod outlook;
mod record;
mod restore;
mod table_commit;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::{Mutex, MutexGuard};

use crate::compaction::FileRules;
use crate::error::SinkError;
use crate::maintenance::Seen;
use crate::mode::{Context, RowReader, TableChange, TableDrop, write_table};
use crate::producer::attempt::Attempt;
use crate::producer::expiry::Keep;
use crate::producer::{EPOCH_KEY, POSITIONS_KEY, Staged, TIMESTAMP_KEY, TableState, expiry};
use crate::storage::catalog::{Catalog, Flip, Moved, Next, Pointer};
use crate::storage::fence::Fence;
use crate::storage::{Storage, TableName};

pub use outlook::{TableOutlook, WantedTable};
pub(crate) use record::epochs_table;
pub use record::{CommitReport, Epoch, EpochRecord, RowCounts, TableInfo, TableReport};

/// Tables that are written at the same time: most of the time goes by waiting for the disk.
const TABLES_AT_ONCE: usize = 4;

/// How to open a lake.
#[derive(Clone, Debug)]
pub struct LakeOptions {
    /// `storage.catalog`, such as `sqlite:.livelake/catalog.db`.
    pub catalog: String,
    /// `storage.warehouse`, such as `.livelake/warehouse`.
    pub warehouse: String,
    /// What relative paths are relative to: the lake's folder.
    pub base: PathBuf,
    /// Who writes, for the message to the next one who tries.
    pub writer: String,
    /// `epochs.keep`: how many snapshots a table keeps, at least one.
    pub keep: usize,
    /// `epochs.keep_for`: younger snapshots are kept too.
    pub keep_for: Duration,
    /// What the tables' files should be like.
    pub files: FileRules,
}

impl LakeOptions {
    /// The defaults for a lake folder.
    pub fn new(base: impl Into<PathBuf>) -> LakeOptions {
        LakeOptions {
            catalog: "sqlite:.livelake/catalog.db".into(),
            warehouse: ".livelake/warehouse".into(),
            base: base.into(),
            writer: "livelake".into(),
            keep: 20,
            keep_for: Duration::ZERO,
            files: FileRules::default(),
        }
    }
}

/// A lake's tables, opened for writing or for reading. Cheap to clone; the writer's right ends with the last clone.
#[derive(Clone, Debug)]
pub struct Lake {
    inner: Arc<Inner>,
}

/// An epoch that is being made.
struct Work<'l> {
    started: Instant,
    /// The tables as they were left; nobody else commits while this is held.
    tables: MutexGuard<'l, HashMap<TableName, Arc<TableState>>>,
    /// Where the catalog points.
    pointers: HashMap<TableName, String>,
    context: Arc<Context>,
}

struct Inner {
    storage: Storage,
    catalog: Mutex<Catalog>,
    /// Absent: opened for reading.
    fence: Option<Fence>,
    /// Tables as our last commit left them. Held for the whole of a commit, so there is one at a time.
    tables: Mutex<HashMap<TableName, Arc<TableState>>>,
    keep: Keep,
    rules: FileRules,
    /// What the last maintenance saw.
    seen: Mutex<Seen>,
    /// Files of the last epoch that are being deleted.
    sweeping: Mutex<Option<tokio::task::JoinHandle<()>>>,
    #[cfg(test)]
    fault: std::sync::Mutex<Option<tests::Fault>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lake").field("storage", &self.storage).field("fence", &self.fence).finish_non_exhaustive()
    }
}

impl Lake {
    /// Opens a lake for writing; makes catalog and warehouse if they are not there.
    ///
    /// # Errors
    /// [`SinkError::Held`] while somebody else writes it; otherwise in words what is wrong with the folder or the database.
    pub async fn open(options: &LakeOptions) -> Result<Lake, SinkError> {
        let storage = Storage::parse(&options.catalog, &options.warehouse, &options.base)?;
        storage.prepare().await?;
        let mut catalog = Catalog::open(&storage, true).await?;
        let fence = Fence::take(&mut catalog, &storage, &options.writer).await?;
        Ok(Lake::with(storage, catalog, Some(fence), options))
    }

    /// Opens a lake for reading, also while somebody writes it.
    ///
    /// # Errors
    /// When there is no lake, or its database cannot be read.
    pub async fn open_reader(options: &LakeOptions) -> Result<Lake, SinkError> {
        let storage = Storage::parse(&options.catalog, &options.warehouse, &options.base)?;
        let catalog = Catalog::open(&storage, false).await?;
        Ok(Lake::with(storage, catalog, None, options))
    }

    fn with(storage: Storage, catalog: Catalog, fence: Option<Fence>, options: &LakeOptions) -> Lake {
        let inner = Inner {
            storage,
            catalog: Mutex::new(catalog),
            fence,
            tables: Mutex::default(),
            keep: Keep { at_least: options.keep.max(1), younger_than: options.keep_for },
            rules: options.files,
            seen: Mutex::default(),
            sweeping: Mutex::default(),
            #[cfg(test)]
            fault: std::sync::Mutex::default(),
        };
        Lake { inner: Arc::new(inner) }
    }

    /// Where catalog and tables are.
    pub fn storage(&self) -> &Storage {
        &self.inner.storage
    }

    /// The newest epoch: what a restart goes on from. `None` for a lake that has none yet.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn newest(&self) -> Result<Option<EpochRecord>, SinkError> {
        self.inner.catalog.lock().await.newest().await
    }

    /// All tables of the catalog, ours and others', in order of their names.
    ///
    /// # Errors
    /// When the database or a table's metadata cannot be read.
    pub async fn tables(&self) -> Result<Vec<TableInfo>, SinkError> {
        let pointers = self.pointers().await?;
        let mut tables = Vec::with_capacity(pointers.len());
        for (table, location) in pointers {
            let metadata = iceberg::spec::TableMetadata::read_from(&self.files().io, &location).await;
            let metadata = metadata.map_err(SinkError::table("read the metadata", &table))?;
            tables.push(TableInfo::of(table, location, &metadata)?);
        }
        Ok(tables)
    }

    /// Commits an epoch: writes the files of all changed tables, then makes all of it visible at once. Tables of `changes` that
    /// are not there are made; those of `drops` go. After an error nothing is visible and the same call can be made again (an
    /// epoch that got through in spite of a lost answer is recognised and reported as done).
    ///
    /// CPU work and file access happen on blocking threads; must be called within a tokio runtime of either kind.
    ///
    /// # Errors
    /// See [`SinkError`].
    pub async fn commit(
        &self,
        epoch: &Epoch,
        changes: Vec<TableChange>,
        drops: &[TableDrop],
        rows: Arc<dyn RowReader>,
    ) -> Result<CommitReport, SinkError> {
        let inner = &self.inner;
        let Some(fence) = &inner.fence else {
            return Err(SinkError::Option("the lake was opened for reading: it cannot be committed to".into()));
        };
        let (started, mut tables) = (Instant::now(), inner.tables.lock().await);
        if let Some(newest) = self.newest().await? {
            if newest.number == epoch.number && newest.timestamp == epoch.timestamp && newest.token == fence.token {
                tables.clear();
                return Ok(CommitReport { epoch: epoch.number, already: true, ..CommitReport::default() });
            }
            if epoch.number <= newest.number {
                return Err(SinkError::EpochOrder { epoch: epoch.number, newest: newest.number });
            }
            // A commit whose caller stopped listening may have got through: then the tables are not as remembered.
            let noted = tables.get(&epochs_table()).and_then(|t| t.metadata.properties().get(EPOCH_KEY));
            if newest.token == fence.token && noted.is_none_or(|n| *n != newest.number.to_string()) {
                tables.clear();
            }
        }
        check_names(&changes, drops)?;
        let pointers: HashMap<TableName, String> = self.pointers().await?.into_iter().collect();
        let context = Arc::new(self.context(epoch, rows));
        self.fault(0)?;
        let work: Vec<_> = changes
            .into_iter()
            .map(|change| (tables.get(&change.table).cloned(), pointers.get(&change.table).cloned(), change))
            .collect();
        // All are waited for, also after an error: what is written after the files were deleted would stay.
        let staged: Vec<Result<Option<Staged>, SinkError>> = futures::stream::iter(work)
            .map(|(known, pointer, change)| write_in_background(Arc::clone(&context), change, known, pointer))
            .buffer_unordered(TABLES_AT_ONCE)
            .collect()
            .await;
        let staged: Result<Vec<Option<Staged>>, SinkError> = staged.into_iter().collect();
        let staged: Vec<Staged> = match staged.and_then(|staged| self.fault(1).map(|()| staged)) {
            Ok(staged) => staged.into_iter().flatten().collect(),
            Err(error) => {
                // What was remembered may be what was wrong: the next try reads the tables anew.
                tables.clear();
                return Err(failed(context, error).await);
            }
        };

        let gone = drops.iter().filter_map(|dropped| Some((dropped, pointers.get(&dropped.table)?.clone()))).collect();
        self.seal(fence, Work { started, tables, pointers, context }, epoch, staged, gone).await
    }

    /// What all tables of an epoch share while they are written.
    fn context(&self, epoch: &Epoch, rows: Arc<dyn RowReader>) -> Context {
        let inner = &self.inner;
        Context {
            attempt: Attempt::new(&inner.storage),
            storage: inner.storage.clone(),
            epoch: epoch.number,
            timestamp: epoch.timestamp,
            stamp: BTreeMap::from([
                (EPOCH_KEY.to_string(), epoch.number.to_string()),
                (TIMESTAMP_KEY.to_string(), epoch.timestamp.to_string()),
                (POSITIONS_KEY.to_string(), epoch.positions.to_string()),
            ]),
            rows,
            keep: inner.keep,
            rules: inner.rules,
        }
    }

    /// Notes an epoch whose tables are written, makes it visible, and tidies up.
    async fn seal(
        &self,
        fence: &Fence,
        work: Work<'_>,
        epoch: &Epoch,
        mut staged: Vec<Staged>,
        gone: Vec<(&TableDrop, String)>,
    ) -> Result<CommitReport, SinkError> {
        let (inner, Work { started, mut tables, pointers, context }) = (&self.inner, work);
        staged.sort_by(|a, b| a.state.name.cmp(&b.state.name));
        let snapshot = |s: &Staged| s.state.metadata.current_snapshot_id().unwrap_or(-1);
        let record = EpochRecord {
            number: epoch.number,
            timestamp: epoch.timestamp,
            committed_at: chrono::Utc::now().timestamp_micros(),
            positions: epoch.positions.clone(),
            token: fence.token.clone(),
            tables: staged.iter().map(|s| (s.state.name.to_string(), snapshot(s))).collect(),
            rows: staged.iter().map(|s| (s.state.name.to_string(), s.changed)).collect(),
        };
        let noted = record.as_change()?;
        let (known, pointer) = (tables.get(&noted.table).cloned(), pointers.get(&noted.table).cloned());
        let noted = write_in_background(Arc::clone(&context), noted, known, pointer).await;
        match noted.and_then(|noted| self.fault(2).map(|()| noted)) {
            Ok(noted) => staged.extend(noted),
            Err(error) => return Err(failed(context, error).await),
        }
        let written = started.elapsed();

        let mut moves: Vec<Pointer> = staged.iter().map(pointer_of).collect();
        moves.extend(gone.iter().map(|(d, from)| Pointer::Remove { table: d.table.clone(), from: from.clone() }));
        let flip = inner.catalog.lock().await.flip(&record, &moves).await;
        let flip = match flip {
            Ok(Flip::Done(moved)) => self.fault(3).map(|()| moved),
            Ok(Flip::AlreadyDone) => Ok(Moved::AsStaged),
            Err(error) => Err(error),
        };
        let mut moved = match flip {
            Ok(moved) => moved,
            Err(error) => {
                tables.clear();
                return Err(failed(context, error).await);
            }
        };
        let flipped = started.elapsed() - written;
        let mut report = CommitReport { epoch: epoch.number, written, flipped, ..CommitReport::default() };
        let mut garbage = Vec::new();
        for mut table in staged {
            report.tables.push(TableReport::of(&table));
            garbage.extend(expiry::garbage(&inner.storage.files.io, &mut table).await);
            match moved.apply(table.state) {
                Ok(state) => tables.insert(state.name.clone(), Arc::new(state)),
                Err(name) => tables.remove(&name),
            };
        }
        self.sweep(garbage).await;
        for (dropped, from) in gone {
            tables.remove(&dropped.table);
            if dropped.purge {
                purge(&inner.storage, &from).await;
            }
        }
        report.swept = started.elapsed() - written - flipped;
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(
            epoch = epoch.number,
            tables = report.tables.len(),
            written_ms = ms(report.written),
            flipped_ms = ms(report.flipped),
            swept_ms = ms(report.swept),
            "epoch committed"
        );
        Ok(report)
    }

    /// Deletes files in the background. At most one commit's deletions are under way: a slow disk slows the commits down rather than fill
    /// up.
    async fn sweep(&self, garbage: Vec<String>) {
        self.settle().await;
        if !garbage.is_empty() {
            let files = self.files().clone();
            *self.inner.sweeping.lock().await = Some(tokio::spawn(async move {
                files.discard(garbage).await;
            }));
        }
    }

    /// Waits until the files that the last commit left without a reader are deleted. For the end of a process: what it does not
    /// delete stays on the disk.
    pub async fn settle(&self) {
        if let Some(sweeping) = self.inner.sweeping.lock().await.take()
            && let Err(error) = sweeping.await
        {
            tracing::warn!(%error, "old files stay behind");
        }
    }

    /// Where tests make a commit fail.
    #[cfg(test)]
    fn fault(&self, step: usize) -> Result<(), SinkError> {
        tests::strike(&self.inner.fault, step)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    fn fault(&self, _step: usize) -> Result<(), SinkError> {
        Ok(())
    }
}

/// An error, after the files of the try were deleted, unless they may be visible in spite of it.
async fn failed(context: Arc<Context>, error: SinkError) -> SinkError {
    if !error.is_unknown() {
        context.attempt.discard().await;
    }
    error
}

/// Two changes of one table would each be made on top of the same snapshot.
fn check_names(changes: &[TableChange], drops: &[TableDrop]) -> Result<(), SinkError> {
    let mut seen = std::collections::HashSet::new();
    for table in changes.iter().map(|c| &c.table).chain(drops.iter().map(|d| &d.table)) {
        if *table == epochs_table() {
            return Err(SinkError::Option(format!("{table} is the lake's own table: give the sink another name")));
        }
        if !seen.insert(table) {
            return Err(SinkError::Option(format!("two sinks write table {table}: give one of them another one")));
        }
    }
    Ok(())
}

/// Writes one table's files on a blocking thread.
async fn write_in_background(
    context: Arc<Context>,
    change: TableChange,
    known: Option<Arc<TableState>>,
    pointer: Option<String>,
) -> Result<Option<Staged>, SinkError> {
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        runtime.block_on(async {
            let state = match (known, pointer) {
                (Some(known), Some(location)) if known.location == location => Some(known),
                // The pointer is not where our last commit left it.
                (Some(_), _) => return Err(SinkError::Conflict { table: change.table.clone() }),
                (None, Some(location)) => {
                    let loaded = TableState::load(&context.attempt.files, &change.table, &location).await;
                    Some(Arc::new(loaded.map_err(SinkError::table("read the metadata", &change.table))?))
                }
                (None, None) => None,
            };
            write_table(&context, &change, state).await
        })
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| SinkError::Thread(e.to_string()))?
}

fn pointer_of(staged: &Staged) -> Pointer {
    let table = staged.state.name.clone();
    let next = Next {
        location: staged.state.location.clone(),
        parent: staged.parent,
        metadata: Arc::clone(&staged.state.metadata),
        updates: staged.updates.clone(),
    };
    match &staged.from {
        Some(from) => Pointer::Move { table, from: from.clone(), next },
        None => Pointer::Create { table, next },
    }
}

/// Deletes a dropped table's folder: the one above its metadata, if it is within the warehouse.
async fn purge(storage: &Storage, metadata: &str) {
    let Some(folder) = folder_of(&storage.files.same(metadata)).map(str::to_owned) else { return };
    if folder.strip_prefix(&storage.warehouse).is_some_and(|below| below.starts_with('/'))
        && let Err(error) = storage.files.remove_below(&folder).await
    {
        tracing::warn!(folder, %error, "files of a dropped table stay behind");
    }
}

/// The folder of the table that a metadata file is of.
pub(crate) fn folder_of(metadata: &str) -> Option<&str> {
    Some(metadata.rsplit_once('/')?.0.rsplit_once('/')?.0)
}
