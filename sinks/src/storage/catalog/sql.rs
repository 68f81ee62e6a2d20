//! A database as the catalog, in SQLite or PostgreSQL: pyiceberg's, Java's and iceberg-rust's tables (layout V1, with `iceberg_type`) and two of our own.
//!
//! The statements are here rather than in `iceberg-catalog-sql` because an epoch needs all of them in one transaction; that the
//! crate reads what they write is tested. They are the same for both databases, down to the parameters (`$1`).

use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Connection, Row};

use crate::epoch::EpochRecord;
use crate::error::SinkError;
use crate::failpoint;
use crate::storage::place::SqlPlace;
use crate::storage::{CATALOG_NAME, TableName};

use super::{Flip, Moved, Pointer};

/// How long an answer of the database is waited for. After that the connection is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Epochs that stay in `livelake_epochs`; the Iceberg table `livelake._epochs` keeps all.
const EPOCH_ROWS_KEPT: u64 = 10_000;

const LAYOUT: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS iceberg_tables (catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL, \
     table_name VARCHAR(255) NOT NULL, metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), \
     iceberg_type VARCHAR(5), PRIMARY KEY (catalog_name, table_namespace, table_name))",
    "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (catalog_name VARCHAR(255) NOT NULL, \
     namespace VARCHAR(255) NOT NULL, property_key VARCHAR(255), property_value VARCHAR(1000), \
     PRIMARY KEY (catalog_name, namespace, property_key))",
    "CREATE TABLE IF NOT EXISTS livelake_epochs (epoch BIGINT PRIMARY KEY, timestamp BIGINT NOT NULL, \
     committed_at BIGINT NOT NULL, positions TEXT NOT NULL, token TEXT NOT NULL, tables TEXT NOT NULL, rows TEXT)",
    "CREATE TABLE IF NOT EXISTS livelake_writer (id BIGINT PRIMARY KEY CHECK (id = 1), token TEXT NOT NULL, \
     name TEXT NOT NULL, pid BIGINT NOT NULL, since BIGINT NOT NULL)",
];

/// Turns a database error into ours.
pub(crate) fn fault(what: &'static str, place: &SqlPlace) -> impl Fn(sqlx::Error) -> SinkError + use<> {
    let place = place.to_string();
    move |source| SinkError::Catalog { what, place: place.clone(), source: source.into() }
}

/// Waits for the database, but not for ever: a server that was cut off does not say so.
pub(crate) async fn answer<T>(of: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(ANSWER_WITHIN, of).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message)))
    })
}

/// A connection to the database.
#[derive(Debug)]
pub(crate) struct SqlCatalog {
    conn: AnyConnection,
    place: SqlPlace,
    /// Opened for writing.
    writes: bool,
    /// Whether the last thing that was asked of the connection came to its end. If not, what it would answer next is not known.
    rests: bool,
}

impl SqlCatalog {
    /// Opens the database; a writer makes what is missing in it.
    pub(crate) async fn open(place: &SqlPlace, writes: bool) -> Result<SqlCatalog, SinkError> {
        if let SqlPlace::Sqlite(path) = place
            && !writes
            && !path.exists()
        {
            return Err(SinkError::NoLake(place.to_string()));
        }
        let mut conn = place.connect(writes).await.map_err(fault("open a session", place))?;
        if writes {
            set_up(&mut conn, place).await?;
        } else if answer(columns_of("iceberg_tables", place, &mut conn))
            .await
            .map_err(fault("find the tables", place))?
            .is_empty()
        {
            return Err(SinkError::NoLake(place.to_string()));
        }
        Ok(SqlCatalog { conn, place: place.clone(), writes, rests: true })
    }

    /// Which database it is.
    pub(crate) fn place(&self) -> &SqlPlace {
        &self.place
    }

    /// The connection for one thing to ask, a new one if the last did not come to its end. [`SqlCatalog::rest`] is the end.
    pub(crate) async fn connection(&mut self) -> Result<&mut AnyConnection, SinkError> {
        if !self.rests {
            self.conn = self.place.connect(self.writes).await.map_err(fault("open a session again", &self.place))?;
        }
        self.rests = false;
        Ok(&mut self.conn)
    }

    /// Says that what was asked of the connection has been answered.
    pub(crate) fn rest(&mut self) {
        self.rests = true;
    }

