//! Live subscriptions as server-sent events (`GET /views/{name}/subscribe`) and `SUBSCRIBE` statements sent to `/sql`.
//!
//! Progress messages carry an event id: the last timestamp that is complete. A browser that reconnects sends it as `Last-Event-ID` and goes
//! on right after it, without a second snapshot. A client that reads too slowly gets the error event `slow_subscriber` and the end; what
//! waits for it is bounded by [`PIECES_WAITING`] here and by the lake's own buffer before that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::StreamExt;
use livelake_dataflow::protocol::SubscriptionEvent;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use super::envelope::{error, failure, of_error};
use super::messages::{self, Upserts};
use super::views::{find, parse_query};
use super::{Shared, negotiate};
use crate::service::{LakeError, SubscribeOptions, Subscription};

/// Messages that may wait for a slow client.
const PIECES_WAITING: usize = 16;
/// Rows in one message at most: a snapshot comes in several.
const MESSAGE_ROWS: usize = 1_024;
/// A client that takes nothing for this long is let go.
const STUCK_AFTER: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    as_of: Option<u64>,
    snapshot: Option<bool>,
    envelope: Option<String>,
}

/// How messages are framed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Events,
    Lines,
}

/// `GET /api/v1/views/{name}/subscribe?as_of=&snapshot=&envelope=`.
pub(super) async fn view(request: HttpRequest, name: web::Path<String>, shared: web::Data<Shared>) -> HttpResponse {
    match open_view(&request, &name, &shared).await {
        Ok((subscription, upserts)) => respond(&shared, subscription, upserts, Framing::Events),
        Err(error) => failure(&error),
    }
}

/// A `SUBSCRIBE` statement: events if asked for, else one message a line.
pub(super) async fn statement(request: &HttpRequest, shared: &Shared, sql: String) -> HttpResponse {
    let framing = if negotiate::wants_events(request) { Framing::Events } else { Framing::Lines };
    let service = Arc::clone(&shared.service);
    let opened = shared.spawn(async move { service.subscribe_sql(&sql).await }).await;
    match opened.unwrap_or_else(|cause| Err(panicked(&cause))) {
        Ok(mut subscription) => {
            // a mark completes a timestamp for upserts, so the two cannot be had without each other
            let upserts = subscription.upsert_key.take().map(|key| upserts(&subscription.schema, key)).transpose();
            match upserts {
                Ok(upserts) => respond(shared, subscription, upserts, framing),
                Err(error) => failure(&error),
            }
        }
        Err(error) => failure(&error),
    }
}

fn upserts(schema: &SchemaRef, key: Vec<usize>) -> Result<Upserts, LakeError> {
    let upserts = Upserts::new(Arc::clone(schema), key);
    upserts.map_err(|cause| error("not_supported", 400, format!("the key cannot be compared: {cause}"), None))
}

async fn open_view(request: &HttpRequest, name: &str, shared: &Shared) -> Result<(Subscription, Option<Upserts>), LakeError> {
    let relation = find(shared.service.as_ref(), name)?;
    let query: Query = parse_query(request)?;
    let last_event = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    let options = match last_event {
        Some(id) => {
            let as_of =
                id.parse().map_err(|_| error("invalid_parameter", 400, format!("Last-Event-ID {id:?} is no timestamp"), None))?;
            SubscribeOptions { as_of: Some(as_of), no_snapshot: true, no_progress: false }
        }
        None => SubscribeOptions { as_of: query.as_of, no_snapshot: query.snapshot == Some(false), no_progress: false },
    };
    let upsert = match query.envelope.as_deref() {
        None | Some("changes") => false,
        Some("upsert") => true,
        Some(other) => {
            let hint = Some("leave it out, or ask for upsert".to_owned());
            return Err(error("invalid_parameter", 400, format!("there is no envelope {other:?}"), hint));
        }
    };
    let upserts = if upsert {
        let key: Vec<usize> = relation.key.iter().filter_map(|column| relation.schema.index_of(column).ok()).collect();
        if key.is_empty() {
            let message = format!("{} has no key, so its changes cannot be sent as upserts", relation.name);
            return Err(error("not_supported", 400, message, Some("subscribe without envelope=upsert".to_owned())));
        }
        Some(upserts(&relation.schema, key)?)
    } else {
        None
    };
    let service = Arc::clone(&shared.service);
    let opened = shared.spawn(async move { service.subscribe(&relation.name, options).await }).await;
    Ok((opened.unwrap_or_else(|cause| Err(panicked(&cause)))?, upserts))
}

fn panicked(cause: &tokio::task::JoinError) -> LakeError {
    error("internal", 500, format!("the request could not be carried out: {cause}"), None)
}

fn respond(shared: &Shared, subscription: Subscription, upserts: Option<Upserts>, framing: Framing) -> HttpResponse {
    let (send, receive) = mpsc::channel(PIECES_WAITING);
    let stuck = Arc::new(AtomicBool::new(false));
    let feed = Feed {
        subscription,
        upserts,
        framing,
        send,
        stuck: Arc::clone(&stuck),
        stopping: shared.stopping.clone(),
        heartbeat: shared.options.heartbeat,
    };
    // Not awaited: it ends with the subscription, or when the client is gone.
    drop(shared.spawn(feed.run()));
    let body = futures::stream::unfold(Some(receive), move |receive| {
        let stuck = Arc::clone(&stuck);
        async move {
            let mut receive = receive?;
            match receive.recv().await {
                Some(piece) => Some((Ok::<Bytes, std::io::Error>(piece), Some(receive))),
                // The feed gave up on this client, which reads again at last.
                None if stuck.load(Ordering::Acquire) => Some((Ok(error_piece(framing, &slow())), None)),
                None => None,
            }
        }
    });
    let media_type = match framing {
        Framing::Events => "text/event-stream",
        Framing::Lines => "application/x-ndjson",
    };
    HttpResponse::Ok()
        .content_type(media_type)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(body)
}

