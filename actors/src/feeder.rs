//! One source: a reader on a thread of its own, started again with backoff when it fails.
//!
//! The thread hands every batch to the clock and waits for its answer, so reading is never further ahead than the clock allows. Each start
//! has a generation number, which goes with all that the thread says; what an earlier one still says is dropped, its rows and
//! positions too. A reader that panics is treated like one that failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message};
use livelake_dataflow::handle::panic_words;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::InputBatch;
use tokio::sync::watch;

use crate::clock::{Clock, PositionsOf, Rows};
use crate::lake::connect::{Connection, READ_WAIT};
use crate::service::SourceStatus;
use crate::sources::{Budget, Positions, SourceError, SourceEvent, SourceReader};

/// The first pause after a failure; it doubles up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// The longest pause.
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// Over how long a rate is told.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// What a source has done so far; written by its thread, read by anybody.
#[derive(Debug, Default)]
pub struct Progress {
    inputs: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    ignored_fields: AtomicU64,
    restarts: AtomicU64,
    /// Whether there was a moment with nothing left to read.
    was_at_end: AtomicBool,
    words: Mutex<Words>,
}

#[derive(Debug, Default)]
struct Words {
    state: &'static str,
    message: Option<String>,
    lag: Option<u64>,
    window: Option<(Instant, u64, f64)>,
}

impl Progress {
    fn words(&self) -> std::sync::MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, state: &'static str, message: Option<String>) {
        let mut words = self.words();
        words.state = state;
        words.message = message;
    }

    /// Messages, lines or rows read so far.
    pub fn inputs(&self) -> u64 {
        self.inputs.load(Ordering::Relaxed)
    }

    /// Whether there was a moment with nothing left to read.
    pub fn was_at_end(&self) -> bool {
        self.was_at_end.load(Ordering::Acquire)
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Everything, as the outside shows it.
    pub fn status(&self, connection: &Connection) -> SourceStatus {
        let rows = self.rows.load(Ordering::Relaxed);
        let mut words = self.words();
        let rate = match &mut words.window {
            Some((since, before, rate)) => {
                let passed = since.elapsed();
                if passed >= RATE_WINDOW {
                    *rate = (rows - *before) as f64 / passed.as_secs_f64();
                    (*since, *before) = (Instant::now(), rows);
                    *rate
                } else if *rate == 0.0 && passed > Duration::from_millis(500) {
                    (rows - *before) as f64 / passed.as_secs_f64()
                } else {
                    *rate
                }
            }
            none => {
                *none = Some((Instant::now(), rows, 0.0));
                0.0
            }
        };
        SourceStatus {
            name: connection.name.clone(),
            connector: connection.connector.to_owned(),
            state: if words.state.is_empty() { "starting".to_owned() } else { words.state.to_owned() },
            rows,
            bytes: self.bytes(),
            errors: self.errors.load(Ordering::Relaxed),
            ignored_fields: self.ignored_fields.load(Ordering::Relaxed),
            rows_per_second: rate,
            lag: words.lag,
            message: words.message.clone(),
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }
}

/// Whether a source is still at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Reading, or trying to.
    Running,
    /// All read; only where reading has an end.
    Done,
    /// It cannot go on without somebody changing the lake.
    Failed(String),
}

/// Where a source's readers come from.
pub trait Opens: std::fmt::Debug + Send + Sync {
    /// `schema.name`.
    fn name(&self) -> &str;

    /// Opens a reader that goes on at these positions.
    ///
    /// # Errors
    /// See [`SourceError::is_retryable`].
    fn open(&self, from: &Positions) -> Result<Box<dyn SourceReader>, SourceError>;
}

impl Opens for Connection {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, from: &Positions) -> Result<Box<dyn SourceReader>, SourceError> {
        Connection::open(self, from)
    }
}

/// A thread's generation beside the newest one of its source.
#[derive(Clone, Debug)]
pub struct Generation {
    newest: Arc<AtomicU64>,
    mine: u64,
}

impl Generation {
    /// Whether nothing newer was started and the source was not stopped.
    pub fn is_current(&self) -> bool {
        self.newest.load(Ordering::Acquire) == self.mine
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Feeder {
    source: Arc<dyn Opens>,
    relation: RelationId,
    errors: RelationId,
    clock: Addr<Clock>,
    progress: Arc<Progress>,
    outcome: watch::Sender<Outcome>,
    /// In a run with an end, trying again for ever would never end: a source that is not there fails.
    once: bool,
    /// The newest generation; it moves on when reading starts and when it stops.
    generation: Arc<AtomicU64>,
    backoff: Duration,
}

impl Feeder {
    /// A feeder that starts reading when the actor starts.
    pub fn new(
        source: Arc<dyn Opens>,
        (relation, errors): (RelationId, RelationId),
        clock: Addr<Clock>,
        progress: Arc<Progress>,
        outcome: watch::Sender<Outcome>,
        once: bool,
    ) -> Feeder {
        Feeder { source, relation, errors, clock, progress, outcome, once, generation: Arc::default(), backoff: BACKOFF_FIRST }
    }

    fn start_thread(&mut self, context: &mut Context<Self>) {
        let mine = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let generation = Generation { newest: Arc::clone(&self.generation), mine };
        let reading = Reading {
            source: Arc::clone(&self.source),
            relation: self.relation,
            errors: self.errors,
            clock: self.clock.clone(),
            progress: Arc::clone(&self.progress),
            generation: generation.clone(),
            advanced: false,
        };
        let (feeder, name) = (context.address(), format!("source {}", self.source.name()));
        let run = move || {
            let mut reading = reading;
            let outcome = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reading.run())) {
                Ok(outcome) => outcome,
                Err(panic) => Err((format!("the reader stopped unexpectedly: {}", panic_words(panic.as_ref())), true)),
            };
            let ended = Ended { generation, outcome, advanced: reading.advanced };
            // the actor is gone only when the lake stops
            let _ = futures::executor::block_on(feeder.send(ended));
        };
        if let Err(error) = std::thread::Builder::new().name(name).spawn(run) {
            tracing::error!(source = self.source.name(), %error, "cannot start a thread");
            self.progress.say("failed", Some(format!("cannot start a thread: {error}")));
            let _ = self.outcome.send(Outcome::Failed(error.to_string()));
        }
    }
}

