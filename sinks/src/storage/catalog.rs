//! The catalog: which tables there are, where each of them is, and the one place where an epoch becomes visible.
//!
//! A database ([`sql`]) takes the tables' pointers and the epoch's row in one transaction. A server of Iceberg's REST protocol ([`rest`]) makes
//! the metadata files itself, out of what each commit asks for.

pub(crate) mod rest;
pub(crate) mod sql;

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::TableUpdate;
use iceberg::spec::TableMetadata;

use self::rest::RestCatalog;
use self::sql::SqlCatalog;
use crate::epoch::EpochRecord;
use crate::error::SinkError;
use crate::producer::TableState;
use crate::storage::place::CatalogPlace;
use crate::storage::{Storage, TableName};

/// What an epoch does to one table's pointer.
#[derive(Clone, Debug)]
pub(crate) enum Pointer {
    /// A table that was not there.
    Create {
        /// Which table.
        table: TableName,
        /// Its first state.
        next: Next,
    },
    /// From one state to the next.
    Move {
        /// Which table.
        table: TableName,
        /// The metadata file that it must still point at.
        from: String,
        /// Its next state.
        next: Next,
    },
    /// A table that goes.
    Remove {
        /// Which table.
        table: TableName,
        /// The metadata file that it must still point at.
        from: String,
    },
}

/// A table's next state, as a file for catalogs that take files and as updates for those that make them.
#[derive(Clone, Debug)]
pub(crate) struct Next {
    /// The metadata file; that of the last state where the catalog writes it.
    pub(crate) location: String,
    /// The snapshot that it was made on.
    pub(crate) parent: Option<i64>,
    /// What is in it.
    pub(crate) metadata: Arc<TableMetadata>,
    /// What is different from the last state; for a table that was not there, from its creation.
    pub(crate) updates: Vec<TableUpdate>,
}

/// What the flip found.
#[derive(Debug)]
pub(crate) enum Flip {
    /// All pointers moved.
    Done(Moved),
    /// This very epoch is there already: an earlier try got through.
    AlreadyDone,
}

/// How the tables are after a flip.
#[derive(Debug)]
pub(crate) enum Moved {
    /// As they were prepared.
    AsStaged,
    /// As the catalog made them: metadata file and what is in it. One that could not be asked for is not here.
    As(HashMap<TableName, (String, TableMetadata)>),
}

impl Moved {
    /// A table's state after the flip; its name if that is not known.
    pub(crate) fn apply(&mut self, staged: TableState) -> Result<TableState, TableName> {
        match self {
            Moved::AsStaged => Ok(staged),
            Moved::As(made) => match made.remove(&staged.name) {
                Some((location, metadata)) => Ok(TableState { location, metadata: Arc::new(metadata), ..staged }),
                None => Err(staged.name),
            },
        }
    }
}

/// An open catalog.
#[derive(Debug)]
pub(crate) enum Catalog {
    Sql(SqlCatalog),
    Rest(Box<RestCatalog>),
}

impl Catalog {
    /// Opens the catalog; a writer makes what is missing in it.
    pub(crate) async fn open(storage: &Storage, writes: bool) -> Result<Catalog, SinkError> {
        Ok(match &storage.catalog {
            CatalogPlace::Sql(place) => Catalog::Sql(SqlCatalog::open(place, writes).await?),
            CatalogPlace::Rest(url) => Catalog::Rest(Box::new(RestCatalog::open(url, storage, writes).await?)),
        })
    }

    /// The lake's tables and where they point, in order of their names. From a database: all of its tables, as of one moment.
    pub(crate) async fn pointers(&mut self) -> Result<Vec<(TableName, String)>, SinkError> {
        match self {
            Catalog::Sql(catalog) => catalog.pointers().await,
            Catalog::Rest(catalog) => catalog.pointers().await,
        }
    }

    /// Where one table points.
    pub(crate) async fn pointer(&mut self, table: &TableName) -> Result<Option<String>, SinkError> {
        match self {
            Catalog::Sql(catalog) => catalog.pointer(table).await,
            Catalog::Rest(catalog) => catalog.pointer(table).await,
        }
    }

    /// The newest epoch.
    pub(crate) async fn newest(&mut self) -> Result<Option<EpochRecord>, SinkError> {
        match self {
            Catalog::Sql(catalog) => Ok(catalog.epochs(1).await?.pop()),
            Catalog::Rest(catalog) => catalog.newest().await,
        }
    }

    /// Moves all pointers and notes the epoch, or does nothing at all.
    ///
    /// # Errors
    /// [`SinkError::Superseded`], [`SinkError::EpochOrder`], [`SinkError::Conflict`]: nothing was changed.
    /// [`SinkError::Unknown`]: the last step's answer got lost.
    pub(crate) async fn flip(&mut self, record: &EpochRecord, pointers: &[Pointer]) -> Result<Flip, SinkError> {
        match self {
            Catalog::Sql(catalog) => catalog.flip(record, pointers).await,
            Catalog::Rest(catalog) => catalog.flip(record, pointers).await,
        }
    }

    /// Moves one table's pointer without an epoch, or does nothing at all.
    ///
    /// # Errors
    /// As [`Catalog::flip`].
    pub(crate) async fn move_pointer(&mut self, token: &str, pointer: &Pointer) -> Result<Moved, SinkError> {
        match self {
            Catalog::Sql(catalog) => catalog.move_pointer(token, pointer).await.map(|()| Moved::AsStaged),
            Catalog::Rest(catalog) => catalog.move_pointer(pointer).await,
        }
    }
}
