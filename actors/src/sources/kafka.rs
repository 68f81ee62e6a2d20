//! All partitions of a Kafka topic, by offsets that the lake keeps itself.
//!
//! Partitions are assigned, not subscribed to: no group coordinator deals them out and nothing is committed to the broker, because
//! the offsets that count are the ones in the lake's epochs. A broker that is away and a topic that is not there yet are waited for;
//! librdkafka reconnects by itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Budget, Position, Positions, SourceError, SourceEvent, SourceReader};
use crate::decode::{DecodeSpec, Decoder, Format, Input, Message, decoder};

mod tail;
mod watch;

use tail::Tail;
use watch::Watch;

/// How often to look whether the topic has got more partitions.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait between two tries to reach a broker or to find a topic.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long to wait for a broker's answer about a topic.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Where to begin in a partition that has no recorded position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message there is.
    #[default]
    Earliest,
    /// With what comes from now on.
    Latest,
}

/// What to read and how.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// Where to begin.
    pub start: Start,
    /// Handed to librdkafka as they are (`properties.` already taken off): TLS, SASL, buffer sizes. They win over what is set here.
    pub properties: BTreeMap<String, String>,
    /// Whether to stop at the ends that the partitions have when reading begins.
    pub once: bool,
}

/// Opens the reader of a topic. An unreachable broker is not an error: the reader says that it waits.
///
/// # Errors
/// An unknown setting, a contradictory specification.
pub fn open(options: KafkaOptions, spec: Arc<DecodeSpec>, from: &Positions) -> Result<Box<dyn SourceReader>, SourceError> {
    decoder(&spec)?; // so that a contradiction is known now and not when the broker answers
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        // librdkafka wants a name to assign partitions under, although nothing is ever committed to it.
        .set("group.id", "livelake")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        // An offset that is gone is an error that is reported, not a silent jump.
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("statistics.interval.ms", "1000")
        .set("reconnect.backoff.max.ms", "2000")
        // Also how late the end of a partition is told, which the last transaction waits for.
        .set("fetch.wait.max.ms", "20")
        .set("queued.max.messages.kbytes", "65536");
    for (name, value) in &options.properties {
        config.set(name, value);
    }
    let consumer: BaseConsumer<Watch> = config
        .create_with_context(Watch::default())
        .map_err(|error| SourceError::Kafka(format!("a setting is wrong: {error}")))?;
    Ok(Box::new(KafkaReader {
        topic: options.topic.as_str().into(),
        options,
        transactions: spec.format == Format::DebeziumJson,
        spec,
        consumer,
        recorded: from.clone(),
        partitions: BTreeMap::new(),
        events: VecDeque::new(),
        next_try: Instant::now(),
        trouble: None,
    }))
}

/// A partition that is being read.
struct Partition {
    decoder: Box<dyn Decoder>,
    /// The offset of the next message to decode.
    next: i64,
    /// Where `once` stops.
    stop: Option<i64>,
    /// Bytes taken in since the last hand-out.
    bytes: u64,
    /// Whether anything was taken in since the last hand-out.
    moved: bool,
    finished: bool,
    tail: Tail,
}

impl Partition {
    /// What the decoder has gathered, as an event.
    fn hand_out(&mut self, topic: &str, id: i32) -> SourceEvent {
        self.moved = false;
        self.tail.forget();
        SourceEvent::Batch {
            partition: format!("{topic}/{id}"),
            decoded: self.decoder.take(),
            position: Position::Kafka { offset: self.next },
            bytes: std::mem::take(&mut self.bytes),
        }
    }
}

struct KafkaReader {
    options: KafkaOptions,
    topic: Arc<str>,
    spec: Arc<DecodeSpec>,
    /// Its messages are a database's changes, and a transaction must not be handed out in parts.
    transactions: bool,
    consumer: BaseConsumer<Watch>,
    /// Where the last run stopped, for partitions that are not assigned yet.
    recorded: Positions,
    partitions: BTreeMap<i32, Partition>,
    events: VecDeque<SourceEvent>,
    /// When to ask for the topic's partitions (again).
    next_try: Instant,
    /// Why nothing comes, as long as that is so.
    trouble: Option<String>,
}

