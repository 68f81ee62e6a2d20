//! The simple query protocol: a string of one or more statements, each carried out and answered before the next.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{Either, select};
use futures::{Sink, SinkExt, StreamExt};
use pgwire::api::copy::send_copy_in_response;
use pgwire::api::portal::Format;
use pgwire::api::query::{SimpleQueryHandler, send_ready_for_query};
use pgwire::api::results::{CopyResponse, Response};
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, PgWireConnectionState};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::RowDescription;
use pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use pgwire::messages::simplequery::Query;

use super::error::not_supported;
use super::handlers::{Backend, Outcome, cancelled, complete, send_copy_out};
use super::rows::{RowWriter, fields};
use super::session::{Session, session_of};
use crate::statements::split;

#[async_trait]
impl SimpleQueryHandler for Backend {
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let session = session_of(client);
        let cancel = cancelled(client).await;
        let work = self.statements(client, &session, &query.query);
        let result = match select(Box::pin(work), Box::pin(cancel)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(PgWireError::QueryCanceled),
        };
        let status = result?;
        if !matches!(client.state(), PgWireConnectionState::CopyInProgress(_)) {
            client.set_state(PgWireConnectionState::ReadyForQuery);
            client.set_transaction_status(status);
            send_ready_for_query(client, status).await?;
        }
        Ok(())
    }

    /// Not used: `on_query` sends while it runs.
    async fn do_query<C>(&self, _client: &mut C, _query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(not_supported("statements are answered while they run", "send them as a query message"))
    }
}

impl Backend {
    async fn statements<C>(&self, client: &mut C, session: &Arc<Session>, text: &str) -> PgWireResult<TransactionStatus>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut status = client.transaction_status();
        let statements = split(text);
        if statements.is_empty() {
            client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
        }
        for (index, statement) in statements.iter().enumerate() {
            match self.run(session, statement.text, Vec::new()).await? {
                Outcome::Rows { schema, rows, tag } => {
                    let columns = fields(&schema, &Format::UnifiedText);
                    let description = RowDescription::new(columns.iter().map(Into::into).collect());
                    client.feed(PgWireBackendMessage::RowDescription(description)).await?;
                    let writer = RowWriter::new(&schema, &Format::UnifiedText);
                    let sent = send_rows(client, rows, &writer).await?;
                    client.feed(complete(&tag, sent)).await?;
                }
                Outcome::Done(tag) => client.feed(complete(&tag, 0)).await?,
                Outcome::Begin => {
                    status = status.to_in_transaction_state();
                    client.feed(complete("BEGIN", 0)).await?;
                }
                Outcome::End(tag) => {
                    status = status.to_idle_state();
                    client.feed(complete(tag, 0)).await?;
                }
                Outcome::CopyOut(copy) => send_copy_out(client, copy).await?,
                Outcome::CopyIn(copy) => {
                    if index + 1 < statements.len() {
                        return Err(not_supported(
                            "COPY … FROM STDIN must come last in a query string",
                            "send what follows it by itself",
                        ));
                    }
                    let columns = copy.columns();
                    session.begin_copy(copy);
                    send_copy_in_response(client, CopyResponse::new(0, columns, futures::stream::empty())).await?;
                    client.set_state(PgWireConnectionState::CopyInProgress(false));
                }
            }
        }
        Ok(status)
    }
}

/// Sends all rows; returns how many.
pub(super) async fn send_rows<C>(client: &mut C, mut rows: super::handlers::Rows, writer: &RowWriter) -> PgWireResult<usize>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let mut sent = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        // A slice at a time, so that encoded rows don't pile up.
        for start in (0..batch.num_rows()).step_by(1_024) {
            for row in writer.encode(&batch.slice(start, 1_024.min(batch.num_rows() - start)))? {
                client.feed(PgWireBackendMessage::DataRow(row)).await?;
                sent += 1;
            }
        }
    }
    Ok(sent)
}
