//! The lake over HTTP: queries, views, live subscriptions, status, the page.
//!
//! ```text
//! connection ─ actix worker (parses, forwards bytes) ─ bounded channel ─ task on the caller's runtime (plans, runs, encodes)
//! ```
//! A worker never runs a query: the work of an answer is a task on the runtime that called [`serve`], which sends encoded pieces through
//! a bounded channel; a client that reads slowly slows only its own task, and one that goes away ends it.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::service::LakeService;

mod answer;
pub mod envelope;
pub mod messages;
mod negotiate;
mod page;
mod query;
mod status;
mod subscribe;
mod views;

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Address to listen on, such as `127.0.0.1`.
    pub bind: String,
    /// Port; 0 picks a free one.
    pub port: u16,
    /// Largest request body, in bytes.
    pub body_limit: usize,
    /// A query that has not answered by then is given up (its first rows, not its last).
    pub query_timeout: Duration,
    /// A subscription that has nothing to say sends a comment this often, so that proxies keep it open and dead clients are noticed.
    pub heartbeat: Duration,
    /// Threads that serve connections.
    pub workers: usize,
}

impl HttpOptions {
    /// The defaults at an address.
    pub fn new(bind: &str, port: u16) -> Self {
        Self {
            bind: bind.to_owned(),
            port,
            body_limit: 1 << 20,
            query_timeout: Duration::from_secs(300),
            heartbeat: Duration::from_secs(15),
            workers: 2,
        }
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Someone else listens there.
    #[error(
        "http port {port} on {bind} is in use: stop the program that listens there, or choose another with --set http.port={next} (0 picks a free one)"
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
    #[error("cannot serve http on {bind}:{port}: check http.bind and http.port")]
    Bind {
        /// The address asked for.
        bind: String,
        /// The port asked for.
        port: u16,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The server stopped by itself.
    #[error("the http server stopped")]
    Stopped(#[source] std::io::Error),
}

/// A server that runs until it is stopped. Dropping it does not stop it.
#[derive(Debug)]
pub struct HttpServing {
    address: SocketAddr,
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
    stopping: watch::Sender<bool>,
}

impl HttpServing {
    /// The bound address, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:8000`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends subscriptions, lets running answers finish (at most five seconds) and stops listening.
    ///
    /// # Errors
    /// [`HttpError::Stopped`] if the server had failed before.
    pub async fn stop(self) -> Result<(), HttpError> {
        // No receiver is left when no subscription runs.
        let _ = self.stopping.send(true);
        self.handle.stop(true).await;
        match self.task.await {
            Ok(result) => result.map_err(HttpError::Stopped),
            Err(error) => Err(HttpError::Stopped(std::io::Error::other(error))),
        }
    }
}

/// What every handler has at hand.
#[derive(Clone)]
pub(crate) struct Shared {
    service: Arc<dyn LakeService>,
    options: Arc<HttpOptions>,
    runtime: Handle,
    stopping: watch::Receiver<bool>,
}

impl Shared {
    /// Runs work on the lake's runtime, away from the connection's thread.
    fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.runtime.spawn(work)
    }
}

/// Serves `service` at an address with the default limits. Must be called on a tokio runtime, which does the queries' work.
///
/// # Errors
/// [`HttpError::PortInUse`], [`HttpError::Bind`].
pub async fn serve(service: Arc<dyn LakeService>, bind: &str, port: u16) -> Result<HttpServing, HttpError> {
    serve_with(service, HttpOptions::new(bind, port)).await
}

/// As [`serve`], with limits of one's own.
///
/// # Errors
/// [`HttpError::PortInUse`], [`HttpError::Bind`].
pub async fn serve_with(service: Arc<dyn LakeService>, options: HttpOptions) -> Result<HttpServing, HttpError> {
    let failed = |source: std::io::Error| bind_error(&options.bind, options.port, source);
    let listener = TcpListener::bind((options.bind.as_str(), options.port)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (stopping, stop_signal) = watch::channel(false);
    let workers = options.workers;
    let shared = Shared { service, options: Arc::new(options.clone()), runtime: Handle::current(), stopping: stop_signal };
    let server = HttpServer::new(move || App::new().app_data(web::Data::new(shared.clone())).configure(routes))
        // an answer is written in several pieces: without this the last one waits for the client to acknowledge the first, up to 40 ms
        .tcp_nodelay(true)
        .workers(workers)
        .shutdown_timeout(5)
        .disable_signals()
        .listen(listener)
        .map_err(failed)?
        .run();
    let handle = server.handle();
    let task = tokio::spawn(server);
    Ok(HttpServing { address, handle, task, stopping })
}

fn bind_error(bind: &str, port: u16, source: std::io::Error) -> HttpError {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            HttpError::PortInUse { bind: bind.to_owned(), port, next: port.checked_add(1).unwrap_or(0) }
        }
        _ => HttpError::Bind { bind: bind.to_owned(), port, source },
    }
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/").get(page::index))
        .service(web::resource("/docs").get(page::docs))
        .service(web::resource("/assets/{name}").get(page::asset))
        .service(web::resource("/api/openapi.json").get(page::openapi))
        .service(web::resource("/health").get(status::health))
        .service(web::resource("/metrics").get(status::metrics))
        .service(web::resource("/api/v1/health").get(status::health))
        .service(web::resource("/api/v1/metrics").get(status::metrics))
        .service(
            web::resource("/api/v1/sql")
                .post(query::sql)
                .default_service(web::to(|| async { envelope::method_not_allowed("POST") })),
        )
        .service(web::resource("/api/v1/views").get(views::list))
        .service(web::resource("/api/v1/views/{name}").get(views::rows))
        .service(web::resource("/api/v1/views/{name}/subscribe").get(subscribe::view))
        .service(web::resource("/api/v1/relations").get(views::relations))
        .service(web::resource("/api/v1/epochs").get(status::epochs))
        .service(web::resource("/api/v1/sources").get(status::sources))
        .service(web::resource("/api/v1/sinks").get(status::sinks))
        .default_service(web::to(envelope::no_such_path));
}

#[cfg(test)]
mod tests;
