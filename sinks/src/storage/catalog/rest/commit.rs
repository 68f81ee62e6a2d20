//! What a REST catalog is asked for: updates of a table's metadata, and what must be so for them.

use std::collections::HashMap;

use iceberg::spec::{FormatVersion, TableMetadata};
use iceberg::{TableRequirement, TableUpdate};

use crate::producer::STAMP_KEYS;
use crate::storage::TableName;

/// One table's commit, in the words of the protocol.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct CommitRequest {
    identifier: Identifier,
    pub(super) requirements: Vec<TableRequirement>,
    pub(super) updates: Vec<TableUpdate>,
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Identifier {
    namespace: Vec<String>,
    name: String,
}

impl CommitRequest {
    /// Updates of a table that is still the one that it was, with its newest snapshot.
    pub(super) fn new(
        table: &TableName,
        metadata: &TableMetadata,
        parent: Option<i64>,
        updates: Vec<TableUpdate>,
    ) -> CommitRequest {
        let requirements = vec![TableRequirement::UuidMatch { uuid: metadata.uuid() }, at("main", parent)];
        CommitRequest { identifier: Identifier::of(table), requirements, updates }
    }

    /// A table that must not be there yet, without a row: what its metadata says of columns, partitions, place and properties.
    pub(super) fn create(table: &TableName, metadata: &TableMetadata) -> CommitRequest {
        let spec = metadata.default_partition_spec().as_ref().clone().into_unbound();
        // that it is an epoch's is said by the commit that gives it rows
        let properties = metadata.properties().iter().filter(|(key, _)| !STAMP_KEYS.contains(&key.as_str()));
        let properties: HashMap<String, String> = properties.map(|(key, value)| (key.clone(), value.clone())).collect();
        let updates = vec![
            TableUpdate::AssignUuid { uuid: metadata.uuid() },
            TableUpdate::UpgradeFormatVersion { format_version: FormatVersion::V2 },
            TableUpdate::AddSchema { schema: metadata.current_schema().as_ref().clone() },
            TableUpdate::SetCurrentSchema { schema_id: -1 },
            TableUpdate::AddSpec { spec },
            TableUpdate::SetDefaultSpec { spec_id: -1 },
            TableUpdate::AddSortOrder { sort_order: metadata.default_sort_order().as_ref().clone() },
            TableUpdate::SetDefaultSortOrder { sort_order_id: -1 },
            TableUpdate::SetLocation { location: metadata.location().to_owned() },
            TableUpdate::SetProperties { updates: properties },
        ];
        CommitRequest { identifier: Identifier::of(table), requirements: vec![TableRequirement::NotExist], updates }
    }

    /// The table that it is for.
    pub(super) fn table(&self) -> TableName {
        TableName::new(self.identifier.namespace.join("."), &self.identifier.name)
    }
}

impl Identifier {
    fn of(table: &TableName) -> Identifier {
        Identifier { namespace: vec![table.namespace.clone()], name: table.name.clone() }
    }
}

/// That a branch or tag is at a snapshot, or is not there.
pub(super) fn at(reference: &str, snapshot_id: Option<i64>) -> TableRequirement {
    TableRequirement::RefSnapshotIdMatch { r#ref: reference.to_owned(), snapshot_id }
}
