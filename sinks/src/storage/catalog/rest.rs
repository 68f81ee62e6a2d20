//! A server of Iceberg's REST protocol as the catalog: Polaris, Lakekeeper, Nessie, Unity, Gravitino and others.
//!
//! The server keeps the tables' metadata; a commit says what is to change in it and what must still be so. It has no place for anything of
//! ours but the tables themselves, so what a database would hold is noted in the properties of `livelake._epochs`: the newest epoch, which
//! tables are the lake's, who writes.
//!
//! # One moment for all tables
//! A server that offers `transactions/commit` takes all tables of an epoch in one request. With any other the epoch is first written down
//! as an *intent*: a file with every table's commit, which the property [`INTENT`] of `_epochs` names. From then on it is certain that the
//! epoch will come. The tables follow one by one, `_epochs` last, which takes the intent away. Whoever finds an intent (this writer after
//! an answer that got lost, the next one after a death) makes its commits again; one that was made before is refused by the server, and known by
//! the epoch's number in its table.
//!
//! # One writer
//! The writer is a snapshot of `_epochs` without rows, at the end of the branch [`WRITER`]; every epoch and every intent asks that it
//! still be there. A new writer puts its own in its place, but not while there is an intent: that is what the tag [`PENDING`] is for.
//! So a writer that was replaced without knowing it can commit no epoch any more, and no part of one.

mod commit;
mod credentials;
pub(crate) mod fault;
mod intent;
mod session;
mod writer;

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};
use iceberg::spec::TableMetadata;
use iceberg::{TableRequirement, TableUpdate};
use url::Url;
use uuid::Uuid;

use self::commit::{CommitRequest, at};
use self::fault::RestFault;
use self::session::{Loaded, Session};
use super::{Flip, Moved, Next, Pointer};
use crate::epoch::{EpochRecord, epochs_table};
use crate::error::SinkError;
use crate::failpoint;
use crate::producer::{EPOCH_KEY, KIND_KEY};
use crate::storage::place::CatalogPlace;
use crate::storage::{Storage, TableName};

/// Property of `_epochs`: the newest epoch, as JSON.
const RECORD: &str = "livelake.record";
/// Property of `_epochs`: the lake's tables, as JSON.
const TABLES: &str = "livelake.tables";
/// Property of `_epochs`: tables that are no longer the lake's and are being taken out of the catalog, as JSON.
const DROPPED: &str = "livelake.dropped";
/// Property of `_epochs`: the file of the epoch that is being committed.
const INTENT: &str = "livelake.intent";
/// Tag of `_epochs` that is there as long as [`INTENT`] is.
const PENDING: &str = "livelake.pending";
/// Branch of `_epochs` whose snapshot says who writes the lake.
const WRITER: &str = "livelake.writer";

/// Tables that are asked for at a time.
const TABLES_AT_ONCE: usize = 8;

/// See the module.
pub(crate) struct RestCatalog {
    session: Session,
    place: String,
    storage: Storage,
    writes: bool,
    /// Where the lake's tables point. Kept by a writer, which is the only one; gone after an error.
    known: Option<BTreeMap<TableName, String>>,
    /// The writer's snapshot in `_epochs`.
    writer: Option<i64>,
}

impl std::fmt::Debug for RestCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestCatalog").field("place", &self.place).finish_non_exhaustive()
    }
}

impl RestCatalog {
    /// Opens the catalog at a server's address.
    pub(crate) async fn open(url: &Url, storage: &Storage, writes: bool) -> Result<RestCatalog, SinkError> {
        let place = CatalogPlace::Rest(url.clone()).to_string();
        let failed =
            |source: RestFault| SinkError::Catalog { what: "open a session", place: place.clone(), source: source.into() };
        let session = Session::open(url).await.map_err(failed)?;
        let catalog = RestCatalog { session, place, storage: storage.clone(), writes, known: None, writer: None };
        if !writes && catalog.load(&epochs_table()).await?.is_none() {
            return Err(SinkError::NoLake(catalog.place));
        }
        Ok(catalog)
    }

