//! Epochs on servers that commit one table at a time: written down first, then made. See [`super`].

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use iceberg::TableUpdate;
use iceberg::spec::{SnapshotReference, SnapshotRetention};
use uuid::Uuid;

use super::commit::{CommitRequest, at};
use super::fault::RestFault;
use super::{DROPPED, INTENT, Made, PENDING, RestCatalog, WRITER};
use crate::epoch::{EpochRecord, epochs_table};
use crate::error::SinkError;
use crate::failpoint;
use crate::producer::EPOCH_KEY;
use crate::storage::TableName;

/// An epoch that will come.
#[derive(serde::Serialize, serde::Deserialize)]
struct Intent {
    epoch: u64,
    /// The tables' commits, that of `_epochs` last.
    requests: Vec<CommitRequest>,
}

impl RestCatalog {
    /// One request after the other. `None`: the epoch was there already.
    pub(super) async fn commit_in_turn(
        &mut self,
        record: &EpochRecord,
        requests: &[CommitRequest],
    ) -> Result<Option<Made>, SinkError> {
        let unknown = |source: RestFault| SinkError::Unknown { epoch: record.number, source: source.into() };
        let mut requests = requests.to_vec();
        if let Some(epochs) = requests.last_mut() {
            epochs.updates.push(TableUpdate::RemoveProperties { removals: vec![INTENT.to_owned()] });
            epochs.updates.push(TableUpdate::RemoveSnapshotRef { ref_name: PENDING.to_owned() });
        }
        let intent = Intent { epoch: record.number, requests };
        let file = self.write(&intent, record).await?;
        failpoint::reach("intent-written");
        match self.declare(&file, intent.requests.last()).await {
            Ok(()) => {}
            Err(fault) if fault.is_conflict() => {
                self.forget(&file).await;
                return self.explain(record, &intent.requests).await;
            }
            // the file stays: it may be asked for
            Err(fault) if fault.may_be_done() => return Err(unknown(fault)),
            Err(fault) => {
                self.forget(&file).await;
                return Err(self.fault("commit the epoch")(fault));
            }
        }
        failpoint::reach("intent-declared");
        // from here on the epoch comes, by this process or by the next
        self.make(&intent, &file).await.map(Some).map_err(|error| match error {
            SinkError::Catalog { source, .. } => SinkError::Unknown { epoch: record.number, source },
            error => error,
        })
    }

    /// Makes the commits of an intent that somebody left.
    pub(super) async fn finish(&self, file: &str) -> Result<(), SinkError> {
        let unreadable =
            |source| SinkError::Store { what: "read the intent", location: file.to_owned(), source: Box::new(source) };
        let bytes = async { self.storage.files.io.new_input(file)?.read().await }.await;
        let bytes = match bytes {
            Ok(bytes) => bytes,
            // whoever was at it has come to the end meanwhile
            Err(_) if self.epochs().await?.metadata.properties().get(INTENT).map(String::as_str) != Some(file) => return Ok(()),
            Err(error) => return Err(unreadable(error)),
        };
        let intent: Intent = serde_json::from_slice(&bytes)
            .map_err(|e| unreadable(iceberg::Error::new(iceberg::ErrorKind::DataInvalid, "not an intent").with_source(e)))?;
        tracing::info!(epoch = intent.epoch, "finishing an epoch that was begun");
        self.make(&intent, file).await.map(drop)
    }

    /// Makes the commits of an intent, as far as they were not made before.
    async fn make(&self, intent: &Intent, file: &str) -> Result<Made, SinkError> {
        let mut made = Made::new();
        for request in &intent.requests {
            let table = request.table();
            failpoint::reach("intent-table");
            match self.session.commit(request).await {
                Ok(loaded) => {
                    made.insert(table, (loaded.location, loaded.metadata));
                    continue;
                }
                Err(fault) if !fault.is_conflict() => return Err(self.fault("commit the epoch")(fault)),
                Err(_) => {}
            }
            let there = self.load(&table).await?;
            let epoch = there.as_ref().and_then(|there| there.metadata.properties().get(EPOCH_KEY)?.parse::<u64>().ok());
            match epoch {
                Some(epoch) if epoch >= intent.epoch => {}
                _ if table == epochs_table() => return Err(SinkError::Conflict { table }),
                // It is seen as another program's snapshot by the next commit, which puts the relation's rows in its place.
                _ => {
                    tracing::warn!(%table, epoch = intent.epoch, "another program changed the table while an epoch was being committed")
                }
            }
        }
        self.forget(file).await;
        Ok(made)
    }

    /// Writes an intent's file.
    async fn write(&self, intent: &Intent, record: &EpochRecord) -> Result<String, SinkError> {
        let folder = self.epochs().await?.metadata.location().to_owned();
        let file = format!("{folder}/metadata/epoch-{}-{}.intent.json", record.number, Uuid::new_v4());
        let failed = |source| SinkError::Store { what: "write the intent", location: file.clone(), source: Box::new(source) };
        let text = serde_json::to_vec(intent)
            .map_err(|e| failed(iceberg::Error::new(iceberg::ErrorKind::DataInvalid, "not JSON").with_source(e)))?;
        async {
            self.storage.files.io.new_output(&file)?.write(Bytes::from(text)).await?;
            self.storage.files.sync(&file, false)
        }
        .await
        .map_err(failed)?;
        Ok(file)
    }

    /// Notes in `_epochs` that an epoch will come, if this writer still is the lake's.
    async fn declare(&self, file: &str, epochs: Option<&CommitRequest>) -> Result<(), RestFault> {
        let Some(mut request) = epochs.cloned() else { return Ok(()) };
        let (Some(writer), name) = (self.writer, PENDING.to_owned()) else {
            return Err(RestFault { status: None, message: "the lake was opened for reading".into(), was_sent: false });
        };
        request.requirements.extend([at(WRITER, Some(writer)), at(PENDING, None)]);
        request.updates = vec![
            TableUpdate::SetProperties { updates: HashMap::from([(INTENT.to_owned(), file.to_owned())]) },
            TableUpdate::SetSnapshotRef {
                ref_name: name,
                reference: SnapshotReference::new(writer, SnapshotRetention::Tag { max_ref_age_ms: None }),
            },
        ];
        self.session.commit(&request).await.map(drop)
    }

    /// Deletes an intent's file. One that stays is never read.
    async fn forget(&self, file: &str) {
        self.storage.files.discard(vec![file.to_owned()]).await;
    }

    /// Takes tables out of the catalog that an epoch dropped before its writer came to it.
    pub(super) async fn remove_leftovers(&self) -> Result<(), SinkError> {
        let dropped: Vec<(TableName, Uuid)> = self.noted(&self.epochs().await?, DROPPED)?;
        self.remove_dropped(&dropped.into_iter().collect::<BTreeMap<_, _>>()).await;
        Ok(())
    }
}