impl Actor for Feeder {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.start_thread(context);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// A reader's thread is over: in order, or with a reason and whether trying again may help.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Ended {
    generation: Generation,
    outcome: Result<(), (String, bool)>,
    /// Whether rows of it were taken in.
    advanced: bool,
}

impl Handler<Ended> for Feeder {
    type Result = ();

    fn handle(&mut self, ended: Ended, context: &mut Self::Context) {
        if !ended.generation.is_current() {
            return;
        }
        if ended.advanced {
            // what it failed on now is not what it failed on before
            self.backoff = BACKOFF_FIRST;
        }
        match ended.outcome {
            Ok(()) => {
                self.progress.say("done", None);
                let _ = self.outcome.send(Outcome::Done);
            }
            Err((reason, true)) if !self.once => {
                tracing::warn!(source = self.source.name(), reason, retry_in = ?self.backoff, "source failed, trying again");
                self.progress.say("retrying", Some(reason));
                self.progress.restarts.fetch_add(1, Ordering::Relaxed);
                context.run_later(self.backoff, |feeder, context| feeder.start_thread(context));
                self.backoff = (self.backoff * 2).min(BACKOFF_LAST);
            }
            Err((reason, _)) => {
                tracing::error!(source = self.source.name(), reason, "source stopped");
                self.progress.say("failed", Some(reason.clone()));
                let _ = self.outcome.send(Outcome::Failed(reason));
            }
        }
    }
}

/// Stop reading.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopFeeding;

impl Handler<StopFeeding> for Feeder {
    type Result = ();

    fn handle(&mut self, _: StopFeeding, context: &mut Self::Context) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        context.stop();
    }
}

/// What a reader's thread needs.
struct Reading {
    source: Arc<dyn Opens>,
    relation: RelationId,
    errors: RelationId,
    clock: Addr<Clock>,
    progress: Arc<Progress>,
    generation: Generation,
    /// Whether rows were taken in.
    advanced: bool,
}

impl Reading {
    fn run(&mut self) -> Result<(), (String, bool)> {
        let gone = |_| ("the lake is stopping".to_owned(), false);
        let from = futures::executor::block_on(self.clock.send(PositionsOf(self.source.name().to_owned()))).map_err(gone)?;
        let from: Positions = from.unwrap_or_default();
        let mut reader = self.source.open(&from).map_err(|error| (error.to_string(), error.is_retryable()))?;
        self.progress.say("running", None);
        let budget = Budget { wait: READ_WAIT, ..Budget::default() };
        while self.generation.is_current() {
            let event = reader.next(budget).map_err(|error| (error.to_string(), error.is_retryable()))?;
            match event {
                SourceEvent::Batch { partition, decoded, position, bytes } => {
                    let counters = decoded.counters;
                    let mut batches: Vec<(RelationId, InputBatch)> =
                        decoded.inputs.into_iter().map(|batch| (self.relation, batch)).collect();
                    batches.extend(decoded.errors.map(|rows| (self.errors, InputBatch::Rows { rows, ops: None })));
                    let position = Some((self.source.name().to_owned(), partition, position));
                    let rows = Rows { batches, position, generation: self.generation.clone() };
                    let answer = futures::executor::block_on(self.clock.send(rows)).map_err(gone)?;
                    answer.map_err(|error| (error, false))?;
                    self.advanced = true;
                    self.count(&counters, bytes);
                    let mut words = self.progress.words();
                    words.state = "running";
                    words.message = None;
                    words.lag = reader.lag();
                }
                SourceEvent::Idle { until } => {
                    self.progress.was_at_end.store(true, Ordering::Release);
                    self.progress.words().lag = reader.lag();
                    self.sleep(until);
                }
                SourceEvent::Waiting { message, until } => {
                    self.progress.say("waiting", Some(message));
                    self.sleep(until);
                }
                SourceEvent::Notice(notice) => tracing::warn!(source = self.source.name(), notice, "source says"),
                SourceEvent::Done => {
                    self.progress.was_at_end.store(true, Ordering::Release);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn count(&self, counters: &crate::decode::Counters, bytes: u64) {
        self.progress.inputs.fetch_add(counters.inputs, Ordering::Relaxed);
        self.progress.rows.fetch_add(counters.rows, Ordering::Relaxed);
        self.progress.errors.fetch_add(counters.errors, Ordering::Relaxed);
        self.progress.ignored_fields.fetch_add(counters.ignored_fields, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Sleeps in pieces, to notice a stop.
    fn sleep(&self, until: Instant) {
        while self.generation.is_current() && Instant::now() < until {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(READ_WAIT));
        }
    }
}

#[cfg(test)]
mod tests;
