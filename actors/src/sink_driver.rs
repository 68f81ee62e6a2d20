//! The sink driver: at every interval, one cut over all tables.
//!
//! It follows every relation that has a table and keeps what changed. For an epoch it asks the clock for a cut (a closed tick T and the
//! sources' positions in it), waits until every relation is complete through T, and commits the net changes up to T of all tables
//! at once.
//!
//! An epoch that was sent and not acknowledged is sent again as it was (number, timestamp, changes, positions) until it is known to be
//! there: the tables look for it first, so a commit whose answer got lost is found and not made twice. Only when it is known not to be
//! there and the engine no longer has the rows of its timestamp, its changes go with a later cut. Tries follow with a growing
//! pause, and so does a try after a panic; views answer all the while.
//!
//! A relation without rows has a table too, from the first epoch on.
//!
//! After a start, a view's first changes are its whole contents. They are compared with what its table holds, so that only what
//! really differs is written: a restart without news commits nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, ResponseActFuture, WrapFuture};
use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Schema};
use livelake_dataflow::handle::{EngineHandle, SubscriptionId, panic_words};
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::{SubscriptionEvent, Timestamp};
use livelake_sinks::mode::{OP_COLUMN, RETRACTED};
use livelake_sinks::{Epoch, SinkMode, TableChange, TableDrop, TableOutlook};
use tokio::sync::{Notify, mpsc};

use crate::clock::{AllPositions, Clock, Cut};
use crate::config::{Epochs, Maintenance};
use crate::consolidate::{ChangeList, consolidate};
use crate::lake::failure::internal;
use crate::lake::store::{EpochWriter, SinkPlan, Store};
use crate::service::{EpochStatus, LakeError};

mod pending;
mod requests;
mod upkeep;

use pending::Pending;
pub use requests::{ChangeSinks, Settle};
use upkeep::Keeper;
pub use upkeep::{Upkeep, Vacuum};

/// Epochs that are remembered for the outside.
const EPOCHS_KEPT: usize = 1000;
/// The first pause after a commit that failed; it doubles up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// The longest pause.
const BACKOFF_LAST: Duration = Duration::from_secs(30);

/// What came of a relation and is not committed.
#[derive(Debug, Default)]
struct Inbox {
    /// By their timestamps, in order.
    changes: VecDeque<(Timestamp, (arrow::record_batch::RecordBatch, Int64Array))>,
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
    /// The table is known to be there.
    made: bool,
    /// Its columns or partitions are not the table's, so it is part of the next epoch whether rows change or not.
    reshaped: bool,
    /// Changes do not add up to the relation's rows, so the table gets all of them each time it changes: see [`Driver::send`].
    replaces: bool,
    /// When a cut last took its changes, for tables that are not part of every epoch.
    taken: Option<Instant>,
}

impl Outlet {
    /// Whether its changes go with a cut that is made now. Half an interval of the lake's early is on time: its cuts are not to the second.
    fn is_due(&self, interval: Duration) -> bool {
        match (self.plan.every, self.taken) {
            (Some(every), Some(taken)) => taken.elapsed() + interval / 2 >= every,
            _ => true,
        }
    }
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
    backoff: Duration,
    failure: Arc<Mutex<Option<String>>>,
    keeper: Keeper,
}