    fn fault(&self, what: &'static str) -> impl Fn(RestFault) -> SinkError + use<> {
        let place = self.place.clone();
        move |source| SinkError::Catalog { what, place: place.clone(), source: source.into() }
    }

    async fn load(&self, table: &TableName) -> Result<Option<Loaded>, SinkError> {
        self.session.table(table).await.map_err(self.fault("find a table"))
    }

    /// The table of epochs.
    async fn epochs(&self) -> Result<Loaded, SinkError> {
        self.load(&epochs_table()).await?.ok_or_else(|| SinkError::NoTable(epochs_table()))
    }

    /// What a property of `_epochs` says; nothing if it is not there.
    fn noted<T: serde::de::DeserializeOwned + Default>(&self, epochs: &Loaded, key: &str) -> Result<T, SinkError> {
        let Some(text) = epochs.metadata.properties().get(key) else { return Ok(T::default()) };
        let wrong = |e| RestFault::unreadable(format!("property {key} of {}: {e}", epochs_table()));
        serde_json::from_str(text).map_err(wrong).map_err(self.fault("read the epochs"))
    }

    /// The lake's tables and where they point.
    pub(crate) async fn pointers(&mut self) -> Result<Vec<(TableName, String)>, SinkError> {
        if self.known.is_none() {
            let epochs = self.epochs().await?;
            let mut names: Vec<TableName> = self.noted(&epochs, TABLES)?;
            names.push(epochs_table());
            let catalog = &*self;
            let found: Vec<Option<(TableName, String)>> = futures::stream::iter(names)
                .map(|name| async move { Ok::<_, SinkError>(catalog.load(&name).await?.map(|loaded| (name, loaded.location))) })
                .buffered(TABLES_AT_ONCE)
                .try_collect()
                .await?;
            self.known = Some(found.into_iter().flatten().collect());
        }
        let known = match self.writes {
            true => self.known.clone(),
            // somebody else writes it
            false => self.known.take(),
        };
        Ok(known.into_iter().flatten().collect())
    }

    /// Where one table of the lake points.
    pub(crate) async fn pointer(&mut self, table: &TableName) -> Result<Option<String>, SinkError> {
        if self.writes {
            self.pointers().await?;
            return Ok(self.known.as_ref().and_then(|known| known.get(table).cloned()));
        }
        Ok(self.load(table).await?.map(|loaded| loaded.location))
    }

    /// The newest epoch. A writer first finishes one that was begun.
    pub(crate) async fn newest(&mut self) -> Result<Option<EpochRecord>, SinkError> {
        let Some(mut epochs) = self.load(&epochs_table()).await? else { return Ok(None) };
        if self.writes
            && let Some(intent) = epochs.metadata.properties().get(INTENT)
        {
            self.known = None;
            self.finish(intent).await?;
            epochs = self.epochs().await?;
        }
        self.noted(&epochs, RECORD)
    }

