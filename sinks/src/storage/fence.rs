//! One writer per lake: a lock that dies with its process, and a token that outlives it.
//!
//! Beside an SQLite file the lock is the operating system's, on the file `CATALOG.writer`: a killed process leaves no lock behind, whatever
//! happens to process ids (containers reuse them). In PostgreSQL it is an advisory lock of a connection that is kept open for it. The token is
//! a row in the catalog that every commit checks within its transaction: should the lock be lost under a running writer (its file was removed,
//! its connection was cut), the newer token wins and the older one can write no more.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::sync::Mutex;

use sqlx::{AnyConnection, Row};

use crate::error::SinkError;
use crate::storage::catalog::{Catalog, answer, fault};
use crate::storage::place::CatalogPlace;

/// The right to write a lake; given up when dropped.
#[derive(Debug)]
pub struct Fence {
    /// Names this writer in every epoch that it commits.
    pub token: String,
    _lock: Lock,
}

/// What is held for as long as the writer lives.
#[derive(Debug)]
enum Lock {
    File { _file: File },
    // Never asked anything again; in a mutex because it is not `Sync`.
    Connection { _conn: Mutex<AnyConnection> },
}

impl Fence {
    /// Takes the lake over for a writer called `name`.
    ///
    /// # Errors
    /// [`SinkError::Held`] while another process (or another `Lake` of this one) writes it.
    pub(crate) async fn take(catalog: &mut Catalog, place: &CatalogPlace, name: &str) -> Result<Fence, SinkError> {
        let lock = match place {
            CatalogPlace::Sqlite(path) => lock_file(path)?,
            CatalogPlace::Postgres(_) => lock_database(place).await?,
        };
        let Some(lock) = lock else {
            let holder = holder(catalog, place).await?.unwrap_or_else(|| "another process".into());
            return Err(SinkError::Held { place: place.to_string(), holder });
        };
        let token = uuid::Uuid::now_v7().to_string();
        let write = sqlx::query(
            "INSERT INTO livelake_writer (id, token, name, pid, since) VALUES (1, $1, $2, $3, $4) ON CONFLICT (id) DO UPDATE \
             SET token = excluded.token, name = excluded.name, pid = excluded.pid, since = excluded.since",
        )
        .bind(&token)
        .bind(name)
        .bind(i64::from(std::process::id()))
        .bind(chrono::Utc::now().timestamp_micros());
        answer(write.execute(catalog.connection().await?)).await.map_err(fault("take the writer's token", place))?;
        catalog.rest();
        Ok(Fence { token, _lock: lock })
    }
}

/// The lock beside an SQLite file; `None` while another has it.
fn lock_file(catalog: &std::path::Path) -> Result<Option<Lock>, SinkError> {
    let mut path = catalog.as_os_str().to_owned();
    path.push(".writer");
    let path = PathBuf::from(path);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(SinkError::file("open the writer's lock", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock::File { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(SinkError::file("lock", &path)(e)),
    }
}

/// The lock in a database; `None` while another has it. Each schema of the database can be one lake's.
async fn lock_database(place: &CatalogPlace) -> Result<Option<Lock>, SinkError> {
    let error = fault("take the writer's lock", place);
    let mut conn = place.connect(true).await.map_err(&error)?;
    let take = sqlx::query("SELECT pg_try_advisory_lock(hashtext('livelake'), hashtext(current_schema()))");
    let row = answer(take.fetch_one(&mut conn)).await.map_err(&error)?;
    Ok(row.try_get::<bool, _>(0).map_err(&error)?.then_some(Lock::Connection { _conn: Mutex::new(conn) }))
}

/// Name and process id of the writer that the catalog knows.
async fn holder(catalog: &mut Catalog, place: &CatalogPlace) -> Result<Option<String>, SinkError> {
    let query = sqlx::query("SELECT name, pid FROM livelake_writer WHERE id = 1");
    let row = answer(query.fetch_optional(catalog.connection().await?)).await;
    let row = row.map_err(fault("read the writer's token", place))?;
    catalog.rest();
    Ok(row.map(|r| format!("{} (process {})", r.get::<String, _>(0), r.get::<i64, _>(1))))
}
