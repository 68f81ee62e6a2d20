//! The extended query protocol: prepare, bind, execute. What drivers speak.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use futures::future::{Either, select};
use futures::stream::StreamExt;
use futures::{Sink, SinkExt};
use pgwire::api::copy::send_copy_in_response;
use pgwire::api::portal::{Format, Portal, PortalExecutionState};
use pgwire::api::query::{ExtendedQueryHandler, send_describe_response};
use pgwire::api::results::{CopyResponse, DescribePortalResponse, FieldInfo, QueryResponse, Response};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::extendedquery::{Describe, Execute, PortalSuspended, TARGET_TYPE_BYTE_PORTAL};
use pgwire::messages::response::EmptyQueryResponse;

use super::error::not_supported;
use super::handlers::{Backend, Outcome, cancelled, complete, send_copy_out};
use super::parameters::{data_type, values};
use super::rows::{RowWriter, fields, pg_type};
use super::session::session_of;
use super::simple::send_rows;
use crate::statements::split;

/// A prepared statement.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) sql: String,
    schema: SchemaRef,
    /// What the client sends, and what the statement takes.
    pub(super) parameters: Vec<(Type, DataType)>,
}

/// Prepares statements by asking who will answer them.
pub(super) struct Preparer(Backend);

#[async_trait]
impl QueryParser for Preparer {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Prepared>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let statements = split(sql);
        if statements.len() > 1 {
            return Err(super::error::wire("42601", "a prepared statement cannot hold several statements", None));
        }
        let text = statements.first().map_or("", |statement| statement.text);
        let (schema, described) = self.0.describe(&session_of(client), text).await?;
        let count = described.len().max(types.len());
        let parameter = |index: usize| {
            let described = described.get(index).filter(|data_type| **data_type != DataType::Null);
            let declared = types.get(index).cloned().flatten().filter(|declared| *declared != Type::UNKNOWN);
            match (declared, described) {
                (Some(declared), Some(described)) => (declared, described.clone()),
                (Some(declared), None) => (declared.clone(), data_type(&declared)),
                (None, Some(described)) => (pg_type(described), described.clone()),
                (None, None) => (Type::TEXT, DataType::Utf8),
            }
        };
        Ok(Prepared { sql: text.to_owned(), schema, parameters: (0..count).map(parameter).collect() })
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        Ok(statement.parameters.iter().map(|(pg_type, _)| pg_type.clone()).collect())
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        Ok(fields(&statement.schema, format.unwrap_or(&Format::UnifiedText)))
    }
}

#[async_trait]
impl ExtendedQueryHandler for Backend {
    type Statement = Prepared;
    type QueryParser = Preparer;

    fn query_parser(&self) -> Arc<Preparer> {
        Arc::new(Preparer(self.clone()))
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let Some(portal) = client.portal_store().get_portal(name) else {
            return Err(PgWireError::PortalNotFound(name.to_owned()));
        };
        client.set_state(PgWireConnectionState::QueryInProgress);
        let rows_max = usize::try_from(message.max_rows).unwrap_or(0);
        let cancel = cancelled(client).await;
        let work = self.execute_portal(client, &portal, rows_max);
        match select(Box::pin(work), Box::pin(cancel)).await {
            Either::Left((result, _)) => result?,
            Either::Right(_) => return Err(PgWireError::QueryCanceled),
        }
        if !matches!(client.state(), PgWireConnectionState::CopyInProgress(_)) {
            client.set_state(PgWireConnectionState::ReadyForQuery);
        }
        Ok(())
    }

    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // In PostgreSQL a cursor is a portal, so clients describe the one as the other.
        let name = message.name.clone().unwrap_or_default();
        let is_portal = message.target_type == TARGET_TYPE_BYTE_PORTAL && client.portal_store().get_portal(&name).is_none();
        let session = session_of(client);
        if is_portal && let Some(schema) = session.cursors.schema(&name).await {
            let response = DescribePortalResponse::new(fields(&schema, &Format::UnifiedText));
            return send_describe_response(client, &response).await;
        }
        self._on_describe(client, message).await
    }

    /// Not used: `on_execute` sends while it runs.
    async fn do_query<C>(&self, _client: &mut C, _portal: &Portal<Prepared>, _max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(not_supported("statements are answered while they run", "send an execute message"))
    }
}

impl Backend {
    async fn execute_portal<C>(&self, client: &mut C, portal: &Arc<Portal<Prepared>>, rows_max: usize) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let begun = !matches!(*portal.state().lock().await, PortalExecutionState::Initial);
        if begun {
            return fetch(client, portal, rows_max).await;
        }
        let prepared = &portal.statement.statement;
        if prepared.sql.is_empty() {
            client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
            return Ok(());
        }
        let session = session_of(client);
        let status = client.transaction_status();
        match self.run(&session, &prepared.sql, values(portal)?).await? {
            Outcome::Rows { schema, rows, tag } => {
                let writer = RowWriter::new(&schema, &portal.result_column_format);
                if rows_max == 0 {
                    let sent = send_rows(client, rows, &writer).await?;
                    *portal.state().lock().await = PortalExecutionState::Finished;
                    client.feed(complete(&tag, sent)).await?;
                    return Ok(());
                }
                let columns = Arc::new(fields(&schema, &portal.result_column_format));
                let encoded = rows.flat_map(move |batch| {
                    let rows: Vec<_> = match batch.and_then(|batch| writer.encode(&batch)) {
                        Ok(rows) => rows.into_iter().map(Ok).collect(),
                        Err(error) => vec![Err(error)],
                    };
                    futures::stream::iter(rows)
                });
                let mut response = QueryResponse::new(columns, encoded);
                response.set_command_tag(&tag);
                portal.start(response).await;
                fetch(client, portal, rows_max).await?;
            }
            Outcome::Done(tag) => client.feed(complete(&tag, 0)).await?,
            Outcome::Begin => {
                client.feed(complete("BEGIN", 0)).await?;
                client.set_transaction_status(status.to_in_transaction_state());
            }
            Outcome::End(tag) => {
                client.feed(complete(tag, 0)).await?;
                client.set_transaction_status(status.to_idle_state());
                client.portal_store().rm_portal(DEFAULT_NAME);
            }
            Outcome::CopyOut(copy) => send_copy_out(client, copy).await?,
            Outcome::CopyIn(copy) => {
                let columns = copy.columns();
                session.begin_copy(copy);
                client.set_state(PgWireConnectionState::CopyInProgress(true));
                send_copy_in_response(client, CopyResponse::new(0, columns, futures::stream::empty())).await?;
            }
        }
        Ok(())
    }
}

/// Sends the next rows of a portal that is read in pieces.
async fn fetch<C>(client: &mut C, portal: &Portal<Prepared>, rows_max: usize) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let mut fetched = portal.fetch(rows_max).await?;
    let tag = fetched.response.command_tag().to_owned();
    let mut sent = 0;
    while let Some(row) = fetched.response.data_rows().next().await {
        client.feed(PgWireBackendMessage::DataRow(row?)).await?;
        sent += 1;
    }
    let end =
        if fetched.suspended { PgWireBackendMessage::PortalSuspended(PortalSuspended::new()) } else { complete(&tag, sent) };
    client.feed(end).await?;
    Ok(())
}