fn slow() -> LakeError {
    error(
        "slow_subscriber",
        503,
        "this subscriber read too slowly and was cut off".to_owned(),
        Some("subscribe again and read faster".to_owned()),
    )
}

/// What happened first.
enum Next {
    Event(Option<Result<SubscriptionEvent, LakeError>>),
    Beat,
    Stop,
    Gone,
}

/// The task that feeds one subscriber.
struct Feed {
    subscription: Subscription,
    upserts: Option<Upserts>,
    framing: Framing,
    send: mpsc::Sender<Bytes>,
    stuck: Arc<AtomicBool>,
    stopping: watch::Receiver<bool>,
    heartbeat: Duration,
}

impl Feed {
    async fn run(mut self) {
        if let Err(error) = self.events().await {
            // Nobody listens any more if this fails.
            let _ = self.send.send_timeout(error_piece(self.framing, &error), STUCK_AFTER).await;
        }
    }

    /// Sends events until the subscription ends or nobody wants them any more.
    async fn events(&mut self) -> Result<(), LakeError> {
        loop {
            let next = tokio::select! {
                event = self.subscription.events.next() => Next::Event(event),
                () = tokio::time::sleep(self.heartbeat) => Next::Beat,
                // A sender that is gone counts as stopping too.
                _ = self.stopping.wait_for(|stopping| *stopping) => Next::Stop,
                () = self.send.closed() => Next::Gone,
            };
            let event = match next {
                Next::Event(event) => event,
                Next::Beat => {
                    let beat: &[u8] = if self.framing == Framing::Events { b": heartbeat\n\n" } else { b"\n" };
                    if !self.put(beat.to_vec()).await {
                        return Ok(());
                    }
                    continue;
                }
                Next::Stop => {
                    return Err(error(
                        "unavailable",
                        503,
                        "the lake is stopping".to_owned(),
                        Some("subscribe again when it runs".to_owned()),
                    ));
                }
                Next::Gone => return Ok(()),
            };
            match event {
                None | Some(Ok(SubscriptionEvent::End(None))) => return Ok(()),
                Some(Ok(SubscriptionEvent::End(Some(cause)))) => {
                    return Err(error("view_failed", 503, format!("the subscription ended: {cause}"), None));
                }
                Some(Err(error)) => return Err(error),
                Some(Ok(SubscriptionEvent::Progress(timestamp))) => {
                    let mut message = Vec::new();
                    let written = match &mut self.upserts {
                        Some(upserts) => upserts.progress(timestamp, &mut message).map_err(|cause| broken(&cause))?,
                        None => false,
                    };
                    if written && !self.put(self.framed(message, None)).await {
                        return Ok(());
                    }
                    let mut message = Vec::new();
                    messages::write_progress(timestamp, &mut message);
                    // All before the mark is complete: a resumption begins after the instant before it.
                    if !self.put(self.framed(message, timestamp.checked_sub(1))).await {
                        return Ok(());
                    }
                }
                Some(Ok(SubscriptionEvent::Changes(changes))) => {
                    let rows = changes.rows.num_rows();
                    if let Some(upserts) = &mut self.upserts {
                        let mut message = Vec::new();
                        let written = upserts.changes(changes, &mut message).map_err(|cause| broken(&cause))?;
                        if written && !self.put(self.framed(message, None)).await {
                            return Ok(());
                        }
                        continue;
                    }
                    for start in (0..rows).step_by(MESSAGE_ROWS) {
                        let count = MESSAGE_ROWS.min(rows - start);
                        let mut part = changes.clone();
                        part.rows = changes.rows.slice(start, count);
                        part.diffs = changes.diffs.slice(start, count);
                        let mut message = Vec::new();
                        messages::write_changes(&part, &mut message).map_err(|cause| broken(&cause))?;
                        if !self.put(self.framed(message, None)).await {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    fn framed(&self, message: Vec<u8>, id: Option<u64>) -> Vec<u8> {
        frame(self.framing, None, id, message)
    }

    /// Hands a piece to the connection; false if the client is gone or stuck.
    async fn put(&mut self, piece: Vec<u8>) -> bool {
        match self.send.send_timeout(piece.into(), STUCK_AFTER).await {
            Ok(()) => true,
            Err(mpsc::error::SendTimeoutError::Closed(_)) => false,
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                self.stuck.store(true, Ordering::Release);
                false
            }
        }
    }
}

fn broken(cause: &arrow::error::ArrowError) -> LakeError {
    error("not_supported", 400, format!("the rows cannot be written as JSON: {cause}"), Some("leave the column out".to_owned()))
}

fn error_piece(framing: Framing, error: &LakeError) -> Bytes {
    let body = serde_json::to_vec(&of_error(error)).unwrap_or_default();
    frame(framing, Some("error"), None, body).into()
}

/// One message with what its framing needs around it. JSON as written here holds no line end.
fn frame(framing: Framing, event: Option<&str>, id: Option<u64>, message: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 40);
    if framing == Framing::Events {
        if let Some(event) = event {
            out.extend_from_slice(format!("event: {event}\n").as_bytes());
        }
        if let Some(id) = id {
            out.extend_from_slice(format!("id: {id}\n").as_bytes());
        }
        out.extend_from_slice(b"data: ");
    }
    out.extend_from_slice(&message);
    out.extend_from_slice(if framing == Framing::Events { b"\n\n" } else { b"\n" });
    out
}