    /// All tables and where they point, as of one moment, in order of their names.
    pub(crate) async fn pointers(&mut self) -> Result<Vec<(TableName, String)>, SinkError> {
        let error = fault("list the tables", &self.place);
        let query = sqlx::query(
            "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables WHERE catalog_name = $1 \
             AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL) AND metadata_location IS NOT NULL \
             ORDER BY table_namespace, table_name",
        );
        let rows = answer(query.bind(CATALOG_NAME).fetch_all(self.connection().await?)).await.map_err(error)?;
        self.rest();
        Ok(rows.iter().map(|r| (TableName::new(r.get::<String, _>(0), r.get::<String, _>(1)), r.get(2))).collect())
    }

    /// Where one table points.
    pub(crate) async fn pointer(&mut self, table: &TableName) -> Result<Option<String>, SinkError> {
        let error = fault("find a table", &self.place);
        let query = sqlx::query(
            "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3",
        );
        let query = query.bind(CATALOG_NAME).bind(&table.namespace).bind(&table.name);
        let row = answer(query.fetch_optional(self.connection().await?)).await.map_err(error)?;
        self.rest();
        Ok(row.and_then(|r| r.get::<Option<String>, _>(0)))
    }

    /// The newest epochs first, at most `limit`. Empty for a catalog that never was a lake's.
    pub(crate) async fn epochs(&mut self, limit: usize) -> Result<Vec<EpochRecord>, SinkError> {
        self.epochs_where("epoch >= $2", 0, limit).await
    }

    /// An epoch by its number.
    pub(crate) async fn epoch(&mut self, number: u64) -> Result<Option<EpochRecord>, SinkError> {
        Ok(self.epochs_where("epoch = $2", number, 1).await?.pop())
    }

    /// The newest epoch at or before a timestamp.
    pub(crate) async fn epoch_at(&mut self, timestamp: u64) -> Result<Option<EpochRecord>, SinkError> {
        Ok(self.epochs_where("timestamp <= $2", timestamp, 1).await?.pop())
    }

    /// The newest first, of those that a condition on `value` chooses.
    async fn epochs_where(&mut self, condition: &str, value: u64, limit: usize) -> Result<Vec<EpochRecord>, SinkError> {
        let error = fault("read the epochs", &self.place);
        // a catalog that never was a lake's, and a lake that an older version wrote
        let columns = answer(columns_of("livelake_epochs", &self.place.clone(), self.connection().await?)).await;
        let columns = columns.map_err(&error)?;
        self.rest();
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let noted = if columns.iter().any(|column| column == "rows") { "rows" } else { "NULL" };
        let text = format!(
            "SELECT epoch, timestamp, committed_at, positions, token, tables, {noted} FROM livelake_epochs WHERE {condition} \
             ORDER BY epoch DESC LIMIT $1"
        );
        let query = sqlx::query(&text).bind(i64::try_from(limit).unwrap_or(i64::MAX)).bind(value.cast_signed());
        let rows = answer(query.fetch_all(self.connection().await?)).await.map_err(&error)?;
        self.rest();
        rows.iter().map(|row| epoch_of(row).map_err(|e| error(sqlx::Error::Decode(Box::new(e))))).collect()
    }

    /// Moves all pointers and notes the epoch, or does nothing at all.
    ///
    /// # Errors
    /// [`SinkError::Superseded`], [`SinkError::EpochOrder`], [`SinkError::Conflict`]: nothing was changed.
    /// [`SinkError::Unknown`]: the last step's answer got lost.
    pub(crate) async fn flip(&mut self, record: &EpochRecord, pointers: &[Pointer]) -> Result<Flip, SinkError> {
        let (error, place) = (fault("commit the epoch", &self.place), self.place.clone());
        failpoint::reach("catalog-begin");
        let mut tx = answer(self.connection().await?.begin_with(place.begin())).await.map_err(&error)?;
        let noted = match note_epoch(&mut tx, &place, record, pointers, &error).await {
            Ok(done @ Flip::Done(_)) => {
                failpoint::reach("catalog-commit");
                answer(tx.commit()).await.map_err(|source| SinkError::Unknown { epoch: record.number, source: source.into() })?;
                failpoint::reach("committed");
                Ok(done)
            }
            other => {
                // at once: others may be waiting for the writer's row
                if answer(tx.rollback()).await.is_err() {
                    return other;
                }
                other
            }
        };
        self.rest();
        noted
    }