    /// Makes all tables' next states visible, or none. See the module.
    ///
    /// # Errors
    /// As [`super::Catalog::flip`].
    pub(crate) async fn flip(&mut self, record: &EpochRecord, pointers: &[Pointer]) -> Result<Flip, SinkError> {
        failpoint::reach("catalog-begin");
        let mut names: HashSet<TableName> = self.pointers().await?.into_iter().map(|(name, _)| name).collect();
        let mut dropped: BTreeMap<TableName, Uuid> = BTreeMap::new();
        let (mut requests, mut epochs) = (Vec::new(), None);
        for pointer in pointers {
            let (table, next) = match pointer {
                Pointer::Remove { table, .. } => {
                    names.remove(table);
                    dropped.extend(self.load(table).await?.map(|loaded| (table.clone(), loaded.metadata.uuid())));
                    continue;
                }
                Pointer::Create { table, next } => {
                    self.create(table, next).await?;
                    names.insert(table.clone());
                    (table, next)
                }
                Pointer::Move { table, next, .. } => (table, next),
            };
            let request = CommitRequest::new(table, &next.metadata, next.parent, next.updates.clone());
            match *table == epochs_table() {
                true => epochs = Some(request),
                false => requests.push(request),
            }
        }
        names.remove(&epochs_table());
        let Some(mut epochs) = epochs else { return Err(SinkError::NoTable(epochs_table())) };
        epochs.requirements.push(at(WRITER, self.writer));
        epochs.updates.push(self.notes(record, &names, &dropped)?);
        requests.push(epochs);

        let known = self.known.take();
        let mut made = match self.session.together {
            true => self.commit_together(record, &requests).await,
            false => self.commit_in_turn(record, &requests).await,
        }?;
        let Some(made) = &mut made else { return Ok(Flip::AlreadyDone) };
        failpoint::reach("committed");
        self.remove_dropped(&dropped).await;
        self.known = known.map(|mut known| {
            known.retain(|name, _| names.contains(name));
            known
        });
        let asked: Vec<TableName> = requests.iter().map(CommitRequest::table).filter(|table| !made.contains_key(table)).collect();
        let catalog = &*self;
        let found: Vec<Option<(TableName, Loaded)>> = futures::stream::iter(asked)
            // what cannot be asked now is asked when it is needed
            .map(|table| async move { catalog.load(&table).await.ok().flatten().map(|loaded| (table, loaded)) })
            .buffered(TABLES_AT_ONCE)
            .collect()
            .await;
        made.extend(found.into_iter().flatten().map(|(table, loaded)| (table, (loaded.location, loaded.metadata))));
        let all_known = requests.iter().all(|request| made.contains_key(&request.table()));
        self.known = self.known.take().filter(|_| all_known).map(|mut known| {
            known.extend(made.iter().map(|(name, (location, _))| (name.clone(), location.clone())));
            known
        });
        Ok(Flip::Done(Moved::As(std::mem::take(made))))
    }

    /// What `_epochs` notes with an epoch.
    fn notes(
        &self,
        record: &EpochRecord,
        names: &HashSet<TableName>,
        dropped: &BTreeMap<TableName, Uuid>,
    ) -> Result<TableUpdate, SinkError> {
        let mut names: Vec<&TableName> = names.iter().collect();
        names.sort();
        let dropped: Vec<(&TableName, &Uuid)> = dropped.iter().collect();
        let text = |what: serde_json::Result<String>| what.map_err(RestFault::unreadable).map_err(self.fault("note the epoch"));
        Ok(TableUpdate::SetProperties {
            updates: HashMap::from([
                (RECORD.to_owned(), text(serde_json::to_string(record))?),
                (TABLES.to_owned(), text(serde_json::to_string(&names))?),
                (DROPPED.to_owned(), text(serde_json::to_string(&dropped))?),
            ]),
        })
    }

    /// Makes a table without rows, which nobody takes for the lake's yet. One that an earlier try left is made anew.
    async fn create(&self, table: &TableName, next: &Next) -> Result<(), SinkError> {
        let failed = self.fault("make a table");
        self.session.make_namespace(&table.namespace).await.map_err(&failed)?;
        let request = CommitRequest::create(table, &next.metadata);
        for is_last in [false, true] {
            match self.session.commit(&request).await {
                Ok(_) => break,
                Err(fault) if fault.status != Some(409) || is_last => return Err(failed(fault)),
                Err(_) => {}
            }
            let Some(there) = self.load(table).await? else { continue };
            let properties = there.metadata.properties();
            if !properties.contains_key(KIND_KEY) || properties.contains_key(EPOCH_KEY) {
                let reason =
                    "the catalog has one of this name already, which is not this lake's: drop it, or give the sink another table";
                return Err(SinkError::Rows { table: table.clone(), reason: reason.into() });
            }
            self.session.remove(table).await.map_err(&failed)?;
        }
        failpoint::reach("catalog-created");
        Ok(())
    }

