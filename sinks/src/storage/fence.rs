//! One writer per lake: a lock that dies with its process, and a token that outlives it.
//!
//! Beside an SQLite file the lock is the operating system's, on the file `CATALOG.writer`: a killed process leaves no lock behind, whatever
//! happens to process ids (containers reuse them). In PostgreSQL it is an advisory lock of a connection that is kept open for it. Where the
//! catalog is a server of Iceberg's REST protocol it is a file in the warehouse's folder, or a lease in its bucket. The token is in the catalog
//! and part of every commit: should the lock be lost under a running writer (its file was removed, its connection was cut), the newer token
//! wins and the older one can write no more.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::sync::Mutex;

use sqlx::{AnyConnection, Row};

use crate::error::SinkError;
use crate::storage::Storage;
use crate::storage::catalog::Catalog;
use crate::storage::catalog::sql::{SqlCatalog, answer, fault};
use crate::storage::files::local_path;
use crate::storage::lease::Lease;
use crate::storage::place::SqlPlace;

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
    Lease { _lease: Lease },
}

impl Fence {
    /// Takes the lake over for a writer called `name`.
    ///
    /// # Errors
    /// [`SinkError::Held`] while another process (or another `Lake` of this one) writes it.
    pub(crate) async fn take(catalog: &mut Catalog, storage: &Storage, name: &str) -> Result<Fence, SinkError> {
        let token = uuid::Uuid::now_v7().to_string();
        let held = |holder| SinkError::Held { place: storage.catalog.to_string(), holder };
        let lock = match catalog {
            Catalog::Sql(catalog) => {
                let lock = match catalog.place() {
                    SqlPlace::Sqlite(path) => lock_file(path)?,
                    place @ SqlPlace::Postgres(_) => lock_database(place).await?,
                };
                let Some(lock) = lock else { return Err(held(or_another(holder(catalog).await?))) };
                note(catalog, &token, name).await?;
                lock
            }
            Catalog::Rest(catalog) => {
                let process = format!("{name} (process {})", std::process::id());
                let lock = match storage.files.is_local() {
                    true => lock_file(&local_path(&storage.warehouse).join("livelake"))?,
                    false => {
                        let location = format!("{}/livelake.writer.json", storage.warehouse);
                        let lease = Lease::take(&storage.files, &location, &process).await?.map_err(held)?;
                        Some(Lock::Lease { _lease: lease })
                    }
                };
                let Some(lock) = lock else { return Err(held(or_another(catalog.holder().await?))) };
                catalog.take(&token, &process).await?;
                lock
            }
        };
        Ok(Fence { token, _lock: lock })
    }
}

fn or_another(holder: Option<String>) -> String {
    holder.unwrap_or_else(|| "another process".into())
}

/// Makes a token the database's.
async fn note(catalog: &mut SqlCatalog, token: &str, name: &str) -> Result<(), SinkError> {
    let failed = fault("take the writer's token", catalog.place());
    let write = sqlx::query(
        "INSERT INTO livelake_writer (id, token, name, pid, since) VALUES (1, $1, $2, $3, $4) ON CONFLICT (id) DO UPDATE \
         SET token = excluded.token, name = excluded.name, pid = excluded.pid, since = excluded.since",
    )
    .bind(token)
    .bind(name)
    .bind(i64::from(std::process::id()))
    .bind(chrono::Utc::now().timestamp_micros());
    answer(write.execute(catalog.connection().await?)).await.map_err(failed)?;
    catalog.rest();
    Ok(())
}

/// The lock beside a file; `None` while another has it.
fn lock_file(beside: &std::path::Path) -> Result<Option<Lock>, SinkError> {
    let mut path = beside.as_os_str().to_owned();
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
async fn lock_database(place: &SqlPlace) -> Result<Option<Lock>, SinkError> {
    let error = fault("take the writer's lock", place);
    let mut conn = place.connect(true).await.map_err(&error)?;
    let take = sqlx::query("SELECT pg_try_advisory_lock(hashtext('livelake'), hashtext(current_schema()))");
    let row = answer(take.fetch_one(&mut conn)).await.map_err(&error)?;
    Ok(row.try_get::<bool, _>(0).map_err(&error)?.then_some(Lock::Connection { _conn: Mutex::new(conn) }))
}

/// Name and process id of the writer that the catalog knows.
async fn holder(catalog: &mut SqlCatalog) -> Result<Option<String>, SinkError> {
    let query = sqlx::query("SELECT name, pid FROM livelake_writer WHERE id = 1");
    let row = answer(query.fetch_optional(catalog.connection().await?)).await;
    let row = row.map_err(fault("read the writer's token", catalog.place()))?;
    catalog.rest();
    Ok(row.map(|r| format!("{} (process {})", r.get::<String, _>(0), r.get::<i64, _>(1))))
}
