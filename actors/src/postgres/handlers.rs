//! What a connection's statements run against, and how a statement finds the part that answers it.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use futures::stream::BoxStream;
use futures::{Sink, SinkExt, StreamExt};
use pgwire::api::auth::StartupHandler;
use pgwire::api::auth::noop::NoopStartupHandler;
use pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use pgwire::api::copy::CopyHandler;
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::{ClientInfo, ConnectionHandle, ConnectionManager, ErrorHandler, PgWireServerHandlers};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyOutResponse};
use pgwire::messages::response::CommandComplete;

use super::catalog::Catalog;
use super::copy::{Copy, Direction};
use super::copy_in::CopyIn;
use super::copy_out::CopyOut;
use super::cursor::CursorStatement;
use super::error::{not_supported, of_lake, wire};
use super::session::{Local, Session};
use crate::service::LakeService;
use crate::statements::tokens;

/// Rows on their way to a client.
pub(super) type Rows = BoxStream<'static, PgWireResult<RecordBatch>>;

/// What all connections share.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) service: Arc<dyn LakeService>,
    pub(super) catalog: Arc<Catalog>,
    connections: Arc<ConnectionManager>,
}

/// What a statement came to.
pub(super) enum Outcome {
    /// Rows to send.
    Rows { schema: SchemaRef, rows: Rows, tag: String },
    /// Done, nothing to send but the tag.
    Done(String),
    /// A transaction opened.
    Begin,
    /// A transaction closed.
    End(&'static str),
    /// Copied rows to send.
    CopyOut(CopyOut),
    /// The client is to send rows.
    CopyIn(CopyIn),
}

impl Backend {
    pub(super) fn new(service: Arc<dyn LakeService>, catalog: Arc<Catalog>, connections: Arc<ConnectionManager>) -> Self {
        Self { service, catalog, connections }
    }

    /// Runs one statement.
    pub(super) async fn run(&self, session: &Session, sql: &str, parameters: Vec<ScalarValue>) -> PgWireResult<Outcome> {
        match session.local(sql) {
            Some(Local::Done(tag)) => return Ok(Outcome::Done(tag.to_owned())),
            Some(Local::Begin) => return Ok(Outcome::Begin),
            Some(Local::End(tag)) => return Ok(Outcome::End(tag)),
            Some(Local::Show(name, value)) => return Ok(shown(&name, &value)),
            None => {}
        }
        if let Some(copy) = Copy::parse(sql)? {
            return match &copy.direction {
                Direction::Out(source) => Ok(Outcome::CopyOut(CopyOut::open(self, source, &copy.options, parameters).await?)),
                Direction::In { table, columns } => {
                    Ok(Outcome::CopyIn(CopyIn::open(self, table, columns, copy.options.clone()).await?))
                }
            };
        }
        if let Some(statement) = CursorStatement::parse(sql)? {
            return session.cursors.run(self, session, statement, parameters).await;
        }
        refuse_subscribe(sql)?;
        if self.catalog.answers(sql) {
            let (schema, rows) = self.catalog.run(sql, parameters).await?;
            return Ok(Outcome::Rows { schema, rows, tag: "SELECT".to_owned() });
        }
        let mut answer = self.service.execute(sql, parameters).await.map_err(of_lake)?;
        if answer.schema.fields().is_empty() && answer.tag != "SELECT" {
            // The statement may do its work while its (empty) answer is read.
            while let Some(batch) = answer.rows.next().await {
                batch.map_err(of_lake)?;
            }
            return Ok(Outcome::Done(answer.tag));
        }
        let rows = answer.rows.map(|batch| batch.map_err(of_lake)).boxed();
        Ok(Outcome::Rows { schema: answer.schema, rows, tag: answer.tag })
    }

