//! Without a broker: what the reader says then. With one: `tests/chain`.

use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::decode::Format;

fn spec() -> Arc<DecodeSpec> {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    Arc::new(DecodeSpec::new("public.trips", schema, vec!["id".into()], Format::DebeziumJson))
}

fn options(brokers: String) -> KafkaOptions {
    KafkaOptions { brokers, topic: "trips".into(), start: Start::Earliest, properties: BTreeMap::new(), once: true }
}

#[test]
fn an_unreachable_broker_is_waited_for_and_named() {
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let brokers = format!("127.0.0.1:{port}");
    let mut reader = open(options(brokers.clone()), spec(), &Positions::default()).unwrap();
    let budget = Budget { wait: Duration::from_millis(10), ..Budget::default() };
    for _ in 0..3 {
        match reader.next(budget) {
            Ok(SourceEvent::Waiting { message, .. }) => assert!(message.contains(&brokers), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reader.lag(), None);
}

#[test]
fn an_unknown_setting_is_refused_at_once() {
    let mut options = options("127.0.0.1:1".into());
    options.properties.insert("sekurity.protocol".into(), "ssl".into());
    let error = open(options, spec(), &Positions::default()).err().unwrap();
    assert!(error.to_string().contains("sekurity.protocol"), "{error}");
}

/// A broker within this process, and a producer for its only topic.
fn broker() -> (rdkafka::mocking::MockCluster<'static, rdkafka::producer::DefaultProducerContext>, rdkafka::producer::BaseProducer)
{
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("trips", 1, 1).unwrap();
    let producer = ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    (cluster, producer)
}

fn produce(producer: &rdkafka::producer::BaseProducer, changes: &[(u32, i64)]) {
    for (transaction, id) in changes {
        let value = format!(r#"{{"before":null,"after":{{"id":{id}}},"source":{{"txId":{transaction}}},"op":"c"}}"#);
        producer
            .send(rdkafka::producer::BaseRecord::<str, str>::to("trips").payload(&value))
            .map_err(|(error, _)| error)
            .unwrap();
    }
    rdkafka::producer::Producer::flush(producer, Duration::from_secs(30)).unwrap();
}

/// The sizes of the next batches, until so many rows have come.
fn batches(reader: &mut dyn SourceReader, budget: Budget, rows: u64) -> Vec<u64> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut sizes = Vec::new();
    while sizes.iter().sum::<u64>() < rows {
        assert!(Instant::now() < deadline, "{sizes:?}");
        if let SourceEvent::Batch { decoded, .. } = reader.next(budget).unwrap() {
            sizes.push(decoded.counters.rows);
        }
    }
    sizes
}

#[test]
fn a_transaction_is_handed_out_whole() {
    let (cluster, producer) = broker();
    let changes: Vec<(u32, i64)> = (0..300).map(|id| (id as u32 / 100, id)).collect();
    produce(&producer, &changes);
    let mut watching = options(cluster.bootstrap_servers());
    watching.once = false;
    let mut reader = open(watching, spec(), &Positions::default()).unwrap();
    // A budget that is used up by one message: without regard to transactions there would be 300 batches.
    let budget = Budget { bytes: 1, wait: Duration::from_millis(50) };
    assert_eq!(batches(reader.as_mut(), budget, 300), [100, 100, 100]);
    // The end of the partition, or nothing for a while, ends a transaction too.
    produce(&producer, &[(3, 300), (3, 301)]);
    assert_eq!(batches(reader.as_mut(), Budget::default(), 2).iter().sum::<u64>(), 2);
}

#[test]
fn a_run_with_an_end_hands_out_the_last_transaction() {
    let (cluster, producer) = broker();
    produce(&producer, &[(1, 1), (1, 2), (2, 3)]);
    let mut reader = open(options(cluster.bootstrap_servers()), spec(), &Positions::default()).unwrap();
    let budget = Budget { bytes: 1, wait: Duration::from_millis(50) };
    assert_eq!(batches(reader.as_mut(), budget, 3), [2, 1]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !matches!(reader.next(budget).unwrap(), SourceEvent::Done) {
        assert!(Instant::now() < deadline);
    }
}
