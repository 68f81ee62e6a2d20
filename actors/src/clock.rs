//! The one clock: collects what sources read, closes ticks, and says when they are complete.
//!
//! A tick is closed as soon as the last one is through and something has come (not sooner than the configured least time), so freshness
//! adapts to load. Feeders are answered only while less than a bound is under way: that is the backpressure. When nothing
//! comes, the clock ticks slowly on, so that rows leave temporal filters.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture};
use livelake_dataflow::handle::EngineHandle;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::{InputBatch, Timestamp};
use tokio::sync::oneshot;

use crate::feeder::Generation;
use crate::sources::{Position, Positions};

#[cfg(test)]
mod tests;
mod ticks;

pub use ticks::ClosedTicks;

/// Decoded bytes that may be under way before feeders have to wait.
const IN_FLIGHT_BYTES_MAX: usize = 24 << 20;
/// How often the clock ticks while nothing comes.
const IDLE_TICK: Duration = Duration::from_millis(200);

/// Positions of all sources by their names.
pub type AllPositions = BTreeMap<String, Positions>;

/// See the module's text.
#[derive(Debug)]
pub struct Clock {
    engine: EngineHandle,
    least: Duration,
    once: bool,
    last_tick: Timestamp,
    last_tick_at: Instant,
    open_bytes: usize,
    open_rows: bool,
    /// Closed ticks that are not complete, with their bytes.
    under_way: VecDeque<(Timestamp, usize)>,
    in_flight: usize,
    waiting_feeders: VecDeque<oneshot::Sender<()>>,
    waiting_for: Vec<(Timestamp, oneshot::Sender<Timestamp>)>,
    positions: AllPositions,
    ticks: u64,
    closed: ClosedTicks,
    timer_set: bool,
    memory: Arc<MemoryGuard>,
    /// The system's time.
    wall: fn() -> Timestamp,
}

/// The system's time, microseconds since 1970 UTC.
fn system_time() -> Timestamp {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as Timestamp)
}

/// `engine.memory_limit`, and whether sources wait because of it. Read by whoever shows the lake's health.
#[derive(Debug, Default)]
pub struct MemoryGuard {
    limit: Option<u64>,
    /// How much memory there was when it was last too much; 0: it is not.
    over: AtomicU64,
}

impl MemoryGuard {
    /// A guard with this limit in bytes, or none.
    pub fn new(limit: Option<u64>) -> MemoryGuard {
        MemoryGuard { limit, over: AtomicU64::new(0) }
    }

    /// The limit.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Looks at the process and says in words if it has too much memory.
    fn look(&self) -> Option<String> {
        let limit = self.limit?;
        let resident = crate::memory::resident_bytes();
        self.over.store(if resident > limit { resident } else { 0 }, Ordering::Relaxed);
        self.problem()
    }

    /// That sources wait, in words, if they do.
    pub fn problem(&self) -> Option<String> {
        let (limit, over) = (self.limit?, self.over.load(Ordering::Relaxed));
        (over > 0).then(|| {
            format!(
                "sources are not read on: the process has {} MB of memory, engine.memory_limit is {} MB; raise it, or drop views",
                over / 1_000_000,
                limit / 1_000_000
            )
        })
    }
}

impl Clock {
    /// A clock that begins after `begin` (0 for a new lake) with recorded positions. `once`: it does not tick while nothing comes.
    pub fn new(
        engine: EngineHandle,
        least: Duration,
        once: bool,
        begin: Timestamp,
        positions: AllPositions,
        memory: Arc<MemoryGuard>,
    ) -> Clock {
        Clock {
            engine,
            least,
            once,
            last_tick: begin,
            last_tick_at: Instant::now(),
            open_bytes: 0,
            open_rows: false,
            under_way: VecDeque::new(),
            in_flight: 0,
            waiting_feeders: VecDeque::new(),
            waiting_for: Vec::new(),
            positions,
            ticks: 0,
            closed: ClosedTicks::new(begin),
            timer_set: false,
            memory,
            wall: system_time,
        }
    }

    /// Lets feeders go on while there is room.
    fn credit(&mut self) {
        if self.waiting_feeders.is_empty() || self.memory.look().is_some() {
            return;
        }
        while self.in_flight < IN_FLIGHT_BYTES_MAX
            && let Some(feeder) = self.waiting_feeders.pop_front()
        {
            // a feeder that was stopped does not listen any more
            let _ = feeder.send(());
        }
    }

    /// The closed ticks, as this clock closes them.
    pub fn closed_ticks(&self) -> ClosedTicks {
        self.closed.clone()
    }

    /// Closes the open tick now.
    fn close(&mut self) -> Timestamp {
        // the system's clock may jump back; ours never does
        self.last_tick = self.engine.advance_to((self.wall)().max(self.last_tick + 1));
        self.closed.close(self.last_tick);
        self.last_tick_at = Instant::now();
        self.ticks += 1;
        let bytes = std::mem::take(&mut self.open_bytes);
        if self.is_complete(self.last_tick) {
            self.in_flight -= bytes;
        } else {
            self.under_way.push_back((self.last_tick, bytes));
        }
        self.open_rows = false;
        self.last_tick
    }

    /// Whether nothing that there is will change at this time any more. So it is at once in a lake whose relations have no input, only
    /// constants: its frontier is the end of time, and nobody will report another one.
    fn is_complete(&self, time: Timestamp) -> bool {
        time < self.engine.least_frontier()
    }

    /// Closes the open tick if it is time.
    fn consider(&mut self, context: &mut Context<Self>) {
        if !self.open_rows || !self.under_way.is_empty() {
            return;
        }
        let since = self.last_tick_at.elapsed();
        if since >= self.least {
            self.close();
        } else if !self.timer_set {
            self.timer_set = true;
            context.run_later(self.least - since, |clock, context| {
                clock.timer_set = false;
                clock.consider(context);
            });
        }
    }