impl KafkaReader {
    fn name(&self, partition: i32) -> String {
        format!("{}/{partition}", self.topic)
    }

    /// Finds the topic's partitions and begins to read those that are new.
    ///
    /// # Errors
    /// Why that is not possible now, in words.
    fn find_partitions(&mut self, timeout: Duration) -> Result<(), String> {
        let brokers = &self.options.brokers;
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), timeout)
            .map_err(|error| format!("broker {brokers} cannot be reached: {error}"))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic.as_ref());
        let found: Vec<i32> =
            topic.map_or_else(Vec::new, |topic| topic.partitions().iter().map(|partition| partition.id()).collect());
        if found.is_empty() {
            let why = topic.and_then(|topic| topic.error()).map(|error| format!(" ({})", RDKafkaErrorCode::from(error)));
            return Err(format!("topic {} is not there yet on {brokers}{}", self.topic, why.unwrap_or_default()));
        }
        let new: Vec<i32> = found.into_iter().filter(|id| !self.partitions.contains_key(id)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let first = self.partitions.is_empty();
        for id in new {
            let (low, high) = self
                .consumer
                .fetch_watermarks(&self.topic, id, timeout)
                .map_err(|error| format!("the offsets of {}/{id} cannot be read: {error}", self.topic))?;
            let next = match self.recorded.get(&self.name(id)) {
                Some(Position::Kafka { offset }) => self.checked(id, *offset, low, high),
                // A partition that was added later is read from its beginning, whatever `start` says of the topic.
                _ if self.options.start == Start::Earliest || !first => low,
                _ => high,
            };
            let decoder = decoder(&self.spec).map_err(|error| error.to_string())?;
            let stop = self.options.once.then_some(high);
            let finished = self.options.once && next >= high;
            self.partitions
                .insert(id, Partition { decoder, next, stop, bytes: 0, moved: false, finished, tail: Tail::default() });
        }
        self.assign().map_err(|error| format!("the partitions of {} cannot be assigned: {error}", self.topic))
    }

    /// A recorded offset, or the oldest there is if that one is gone; that is said.
    fn checked(&mut self, partition: i32, offset: i64, low: i64, high: i64) -> i64 {
        if (low..=high).contains(&offset) {
            return offset;
        }
        let name = self.name(partition);
        let notice = if offset < low {
            format!("{name}: messages {offset} to {} were deleted before they were read; going on at {low}", low - 1)
        } else {
            format!("{name} ends at {high}, before the recorded offset {offset}: the topic was made anew; reading it from {low}")
        };
        self.events.push_back(SourceEvent::Notice(notice));
        low
    }

    fn assign(&self) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(self.partitions.len());
        for (id, partition) in &self.partitions {
            list.add_partition_offset(&self.topic, *id, Offset::Offset(partition.next))?;
        }
        self.consumer.assign(&list)
    }

    /// Takes in messages until the budget is used up, or as soon as there is something and no more at once; what may be handed out
    /// then becomes events.
    fn gather(&mut self, budget: Budget) -> Result<(), SourceError> {
        let now = Instant::now();
        let patience = self.partitions.values().filter_map(|partition| partition.tail.patience(now)).min();
        let deadline = now + patience.unwrap_or(budget.wait).min(budget.wait);
        let mut bytes = 0;
        let mut offsets_gone = false;
        // the last message of each partition tells whether a transaction may go on; it is looked at only when all is taken in
        let mut last: BTreeMap<i32, BorrowedMessage<'_>> = BTreeMap::new();
        while bytes < budget.bytes {
            let wait = if bytes > 0 { Duration::ZERO } else { deadline.saturating_duration_since(Instant::now()) };
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    self.trouble = None;
                    let (id, offset) = (message.partition(), message.offset());
                    let Some(partition) = self.partitions.get_mut(&id) else { continue };
                    if partition.finished || offset < partition.next {
                        continue;
                    }
                    if partition.stop.is_some_and(|stop| offset >= stop) {
                        partition.finished = true;
                        continue;
                    }
                    let (key, value) = (message.key(), message.payload());
                    if self.transactions && partition.tail.message(value, Instant::now()) {
                        self.events.push_back(partition.hand_out(&self.topic, id));
                    }
                    partition.decoder.decode(Input::Message(Message {
                        topic: &self.topic,
                        partition: id,
                        offset,
                        key,
                        value,
                    }))?;
                    partition.next = offset + 1;
                    partition.moved = true;
                    partition.finished = partition.stop == Some(offset + 1);
                    let length = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
                    partition.bytes += length as u64;
                    bytes += length.max(1); // tombstones without a key use up the budget too
                    if self.transactions && value.is_some() {
                        last.insert(id, message);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(id))) => {
                    self.trouble = None;
                    // What lies between here and the end that `once` saw are marks of the broker's, not messages.
                    if let Some(partition) = self.partitions.get_mut(&id) {
                        partition.finished |= partition.stop.is_some();
                        if partition.tail.end() {
                            self.events.push_back(partition.hand_out(&self.topic, id));
                            break;
                        }
                    }
                }
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
                ))) => {
                    offsets_gone = true;
                    break;
                }
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => return Err(SourceError::Kafka(code.to_string())),
                Some(Err(error)) => {
                    self.trouble = Some(format!("broker {}: {error}", self.options.brokers));
                    // Asking for the partitions tells when the broker is back, even if no message comes then.
                    self.next_try = self.next_try.min(Instant::now() + 4 * RETRY_INTERVAL);
                    if bytes > 0 || Instant::now() >= deadline {
                        break;
                    }
                }
            }
        }
        let now = Instant::now();
        for (id, partition) in self.partitions.iter_mut().filter(|(_, partition)| partition.moved) {
            let last = last.get(id).and_then(|message| message.payload());
            if !self.transactions || partition.tail.settle(last, now) || partition.finished {
                self.events.push_back(partition.hand_out(&self.topic, *id));
            }
        }
        drop(last);
        if offsets_gone {
            self.start_again();
        }
        Ok(())
    }

    /// After an offset that is gone: the partitions are looked up anew from where they were.
    fn start_again(&mut self) {
        for (id, partition) in self.partitions.iter_mut().filter(|(_, partition)| partition.moved) {
            self.events.push_back(partition.hand_out(&self.topic, *id));
        }
        for (id, partition) in std::mem::take(&mut self.partitions) {
            let name = self.name(id);
            self.recorded.set(name, Position::Kafka { offset: partition.next });
        }
        self.next_try = Instant::now();
    }
}

