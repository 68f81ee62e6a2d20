//! What librdkafka tells of itself: the ends of the partitions, and log lines.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;

/// Remembers the newest ends of partitions, by topic.
#[derive(Debug, Default)]
pub(super) struct Watch {
    ends: Mutex<HashMap<String, HashMap<i32, i64>>>,
}

impl Watch {
    /// The offsets after the last messages, by partition, as last heard of (about a second ago).
    pub(super) fn ends(&self, topic: &str) -> Option<HashMap<i32, i64>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()
    }
}

impl ClientContext for Watch {
    fn stats(&self, statistics: Statistics) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, topic) in statistics.topics {
            let known = topic.partitions.into_iter().filter(|(id, partition)| *id >= 0 && partition.hi_offset >= 0);
            ends.insert(name, known.map(|(id, partition)| (id, partition.hi_offset)).collect());
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters to the operator is said by the reader's own events; this is for those who look for a cause.
        tracing::debug!(target: "librdkafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Watch {}
