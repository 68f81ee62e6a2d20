//! What can go wrong between an epoch's rows and its files, said so that the reader knows what to do.

use std::path::PathBuf;

pub use crate::storage::catalog::rest::fault::RestFault;

use crate::storage::TableName;

/// Why a lake could not be opened, an epoch not committed, or a table not read. After an error of [`crate::Lake::commit`]
/// nothing of the epoch is visible, unless [`SinkError::is_unknown`] says that it cannot be known; the same commit can be tried
/// again in both cases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// Known, but to come.
    #[error("not supported yet: {0}")]
    NotSupported(String),
    /// An option that makes no sense.
    #[error("{0}")]
    Option(String),
    /// The file system refused.
    #[error("cannot {what} {}: {}", path.display(), advice(source))]
    File {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The object store refused, or did not answer.
    #[error("cannot {what} {location}: {}", advice(source))]
    Store {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which object, or below which name.
        location: String,
        /// Why not.
        source: Box<iceberg::Error>,
    },
    /// The catalog refused, or did not answer.
    #[error("cannot {what} in the catalog {place}: {}", catalog_advice(source))]
    Catalog {
        /// What was tried.
        what: &'static str,
        /// The SQLite file, or the server's URL without a password.
        place: String,
        /// Why not.
        source: CatalogFault,
    },
    /// The acknowledgement of the epoch's transaction got lost: the epoch is there as a whole or not at all.
    #[error("it is not known whether epoch {epoch} was committed ({}): commit it again, which finds out", catalog_advice(source))]
    Unknown {
        /// Which epoch.
        epoch: u64,
        /// What the catalog said.
        source: CatalogFault,
    },
    /// The acknowledgement of a change between epochs got lost: the tables' rows are the same in both cases.
    #[error("it is not known whether a table's new files are in place ({}): the next commit finds out", catalog_advice(source))]
    UnknownFiles {
        /// What the catalog said.
        source: CatalogFault,
    },
    /// Another process writes this lake.
    #[error("the lake {place} is being written by {holder}: stop it first, or use another folder")]
    Held {
        /// The SQLite file, or the server's URL without a password.
        place: String,
        /// Name and process id of the other writer.
        holder: String,
    },
    /// Another writer has taken the lake over.
    #[error("this writer has lost the lake to {holder}: nothing more is written; restart to go on from the newest epoch")]
    Superseded {
        /// Name and process id of the new writer.
        holder: String,
    },
    /// An epoch number at or below the newest.
    #[error("epoch {epoch} cannot be committed after epoch {newest}: numbers only grow")]
    EpochOrder {
        /// The number that was tried.
        epoch: u64,
        /// The newest number that is committed.
        newest: u64,
    },
    /// Somebody else changed the table's pointer.
    #[error(
        "table {table} was changed by another program since this one read it: the epoch was not committed; restart to go on from the table as it is now"
    )]
    Conflict {
        /// Which table.
        table: TableName,
    },
    /// A column cannot be kept in the table.
    #[error("table {table}, column \"{column}\": {reason}")]
    Column {
        /// Which table.
        table: String,
        /// Which column.
        column: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The rows do not fit the table's mode, or do not add up.
    #[error("table {table}: {reason}")]
    Rows {
        /// Which table.
        table: TableName,
        /// Why, and what to do.
        reason: String,
    },
    /// The table, with the epoch's changes, does not make what the relation holds: another program changed the table, or rows were taken
    /// back that were not there. Nothing is written; [`crate::TableChange::replace`] makes it right.
    #[error("table {table}: {reason}")]
    Mismatch {
        /// Which table.
        table: TableName,
        /// What was found.
        reason: String,
    },
    /// The caller's rows could not be had.
    #[error("cannot read the rows of {table}: {source}")]
    Reader {
        /// For which table.
        table: TableName,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Files of a table could not be written or read.
    #[error("cannot {what} of table {table}: {}", advice(source))]
    Table {
        /// What was tried.
        what: &'static str,
        /// Which table.
        table: TableName,
        /// Why not.
        source: Box<iceberg::Error>,
    },
    /// A Parquet file could not be read or written.
    #[error("cannot {what} {path}: {}", advice(source))]
    Parquet {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: String,
        /// Why not.
        source: parquet::errors::ParquetError,
    },
    /// Columns could not be computed.
    #[error("cannot {what}: {source}")]
    Arrow {
        /// What was tried.
        what: String,
        /// Why not.
        source: arrow::error::ArrowError,
    },
    /// The rows that a table had at an epoch are gone.
    #[error(
        "the rows of table {table} at epoch {epoch} are no longer kept{}: epochs.keep says how many snapshots a table keeps",
        oldest.map_or_else(String::new, |oldest| format!(", the oldest are those of epoch {oldest}"))
    )]
    Expired {
        /// Which table.
        table: TableName,
        /// Of which epoch.
        epoch: u64,
        /// The oldest epoch whose rows it has.
        oldest: Option<u64>,
    },
    /// A table was made after an epoch.
    #[error("table {table} was not there at epoch {epoch}: what its relation held then is not known")]
    NotYet {
        /// Which table.
        table: TableName,
        /// At which epoch.
        epoch: u64,
    },
    /// Nobody has written a lake there yet.
    #[error("there is no lake: the catalog {0} does not exist, or was never written")]
    NoLake(String),
    /// No such table in the catalog.
    #[error("there is no table {0} in the lake")]
    NoTable(TableName),
    /// A background thread died.
    #[error("a writer thread stopped: {0}")]
    Thread(String),
}

