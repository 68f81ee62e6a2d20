//! The sink driver: at every interval, one cut over all tables.
//!
//! It follows every relation that has a table and keeps what changed. For an epoch it asks the clock for a cut (a closed tick T and the
//! sources' positions in it), waits until every relation is complete through T, and commits the net changes up to T of all tables
//! at once. What could not be committed stays and goes with the next try; nothing is lost by failing.
//!
//! After a start, a view's first changes are its whole contents. They are compared with what its table holds, so that only what
//! really differs is written: a restart without news commits nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, ResponseActFuture, WrapFuture};
use async_trait::async_trait;
use livelake_dataflow::handle::{EngineHandle, SubscriptionId};
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::{PeekRequest, SubscriptionEvent, Timestamp};
use livelake_sinks::{Epoch, RowReader, SinkMode, TableChange};
use tokio::sync::{Notify, mpsc};

use crate::clock::{AllPositions, Clock, Cut};
use crate::consolidate::{ChangeList, consolidate};
use crate::lake::failure::internal;
use crate::lake::reader::peek;
use crate::lake::store::{SinkPlan, Store};
use crate::service::{EpochStatus, LakeError};

/// Epochs that are remembered for the outside.
const EPOCHS_KEPT: usize = 1000;

/// What came of a relation and is not committed.
#[derive(Debug, Default)]
struct Inbox {
    /// By their timestamps, in order.
    changes: VecDeque<(Timestamp, (arrow::record_batch::RecordBatch, arrow::array::Int64Array))>,
    upper: Timestamp,
    failure: Option<String>,
}

/// A table, its relation's changes, and what is carried over from a commit that failed.
#[derive(Debug)]
struct Outlet {
    plan: SinkPlan,
    inbox: Arc<Mutex<Inbox>>,
    subscription: SubscriptionId,
    carried: ChangeList,
    /// The table's rows have not been compared with the relation's yet.
    compare: bool,
}

fn lock(inbox: &Mutex<Inbox>) -> MutexGuard<'_, Inbox> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The committed epochs, shared with whoever shows them.
pub type EpochList = Arc<Mutex<VecDeque<EpochStatus>>>;

/// See the module's text.
#[derive(Debug)]
pub struct SinkDriver {
    state: Arc<tokio::sync::Mutex<Driver>>,
    interval: Duration,
    epochs: EpochList,
    failure: Arc<Mutex<Option<String>>>,
}

/// What a commit works on; one at a time.
#[derive(Debug)]
struct Driver {
    engine: EngineHandle,
    clock: Addr<Clock>,
    store: Store,
    outlets: Vec<Outlet>,
    news: Arc<Notify>,
    begin: Timestamp,
    last_positions: AllPositions,
    next_epoch: u64,
}

impl SinkDriver {
    /// A driver over the tables of `plans`. `begin` is the newest epoch's timestamp (0 for a new lake); relations in `hydrated` hold at
    /// that time just what their tables do.
    ///
    /// # Errors
    /// A relation cannot be followed.
    pub fn new(
        engine: EngineHandle,
        clock: Addr<Clock>,
        store: Store,
        plans: Vec<SinkPlan>,
        hydrated: &[RelationId],
        interval: Duration,
        epochs: EpochList,
    ) -> Result<SinkDriver, LakeError> {
        let begin = store.newest.as_ref().map_or(0, |epoch| epoch.timestamp);
        let next_epoch = store.newest.as_ref().map_or(1, |epoch| epoch.number + 1);
        let mut driver = Driver {
            engine,
            clock,
            last_positions: store.positions(),
            store,
            outlets: Vec::new(),
            news: Arc::new(Notify::new()),
            begin,
            next_epoch,
        };
        for plan in plans {
            let same = plan.hydrates && hydrated.contains(&plan.relation);
            driver.add(plan, same)?;
        }
        Ok(SinkDriver { state: Arc::new(tokio::sync::Mutex::new(driver)), interval, epochs, failure: Arc::default() })
    }

    /// Why the last commit failed, if it did; for whoever watches the lake's health.
    pub fn failure(&self) -> Arc<Mutex<Option<String>>> {
        Arc::clone(&self.failure)
    }
}

impl Driver {
    /// Begins to follow a relation for a table. `same`: the table holds the relation's rows as they begin.
    fn add(&mut self, plan: SinkPlan, same: bool) -> Result<(), LakeError> {
        let inbox: Arc<Mutex<Inbox>> = Arc::default();
        let (filled, news, begin) = (Arc::clone(&inbox), Arc::clone(&self.news), self.engine.last_tick());
        let width = plan.schema.fields().len();
        let subscription = self.engine.subscribe(
            plan.relation,
            begin,
            Box::new(move |event| {
                let mut inbox = lock(&filled);
                match event {
                    SubscriptionEvent::Changes(changes) if same && changes.as_of <= begin => {}
                    SubscriptionEvent::Changes(changes) => {
                        // hidden columns come last and are not written
                        let visible: Vec<usize> = (0..width.min(changes.rows.num_columns())).collect();
                        match changes.rows.project(&visible) {
                            Ok(rows) => inbox.changes.push_back((changes.as_of, (rows, changes.diffs))),
                            Err(error) => inbox.failure = Some(error.to_string()),
                        }
                    }
                    SubscriptionEvent::Progress(upper) => {
                        inbox.upper = upper;
                        news.notify_waiters();
                    }
                    SubscriptionEvent::End(error) => {
                        inbox.upper = Timestamp::MAX;
                        inbox.failure = error.map(|error| error.to_string());
                        news.notify_waiters();
                    }
                }
            }),
        )?;
        self.outlets.push(Outlet { compare: !same && self.begin > 0, plan, inbox, subscription, carried: Vec::new() });
        Ok(())
    }