/// What a commit works on; one at a time.
#[derive(Debug)]
struct Driver {
    engine: EngineHandle,
    clock: Addr<Clock>,
    store: Store,
    writer: Arc<dyn EpochWriter>,
    interval: Duration,
    epochs: EpochList,
    outlets: Vec<Outlet>,
    news: Arc<Notify>,
    begin: Timestamp,
    last_positions: AllPositions,
    next_epoch: u64,
    /// An epoch that was made and is not known to be there.
    pending: Option<Pending>,
    /// The tables that are there were compared with what is defined.
    looked: bool,
    /// Tables that go with the next epoch.
    drops: Vec<TableDrop>,
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
        settings: (&Epochs, &Maintenance),
        epochs: EpochList,
    ) -> Result<SinkDriver, LakeError> {
        let interval = settings.0.interval;
        let keeper = Keeper { tables: store.tables.clone(), settings: settings.1.clone(), done: Arc::default() };
        let begin = store.newest.as_ref().map_or(0, |epoch| epoch.timestamp);
        let next_epoch = store.newest.as_ref().map_or(1, |epoch| epoch.number + 1);
        let mut driver = Driver {
            engine,
            clock,
            last_positions: store.positions(),
            writer: Arc::new(store.tables.clone()),
            store,
            interval,
            epochs,
            outlets: Vec::new(),
            news: Arc::new(Notify::new()),
            begin,
            next_epoch,
            pending: None,
            looked: false,
            drops: Vec::new(),
        };
        for plan in plans {
            let same = plan.hydrates && hydrated.contains(&plan.relation);
            driver.add(plan, same)?;
        }
        let state = Arc::new(tokio::sync::Mutex::new(driver));
        Ok(SinkDriver { state, interval, backoff: BACKOFF_FIRST, failure: Arc::default(), keeper })
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
        let compare = !same && self.begin > 0;
        self.outlets.push(Outlet {
            compare,
            made: false,
            reshaped: false,
            replaces: false,
            plan,
            inbox,
            subscription,
            carried: Vec::new(),
            taken: None,
        });
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

    /// What the table says that the relation holds, taken away: with the relation's contents it sums up to what differs. A changelog
    /// says it by all of its changes together.
    async fn table_rows(&self, plan: &SinkPlan) -> Result<ChangeList, LakeError> {
        let log = plan.mode == SinkMode::Changelog;
        let op = log.then(|| Arc::new(Field::new(OP_COLUMN, DataType::Utf8, false)));
        let schema = Arc::new(Schema::new(plan.schema.fields().iter().cloned().chain(op).collect::<Vec<_>>()));
        let (send, mut receive) = mpsc::channel(4);
        let (tables, table) = (self.store.tables.clone(), plan.table.clone());
        let reading = tokio::spawn(async move { tables.read(&table, schema, send).await });
        let mut rows = Vec::new();
        let visible: Vec<usize> = (0..plan.schema.fields().len()).collect();
        while let Some(batch) = receive.recv().await {
            let minus: Int64Array = match batch.column_by_name(OP_COLUMN).filter(|_| log) {
                None => std::iter::repeat_n(-1, batch.num_rows()).collect(),
                Some(ops) => ops.as_string::<i32>().iter().map(|op| if op == Some(RETRACTED) { 1 } else { -1 }).collect(),
            };
            rows.push((batch.project(&visible).map_err(internal)?, minus));
        }
        reading.await.map_err(internal)?.map_err(internal)?;
        Ok(rows)
    }

    /// Commits what is pending and then, unless nothing changed, a new cut; the number of the newest epoch that this made.
    async fn commit(&mut self, all: bool) -> Result<Option<u64>, LakeError> {
        let earlier = match self.send().await {
            // it is known not to be there, and its changes go with this cut
            Err(_) if self.pending.is_none() => None,
            outcome => outcome?,
        };
        self.cut(all).await?;
        Ok(self.send().await?.or(earlier))
    }

    /// Finds out which tables changed their shape while the lake was down, and which nothing writes any more: those of views leave the catalog
    /// with the next epoch (their files stay), those of sources and tables stay as they are.
    async fn look(&mut self) -> Result<(), LakeError> {
        let wanted: Vec<_> = self.outlets.iter().map(|outlet| outlet.plan.wanted()).collect();
        for outlook in self.store.tables.outlook(&wanted).await.map_err(internal)? {
            tracing::info!("{outlook}");
            match outlook {
                TableOutlook::Changed { table, .. } => {
                    self.outlets.iter_mut().filter(|outlet| outlet.plan.table == table).for_each(|outlet| outlet.reshaped = true);
                }
                TableOutlook::Left { table, derived: true } => self.drops.push(TableDrop { table, purge: false }),
                TableOutlook::Left { table, .. } => tracing::warn!(%table, "holds what was read, so it stays: drop it by hand"),
                TableOutlook::Made(_) | TableOutlook::Refused(..) => {}
            }
        }
        self.looked = true;
        Ok(())
    }

    /// Makes an epoch of a new cut; nothing if nothing changed. `all`: tables that are not due go with it too.
    async fn cut(&mut self, all: bool) -> Result<(), LakeError> {
        let (time, positions) = self.clock.send(Cut).await.map_err(internal)?;
        self.wait_for(time).await?;
        if !self.looked {
            self.look().await?;
        }
        if self.outlets.iter().any(|outlet| !outlet.made) {
            let existing = self.store.tables.tables().await.map_err(internal)?;
            for outlet in &mut self.outlets {
                outlet.made |= existing.iter().any(|table| table.table == outlet.plan.table);
            }
        }
        let mut changes = Vec::new();
        for index in 0..self.outlets.len() {
            if self.outlets[index].compare && self.outlets[index].made {
                let rows = self.table_rows(&self.outlets[index].plan).await?;
                self.outlets[index].carried.extend(rows);
            }
            self.outlets[index].compare = false;
            let due = all || self.outlets[index].is_due(self.interval);
            let outlet = &mut self.outlets[index];
            {
                let mut inbox = lock(&outlet.inbox);
                if let Some(failure) = &inbox.failure {
                    return Err(internal(format!("{}: {failure}", outlet.plan.table)));
                }
                let through = inbox.changes.partition_point(|(as_of, _)| *as_of <= time);
                outlet.carried.extend(inbox.changes.drain(..through).map(|(_, change)| change));
            }
            outlet.carried = consolidate(&outlet.plan.schema, &outlet.carried).map_err(internal)?;
            if !due {
                continue;
            }
            outlet.taken = Some(Instant::now());
            if !outlet.carried.is_empty() || !outlet.made || outlet.reshaped {
                changes.push(TableChange {
                    table: outlet.plan.table.clone(),
                    relation: outlet.plan.relation,
                    schema: Arc::clone(&outlet.plan.schema),
                    partition_by: outlet.plan.partition_by.clone(),
                    mode: outlet.plan.mode,
                    changes: outlet.carried.clone(),
                    replace: outlet.replaces,
                    key: outlet.plan.key.clone(),
                    derived: outlet.plan.derived,
                    comment: None,
                });
            }
        }
        let drops = self.drops.clone();
        if changes.is_empty() && drops.is_empty() && positions == self.last_positions {
            return Ok(());
        }
        let epoch =
            Epoch { number: self.next_epoch, timestamp: time, positions: serde_json::to_value(&positions).map_err(internal)? };
        self.pending = Some(Pending { epoch, positions, changes, drops });
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
        self.begin_upkeep(context);
    }
}

