//! The lake over PostgreSQL's wire protocol: psql, drivers and BI tools connect as to a PostgreSQL 16 with one database, `lake`.
//!
//! ```text
//! message ─ pgwire ─ handler ┬ settings, transactions     answered here (session.rs)
//!                            ┬ pg_catalog, \d             DataFusion over the lake's relations (catalog.rs)
//!                            ┬ COPY in and out            copy_in.rs, copy_out.rs
//!                            └ everything else            LakeService::execute
//! ```
//! Rows go out batch by batch; nothing of an answer is kept longer than it takes to send it. A cancel request drops the running statement,
//! wherever it is.

use std::net::SocketAddr;
use std::sync::Arc;

use pgwire::api::ConnectionManager;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::service::LakeService;

mod catalog;
mod copy;
mod copy_in;
mod copy_out;
mod cursor;
mod error;
mod extended;
mod handlers;
mod parameters;
mod rows;
mod session;
mod simple;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// Someone else listens there.
    #[error(
        "postgres port {port} on {bind} is in use: stop the program that listens there, or choose another with --set postgres.port={next} (0 picks a free one)"
    )]
    PortInUse {
        /// The address asked for.
        bind: String,
        /// The port asked for.
        port: u16,
        /// A port to try.
        next: u16,
    },
    /// The address cannot be listened on.
    #[error("cannot serve the postgres protocol on {bind}:{port}: check postgres.bind and postgres.port")]
    Bind {
        /// The address asked for.
        bind: String,
        /// The port asked for.
        port: u16,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The catalog tables could not be set up.
    #[error("cannot set up pg_catalog: {0}")]
    Catalog(String),
}

/// A server that runs until it is stopped. Dropping it does not stop it.
#[derive(Debug)]
pub struct PostgresServing {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl PostgresServing {
    /// The bound address, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `postgres://127.0.0.1:5433/lake`.
    pub fn url(&self) -> String {
        format!("postgres://{}/lake", self.address)
    }

    /// Stops listening and closes all connections.
    pub async fn stop(self) {
        // The task holds the only receiver; if it is gone, it has stopped.
        let _ = self.stopping.send(true);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "postgres server ended badly");
        }
    }
}

/// Serves `service` at an address; port 0 picks a free one. Must be called on a tokio runtime, which does the queries' work.
///
/// # Errors
/// [`PostgresError`].
pub async fn serve(service: Arc<dyn LakeService>, bind: &str, port: u16) -> Result<PostgresServing, PostgresError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            PostgresError::PortInUse { bind: bind.to_owned(), port, next: port.checked_add(1).unwrap_or(0) }
        }
        _ => PostgresError::Bind { bind: bind.to_owned(), port, source },
    };
    let listener = TcpListener::bind((bind, port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let catalog = catalog::Catalog::new(Arc::clone(&service)).map_err(|error| PostgresError::Catalog(error.to_string()))?;
    let backend = Arc::new(handlers::Backend::new(service, Arc::new(catalog), Arc::new(ConnectionManager::new())));
    let (stopping, stop_signal) = watch::channel(false);
    let task = tokio::spawn(accept(listener, backend, stop_signal));
    Ok(PostgresServing { address, stopping, task })
}

async fn accept(listener: TcpListener, backend: Arc<handlers::Backend>, mut stopping: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            // A sender that is gone was dropped without stopping: then the server goes on for good.
            Ok(_) = stopping.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                let server = handlers::Server(Arc::clone(&backend));
                connections.spawn(async move {
                    if let Err(error) = pgwire::tokio::process_socket(socket, None, server).await {
                        tracing::debug!(%peer, %error, "postgres connection ended");
                    }
                });
            }
            Err(error) => {
                // Out of file handles, most often: wait for connections to end rather than spin.
                tracing::warn!(%error, "cannot accept a postgres connection");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
    connections.shutdown().await;
}

#[cfg(test)]
mod tests;
