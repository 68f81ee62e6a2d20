//! The SQL catalog: pyiceberg's, Java's and iceberg-rust's tables (layout V1, with `iceberg_type`) and two of our own.
//!
//! The statements are here rather than in `iceberg-catalog-sql` because an epoch needs all of them in one transaction; that the
//! crate reads what they write is tested.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, Row};

use crate::epoch::EpochRecord;
use crate::error::SinkError;
use crate::failpoint;
use crate::storage::{CATALOG_NAME, TableName};

/// How long a statement waits for another program's lock. Our own transactions hold theirs for milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Epochs that stay in `livelake_epochs`; the Iceberg table `livelake._epochs` keeps all.
const EPOCH_ROWS_KEPT: u64 = 10_000;

const LAYOUT: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS iceberg_tables (catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL, \
     table_name VARCHAR(255) NOT NULL, metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), \
     iceberg_type VARCHAR(5), PRIMARY KEY (catalog_name, table_namespace, table_name))",
    "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (catalog_name VARCHAR(255) NOT NULL, \
     namespace VARCHAR(255) NOT NULL, property_key VARCHAR(255), property_value VARCHAR(1000), \
     PRIMARY KEY (catalog_name, namespace, property_key))",
    "CREATE TABLE IF NOT EXISTS livelake_epochs (epoch INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, \
     committed_at INTEGER NOT NULL, positions TEXT NOT NULL, token TEXT NOT NULL, tables TEXT NOT NULL, rows TEXT)",
    "CREATE TABLE IF NOT EXISTS livelake_writer (id INTEGER PRIMARY KEY CHECK (id = 1), token TEXT NOT NULL, \
     name TEXT NOT NULL, pid INTEGER NOT NULL, since INTEGER NOT NULL)",
];

/// What an epoch does to one table's pointer.
#[derive(Clone, Debug)]
pub(crate) enum Pointer {
    /// A table that was not there.
    Create {
        /// Which table.
        table: TableName,
        /// Its first metadata file.
        location: String,
    },
    /// From one metadata file to the next.
    Move {
        /// Which table.
        table: TableName,
        /// Where it must still point.
        from: String,
        /// Where it points afterwards.
        to: String,
    },
    /// A table that goes.
    Remove {
        /// Which table.
        table: TableName,
        /// Where it must still point.
        from: String,
    },
}

/// A connection to the SQLite file.
#[derive(Debug)]
pub(crate) struct Catalog {
    conn: SqliteConnection,
    path: PathBuf,
}

/// What the flip found.
#[derive(Debug)]
pub(crate) enum Flip {
    /// All pointers moved.
    Done,
    /// This very epoch is there already: an earlier try got through.
    AlreadyDone,
}

/// Turns a database error into ours.
pub(crate) fn fault(what: &'static str, path: &Path) -> impl Fn(sqlx::Error) -> SinkError {
    let path = path.to_path_buf();
    move |source| SinkError::Catalog { what, path: path.clone(), source }
}

