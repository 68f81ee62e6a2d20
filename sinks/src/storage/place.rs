//! Where the catalog is: a file for SQLite, a server for PostgreSQL, or a server that speaks Iceberg's REST protocol.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use sqlx::{AnyConnection, Connection};
use url::Url;

use super::catalog::sql::answer;

/// See the module. As text: without a password.
#[derive(Clone, PartialEq, Eq)]
pub enum CatalogPlace {
    /// A database whose tables are the catalog.
    Sql(SqlPlace),
    /// A server's base address, `http://…` or `https://…`, without the `v1` of the protocol. Its query may name one of the server's
    /// warehouses: `?warehouse=name`.
    Rest(Url),
}

/// A database. As text: without a password.
#[derive(Clone, PartialEq, Eq)]
pub enum SqlPlace {
    /// The file, absolute.
    Sqlite(PathBuf),
    /// A database, as `postgres://user@host:port/database`. What the URL does not say, PostgreSQL's own variables and files do (`PGPASSWORD`,
    /// `PGPASSFILE`, `PGSSLMODE`, …).
    Postgres(Url),
}

impl fmt::Display for CatalogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CatalogPlace::Sql(place) => write!(f, "{place}"),
            CatalogPlace::Rest(url) => write!(f, "rest+{}", shown(url)),
        }
    }
}

impl fmt::Display for SqlPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SqlPlace::Sqlite(path) => write!(f, "{}", path.display()),
            SqlPlace::Postgres(url) => write!(f, "{}", shown(url)),
        }
    }
}

/// A URL without password and options.
fn shown(url: &Url) -> Url {
    let mut shown = url.clone();
    // fails for URLs without a host only, which then have no password
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown
}

impl fmt::Debug for CatalogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for SqlPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl CatalogPlace {
    /// The SQLite file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            CatalogPlace::Sql(SqlPlace::Sqlite(path)) => Some(path),
            _ => None,
        }
    }
}

impl SqlPlace {
    /// How a transaction begins. PostgreSQL's writers take turns at the writer's row instead.
    pub(crate) fn begin(&self) -> &'static str {
        match self {
            SqlPlace::Sqlite(_) => "BEGIN IMMEDIATE",
            SqlPlace::Postgres(_) => "BEGIN",
        }
    }

    /// A new connection; a writer's makes an SQLite file that is missing.
    pub(crate) async fn connect(&self, writes: bool) -> Result<AnyConnection, sqlx::Error> {
        sqlx::any::install_default_drivers();
        let (url, settings): (Cow<'_, str>, &[&str]) = match self {
            SqlPlace::Sqlite(path) => {
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
            SqlPlace::Postgres(url) => {
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
