//! Sources that a start reads anew: until they are where the newest epoch had them, views are not what they were.
//!
//! Nobody may see that, neither by a query nor in the tables: an epoch that was cut then would take rows out of the tables and put them
//! back later. So the lake answers and commits only when it has caught up.

use std::time::Duration;

use livelake_queries::RelationName;

use crate::clock::{AllPositions, PositionsOf};
use crate::lake::Lake;
use crate::lake::failure::internal;
use crate::service::LakeError;
use crate::sink_driver::BeginEpochs;

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

impl Lake {
    /// Begins to commit epochs, where the lake has tables.
    pub(crate) async fn begin_epochs(&self) -> Result<(), LakeError> {
        match self.0.sinks.get() {
            None => Ok(()),
            Some(sinks) => sinks.driver.send(BeginEpochs).await.map_err(internal),
        }
    }

    /// Waits until all sources have been read as far as the newest epoch had read them, or to their end, should that have come nearer.
    ///
    /// # Errors
    /// The engine has failed.
    pub async fn caught_up(&self) -> Result<(), LakeError> {
        let none = AllPositions::new();
        for (source, recorded) in self.0.rereads.get().unwrap_or(&none) {
            // what the lake no longer defines is not read
            while self.definitions().catalog.get(&RelationName::parse(source)).is_some() {
                // read before the positions: at its end they do not grow any more
                let ended = self.sources_now().get(source).is_some_and(|running| running.progress.was_at_end());
                let now = self.0.clock.send(PositionsOf(source.clone())).await.map_err(internal)?.unwrap_or_default();
                if now.reach(recorded) {
                    break;
                }
                if ended {
                    tracing::warn!(source, "has less to read than it had: the rows that are gone leave the views and the tables");
                    break;
                }
                if let Some(reason) = self.engine().failure() {
                    return Err(internal(reason));
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
        Ok(())
    }

    /// What keeps the lake from being ready, in words.
    pub(crate) fn waits_for(&self) -> Vec<String> {
        let rereads = self.0.rereads.get();
        let waiting = self.source_statuses().into_iter().filter(|source| {
            let is_reread = rereads.is_some_and(|rereads| rereads.contains_key(&source.name));
            is_reread && matches!(source.state.as_str(), "waiting" | "retrying")
        });
        let words = |message: Option<String>| message.unwrap_or_default();
        waiting
            .map(|source| {
                format!("source {} has to be read again before the lake answers: {}", source.name, words(source.message))
            })
            .collect()
    }
}
