//! Real change messages: rows changed in PostgreSQL, sent by Debezium through Kafka, read by `sources::kafka`, and compared with what
//! PostgreSQL itself answers. Starts its own chain; see README.md beside this file.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use livelake_actors::decode::{DecodeSpec, Decoded, Format};
use livelake_actors::sources::kafka::{KafkaOptions, Start, open};
use livelake_actors::sources::{Budget, Positions, SourceEvent, SourceReader};
use livelake_dataflow::protocol::{InputBatch, Op};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// A machine with much else to do needs minutes for what takes seconds otherwise.
const PATIENCE: Duration = Duration::from_secs(180);

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/chain")
}

/// A running chain; stopped and forgotten when dropped.
struct Chain {
    folder: PathBuf,
    database: String,
    brokers: String,
    psql: String,
}

impl Chain {
    fn start() -> Self {
        // In /tmp itself, because PostgreSQL's user must be able to reach it.
        let folder = std::env::temp_dir().join(format!("livelake-chain-{}", std::process::id()));
        let listeners: Vec<_> = (0..4).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<String> = listeners.iter().map(|one| one.local_addr().unwrap().port().to_string()).collect();
        drop(listeners);
        let names = ["PG_PORT", "KAFKA_PORT", "CONTROLLER_PORT", "CONNECT_PORT"];
        let done =
            Command::new(scripts().join("up.sh")).arg(&folder).envs(names.iter().zip(&ports)).stdout(Stdio::null()).status();
        assert!(done.unwrap().success(), "the chain does not start");
        let env = std::fs::read_to_string(folder.join("env")).unwrap();
        let value = |name: &str| {
            let line = env.lines().find_map(|line| line.strip_prefix(&format!("export {name}="))).unwrap();
            line.trim_matches('"').to_owned()
        };
        Chain { database: value("DATABASE_URL"), brokers: value("KAFKA_BROKERS"), psql: value("PSQL"), folder }
    }

    fn psql(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.psql)
            .arg(&self.database)
            .args(["-qAt", "-v", "ON_ERROR_STOP=1", "-P", "null=∅"])
            .args(arguments)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn sql(&self, statements: &str) {
        self.psql(&["-c", statements]);
    }

    /// Rows of a query, as text.
    fn rows(&self, query: &str) -> Vec<String> {
        let mut rows: Vec<String> = self.psql(&["-c", query]).lines().map(str::to_owned).collect();
        rows.sort();
        rows
    }

    fn connect(&self, name: &str) {
        let done = Command::new(scripts().join("connector.sh")).arg(&self.folder).arg(name).status();
        assert!(done.unwrap().success(), "the connector does not start");
    }

    fn reader(&self, table: &Table, once: bool, from: &Positions) -> Box<dyn SourceReader> {
        let options = KafkaOptions {
            brokers: self.brokers.clone(),
            topic: table.topic.into(),
            start: Start::Earliest,
            properties: BTreeMap::new(),
            once,
        };
        open(options, Arc::clone(&table.spec), from).unwrap()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = Command::new(scripts().join("down.sh")).arg(&self.folder).status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A table, how it is read and how PostgreSQL shows it in the same form.
struct Table {
    topic: &'static str,
    spec: Arc<DecodeSpec>,
    query: &'static str,
}

fn table(topic: &'static str, columns: &[(&str, DataType)], key: &[&str], query: &'static str) -> Table {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), !key.contains(name));
    let schema: SchemaRef = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    let key = key.iter().map(|name| (*name).to_owned()).collect();
    Table { topic, spec: Arc::new(DecodeSpec::new(topic, schema, key, Format::DebeziumJson)), query }
}