    fn completed(&mut self, frontier: Timestamp, context: &mut Context<Self>) {
        while let Some((tick, bytes)) = self.under_way.front()
            && *tick < frontier
        {
            self.in_flight -= *bytes;
            self.under_way.pop_front();
        }
        self.credit();
        let (done, waiting) = std::mem::take(&mut self.waiting_for).into_iter().partition(|(time, _)| *time < frontier);
        self.waiting_for = waiting;
        for (time, asker) in Vec::<(Timestamp, oneshot::Sender<Timestamp>)>::from_iter(done) {
            let _ = asker.send(time);
        }
        self.consider(context);
    }
}

impl Actor for Clock {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(64);
        context.run_interval(IDLE_TICK, |clock, _| {
            if !clock.once && clock.under_way.is_empty() && clock.last_tick_at.elapsed() >= IDLE_TICK {
                clock.close();
            }
            // memory may have been given back meanwhile
            clock.credit();
        });
        // one thread sleeps on the engine's board and wakes the clock when something is complete
        let (engine, clock) = (self.engine.clone(), context.address());
        let watch = move || {
            let mut known = 0;
            while clock.connected() && engine.failure().is_none() {
                let frontier = engine.wait_beyond(known, Duration::from_millis(250));
                if frontier != known && clock.try_send(Completed(frontier)).is_ok() {
                    known = frontier;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("clock-watch".to_owned()).spawn(watch) {
            tracing::error!(%error, "cannot start the clock's thread");
        }
    }
}

/// Everything below this timestamp is complete.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Completed(Timestamp);

impl Handler<Completed> for Clock {
    type Result = ();

    fn handle(&mut self, Completed(frontier): Completed, context: &mut Self::Context) {
        self.completed(frontier, context);
    }
}

/// Rows that a source read, for the open tick. Answered when the feeder may go on.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), String>")]
pub struct Rows {
    /// Where they go, in order: the source, its errors.
    pub batches: Vec<(RelationId, InputBatch)>,
    /// The source's name, the partition, and where reading goes on after these rows.
    pub position: Option<(String, String, Position)>,
    /// Who read them.
    pub generation: Generation,
}

fn size(batch: &InputBatch) -> usize {
    match batch {
        InputBatch::Rows { rows, .. } => rows.get_array_memory_size(),
        InputBatch::Truncate => 0,
    }
}

impl Handler<Rows> for Clock {
    type Result = ResponseFuture<Result<(), String>>;

    fn handle(&mut self, message: Rows, context: &mut Self::Context) -> Self::Result {
        if !message.generation.is_current() {
            // the source was stopped, dropped or started again meanwhile: neither its rows nor its position count
            return Box::pin(async { Ok(()) });
        }
        let mut outcome = Ok(());
        for (id, batch) in message.batches {
            let bytes = size(&batch);
            self.open_bytes += bytes;
            self.in_flight += bytes;
            self.open_rows = true;
            outcome = outcome.and(self.engine.push(id, batch));
        }
        if let Some((source, partition, position)) = message.position {
            self.positions.entry(source).or_default().set(partition, position);
        }
        self.consider(context);
        let outcome = outcome.map_err(|error| error.to_string());
        let too_much = self.memory.look();
        if outcome.is_err() || (self.in_flight < IN_FLIGHT_BYTES_MAX && too_much.is_none()) {
            return Box::pin(async move { outcome });
        }
        if self.once
            && let Some(problem) = too_much
        {
            // a run with an end would wait for ever: nothing that it has read goes away again
            return Box::pin(async move { Err(problem) });
        }
        let (send, receive) = oneshot::channel();
        self.waiting_feeders.push_back(send);
        Box::pin(async move {
            let _ = receive.await;
            Ok(())
        })
    }
}

/// Closes the tick and answers with its timestamp once all that was read or written before is visible.
#[derive(Debug, Message)]
#[rtype(result = "Option<Timestamp>")]
pub struct Flush;

impl Handler<Flush> for Clock {
    type Result = ResponseFuture<Option<Timestamp>>;

    fn handle(&mut self, _: Flush, _: &mut Self::Context) -> Self::Result {
        let time = self.close();
        if self.is_complete(time) {
            return Box::pin(async move { Some(time) });
        }
        let (send, receive) = oneshot::channel();
        self.waiting_for.push((time, send));
        Box::pin(async move { receive.await.ok() })
    }
}

/// Closes the tick and answers at once with its timestamp and the positions that it contains: what an epoch is cut at.
#[derive(Debug, Message)]
#[rtype(result = "(Timestamp, AllPositions)")]
pub struct Cut;

impl Handler<Cut> for Clock {
    type Result = actix::MessageResult<Cut>;

    fn handle(&mut self, _: Cut, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult((self.close(), self.positions.clone()))
    }
}

/// Where a source goes on reading: everything before has been given to the engine.
#[derive(Debug, Message)]
#[rtype(result = "Option<Positions>")]
pub struct PositionsOf(pub String);

impl Handler<PositionsOf> for Clock {
    type Result = Option<Positions>;

    fn handle(&mut self, PositionsOf(source): PositionsOf, _: &mut Self::Context) -> Self::Result {
        self.positions.get(&source).cloned()
    }
}

/// How many ticks were closed.
#[derive(Debug, Message)]
#[rtype(result = "u64")]
pub struct TickCount;

impl Handler<TickCount> for Clock {
    type Result = u64;

    fn handle(&mut self, _: TickCount, _: &mut Self::Context) -> Self::Result {
        self.ticks
    }
}
