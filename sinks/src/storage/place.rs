//! Where the catalog is: a file for SQLite, a server for PostgreSQL.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use sqlx::{AnyConnection, Connection};
use url::Url;

use super::catalog::answer;

/// See the module. As text: without a password.
#[derive(Clone, PartialEq, Eq)]
pub enum CatalogPlace {
    /// The file, absolute.
    Sqlite(PathBuf),
    /// A database, as `postgres://user@host:port/database`. What the URL does not say, PostgreSQL's own variables and files do (`PGPASSWORD`,
    /// `PGPASSFILE`, `PGSSLMODE`, …).
    Postgres(Url),
}

impl fmt::Display for CatalogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CatalogPlace::Sqlite(path) => write!(f, "{}", path.display()),
            CatalogPlace::Postgres(url) => {
                let mut shown = url.clone();
                // both fail for URLs without a host only, which then have no password
                let _ = shown.set_password(None);
                shown.set_query(None);
                write!(f, "{shown}")
            }
        }
    }
}

impl fmt::Debug for CatalogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl CatalogPlace {
    /// How a transaction begins. PostgreSQL's writers take turns at the writer's row instead.
    pub(crate) fn begin(&self) -> &'static str {
        match self {
            CatalogPlace::Sqlite(_) => "BEGIN IMMEDIATE",
            CatalogPlace::Postgres(_) => "BEGIN",
        }
    }

    /// A new connection; a writer's makes an SQLite file that is missing.
    pub(crate) async fn connect(&self, writes: bool) -> Result<AnyConnection, sqlx::Error> {
        sqlx::any::install_default_drivers();
        let (url, settings): (Cow<'_, str>, &[&str]) = match self {
            CatalogPlace::Sqlite(path) => {
                let absolute = Url::from_file_path(path)
                    .map_err(|()| sqlx::Error::Configuration(format!("{} is not absolute", path.display()).into()))?;
                let mode = if writes { "rwc" } else { "rw" };
                let url = format!("sqlite://{}?mode={mode}", absolute.path());
                // A statement waits for another program's lock; our own transactions hold theirs for milliseconds. WAL: readers go on while we
                // commit. FULL: a commit is on the disk when it is acknowledged.
                let wait: &[&str] = &["PRAGMA busy_timeout = 10000"];
                let writer: &[&str] = &["PRAGMA busy_timeout = 10000", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"];
                (url.into(), if writes { writer } else { wait })
            }
            CatalogPlace::Postgres(url) => {
                // A connection that was cut must not hold locks for hours: its server finds out within half a minute.
                let settings: &[&str] = &[
                    "SET application_name = 'livelake'",
                    "SET lock_timeout = '10s'",
                    "SET statement_timeout = '25s'",
                    "SET idle_in_transaction_session_timeout = '60s'",
                    "SET tcp_keepalives_idle = 10",
                    "SET tcp_keepalives_interval = 5",
                    "SET tcp_keepalives_count = 4",
                ];
                (url.as_str().into(), settings)
            }
        };
        let mut conn = answer(AnyConnection::connect(&url)).await?;
        for setting in settings {
            answer(sqlx::query(setting).execute(&mut conn)).await?;
        }
        Ok(conn)
    }
}
