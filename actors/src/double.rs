//! A lake for the servers' tests: tables in an in-memory DataFusion context, subscriptions that the test drives.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::*;
use arrow::datatypes::*;
use async_trait::async_trait;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use livelake_dataflow::protocol::{SubscriptionEvent, Timestamp};
use tokio::sync::mpsc;

use crate::service::*;

/// The one timestamp of the double's answers.
pub(crate) const AS_OF: Timestamp = 1_700_000_000_000_000;

/// The double.
pub(crate) struct Double {
    context: SessionContext,
    subscribers: Mutex<HashMap<String, Vec<mpsc::Sender<SubscriptionEvent>>>>,
    /// What the last subscriber asked for.
    pub(crate) asked: Mutex<Vec<(String, SubscribeOptions)>>,
    /// Statements and parameters as they came.
    pub(crate) executed: Mutex<Vec<(String, Vec<ScalarValue>)>>,
    pub(crate) healthy: AtomicBool,
    /// How many subscription events wait at most for a reader.
    pub(crate) buffer: usize,
}

fn sql_error(error: &DataFusionError) -> LakeError {
    let message = error.strip_backtrace();
    let unknown = message.contains("not found");
    LakeError {
        code: if unknown { "unknown_relation" } else { "invalid_sql" },
        sqlstate: if unknown { "42P01" } else { "42601" },
        http_status: 400,
        message,
        hint: Some("look at SHOW VIEWS".to_owned()),
    }
}

impl Double {
    pub(crate) async fn new() -> Arc<Self> {
        Self::with_buffer(64).await
    }

    pub(crate) async fn with_buffer(buffer: usize) -> Arc<Self> {
        let config = SessionConfig::new().with_default_catalog_and_schema("iceberg", "public").with_information_schema(true);
        let context = SessionContext::new_with_config(config);
        context.sql("CREATE SCHEMA city").await.unwrap();
        let zones = RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef, false),
            ("name", Arc::new(StringArray::from(vec![Some("Alpha"), Some("B, \"b\""), None])), true),
            (
                "fee",
                Arc::new(Decimal128Array::from(vec![Some(1_050), Some(-5), None]).with_precision_and_scale(10, 2).unwrap()),
                true,
            ),
            (
                "seen_at",
                Arc::new(
                    TimestampMicrosecondArray::from(vec![Some(0), Some(1_609_459_200_500_000), None]).with_timezone("+00:00"),
                ),
                true,
            ),
        ])
        .unwrap();
        context.register_table("city.zones", Arc::new(MemTable::try_new(zones.schema(), vec![vec![zones]]).unwrap())).unwrap();
        let notes = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int32, false),
            Field::new("note", DataType::Utf8, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("ok", DataType::Boolean, true),
        ]));
        context.register_table("notes", Arc::new(MemTable::try_new(notes, vec![vec![]]).unwrap())).unwrap();
        Arc::new(Self {
            context,
            subscribers: Mutex::default(),
            asked: Mutex::default(),
            executed: Mutex::default(),
            healthy: AtomicBool::new(true),
            buffer,
        })
    }

    /// Sends an event to all subscribers of a relation; a subscriber whose buffer is full is cut off.
    pub(crate) fn send(&self, relation: &str, event: &SubscriptionEvent) {
        let mut subscribers = self.subscribers.lock().unwrap();
        subscribers.entry(relation.to_owned()).or_default().retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
    }

    /// How many subscriptions of a relation are alive.
    pub(crate) fn subscribers(&self, relation: &str) -> usize {
        let mut subscribers = self.subscribers.lock().unwrap();
        let list = subscribers.entry(relation.to_owned()).or_default();
        list.retain(|subscriber| !subscriber.is_closed());
        list.len()
    }

    async fn schema_of(&self, name: &str) -> SchemaRef {
        Arc::clone(self.context.table(name).await.unwrap().schema().inner())
    }

    fn status(name: &str, kind: RelationKind, schema: SchemaRef, key: &[&str]) -> RelationStatus {
        RelationStatus {
            name: name.to_owned(),
            kind,
            schema,
            key: key.iter().map(ToString::to_string).collect(),
            rows: Some(3),
            bytes: None,
            as_of: AS_OF,
            failure: None,
            sql: format!("CREATE SOMETHING {name}"),
        }
    }
}

