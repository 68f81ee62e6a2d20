//! One writer per lake: a lock that dies with its process, and a token that outlives it.
//!
//! The lock is the operating system's, on the file `CATALOG.writer`: a killed process leaves no lock behind, whatever happens
//! to process ids (containers reuse them). The token is a row in the catalog that every commit checks within its transaction:
//! should somebody remove the lock's file under a running writer, the newer token wins and the older one can write no more.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use crate::error::SinkError;
use crate::storage::catalog::fault;

/// The right to write a lake; given up when dropped.
#[derive(Debug)]
pub struct Fence {
    /// Names this writer in every epoch that it commits.
    pub token: String,
    // Held for its lock.
    _lock: File,
}

impl Fence {
    /// Takes the lake over for a writer called `name`.
    ///
    /// # Errors
    /// [`SinkError::Held`] while another process (or another `Lake` of this one) writes it.
    pub(crate) async fn take(conn: &mut SqliteConnection, catalog: &Path, name: &str) -> Result<Fence, SinkError> {
        let path = lock_path(catalog);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(SinkError::file("open the writer's lock", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(conn, catalog).await?.unwrap_or_else(|| "another process".into());
                return Err(SinkError::Held { path: catalog.to_path_buf(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(SinkError::file("lock", &path)(e)),
        }
        let token = uuid::Uuid::now_v7().to_string();
        let write = async {
            sqlx::query(
                "INSERT INTO livelake_writer (id, token, name, pid, since) VALUES (1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE \
                 SET token = excluded.token, name = excluded.name, pid = excluded.pid, since = excluded.since",
            )
            .bind(&token)
            .bind(name)
            .bind(i64::from(std::process::id()))
            .bind(chrono::Utc::now().timestamp_micros())
            .execute(conn)
            .await
        };
        write.await.map_err(fault("take the writer's token", catalog))?;
        Ok(Fence { token, _lock: lock })
    }
}

/// Name and process id of the writer that the catalog knows.
pub(crate) async fn holder(conn: &mut SqliteConnection, catalog: &Path) -> Result<Option<String>, SinkError> {
    let row = sqlx::query("SELECT name, pid FROM livelake_writer WHERE id = 1")
        .fetch_optional(conn)
        .await
        .map_err(fault("read the writer's token", catalog))?;
    Ok(row.map(|r| format!("{} (process {})", r.get::<String, _>(0), r.get::<i64, _>(1))))
}

fn lock_path(catalog: &Path) -> PathBuf {
    let mut name = catalog.as_os_str().to_owned();
    name.push(".writer");
    PathBuf::from(name)
}