impl SourceReader for KafkaReader {
    fn next(&mut self, budget: Budget) -> Result<SourceEvent, SourceError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        if Instant::now() >= self.next_try {
            match self.find_partitions(METADATA_TIMEOUT.min(budget.wait.max(RETRY_INTERVAL))) {
                Ok(()) => {
                    self.trouble = None;
                    self.next_try = Instant::now() + PARTITIONS_INTERVAL;
                }
                Err(message) => {
                    self.next_try = Instant::now() + RETRY_INTERVAL;
                    if self.partitions.is_empty() {
                        return Ok(SourceEvent::Waiting { message, until: self.next_try });
                    }
                    self.trouble = Some(message);
                }
            }
        } else if self.partitions.is_empty() {
            let message = format!("waiting for topic {} on {}", self.topic, self.options.brokers);
            return Ok(SourceEvent::Waiting { message, until: self.next_try });
        }
        if !self.partitions.values().all(|partition| partition.finished) {
            self.gather(budget)?;
        }
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        if !self.partitions.is_empty() && self.partitions.values().all(|partition| partition.finished) {
            return Ok(SourceEvent::Done);
        }
        Ok(match &self.trouble {
            Some(message) => SourceEvent::Waiting { message: message.clone(), until: Instant::now() },
            None => SourceEvent::Idle { until: Instant::now() },
        })
    }

    fn lag(&self) -> Option<u64> {
        let ends = self.consumer.context().ends(&self.topic)?;
        let behind = self.partitions.iter().map(|(id, partition)| {
            let end = ends.get(id).copied().unwrap_or(partition.next);
            u64::try_from(end - partition.next).unwrap_or(0)
        });
        Some(behind.sum())
    }
}

#[cfg(test)]
mod tests;