#[async_trait]
impl LakeService for Double {
    async fn execute(&self, sql: &str, parameters: Vec<ScalarValue>) -> Result<Answer, LakeError> {
        self.executed.lock().unwrap().push((sql.to_owned(), parameters.clone()));
        let word = sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let none: SchemaRef = Arc::new(Schema::empty());
        if word == "CREATE" {
            return Ok(Answer {
                schema: none,
                as_of: AS_OF,
                rows: futures::stream::empty().boxed(),
                tag: "CREATE MATERIALIZED VIEW".to_owned(),
            });
        }
        if sql == "SELECT broken" {
            let good =
                RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..100_000)) as ArrayRef)]).unwrap();
            let schema = good.schema();
            let bad = LakeError {
                code: "internal",
                sqlstate: "XX000",
                http_status: 500,
                message: "lost halfway".to_owned(),
                hint: None,
            };
            return Ok(Answer {
                schema,
                as_of: AS_OF,
                rows: futures::stream::iter([Ok(good), Err(bad)]).boxed(),
                tag: "SELECT".to_owned(),
            });
        }
        if sql == "SELECT forever" {
            return Ok(Answer { schema: none, as_of: AS_OF, rows: futures::stream::pending().boxed(), tag: "SELECT".to_owned() });
        }
        if sql == "SHOW SINKS" {
            let batch = RecordBatch::try_from_iter([("name", Arc::new(StringArray::from(vec!["zones"])) as ArrayRef)]).unwrap();
            return Ok(Answer {
                schema: batch.schema(),
                as_of: AS_OF,
                rows: futures::stream::iter([Ok(batch)]).boxed(),
                tag: "SHOW".to_owned(),
            });
        }
        let sql = sql.split(" AS OF ").next().unwrap_or(sql);
        let run = async {
            let mut frame = self.context.sql(sql).await?;
            if !parameters.is_empty() {
                frame = frame.with_param_values(ParamValues::from(parameters))?;
            }
            let schema = Arc::clone(frame.schema().inner());
            Ok::<_, DataFusionError>((schema, frame.execute_stream().await?))
        };
        let (schema, mut rows) = run.await.map_err(|error| sql_error(&error))?;
        if word == "INSERT" {
            let mut count = 0;
            while let Some(batch) = rows.next().await {
                count += batch.map_err(|error| sql_error(&error))?.column(0).as_primitive::<UInt64Type>().value(0);
            }
            return Ok(Answer {
                schema: none,
                as_of: AS_OF,
                rows: futures::stream::empty().boxed(),
                tag: format!("INSERT 0 {count}"),
            });
        }
        let tag = if word == "EXPLAIN" { "EXPLAIN" } else { "SELECT" };
        let rows = rows.map(|batch| batch.map_err(|error| sql_error(&error))).boxed();
        Ok(Answer { schema, as_of: AS_OF, rows, tag: tag.to_owned() })
    }

    async fn describe(&self, sql: &str) -> Result<(SchemaRef, Vec<DataType>), LakeError> {
        let word = sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if word == "CREATE" {
            return Ok((Arc::new(Schema::empty()), Vec::new()));
        }
        let state = self.context.state();
        let plan = state.create_logical_plan(sql).await.map_err(|error| sql_error(&error))?;
        let parameters = livelake_queries::session::parameter_types(&plan).map_err(|error| sql_error(&error))?;
        let schema = if word == "INSERT" { Arc::new(Schema::empty()) } else { Arc::clone(plan.schema().inner()) };
        Ok((schema, parameters))
    }

    async fn session(&self) -> Result<(SessionContext, Timestamp), LakeError> {
        Ok((self.context.clone(), AS_OF))
    }

    fn relations(&self) -> Vec<RelationStatus> {
        let schemas = futures::executor::block_on(async { (self.schema_of("city.zones").await, self.schema_of("notes").await) });
        vec![
            Self::status("city.plain", RelationKind::View, Arc::clone(&schemas.0), &[]),
            Self::status("city.zones", RelationKind::MaterializedView, Arc::clone(&schemas.0), &["id"]),
            // As the lake writes them: public is left out.
            Self::status("feed", RelationKind::Source, schemas.0, &["id"]),
            Self::status("notes", RelationKind::Table, schemas.1, &["id"]),
        ]
    }

    fn sources(&self) -> Vec<SourceStatus> {
        vec![SourceStatus {
            name: "public.feed".to_owned(),
            connector: "generator".to_owned(),
            state: "running".to_owned(),
            rows: 10,
            bytes: 100,
            errors: 1,
            ignored_fields: 0,
            rows_per_second: 2.5,
            lag: None,
            message: None,
            restarts: 0,
        }]
    }

    fn epochs(&self, limit: usize) -> Vec<EpochStatus> {
        let epochs = [2, 1].map(|epoch| EpochStatus {
            epoch,
            as_of: AS_OF,
            committed_at: AS_OF,
            milliseconds: 12,
            tables: vec![("city.zones".to_owned(), 7)],
            rows: [("city.zones".to_owned(), livelake_sinks::RowCounts { added: 3, removed: 1 })].into(),
        });
        epochs.into_iter().take(limit).collect()
    }

    fn health(&self) -> Health {
        if self.healthy.load(Ordering::Relaxed) {
            Health { status: "running".to_owned(), problems: Vec::new(), hydration: None }
        } else {
            Health {
                status: "failed".to_owned(),
                problems: vec!["view city.zones failed: division by zero".to_owned()],
                hydration: None,
            }
        }
    }

    fn metrics(&self) -> String {
        "# TYPE livelake_rows counter\nlivelake_rows 3\n".to_owned()
    }

    async fn subscribe(&self, relation: &str, options: SubscribeOptions) -> Result<Subscription, LakeError> {
        self.asked.lock().unwrap().push((relation.to_owned(), options));
        let (send, receive) = mpsc::channel(self.buffer);
        self.subscribers.lock().unwrap().entry(relation.to_owned()).or_default().push(send);
        let slow = LakeError {
            code: "slow_subscriber",
            sqlstate: "57014",
            http_status: 503,
            message: "read too slowly".to_owned(),
            hint: Some("read faster".to_owned()),
        };
        let events =
            futures::stream::unfold(receive, |mut receive| async move { receive.recv().await.map(|event| (Ok(event), receive)) })
                .chain(futures::stream::iter([Err(slow)]))
                .boxed();
        Ok(Subscription { schema: self.schema_of("city.zones").await, upsert_key: None, events })
    }

    async fn subscribe_sql(&self, sql: &str) -> Result<Subscription, LakeError> {
        if !sql.contains("city.zones") {
            return Err(sql_error(&DataFusionError::Plan("relation not found".to_owned())));
        }
        let subscription = self.subscribe("city.zones", SubscribeOptions::default()).await?;
        let upsert_key = sql.contains("ENVELOPE UPSERT").then(|| vec![0]);
        Ok(Subscription { upsert_key, ..subscription })
    }

    async fn insert(&self, table: &str, rows: Vec<RecordBatch>) -> Result<u64, LakeError> {
        let count = rows.iter().map(|batch| batch.num_rows() as u64).sum();
        let schema = self.schema_of(table).await;
        for batch in rows {
            let columns = schema
                .fields()
                .iter()
                .map(|field| match batch.column_by_name(field.name()) {
                    Some(column) => Arc::clone(column),
                    None => new_null_array(field.data_type(), batch.num_rows()),
                })
                .collect();
            let whole = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|error| sql_error(&error.into()))?;
            let frame = self.context.read_batch(whole).map_err(|error| sql_error(&error))?;
            frame
                .write_table(table, datafusion::dataframe::DataFrameWriteOptions::new())
                .await
                .map_err(|error| sql_error(&error))?;
        }
        Ok(count)
    }
}

/// Two changes of `city.zones` at a timestamp: zone `id` replaced.
pub(crate) fn zone_changes(as_of: Timestamp, id: i64) -> SubscriptionEvent {
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![id, id])) as ArrayRef, false),
        ("name", Arc::new(StringArray::from(vec!["old", "new"])), true),
        ("fee", Arc::new(Decimal128Array::from(vec![100, 250]).with_precision_and_scale(10, 2).unwrap()), true),
        ("seen_at", Arc::new(TimestampMicrosecondArray::from(vec![None, Some(0)]).with_timezone("+00:00")), true),
    ])
    .unwrap();
    SubscriptionEvent::Changes(livelake_dataflow::protocol::Changes { as_of, rows, diffs: Int64Array::from(vec![-1, 1]) })
}
