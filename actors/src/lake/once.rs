//! A run with an end: read everything, answer, report.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use livelake_queries::statement::RelationKind;
use serde::Serialize;

use crate::clock::TickCount;
use crate::lake::Lake;
use crate::service::LakeError;

/// What `--stats` writes.
#[derive(Debug, Serialize)]
pub struct RunStats {
    /// Messages, lines and rows read.
    pub events: u64,
    /// Seconds from the first read until everything was visible, without the process's start.
    pub seconds: f64,
    /// Their quotient.
    pub events_per_second: f64,
    /// Bytes read.
    pub bytes: u64,
    /// Rows that each relation has in the end, where it is kept.
    pub relations: BTreeMap<String, u64>,
    /// The most memory that the process had.
    pub peak_rss_bytes: u64,
    /// Ticks closed.
    pub ticks: u64,
}

impl Lake {
    /// Reads every source to its present end and waits until all of it is visible.
    ///
    /// # Errors
    /// A source that cannot be read, or a failed engine.
    pub async fn read_all(&self) -> Result<Duration, LakeError> {
        let begin = Instant::now();
        self.start_sources();
        {
            let done = self.sources_done();
            let mut done = std::pin::pin!(done);
            tokio::select! {
                outcome = &mut done => outcome?,
                outcome = self.caught_up() => {
                    outcome?;
                    self.begin_epochs().await?;
                    done.await?;
                }
            }
        }
        self.flush().await?;
        Ok(begin.elapsed())
    }

    /// The figures of a run that took so long.
    pub async fn stats(&self, seconds: Duration) -> RunStats {
        let (events, bytes) = self.inputs();
        let relations = self
            .definitions()
            .catalog
            .iter()
            .filter(|relation| !matches!(relation.kind, RelationKind::View | RelationKind::Sink))
            .filter_map(|relation| {
                Some((relation.name.to_string(), u64::try_from(self.engine().size(relation.id)?.rows).unwrap_or(0)))
            })
            .collect();
        RunStats {
            events,
            seconds: seconds.as_secs_f64(),
            events_per_second: events as f64 / seconds.as_secs_f64().max(1e-9),
            bytes,
            relations,
            peak_rss_bytes: crate::memory::peak_bytes(),
            ticks: self.clock().send(TickCount).await.unwrap_or(0),
        }
    }
}