/// What a catalog said, or why nothing was heard of it.
#[derive(Debug, thiserror::Error)]
pub enum CatalogFault {
    /// A database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// A server of Iceberg's REST protocol.
    #[error(transparent)]
    Rest(#[from] RestFault),
}

impl SinkError {
    /// Whether the epoch may have been committed in spite of the error.
    pub fn is_unknown(&self) -> bool {
        matches!(self, SinkError::Unknown { .. } | SinkError::UnknownFiles { .. })
    }

    /// Whether the same commit may succeed later without anybody changing the lake's definition: a full disk, a busy catalog, a
    /// lost acknowledgement, rows that could not be had. The other errors stay until somebody acts.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            SinkError::File { .. }
                | SinkError::Store { .. }
                | SinkError::Catalog { .. }
                | SinkError::Unknown { .. }
                | SinkError::Table { .. }
                | SinkError::Parquet { .. }
                | SinkError::Reader { .. }
        )
    }

    pub(crate) fn table(what: &'static str, table: &TableName) -> impl FnOnce(iceberg::Error) -> SinkError {
        let table = table.clone();
        move |source| SinkError::Table { what, table, source: Box::new(source) }
    }

    pub(crate) fn arrow(what: impl Into<String>) -> impl FnOnce(arrow::error::ArrowError) -> SinkError {
        let what = what.into();
        move |source| SinkError::Arrow { what, source }
    }

    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> SinkError {
        let path = path.into();
        move |source| SinkError::File { what, path, source }
    }
}

/// The whole chain of an error in one line, with what to do about the causes that an operator meets.
fn advice(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    let hint = if text.contains("No space left on device") || text.contains("StorageFull") {
        "the disk is full: free some space"
    } else if text.contains("Read-only file system") {
        "the file system is read-only: mount it writable, or put storage.warehouse elsewhere"
    } else if text.contains("Permission denied") {
        "this user may not write there: change the folder's permissions, or put storage.warehouse elsewhere"
    } else if text.contains("Quota exceeded") || text.contains("Disk quota") {
        "the disk quota is used up: free some space"
    } else if text.contains("NoSuchBucket") {
        "make the bucket first, or set AWS_ENDPOINT_URL to the store that has it"
    } else if text.contains("InvalidAccessKeyId") || text.contains("SignatureDoesNotMatch") || text.contains("AccessDenied") {
        "the store refuses these credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's role, give them"
    } else if text.contains("Too many open files") {
        "raise the limit of open files (ulimit -n)"
    } else {
        return text;
    };
    format!("{hint} ({text})")
}

fn catalog_advice(fault: &CatalogFault) -> String {
    let error = match fault {
        CatalogFault::Sql(error) => error,
        CatalogFault::Rest(fault) => return fault.advice(),
    };
    let text = error.to_string();
    let code = error.as_database_error().and_then(|e| e.code().map(|code| code.into_owned())).unwrap_or_default();
    // PostgreSQL's codes have five characters, SQLite's are numbers of at most four
    match code.as_str() {
        "28P01" | "28000" => {
            return format!("user or password are wrong: PGPASSWORD or a PGPASSFILE can give the password ({text})");
        }
        "3D000" => return format!("make the database first ({text})"),
        "42501" => return format!("this user may not: GRANT it what is missing ({text})"),
        _ => {}
    }
    let hint = match code.parse::<i64>().ok().filter(|_| code.len() < 5).map(|code| code & 0xff) {
        Some(5 | 6) => "another program holds the database locked: close it (a reader may stay, a writer or a backup may not)",
        Some(8) => "the file or its folder is read-only: make both writable",
        Some(11 | 26) => {
            "the file is damaged or is not an SQLite database: restore it from a copy, or move it away to begin anew"
        }
        Some(13) => "the disk is full: free some space",
        Some(14) => "the file cannot be opened: does its folder exist, and may this user write there?",
        Some(10) => "the disk reports an error, or is full",
        _ => return advice(error),
    };
    format!("{hint} ({text})")
}