fn tables() -> Vec<Table> {
    let stamp = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    vec![
        table(
            "shop.orders",
            &[
                ("id", DataType::Int64),
                ("customer", DataType::Utf8),
                ("quantity", DataType::Int32),
                ("price", DataType::Decimal128(10, 2)),
                ("weight", DataType::Float64),
                ("express", DataType::Boolean),
                ("ordered_at", stamp(None)),
                ("changed_at", stamp(Some("UTC"))),
                ("delivery", DataType::Date32),
            ],
            &["id"],
            r#"select id, customer, quantity, price, weight, express::text, to_char(ordered_at, 'YYYY-MM-DD"T"HH24:MI:SS'),
               to_char(changed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), delivery from orders"#,
        ),
        table(
            "shop.stock",
            &[("warehouse", DataType::Utf8), ("article", DataType::Int32), ("pieces", DataType::Int32)],
            &["warehouse", "article"],
            "select * from stock",
        ),
        table(
            "shop.readings",
            &[("sensor", DataType::Utf8), ("value", DataType::Decimal128(8, 3))],
            &[],
            "select * from readings",
        ),
    ]
}

/// What was read of a table.
#[derive(Default)]
struct Contents {
    rows: BTreeMap<String, (String, i64)>,
    errors: Vec<String>,
    positions: Positions,
}

impl Contents {
    fn apply(&mut self, decoded: Decoded, key: usize) {
        for input in decoded.inputs {
            let InputBatch::Rows { rows, ops } = input else {
                self.rows.clear();
                continue;
            };
            let options = FormatOptions::default().with_null("∅");
            let columns: Vec<_> =
                rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
            for row in 0..rows.num_rows() {
                let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
                let line = cells.join("|");
                let name = if key == 0 { line.clone() } else { cells[..key].join("|") };
                let usual = if key == 0 { Op::Insert } else { Op::Upsert };
                match ops.as_ref().map_or(usual as u8, |ops| ops[row]) {
                    code if code == Op::Upsert as u8 => _ = self.rows.insert(name, (line, 1)),
                    code if code == Op::Delete as u8 => _ = self.rows.remove(&name),
                    code if code == Op::Insert as u8 => self.rows.entry(name).or_insert((line, 0)).1 += 1,
                    _ => self.rows.entry(name).or_insert((line, 0)).1 -= 1,
                }
            }
            self.rows.retain(|_, (_, count)| *count != 0);
        }
        if let Some(errors) = decoded.errors {
            self.errors.extend(errors.column(3).as_string::<i32>().iter().flatten().map(str::to_owned));
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .rows
            .values()
            .flat_map(|(line, count)| std::iter::repeat_n(line.clone(), usize::try_from(*count).unwrap()))
            .collect();
        lines.sort();
        lines
    }

    /// Reads until the rows are the wanted ones, or to the end where there is one.
    fn read(&mut self, reader: &mut dyn SourceReader, table: &Table, wanted: Option<&[String]>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match reader.next(Budget::default()).unwrap() {
                SourceEvent::Batch { partition, decoded, position, .. } => {
                    self.positions.set(partition, position);
                    self.apply(decoded, table.spec.key.len());
                }
                SourceEvent::Done => return,
                SourceEvent::Idle { .. } | SourceEvent::Waiting { .. } if wanted.is_some_and(|wanted| self.lines() == wanted) => {
                    return;
                }
                SourceEvent::Idle { .. } | SourceEvent::Waiting { .. } | SourceEvent::Notice(_) => {}
            }
            assert!(Instant::now() < deadline, "{}: {}", table.topic, difference(&self.lines(), wanted.unwrap_or_default()));
        }
    }
}

/// The first lines that only one side has.
fn difference(read: &[String], wanted: &[String]) -> String {
    let only =
        |one: &[String], other: &[String]| one.iter().filter(|line| !other.contains(line)).take(3).cloned().collect::<Vec<_>>();
    format!("read but not there: {:#?}, there but not read: {:#?}", only(read, wanted), only(wanted, read))
}