    /// Stops following for some tables.
    fn remove(&mut self, is_gone: impl Fn(&Outlet) -> bool) {
        let (gone, kept): (Vec<Outlet>, Vec<Outlet>) = std::mem::take(&mut self.outlets).into_iter().partition(is_gone);
        self.outlets = kept;
        for outlet in gone {
            self.engine.unsubscribe(outlet.subscription);
        }
    }

    /// Waits until every outlet has all changes through `time`.
    async fn wait_for(&self, time: Timestamp) -> Result<(), LakeError> {
        loop {
            let news = self.news.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            if self.outlets.iter().all(|outlet| lock(&outlet.inbox).upper > time) {
                return Ok(());
            }
            if let Some(reason) = self.engine.failure() {
                return Err(internal(reason));
            }
            // a failed engine says nothing more, so look again now and then
            let _ = tokio::time::timeout(Duration::from_secs(1), news).await;
        }
    }

    /// The table's rows, each taken away once: with the relation's contents they sum up to what differs.
    async fn table_rows(&self, plan: &SinkPlan) -> Result<ChangeList, LakeError> {
        let existing = self.store.tables.tables().await.map_err(internal)?;
        if plan.mode == SinkMode::Changelog || !existing.iter().any(|table| table.table == plan.table) {
            return Ok(Vec::new());
        }
        let (send, mut receive) = mpsc::channel(4);
        let (tables, table, schema) = (self.store.tables.clone(), plan.table.clone(), Arc::clone(&plan.schema));
        let reading = tokio::spawn(async move { tables.read(&table, schema, send).await });
        let mut rows = Vec::new();
        while let Some(batch) = receive.recv().await {
            let minus = arrow::array::Int64Array::from(vec![-1; batch.num_rows()]);
            rows.push((batch, minus));
        }
        reading.await.map_err(internal)?.map_err(internal)?;
        Ok(rows)
    }

    /// One epoch; `None` if nothing changed.
    async fn commit(&mut self) -> Result<Option<EpochStatus>, LakeError> {
        let (time, positions) = self.clock.send(Cut).await.map_err(internal)?;
        self.wait_for(time).await?;
        let began = Instant::now();
        let mut changes = Vec::new();
        for index in 0..self.outlets.len() {
            if self.outlets[index].compare {
                let rows = self.table_rows(&self.outlets[index].plan).await?;
                self.outlets[index].carried.extend(rows);
                self.outlets[index].compare = false;
            }
            let outlet = &mut self.outlets[index];
            {
                let mut inbox = lock(&outlet.inbox);
                if let Some(failure) = &inbox.failure {
                    return Err(internal(format!("{}: {failure}", outlet.plan.table)));
                }
                let due = inbox.changes.partition_point(|(as_of, _)| *as_of <= time);
                outlet.carried.extend(inbox.changes.drain(..due).map(|(_, change)| change));
            }
            outlet.carried = consolidate(&outlet.plan.schema, &outlet.carried).map_err(internal)?;
            if !outlet.carried.is_empty() {
                changes.push(TableChange {
                    table: outlet.plan.table.clone(),
                    relation: outlet.plan.relation,
                    schema: Arc::clone(&outlet.plan.schema),
                    partition_by: outlet.plan.partition_by.clone(),
                    mode: outlet.plan.mode,
                    changes: outlet.carried.clone(),
                    replace: false,
                    comment: None,
                });
            }
        }
        if changes.is_empty() && positions == self.last_positions {
            return Ok(None);
        }
        let epoch =
            Epoch { number: self.next_epoch, timestamp: time, positions: serde_json::to_value(&positions).map_err(internal)? };
        let rows = Arc::new(EngineRows { engine: self.engine.clone(), columns: self.columns() });
        let report = self.store.tables.commit(&epoch, changes, &[], rows).await.map_err(internal)?;
        self.next_epoch += 1;
        self.last_positions = positions;
        self.outlets.iter_mut().for_each(|outlet| outlet.carried.clear());
        let committed_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as Timestamp);
        Ok(Some(EpochStatus {
            epoch: epoch.number,
            as_of: time,
            committed_at,
            milliseconds: began.elapsed().as_millis() as u64,
            tables: report.tables.iter().map(|table| (table.table.to_string(), table.snapshot.unwrap_or(-1))).collect(),
        }))
    }

    fn columns(&self) -> Vec<(RelationId, usize)> {
        self.outlets.iter().map(|outlet| (outlet.plan.relation, outlet.plan.schema.fields().len())).collect()
    }
}