    /// Columns and parameter types of a statement, without running it.
    pub(super) async fn describe(&self, session: &Session, sql: &str) -> PgWireResult<(SchemaRef, Vec<DataType>)> {
        let none = || Arc::new(Schema::empty());
        // A session of no one's own: describing must not set anything.
        match Session::default().local(sql) {
            Some(Local::Show(name, _)) => return Ok((show_schema(&name), Vec::new())),
            Some(_) => return Ok((none(), Vec::new())),
            None => {}
        }
        if let Some(Local::Show(name, _)) =
            tokens(sql).first().filter(|word| word.eq_ignore_ascii_case("show")).and_then(|_| session.local(sql))
        {
            return Ok((show_schema(&name), Vec::new()));
        }
        if Copy::parse(sql)?.is_some() {
            return Ok((none(), Vec::new()));
        }
        if let Some(statement) = CursorStatement::parse(sql)? {
            return Ok((session.cursors.describe(&statement).await?.unwrap_or_else(none), Vec::new()));
        }
        refuse_subscribe(sql)?;
        if tokens(sql).is_empty() {
            return Ok((none(), Vec::new()));
        }
        if self.catalog.answers(sql) {
            return self.catalog.describe(sql).await;
        }
        self.service.describe(sql).await.map_err(of_lake)
    }
}

fn refuse_subscribe(sql: &str) -> PgWireResult<()> {
    if tokens(sql).first().is_some_and(|word| word.eq_ignore_ascii_case("subscribe")) {
        let hint = "write COPY (SUBSCRIBE …) TO STDOUT, which streams";
        return Err(not_supported("SUBSCRIBE has no end, so it cannot be answered as a query's rows", hint));
    }
    Ok(())
}

fn show_schema(name: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, false)]))
}

fn shown(name: &str, value: &str) -> Outcome {
    let schema = show_schema(name);
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(vec![value]))]);
    let batch = batch.map_err(|error| wire("XX000", error.to_string(), None));
    Outcome::Rows { schema, rows: futures::stream::iter([batch]).boxed(), tag: "SHOW".to_owned() }
}

/// The tag that ends an answer of `rows` rows: PostgreSQL counts those of some statements only.
pub(super) fn complete(tag: &str, rows: usize) -> PgWireBackendMessage {
    let tag = if matches!(tag, "SELECT" | "FETCH" | "COPY") { format!("{tag} {rows}") } else { tag.to_owned() };
    PgWireBackendMessage::CommandComplete(CommandComplete::new(tag))
}

/// Sends a copy's rows, at once whenever the next ones are not there yet.
pub(super) async fn send_copy_out<C>(client: &mut C, copy: CopyOut) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let columns = copy.columns;
    client
        .send(PgWireBackendMessage::CopyOutResponse(CopyOutResponse::new(0, columns, vec![0; columns.unsigned_abs().into()])))
        .await?;
    let mut rows = 0;
    let mut pieces = copy.pieces.ready_chunks(64);
    while let Some(ready) = pieces.next().await {
        for piece in ready {
            let piece = piece?;
            rows += piece.rows;
            for line in piece.lines {
                client.feed(PgWireBackendMessage::CopyData(CopyData::new(line))).await?;
            }
        }
        client.flush().await?;
    }
    client.send(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
    client.feed(complete("COPY", rows)).await?;
    Ok(())
}

/// Resolves when the client asks to cancel what runs now; never if cancelling is not set up.
pub(super) async fn cancelled<C: ClientInfo>(client: &C) -> impl Future<Output = ()> + Send + use<C> {
    let handle = client.session_extensions().get::<Arc<ConnectionHandle>>();
    let signal = match handle {
        Some(handle) => Some(handle.start_query().await),
        None => None,
    };
    async move {
        if let Some(signal) = signal
            && signal.await.is_ok()
        {
            return;
        }
        futures::future::pending().await
    }
}

/// One connection's view of the backend.
pub(super) struct Server(pub(super) Arc<Backend>);

impl PgWireServerHandlers for Server {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.0)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::clone(&self.0)
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::new(Startup(Arc::clone(&self.0.connections)))
    }

    fn copy_handler(&self) -> Arc<impl CopyHandler> {
        Arc::clone(&self.0)
    }

    fn error_handler(&self) -> Arc<impl ErrorHandler> {
        Arc::new(Errors)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::new(DefaultCancelHandler::new(Arc::clone(&self.0.connections)))
    }
}

struct Startup(Arc<ConnectionManager>);

impl NoopStartupHandler for Startup {
    fn connection_manager(&self) -> Option<Arc<ConnectionManager>> {
        Some(Arc::clone(&self.0))
    }
}

struct Errors;

impl ErrorHandler for Errors {
    fn on_error<C: ClientInfo>(&self, client: &C, error: &mut PgWireError) {
        tracing::debug!(peer = %client.socket_addr(), %error, "statement failed");
    }
}