#[test]
fn what_postgresql_holds_is_what_is_read() {
    let chain = Chain::start();
    let tables = tables();
    let mut contents: Vec<Contents> = tables.iter().map(|_| Contents::default()).collect();

    // The topic is not there yet: that is said and waited for.
    let mut early = chain.reader(&tables[0], false, &Positions::default());
    match early.next(Budget::default()).unwrap() {
        SourceEvent::Waiting { message, .. } => assert!(message.contains("shop.orders"), "{message}"),
        other => panic!("{other:?}"),
    }

    chain.psql(&["-f", scripts().join("schema.sql").to_str().unwrap()]);
    chain.sql(
        "insert into orders select n, 'customer ' || n, n % 7, n * 1.25, n / 4.0 + 0.125, n % 2 = 0,
                timestamp '2024-03-10 01:00' + n * interval '7 minutes', '2024-03-10 02:30-05', date '2024-02-28' + n from generate_series(1, 200) n;
         insert into stock select 'w' || n % 3, n, n * 10 from generate_series(1, 30) n;
         insert into readings values ('a', 1.5), ('a', 1.5), (null, null);",
    );
    chain.connect("shop");
    chain.sql(
        "begin; update orders set price = -0.05, quantity = null where id % 10 = 0; delete from orders where id % 9 = 0;
                update orders set id = 1000 where id = 1; commit;
         begin; delete from orders; rollback;
         insert into orders values (2000, 'Zoë \"Z\" \\ 東京', 1, 99999999.99, 'NaN', true, '1969-12-31 23:59:59', '2024-07-01 00:00+00', null);
         truncate stock; insert into stock values ('north', 1, 5), ('north', 2, 6), ('south', 1, 7);
         update stock set article = 9 where warehouse = 'south';
         delete from readings where ctid in (select ctid from readings where sensor = 'a' limit 1);
         update readings set value = 2.125 where sensor is null;",
    );
    for (at, table) in tables.iter().enumerate() {
        let mut reader = chain.reader(table, false, &Positions::default());
        let wanted = chain.rows(table.query);
        assert!(!wanted.is_empty());
        contents[at].read(reader.as_mut(), table, Some(&wanted));
        assert!(contents[at].errors.is_empty(), "{:?}", contents[at].errors);
    }
    let mut orders = Contents::default();
    orders.read(early.as_mut(), &tables[0], Some(&chain.rows(tables[0].query)));
    assert_eq!(orders.positions, contents[0].positions);

    // A message that is none, then more changes: reading goes on at the recorded positions, as after a restart.
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &chain.brokers).create().unwrap();
    producer.send(BaseRecord::to("shop.orders").key("{\"id\":7}").payload("{\"before\":null,\"after\":{\"id\":")).unwrap();
    producer.flush(PATIENCE).unwrap();
    chain.sql("insert into orders select n, 'late', 1, 0, 0.5, false, '2024-01-01', '2024-01-01 00:00+00', null from generate_series(3001, 3500) n");
    chain.sql("delete from stock where article = 2; insert into readings values ('b', 0.001)");
    for (at, table) in tables.iter().enumerate() {
        let mut reader = chain.reader(table, false, &contents[at].positions.clone());
        contents[at].read(reader.as_mut(), table, Some(&chain.rows(table.query)));
    }
    assert_eq!(contents[0].errors.len(), 1, "{:?}", contents[0].errors);
    assert!(contents[0].errors[0].contains("malformed JSON"));

    // Everything from its beginning to its present end, and no further.
    for (at, table) in tables.iter().enumerate() {
        let mut whole = Contents::default();
        whole.read(chain.reader(table, true, &Positions::default()).as_mut(), table, None);
        assert_eq!(whole.lines(), contents[at].lines(), "{}", table.topic);
        assert_eq!(whole.positions, contents[at].positions, "{}", table.topic);
        let mut nothing = Contents::default();
        nothing.read(chain.reader(table, true, &whole.positions).as_mut(), table, None);
        assert!(nothing.rows.is_empty() && nothing.positions == Positions::default());
    }
}
