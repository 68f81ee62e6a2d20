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