impl Catalog {
    /// Opens the file; a writer makes it if it is missing and sets it up.
    pub(crate) async fn open(path: &Path, write: bool) -> Result<Catalog, SinkError> {
        if !write && !path.exists() {
            return Err(SinkError::Option(format!("there is no lake: the catalog {} does not exist", path.display())));
        }
        let mut options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).create_if_missing(write);
        if write {
            // WAL: readers go on while we commit. FULL: a commit is on the disk when it is acknowledged.
            options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        }
        let mut conn = SqliteConnection::connect_with(&options).await.map_err(fault("open the file", path))?;
        if write {
            let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(fault("begin", path))?;
            for statement in LAYOUT {
                sqlx::query(statement).execute(&mut *tx).await.map_err(fault("make the tables", path))?;
            }
            // a lake of before the rows were noted
            let noted = sqlx::query("SELECT 1 FROM pragma_table_info('livelake_epochs') WHERE name = 'rows'");
            if noted.fetch_optional(&mut *tx).await.map_err(fault("make the tables", path))?.is_none() {
                let add = sqlx::query("ALTER TABLE livelake_epochs ADD COLUMN rows TEXT");
                add.execute(&mut *tx).await.map_err(fault("make the tables", path))?;
            }
            tx.commit().await.map_err(fault("make the tables", path))?;
        }
        Ok(Catalog { conn, path: path.to_path_buf() })
    }

    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.conn
    }

    /// All tables and where they point, as of one moment, in order of their names.
    pub(crate) async fn pointers(&mut self) -> Result<Vec<(TableName, String)>, SinkError> {
        let rows = sqlx::query(
            "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables WHERE catalog_name = ? \
             AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL) AND metadata_location IS NOT NULL \
             ORDER BY table_namespace, table_name",
        )
        .bind(CATALOG_NAME)
        .fetch_all(&mut self.conn)
        .await
        .map_err(fault("list the tables", &self.path))?;
        Ok(rows.iter().map(|r| (TableName::new(r.get::<String, _>(0), r.get::<String, _>(1)), r.get(2))).collect())
    }

    /// Where one table points.
    pub(crate) async fn pointer(&mut self, table: &TableName) -> Result<Option<String>, SinkError> {
        let row = sqlx::query(
            "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?",
        )
        .bind(CATALOG_NAME)
        .bind(&table.namespace)
        .bind(&table.name)
        .fetch_optional(&mut self.conn)
        .await
        .map_err(fault("find a table", &self.path))?;
        Ok(row.and_then(|r| r.get::<Option<String>, _>(0)))
    }

    /// The newest epochs first, at most `limit`. Empty for a catalog that never was a lake's.
    pub(crate) async fn epochs(&mut self, limit: usize) -> Result<Vec<EpochRecord>, SinkError> {
        self.epochs_where("", 0, limit).await
    }

    /// An epoch by its number.
    pub(crate) async fn epoch(&mut self, number: u64) -> Result<Option<EpochRecord>, SinkError> {
        Ok(self.epochs_where("WHERE epoch = ?2", number, 1).await?.pop())
    }

    /// The newest epoch at or before a timestamp.
    pub(crate) async fn epoch_at(&mut self, timestamp: u64) -> Result<Option<EpochRecord>, SinkError> {
        Ok(self.epochs_where("WHERE timestamp <= ?2", timestamp, 1).await?.pop())
    }

    /// The newest first, of those that a condition on `value` chooses.
    async fn epochs_where(&mut self, condition: &str, value: u64, limit: usize) -> Result<Vec<EpochRecord>, SinkError> {
        let error = fault("read the epochs", &self.path);
        let columns = sqlx::query("SELECT name FROM pragma_table_info('livelake_epochs')").fetch_all(&mut self.conn).await;
        let columns: Vec<String> = columns.map_err(&error)?.iter().map(|row| row.get(0)).collect();
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        // a reader of a lake that an older version wrote
        let noted = if columns.iter().any(|column| column == "rows") { "rows" } else { "NULL" };
        let text = format!(
            "SELECT epoch, timestamp, committed_at, positions, token, tables, {noted} FROM livelake_epochs {condition} \
             ORDER BY epoch DESC LIMIT ?1"
        );
        let query = sqlx::query(&text).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = query.bind(value.cast_signed()).fetch_all(&mut self.conn).await.map_err(&error)?;
        rows.iter()
            .map(|row| {
                let unreadable = |e: serde_json::Error| error(sqlx::Error::Decode(Box::new(e)));
                Ok(EpochRecord {
                    number: row.get::<i64, _>(0).cast_unsigned(),
                    timestamp: row.get::<i64, _>(1).cast_unsigned(),
                    committed_at: row.get(2),
                    positions: serde_json::from_str(&row.get::<String, _>(3)).map_err(unreadable)?,
                    token: row.get(4),
                    tables: serde_json::from_str(&row.get::<String, _>(5)).map_err(unreadable)?,
                    rows: serde_json::from_str(row.get::<Option<&str>, _>(6).unwrap_or("{}")).map_err(unreadable)?,
                })
            })
            .collect()
    }

    /// Moves all pointers and notes the epoch, or does nothing at all.
    ///
    /// # Errors
    /// [`SinkError::Superseded`], [`SinkError::EpochOrder`], [`SinkError::Conflict`]: nothing was changed.
    /// [`SinkError::Unknown`]: the last step's answer got lost.
    pub(crate) async fn flip(&mut self, record: &EpochRecord, pointers: &[Pointer]) -> Result<Flip, SinkError> {
        let error = fault("commit the epoch", &self.path);
        failpoint::reach("catalog-begin");
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await.map_err(&error)?;
        check_token(&mut tx, &record.token, &error).await?;
        let newest = sqlx::query("SELECT epoch, timestamp, token FROM livelake_epochs ORDER BY epoch DESC LIMIT 1")
            .fetch_optional(&mut *tx)
            .await
            .map_err(&error)?;
        if let Some(row) = newest {
            let (newest, timestamp) = (row.get::<i64, _>(0).cast_unsigned(), row.get::<i64, _>(1).cast_unsigned());
            if newest == record.number && timestamp == record.timestamp && row.get::<String, _>(2) == record.token {
                return Ok(Flip::AlreadyDone);
            }
            if record.number <= newest {
                return Err(SinkError::EpochOrder { epoch: record.number, newest });
            }
        }
        move_all(&mut tx, pointers, &error).await?;
        failpoint::reach("catalog-moved");
        sqlx::query(
            "INSERT INTO livelake_epochs (epoch, timestamp, committed_at, positions, token, tables, rows) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(record.number.cast_signed())
        .bind(record.timestamp.cast_signed())
        .bind(record.committed_at)
        .bind(record.positions.to_string())
        .bind(&record.token)
        .bind(serde_json::json!(record.tables).to_string())
        .bind(serde_json::json!(record.rows).to_string())
        .execute(&mut *tx)
        .await
        .map_err(&error)?;
        sqlx::query("DELETE FROM livelake_epochs WHERE epoch <= ?")
            .bind(record.number.saturating_sub(EPOCH_ROWS_KEPT).cast_signed())
            .execute(&mut *tx)
            .await
            .map_err(&error)?;
        failpoint::reach("catalog-commit");
        tx.commit().await.map_err(|source| SinkError::Unknown { epoch: record.number, source })?;
        failpoint::reach("committed");
        Ok(Flip::Done)
    }

    /// Moves pointers without an epoch, or does nothing at all.
    ///
    /// # Errors
    /// As [`Catalog::flip`].
    pub(crate) async fn move_pointers(&mut self, token: &str, pointers: &[Pointer]) -> Result<(), SinkError> {
        let error = fault("commit the tables", &self.path);
        failpoint::reach("maintenance-begin");
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await.map_err(&error)?;
        check_token(&mut tx, token, &error).await?;
        move_all(&mut tx, pointers, &error).await?;
        failpoint::reach("maintenance-commit");
        tx.commit().await.map_err(|source| SinkError::UnknownFiles { source })?;
        failpoint::reach("maintenance-committed");
        Ok(())
    }
}