/// The engine's rows for partitions that have to be written anew.
#[derive(Debug)]
struct EngineRows {
    engine: EngineHandle,
    /// How many columns of each relation are written.
    columns: Vec<(RelationId, usize)>,
}

#[async_trait]
impl RowReader for EngineRows {
    async fn read(
        &self,
        relation: RelationId,
        as_of: Timestamp,
        rows: mpsc::Sender<arrow::record_batch::RecordBatch>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let projection = self.columns.iter().find(|(id, _)| *id == relation).map(|(_, count)| (0..*count).collect());
        for batch in peek(&self.engine, PeekRequest { id: relation, as_of, key: None, limit: None, projection }).await? {
            if rows.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl Actor for SinkDriver {
    type Context = Context<Self>;
}

/// Begin to commit by itself: what the last epoch held is in the views.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct BeginEpochs;

impl Handler<BeginEpochs> for SinkDriver {
    type Result = ();

    fn handle(&mut self, _: BeginEpochs, context: &mut Self::Context) {
        // the first epoch comes soon, so that a new lake can be looked at with other tools
        context.run_later(self.interval.min(Duration::from_secs(5)), Self::tick);
    }
}

impl SinkDriver {
    fn tick(&mut self, context: &mut Context<Self>) {
        let commit = context.address();
        let done = async move { commit.send(CommitNow).await };
        context.spawn(done.into_actor(self).map(|_, driver: &mut SinkDriver, context: &mut Context<SinkDriver>| {
            context.run_later(driver.interval, SinkDriver::tick);
        }));
    }
}

/// Commit an epoch now; answered when it is durable, with its number, or `None` if nothing changed.
#[derive(Debug, Message)]
#[rtype(result = "Result<Option<u64>, LakeError>")]
pub struct CommitNow;

impl Handler<CommitNow> for SinkDriver {
    type Result = ResponseActFuture<Self, Result<Option<u64>, LakeError>>;

    fn handle(&mut self, _: CommitNow, _: &mut Self::Context) -> Self::Result {
        let state = Arc::clone(&self.state);
        let work = async move { state.lock().await.commit().await };
        Box::pin(work.into_actor(self).map(|outcome, driver, _| {
            let mut failure = driver.failure.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(None) => {
                    *failure = None;
                    Ok(None)
                }
                Ok(Some(status)) => {
                    *failure = None;
                    tracing::info!(
                        epoch = status.epoch,
                        as_of = status.as_of,
                        tables = status.tables.len(),
                        milliseconds = status.milliseconds,
                        "epoch committed"
                    );
                    let number = status.epoch;
                    let mut epochs = driver.epochs.lock().unwrap_or_else(PoisonError::into_inner);
                    epochs.push_front(status);
                    epochs.truncate(EPOCHS_KEPT);
                    Ok(Some(number))
                }
                Err(error) => {
                    tracing::error!(error = error.message, "an epoch could not be committed; its changes go with the next one");
                    *failure = Some(error.message.clone());
                    Err(error)
                }
            }
        }))
    }
}

/// Wait until files that nobody reaches any more are deleted.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Settle;

impl Handler<Settle> for SinkDriver {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Settle, _: &mut Self::Context) -> Self::Result {
        let state = Arc::clone(&self.state);
        let work = async move { state.lock().await.store.tables.settle().await };
        Box::pin(work.into_actor(self))
    }
}

/// Follow one more relation, or stop following those of a table.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), LakeError>")]
pub enum ChangeSinks {
    /// A new table.
    Add(SinkPlan),
    /// No more changes of this relation go to any table.
    Remove(RelationId),
    /// Nothing more goes to this table.
    RemoveTable(String),
}

impl Handler<ChangeSinks> for SinkDriver {
    type Result = ResponseActFuture<Self, Result<(), LakeError>>;

    fn handle(&mut self, change: ChangeSinks, _: &mut Self::Context) -> Self::Result {
        let state = Arc::clone(&self.state);
        let work = async move {
            let mut driver = state.lock().await;
            match change {
                ChangeSinks::Add(plan) => {
                    driver.add(plan, false)?;
                    // a table of that name may be there from an earlier time
                    if let Some(outlet) = driver.outlets.last_mut() {
                        outlet.compare = true;
                    }
                    Ok(())
                }
                ChangeSinks::Remove(relation) => {
                    driver.remove(|outlet| outlet.plan.relation == relation);
                    Ok(())
                }
                ChangeSinks::RemoveTable(table) => {
                    driver.remove(|outlet| outlet.plan.table.to_string() == table);
                    Ok(())
                }
            }
        };
        Box::pin(work.into_actor(self))
    }
}