    /// Moves a pointer without an epoch, or does nothing at all.
    ///
    /// # Errors
    /// As [`SqlCatalog::flip`].
    pub(crate) async fn move_pointer(&mut self, token: &str, pointer: &Pointer) -> Result<(), SinkError> {
        let (error, place) = (fault("commit the tables", &self.place), self.place.clone());
        failpoint::reach("maintenance-begin");
        let mut tx = answer(self.connection().await?.begin_with(place.begin())).await.map_err(&error)?;
        let moved = match check_token(&mut tx, &place, token, &error).await {
            Ok(()) => move_all(&mut tx, std::slice::from_ref(pointer), &error).await,
            refused => refused,
        };
        match moved {
            Ok(()) => {
                failpoint::reach("maintenance-commit");
                answer(tx.commit()).await.map_err(|source| SinkError::UnknownFiles { source: source.into() })?;
                failpoint::reach("maintenance-committed");
            }
            Err(_) => {
                if answer(tx.rollback()).await.is_err() {
                    return moved;
                }
            }
        }
        self.rest();
        moved
    }
}

/// What the transaction of an epoch does before its end.
async fn note_epoch(
    tx: &mut AnyConnection,
    place: &SqlPlace,
    record: &EpochRecord,
    pointers: &[Pointer],
    error: &impl Fn(sqlx::Error) -> SinkError,
) -> Result<Flip, SinkError> {
    check_token(tx, place, &record.token, error).await?;
    let newest = sqlx::query("SELECT epoch, timestamp, token FROM livelake_epochs ORDER BY epoch DESC LIMIT 1");
    if let Some(row) = answer(newest.fetch_optional(&mut *tx)).await.map_err(error)? {
        let (newest, timestamp) = (row.get::<i64, _>(0).cast_unsigned(), row.get::<i64, _>(1).cast_unsigned());
        if newest == record.number && timestamp == record.timestamp && row.get::<String, _>(2) == record.token {
            return Ok(Flip::AlreadyDone);
        }
        if record.number <= newest {
            return Err(SinkError::EpochOrder { epoch: record.number, newest });
        }
    }
    move_all(tx, pointers, error).await?;
    failpoint::reach("catalog-moved");
    let note = sqlx::query(
        "INSERT INTO livelake_epochs (epoch, timestamp, committed_at, positions, token, tables, rows) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    );
    let note = note
        .bind(record.number.cast_signed())
        .bind(record.timestamp.cast_signed())
        .bind(record.committed_at)
        .bind(record.positions.to_string())
        .bind(&record.token)
        .bind(serde_json::json!(record.tables).to_string())
        .bind(serde_json::json!(record.rows).to_string());
    answer(note.execute(&mut *tx)).await.map_err(error)?;
    let forget = sqlx::query("DELETE FROM livelake_epochs WHERE epoch <= $1");
    let forget = forget.bind(record.number.saturating_sub(EPOCH_ROWS_KEPT).cast_signed());
    answer(forget.execute(&mut *tx)).await.map_err(error)?;
    Ok(Flip::Done(Moved::AsStaged))
}

/// Makes the tables that are missing.
async fn set_up(conn: &mut AnyConnection, place: &SqlPlace) -> Result<(), SinkError> {
    let error = fault("make the tables", place);
    let mut tx = answer(conn.begin_with(place.begin())).await.map_err(fault("begin", place))?;
    for statement in LAYOUT {
        answer(sqlx::query(statement).execute(&mut *tx)).await.map_err(&error)?;
    }
    // a lake of before the rows were noted
    let columns = answer(columns_of("livelake_epochs", place, &mut tx)).await.map_err(&error)?;
    if columns.iter().all(|column| column != "rows") {
        answer(sqlx::query("ALTER TABLE livelake_epochs ADD COLUMN rows TEXT").execute(&mut *tx)).await.map_err(&error)?;
    }
    answer(tx.commit()).await.map_err(&error)
}

/// The names of a table's columns; none if there is no such table.
async fn columns_of(table: &str, place: &SqlPlace, conn: &mut AnyConnection) -> Result<Vec<String>, sqlx::Error> {
    let text = match place {
        SqlPlace::Sqlite(_) => "SELECT name FROM pragma_table_info($1)",
        SqlPlace::Postgres(_) => {
            "SELECT CAST(column_name AS text) FROM information_schema.columns WHERE table_name = $1 AND table_schema = current_schema()"
        }
    };
    let rows = sqlx::query(text).bind(table).fetch_all(conn).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

fn epoch_of(row: &AnyRow) -> Result<EpochRecord, serde_json::Error> {
    Ok(EpochRecord {
        number: row.get::<i64, _>(0).cast_unsigned(),
        timestamp: row.get::<i64, _>(1).cast_unsigned(),
        committed_at: row.get(2),
        positions: serde_json::from_str(&row.get::<String, _>(3))?,
        token: row.get(4),
        tables: serde_json::from_str(&row.get::<String, _>(5))?,
        rows: serde_json::from_str(row.get::<Option<String>, _>(6).as_deref().unwrap_or("{}"))?,
    })
}

/// Stops a writer that is not the lake's any more. Others wait here until the transaction ends.
async fn check_token(
    conn: &mut AnyConnection,
    place: &SqlPlace,
    token: &str,
    error: &impl Fn(sqlx::Error) -> SinkError,
) -> Result<(), SinkError> {
    let text = match place {
        SqlPlace::Sqlite(_) => "SELECT token, name, pid FROM livelake_writer WHERE id = 1",
        SqlPlace::Postgres(_) => "SELECT token, name, pid FROM livelake_writer WHERE id = 1 FOR UPDATE",
    };
    let writer = answer(sqlx::query(text).fetch_optional(conn)).await.map_err(error)?;
    if writer.as_ref().map(|row| row.get::<String, _>(0)).as_deref() == Some(token) {
        return Ok(());
    }
    let holder = writer.map(|row| format!("{} (process {})", row.get::<String, _>(1), row.get::<i64, _>(2)));
    Err(SinkError::Superseded { holder: holder.unwrap_or_else(|| "nobody: its token is gone".into()) })
}

/// Moves pointers from where they must be to where they are to be.
async fn move_all(
    conn: &mut AnyConnection,
    pointers: &[Pointer],
    error: &impl Fn(sqlx::Error) -> SinkError,
) -> Result<(), SinkError> {
    for pointer in pointers {
        let (table, query) = match pointer {
            Pointer::Create { table, next } => (
                table,
                sqlx::query(
                    "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, iceberg_type) \
                     VALUES ($2, $3, $4, $1, 'TABLE') ON CONFLICT DO NOTHING",
                )
                .bind(&next.location),
            ),
            Pointer::Move { table, from, next } => (
                table,
                sqlx::query(
                    "UPDATE iceberg_tables SET metadata_location = $1, previous_metadata_location = $5 WHERE \
                     catalog_name = $2 AND table_namespace = $3 AND table_name = $4 AND metadata_location = $5 AND \
                     (iceberg_type = 'TABLE' OR iceberg_type IS NULL)",
                )
                .bind(&next.location)
                .bind(CATALOG_NAME)
                .bind(&table.namespace)
                .bind(&table.name)
                .bind(from),
            ),
            Pointer::Remove { table, from } => (
                table,
                sqlx::query(
                    "DELETE FROM iceberg_tables WHERE metadata_location = $1 AND catalog_name = $2 AND \
                     table_namespace = $3 AND table_name = $4",
                )
                .bind(from),
            ),
        };
        let query = match pointer {
            Pointer::Move { .. } => query,
            _ => query.bind(CATALOG_NAME).bind(&table.namespace).bind(&table.name),
        };
        if answer(query.execute(&mut *conn)).await.map_err(error)?.rows_affected() != 1 {
            return Err(SinkError::Conflict { table: table.clone() });
        }
        if let Pointer::Create { table, .. } = pointer {
            let note = sqlx::query(
                "INSERT INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value) \
                 VALUES ($1, $2, 'exists', 'true') ON CONFLICT DO NOTHING",
            );
            answer(note.bind(CATALOG_NAME).bind(&table.namespace).execute(&mut *conn)).await.map_err(error)?;
        }
    }
    Ok(())
}