impl SinkDriver {
    fn tick(&mut self, context: &mut Context<Self>) {
        let commit = context.address();
        let done = async move { commit.send(CommitNow { all: false }).await };
        context.spawn(done.into_actor(self).map(|outcome, driver: &mut SinkDriver, context: &mut Context<SinkDriver>| {
            let pause = match outcome {
                Ok(Ok(_)) => {
                    driver.backoff = BACKOFF_FIRST;
                    driver.interval
                }
                _ => {
                    let longer = (driver.backoff * 2).min(BACKOFF_LAST);
                    std::mem::replace(&mut driver.backoff, longer)
                }
            };
            context.run_later(pause, SinkDriver::tick);
        }));
    }
}

/// Commit an epoch now; answered when it is durable, with its number, or `None` if nothing changed.
#[derive(Debug, Message)]
#[rtype(result = "Result<Option<u64>, LakeError>")]
pub struct CommitNow {
    /// Tables with an interval of their own are written too, due or not: at the end of a run.
    pub all: bool,
}

impl Handler<CommitNow> for SinkDriver {
    type Result = ResponseActFuture<Self, Result<Option<u64>, LakeError>>;

    fn handle(&mut self, CommitNow { all }: CommitNow, _: &mut Self::Context) -> Self::Result {
        let state = Arc::clone(&self.state);
        // on a task of its own, so that a panic ends this try and not the driver
        let work = tokio::spawn(async move { state.lock().await.commit(all).await });
        let outcome = async move {
            work.await.unwrap_or_else(|error| Err(internal(format!("committing stopped unexpectedly: {}", words_of(error)))))
        };
        Box::pin(outcome.into_actor(self).map(|outcome, driver, _| {
            let mut failure = driver.failure.lock().unwrap_or_else(PoisonError::into_inner);
            match &outcome {
                Ok(_) => *failure = None,
                Err(error) => {
                    tracing::error!(error = error.message, "an epoch could not be committed: it is tried again");
                    *failure = Some(error.message.clone());
                }
            }
            outcome
        }))
    }
}

/// What a task that ended without an answer says.
fn words_of(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => panic_words(panic.as_ref()),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