/// Stops a writer that is not the lake's any more.
async fn check_token(
    conn: &mut SqliteConnection,
    token: &str,
    error: &impl Fn(sqlx::Error) -> SinkError,
) -> Result<(), SinkError> {
    let writer = sqlx::query("SELECT token, name, pid FROM livelake_writer WHERE id = 1").fetch_optional(conn).await;
    let writer = writer.map_err(error)?;
    if writer.as_ref().map(|row| row.get::<String, _>(0)).as_deref() == Some(token) {
        return Ok(());
    }
    let holder = writer.map(|row| format!("{} (process {})", row.get::<String, _>(1), row.get::<i64, _>(2)));
    Err(SinkError::Superseded { holder: holder.unwrap_or_else(|| "nobody: its token is gone".into()) })
}

/// Moves pointers from where they must be to where they are to be.
async fn move_all(
    conn: &mut SqliteConnection,
    pointers: &[Pointer],
    error: &impl Fn(sqlx::Error) -> SinkError,
) -> Result<(), SinkError> {
    for pointer in pointers {
        let (table, query) = match pointer {
            Pointer::Create { table, location } => (
                table,
                sqlx::query(
                    "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, iceberg_type) \
                     VALUES (?2, ?3, ?4, ?1, 'TABLE') ON CONFLICT DO NOTHING",
                )
                .bind(location),
            ),
            Pointer::Move { table, from, to } => (
                table,
                sqlx::query(
                    "UPDATE iceberg_tables SET metadata_location = ?1, previous_metadata_location = ?5 WHERE \
                     catalog_name = ?2 AND table_namespace = ?3 AND table_name = ?4 AND metadata_location = ?5 AND \
                     (iceberg_type = 'TABLE' OR iceberg_type IS NULL)",
                )
                .bind(to)
                .bind(CATALOG_NAME)
                .bind(&table.namespace)
                .bind(&table.name)
                .bind(from),
            ),
            Pointer::Remove { table, from } => (
                table,
                sqlx::query(
                    "DELETE FROM iceberg_tables WHERE metadata_location = ?1 AND catalog_name = ?2 AND \
                     table_namespace = ?3 AND table_name = ?4",
                )
                .bind(from),
            ),
        };
        let query = match pointer {
            Pointer::Move { .. } => query,
            _ => query.bind(CATALOG_NAME).bind(&table.namespace).bind(&table.name),
        };
        if query.execute(&mut *conn).await.map_err(error)?.rows_affected() != 1 {
            return Err(SinkError::Conflict { table: table.clone() });
        }
        if let Pointer::Create { table, .. } = pointer {
            sqlx::query(
                "INSERT INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value) \
                 VALUES (?, ?, 'exists', 'true') ON CONFLICT DO NOTHING",
            )
            .bind(CATALOG_NAME)
            .bind(&table.namespace)
            .execute(&mut *conn)
            .await
            .map_err(error)?;
        }
    }
    Ok(())
}