    /// One request for all tables. `None`: the epoch was there already.
    async fn commit_together(&mut self, record: &EpochRecord, requests: &[CommitRequest]) -> Result<Option<Made>, SinkError> {
        failpoint::reach("catalog-commit");
        match self.session.commit_together(requests).await {
            Ok(()) => Ok(Some(Made::new())),
            Err(fault) if fault.is_conflict() => self.explain(record, requests).await,
            Err(source) if source.may_be_done() => Err(SinkError::Unknown { epoch: record.number, source: source.into() }),
            Err(fault) => Err(self.fault("commit the epoch")(fault)),
        }
    }

    /// Why the server refused an epoch; `None`: because it was there already.
    async fn explain(&self, record: &EpochRecord, requests: &[CommitRequest]) -> Result<Option<Made>, SinkError> {
        let epochs = self.epochs().await?;
        let newest: Option<EpochRecord> = self.noted(&epochs, RECORD)?;
        if let Some(newest) = newest.filter(|newest| newest.number >= record.number) {
            return match newest.token == record.token && newest.number == record.number {
                true => Ok(None),
                false => Err(SinkError::EpochOrder { epoch: record.number, newest: newest.number }),
            };
        }
        self.check_writer(&epochs)?;
        if epochs.metadata.properties().contains_key(INTENT) {
            // an earlier try's, of which was not known whether it got there
            let source = RestFault { status: None, message: "an earlier try is on its way".into(), was_sent: true };
            return Err(SinkError::Unknown { epoch: record.number, source: source.into() });
        }
        for request in requests {
            let found = self.load(&request.table()).await?;
            let meets = |requirement: &TableRequirement| requirement.check(found.as_ref().map(|found| &found.metadata)).is_ok();
            if !request.requirements.iter().all(meets) {
                return Err(SinkError::Conflict { table: request.table() });
            }
        }
        Err(SinkError::Conflict { table: epochs_table() })
    }

    /// Makes one table's next state visible. Its rows stay as they are.
    ///
    /// # Errors
    /// As [`super::Catalog::flip`].
    pub(crate) async fn move_pointer(&mut self, pointer: &Pointer) -> Result<Moved, SinkError> {
        let Pointer::Move { table, next, .. } = pointer else { return Ok(Moved::AsStaged) };
        let mut request = CommitRequest::new(table, &next.metadata, next.parent, next.updates.clone());
        match *table == epochs_table() {
            true => request.requirements.extend([at(WRITER, self.writer), at(PENDING, None)]),
            // a writer that was replaced in this very moment makes work for the new one, but no wrong rows
            false => self.check_writer(&self.epochs().await?)?,
        }
        failpoint::reach("maintenance-commit");
        match self.session.commit(&request).await {
            Ok(made) => {
                failpoint::reach("maintenance-committed");
                if let Some(known) = &mut self.known {
                    known.insert(table.clone(), made.location.clone());
                }
                Ok(Moved::As(HashMap::from([(table.clone(), (made.location, made.metadata))])))
            }
            Err(fault) => {
                self.known = None;
                Err(match fault {
                    fault if fault.is_conflict() => SinkError::Conflict { table: table.clone() },
                    source if source.may_be_done() => SinkError::UnknownFiles { source: source.into() },
                    fault => self.fault("commit the tables")(fault),
                })
            }
        }
    }

    /// Takes tables out of the catalog that are no longer the lake's, unless they were made anew since. What fails is tried again by the
    /// next writer.
    async fn remove_dropped(&self, dropped: &BTreeMap<TableName, Uuid>) {
        for (table, uuid) in dropped {
            let removed = async {
                if self.load(table).await?.is_some_and(|there| there.metadata.uuid() == *uuid) {
                    self.session.remove(table).await.map_err(self.fault("drop a table"))?;
                }
                Ok::<_, SinkError>(())
            };
            if let Err(error) = removed.await {
                tracing::warn!(%table, %error, "a dropped table stays in the catalog until the next start");
            }
        }
    }
}

/// Tables as the server answered them.
type Made = HashMap<TableName, (String, TableMetadata)>;
