//! Who writes a lake whose catalog is a server: a snapshot of `_epochs` at the end of a branch. See [`super`].

use std::collections::HashMap;

use iceberg::TableUpdate;
use iceberg::spec::{ManifestListWriter, Operation, Snapshot, SnapshotReference, SnapshotRetention, Summary, TableMetadata};

use super::commit::{CommitRequest, at};
use super::session::Loaded;
use super::{INTENT, PENDING, RestCatalog, WRITER};
use crate::epoch::{EpochRecord, epochs_table};
use crate::error::SinkError;
use crate::partition::PartitionBy;
use crate::producer::{EPOCH_KEY, TableState};
use crate::schema::evolved;

/// Summary of the writer's snapshot: its token.
const TOKEN: &str = "livelake.token";
/// Summary of the writer's snapshot: its name and process id.
const HOLDER: &str = "livelake.holder";

impl RestCatalog {
    /// Makes a writer the lake's. An epoch that the last one began is finished first.
    ///
    /// # Errors
    /// The server or the warehouse cannot be reached, or refuses.
    pub(crate) async fn take(&mut self, token: &str, holder: &str) -> Result<(), SinkError> {
        let failed = self.fault("take the writer's token");
        loop {
            let Some(epochs) = self.load(&epochs_table()).await? else {
                self.make_epochs().await?;
                continue;
            };
            if let Some(intent) = epochs.metadata.properties().get(INTENT) {
                self.finish(intent).await?;
                continue;
            }
            if let Some(snapshot) = epochs.metadata.snapshot_for_ref(WRITER)
                && snapshot.summary().additional_properties.get(TOKEN).is_some_and(|found| found == token)
            {
                // an answer got lost
                self.writer = Some(snapshot.snapshot_id());
                break;
            }
            let (request, snapshot) = self.takeover(&epochs, token, holder).await?;
            match self.session.commit(&request).await {
                Ok(_) => {
                    self.writer = Some(snapshot);
                    break;
                }
                // somebody was faster, or it is not known: look
                Err(fault) if fault.is_conflict() || fault.may_be_done() => {}
                Err(fault) => return Err(failed(fault)),
            }
        }
        self.remove_leftovers().await
    }

    /// That the writer still is this one.
    pub(super) fn check_writer(&self, epochs: &Loaded) -> Result<(), SinkError> {
        let snapshot = epochs.metadata.snapshot_for_ref(WRITER);
        if snapshot.is_some_and(|snapshot| Some(snapshot.snapshot_id()) == self.writer) {
            return Ok(());
        }
        let holder = snapshot.and_then(|snapshot| snapshot.summary().additional_properties.get(HOLDER).cloned());
        Err(SinkError::Superseded { holder: holder.unwrap_or_else(|| "nobody: its token is gone".into()) })
    }

    /// Who wrote the lake last.
    pub(crate) async fn holder(&self) -> Result<Option<String>, SinkError> {
        let epochs = self.load(&epochs_table()).await?;
        let metadata = epochs.as_ref().map(|epochs| &epochs.metadata);
        Ok(metadata.and_then(|m| m.snapshot_for_ref(WRITER)?.summary().additional_properties.get(HOLDER).cloned()))
    }

    /// The commit that puts a new writer's snapshot in the place of the last one's, and that snapshot.
    async fn takeover(&self, epochs: &Loaded, token: &str, holder: &str) -> Result<(CommitRequest, i64), SinkError> {
        let metadata = &epochs.metadata;
        let id = loop {
            let id = rand::random::<i64>() & i64::MAX;
            if id > 0 && metadata.snapshot_by_id(id).is_none() {
                break id;
            }
        };
        let list = format!("{}/metadata/snap-{id}-1-{}.avro", metadata.location(), uuid::Uuid::new_v4());
        let updates = self.snapshot(metadata, id, &list, token, holder).await;
        let updates = updates.map_err(SinkError::table("prepare the next snapshot", &epochs_table()))?;
        let id_of = |name: &str| metadata.snapshot_for_ref(name).map(|snapshot| snapshot.snapshot_id());
        let mut request = CommitRequest::new(&epochs_table(), metadata, id_of("main"), updates);
        request.requirements.extend([at(WRITER, id_of(WRITER)), at(PENDING, None)]);
        Ok((request, id))
    }

    /// The updates that put a snapshot without a file at the end of the writers' branch.
    async fn snapshot(
        &self,
        metadata: &TableMetadata,
        id: i64,
        list: &str,
        token: &str,
        holder: &str,
    ) -> iceberg::Result<Vec<TableUpdate>> {
        let sequence = metadata.next_sequence_number();
        let parent = metadata.snapshot_for_ref(WRITER).map(|snapshot| snapshot.snapshot_id());
        let output = self.storage.files.io.new_output(list)?.writer().await?;
        let writer = ManifestListWriter::v2(output, id, parent, sequence);
        writer.close().await?;
        let properties = HashMap::from([(TOKEN.to_owned(), token.to_owned()), (HOLDER.to_owned(), holder.to_owned())]);
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(sequence)
            .with_timestamp_ms(chrono::Utc::now().timestamp_millis().max(metadata.last_updated_ms()))
            .with_manifest_list(list)
            .with_summary(Summary { operation: Operation::Append, additional_properties: properties })
            .with_schema_id(metadata.current_schema_id())
            .build();
        let branch = SnapshotRetention::branch(None, None, None);
        let builder = metadata.clone().into_builder(None).add_snapshot(snapshot)?;
        Ok(builder.set_ref(WRITER, SnapshotReference::new(id, branch))?.build()?.changes)
    }

    /// Makes the table of epochs, for a lake that begins.
    async fn make_epochs(&self) -> Result<(), SinkError> {
        let (table, failed) = (epochs_table(), self.fault("make the tables"));
        let change = EpochRecord::default().as_change()?;
        let shape = evolved(&table.to_string(), None, &change.schema)?;
        let spec = PartitionBy::default().spec(&shape.schema);
        let spec = spec.map_err(|reason| SinkError::Rows { table: table.clone(), reason })?;
        let location = self.storage.new_location(&table).await?;
        let made = TableState::create(&table, location, shape.schema, spec, &change);
        let made = made.map_err(SinkError::table("prepare the next snapshot", &table))?;
        self.session.make_namespace(&table.namespace).await.map_err(&failed)?;
        let mut request = CommitRequest::create(&table, &made.metadata);
        request.updates.push(TableUpdate::SetProperties { updates: HashMap::from([(EPOCH_KEY.to_owned(), "0".to_owned())]) });
        match self.session.commit(&request).await {
            Err(fault) if !fault.is_conflict() && !fault.may_be_done() => Err(failed(fault)),
            _ => Ok(()),
        }
    }
}
