//! Following a relation or a query: snapshot, changes and progress, bounded for each reader.

use std::sync::atomic::Ordering;

use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use livelake_dataflow::handle::SubscriptionId;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::{SubscriptionEvent, ViewSpec};
use livelake_queries::Position;
use livelake_queries::plan::{plan_query, query_plan};
use livelake_queries::statement::{RelationKind, Subscribe, SubscribeTarget};
use tokio::sync::mpsc;

use crate::lake::Lake;
use crate::lake::failure::{internal, not_supported};
use crate::service::{LakeError, LakeService, SubscribeOptions, Subscription};

/// Events that a subscriber may be behind before it is cut off.
const SUBSCRIBER_EVENTS_MAX: usize = 4096;

/// Ends a subscription, and its own view if it has one, when its stream is dropped.
struct Following {
    lake: Lake,
    subscription: SubscriptionId,
    view: Option<RelationId>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.lake.engine().unsubscribe(self.subscription);
        if let Some(view) = self.view {
            let engine = self.lake.engine().clone();
            // dropping waits for the workers, which a stream's owner must not
            tokio::task::spawn_blocking(move || {
                if let Err(error) = engine.drop_relation(view) {
                    tracing::warn!(%error, "a subscription's own view could not be dropped");
                }
            });
        }
    }
}

/// A subscription whose changes are sent as upserts, if that was asked for: by its relation's key, which may be written out.
fn upserts_of((subscription, key): (Subscription, Vec<usize>), asked: Option<&[String]>) -> Result<Subscription, LakeError> {
    let Some(asked) = asked else { return Ok(subscription) };
    let names: Vec<&str> =
        key.iter().filter_map(|index| Some(subscription.schema.fields().get(*index)?.name().as_str())).collect();
    if names.is_empty() || names.len() < key.len() {
        return Err(not_supported("ENVELOPE UPSERT: these rows have no key, so their changes cannot be sent as upserts"));
    }
    let same = asked.len() == names.len() && asked.iter().all(|column| names.contains(&column.as_str()));
    if !asked.is_empty() && !same {
        let message = format!("ENVELOPE UPSERT: the rows' key is ({}), not ({})", names.join(", "), asked.join(", "));
        return Err(not_supported(message));
    }
    Ok(Subscription { upsert_key: Some(key), ..subscription })
}

impl Lake {
    pub(super) fn follow(
        &self,
        id: RelationId,
        schema: SchemaRef,
        options: SubscribeOptions,
        view: Option<RelationId>,
    ) -> Result<Subscription, LakeError> {
        let as_of = options.as_of.unwrap_or_else(|| self.newest());
        let (send, receive) = mpsc::channel(SUBSCRIBER_EVENTS_MAX);
        let mut send = Some(send);
        let width = schema.fields().len();
        let subscription = self.engine().subscribe(
            id,
            as_of,
            Box::new(move |event| {
                let event = match event {
                    SubscriptionEvent::Changes(changes) if options.no_snapshot && changes.as_of <= as_of => return,
                    SubscriptionEvent::Progress(_) if options.no_progress => return,
                    SubscriptionEvent::Changes(mut changes) => {
                        if changes.rows.num_columns() > width
                            && let Ok(rows) = changes.rows.project(&(0..width).collect::<Vec<_>>())
                        {
                            changes.rows = rows;
                        }
                        SubscriptionEvent::Changes(changes)
                    }
                    other => other,
                };
                // a reader that is too far behind is cut off: its channel ends, which it is told below
                if send.as_ref().is_some_and(|send| send.try_send(event).is_err()) {
                    send = None;
                }
            }),
        )?;
        let following = Following { lake: self.clone(), subscription, view };
        let events = futures::stream::unfold((receive, following, false), |(mut receive, following, ended)| async move {
            if ended {
                return None;
            }
            match receive.recv().await {
                Some(SubscriptionEvent::End(Some(error))) => Some((Err(error.into()), (receive, following, true))),
                Some(event) => {
                    let ended = matches!(event, SubscriptionEvent::End(None));
                    Some((Ok(event), (receive, following, ended)))
                }
                None => {
                    let slow = LakeError {
                        code: "slow_subscriber",
                        sqlstate: "57014",
                        http_status: 503,
                        message: "this subscriber read too slowly and was cut off".to_owned(),
                        hint: Some("subscribe again, with as_of to go on where it was".to_owned()),
                    };
                    Some((Err(slow), (receive, following, true)))
                }
            }
        });
        Ok(Subscription { schema, upsert_key: None, events: events.boxed() })
    }

    pub(super) async fn subscribe_to(&self, subscribe: &Subscribe, position: &Position) -> Result<Subscription, LakeError> {
        let options =
            SubscribeOptions { as_of: subscribe.as_of, no_snapshot: !subscribe.snapshot, no_progress: !subscribe.progress };
        if subscribe.upsert_key.is_some() && !subscribe.progress {
            let message = "ENVELOPE UPSERT needs progress marks, which say when a key's changes are complete: leave PROGRESS out";
            return Err(not_supported(message));
        }
        let followed = self.follow_target(subscribe, options, position).await?;
        upserts_of(followed, subscribe.upsert_key.as_deref())
    }

    async fn follow_target(
        &self,
        subscribe: &Subscribe,
        options: SubscribeOptions,
        position: &Position,
    ) -> Result<(Subscription, Vec<usize>), LakeError> {
        match &subscribe.target {
            SubscribeTarget::Relation(name) => {
                let relation = self.relation(&name.to_string())?;
                if relation.kind == RelationKind::View {
                    return Ok((self.subscribe(&name.to_string(), options).await?, Vec::new()));
                }
                let key = relation.key.clone();
                Ok((self.follow(relation.id, relation.visible_schema(), options, None)?, key))
            }
            SubscribeTarget::Query(query) => {
                let definitions = self.definitions();
                let planned = plan_query(&definitions.catalog, query, position)?;
                let view = query_plan(&planned, &definitions.stored, position)?;
                let id = RelationId(self.0.temporary.fetch_add(1, Ordering::Relaxed));
                let spec = ViewSpec { id, name: "subscription".to_owned(), plan: view.plan, key: view.key.clone(), errors: None };
                let engine = self.engine().clone();
                tokio::task::spawn_blocking(move || engine.create_view(spec)).await.map_err(internal)??;
                self.flush().await?;
                Ok((self.follow(id, view.schema, options, Some(id))?, view.key))
            }
        }
    }
}
