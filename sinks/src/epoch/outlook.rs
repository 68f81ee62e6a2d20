//! What the next epochs will do to tables whose definition changed: told beforehand.

use std::fmt;

use arrow::datatypes::SchemaRef;
use iceberg::spec::{Schema, UnboundPartitionField};

use super::Lake;
use crate::error::SinkError;
use crate::mode::{SinkMode, changelog_schema};
use crate::partition::PartitionBy;
use crate::producer::KIND_KEY;
use crate::schema::evolved;
use crate::storage::TableName;

/// A table as it is defined now.
#[derive(Clone, Debug)]
pub struct WantedTable {
    /// Which table.
    pub table: TableName,
    /// The relation's columns.
    pub schema: SchemaRef,
    /// How it is divided.
    pub partition_by: PartitionBy,
    /// What it shows.
    pub mode: SinkMode,
}

/// What happens to a table. As text: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableOutlook {
    /// It is made.
    Made(TableName),
    /// Its columns or its partitioning change. Columns are named as they are told: `+a long`, `-b`, `c int → long`.
    Changed {
        /// Which table.
        table: TableName,
        /// What is different.
        differences: Vec<String>,
        /// All of its rows are written anew.
        rewritten: bool,
    },
    /// It cannot go on: why, and what to do.
    Refused(TableName, String),
    /// Nothing writes it any more.
    Left {
        /// Which table.
        table: TableName,
        /// Whether it was a view's; false also where a version that did not note it made it.
        derived: bool,
    },
}

impl fmt::Display for TableOutlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableOutlook::Made(table) => write!(f, "table {table} is made"),
            TableOutlook::Changed { table, differences, rewritten } => {
                let how = if *rewritten { "all rows are written anew" } else { "rows that are there stay as they are" };
                write!(f, "table {table} changes: {} ({how})", differences.join(", "))
            }
            TableOutlook::Refused(table, why) => write!(f, "table {table} cannot go on: {why}"),
            TableOutlook::Left { table, derived: true } => {
                write!(f, "table {table} is written by nothing any more: it leaves the catalog, its files stay")
            }
            TableOutlook::Left { table, derived: false } => write!(f, "table {table} is written by nothing any more: it stays"),
        }
    }
}

impl Lake {
    /// What happens to the tables when a lake goes on with these definitions; nothing is said of those that stay as they are.
    ///
    /// # Errors
    /// The catalog or a table's metadata cannot be read.
    pub async fn outlook(&self, wanted: &[WantedTable]) -> Result<Vec<TableOutlook>, SinkError> {
        let existing = self.pointers().await?;
        let mut outlooks = Vec::new();
        for table in wanted {
            match existing.iter().any(|(name, _)| *name == table.table) {
                true => outlooks.extend(self.outlook_of(table).await?),
                false => outlooks.push(TableOutlook::Made(table.table.clone())),
            }
        }
        for (name, _) in existing {
            let is_known = wanted.iter().any(|table| table.table == name) || name == super::epochs_table();
            if is_known {
                continue;
            }
            let state = self.state(&name).await?;
            if state.is_ours() {
                let derived = state.metadata.properties().get(KIND_KEY).is_some_and(|kind| kind == "view");
                outlooks.push(TableOutlook::Left { table: name, derived });
            }
        }
        Ok(outlooks)
    }

    async fn outlook_of(&self, wanted: &WantedTable) -> Result<Option<TableOutlook>, SinkError> {
        let state = self.state(&wanted.table).await?;
        let label = wanted.table.to_string();
        if !state.is_ours() {
            let why = "it was not made by livelake: drop it, or give the sink another table".to_owned();
            return Ok(Some(TableOutlook::Refused(wanted.table.clone(), why)));
        }
        let columns = match wanted.mode {
            SinkMode::Changelog => changelog_schema(&label, &wanted.schema)?,
            _ => wanted.schema.clone(),
        };
        let before = state.metadata.current_schema();
        let shape = evolved(&label, Some((before, state.metadata.last_column_id())), &columns)?;
        if let (Some(column), true) = (&shape.incompatible, wanted.mode != SinkMode::Snapshot) {
            let why = format!(
                "column \"{column}\" has another type, as which earlier files cannot be read: give the sink another table"
            );
            return Ok(Some(TableOutlook::Refused(wanted.table.clone(), why)));
        }
        let mut rewritten = shape.incompatible.is_some();
        let mut differences = columns_changed(before, &shape.schema);
        let spec = wanted.partition_by.spec(&shape.schema);
        let spec = spec.map_err(|reason| SinkError::Rows { table: wanted.table.clone(), reason })?;
        let current = state.metadata.default_partition_spec().as_ref().clone().into_unbound();
        if parts(current.fields()) != parts(spec.fields()) {
            rewritten = true;
            let text = |fields: &[UnboundPartitionField]| match fields.is_empty() {
                true => "none".to_owned(),
                false => fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", "),
            };
            differences.push(format!("partitions {} → {}", text(current.fields()), text(spec.fields())));
        }
        let rewritten = rewritten && wanted.mode == SinkMode::Snapshot;
        let changed = TableOutlook::Changed { table: wanted.table.clone(), differences, rewritten };
        Ok(Some(changed)
            .filter(|changed| matches!(changed, TableOutlook::Changed { differences, .. } if !differences.is_empty())))
    }
}

/// What makes a partitioning.
pub(crate) fn parts(fields: &[UnboundPartitionField]) -> Vec<(i32, iceberg::spec::Transform, &str)> {
    fields.iter().map(|field| (field.source_id, field.transform, field.name.as_str())).collect()
}

fn columns_changed(before: &Schema, after: &Schema) -> Vec<String> {
    let (old, new) = (before.as_struct().fields(), after.as_struct().fields());
    let mut differences = Vec::new();
    for field in new {
        match old.iter().find(|known| known.id == field.id) {
            None => differences.push(format!("+{} {}", field.name, field.field_type)),
            Some(known) if known.field_type != field.field_type => {
                differences.push(format!("{} {} → {}", field.name, known.field_type, field.field_type));
            }
            Some(known) if known.doc != field.doc => differences.push(format!("{}'s comment", field.name)),
            Some(_) => {}
        }
    }
    differences
        .extend(old.iter().filter(|known| new.iter().all(|field| field.id != known.id)).map(|known| format!("-{}", known.name)));
    if differences.is_empty() && old.iter().map(|field| field.id).ne(new.iter().map(|field| field.id)) {
        differences.push("the order of its columns".to_owned());
    }
    differences
}
