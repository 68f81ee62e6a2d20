//! The engine seen from outside: start it, say what to maintain, feed it, read it. Only this handle crosses threads.
//!
//! All calls return at once except where they say so; answers come by callback from a thread of the engine's, so that callers of
//! any runtime can turn them into their own kind of future. Callbacks must not block, nor call the handle.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use timely::communication::WorkerGuards;

use crate::board::{Board, RelationSize};
use crate::collector::{ErrorListener, OpenAnswers, collect};
use crate::command::{Command, Response};
use crate::plan::RelationId;
use crate::protocol::{EngineError, Envelope, InputBatch, PeekRequest, SourceSpec, SubscriptionEvent, Timestamp, ViewSpec};
use crate::worker::WorkerLoop;

/// How to run the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Timely worker threads, at least one. They are named `timely:work-N`.
    pub workers: usize,
    /// How many microseconds of history every arrangement keeps for `AS OF`.
    pub retention_us: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig { workers: 1, retention_us: 0 }
    }
}

/// What a panic said.
pub fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("for an unknown reason").to_owned()
}

/// Names a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionId(pub u64);

/// Called with the rows of a peek, or why there are none.
pub type PeekCallback = Box<dyn FnOnce(Result<Vec<RecordBatch>, EngineError>) + Send>;
/// Called for every event of a subscription, in order.
pub type SubscriptionCallback = Box<dyn FnMut(SubscriptionEvent) + Send>;

/// What must happen in one order for all workers.
#[derive(Debug)]
struct Sequencer {
    senders: Vec<Sender<Command>>,
    threads: Vec<Thread>,
    next_worker: usize,
    next_push: u64,
    next_number: u64,
    clock: Timestamp,
    relations: HashMap<RelationId, Known>,
}

/// What the handle has to know of a relation.
#[derive(Debug, Default)]
struct Known {
    /// Whether its rows are kept.
    kept: bool,
    reads: Vec<RelationId>,
    /// The relation of its errors.
    errors: Option<RelationId>,
    /// The view whose errors it has.
    errors_of: Option<RelationId>,
}

impl Sequencer {
    fn broadcast(&self, make: impl Fn() -> Command) {
        for (sender, thread) in self.senders.iter().zip(&self.threads) {
            // a worker that is gone has said why on the response channel
            let _ = sender.send(make());
            thread.unpark();
        }
    }
}

#[allow(missing_debug_implementations)]
struct Shared {
    sequencer: Mutex<Sequencer>,
    board: Arc<Board>,
    open: Arc<Mutex<OpenAnswers>>,
    responses: Sender<Response>,
    threads: Mutex<Option<(WorkerGuards<()>, JoinHandle<()>)>>,
}

/// See the module's text. Clones are the same engine; it stops with [`EngineHandle::shutdown`].
#[derive(Clone)]
pub struct EngineHandle(Arc<Shared>);

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandle").field("board", &self.0.board).finish_non_exhaustive()
    }
}

impl EngineHandle {
    /// Starts the worker threads.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(config: &EngineConfig) -> Result<EngineHandle, EngineError> {
        let workers = config.workers.max(1);
        let failed = |reason: String| EngineError::WorkerPanicked(reason);
        let (builders, others) = timely::CommunicationConfig::Process(workers).try_build().map_err(failed)?;
        let (responses, received) = unbounded();
        let board = Arc::new(Board::default());
        let open = Arc::new(Mutex::new(OpenAnswers::default()));
        let (senders, commands): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded::<Command>()).unzip();
        let (started, starts) = bounded(workers);
        let guards = {
            let (responses, board, retention_us) = (responses.clone(), Arc::clone(&board), config.retention_us);
            // no merging in idle time: with a tick every few milliseconds it would merge each tick into all there is
            let worker_config = timely::WorkerConfig::default();
            timely::execute::execute_from(builders, others, worker_config, move |worker| {
                let index = worker.index();
                let _ = started.send((index, std::thread::current()));
                let (commands, board) = (commands[index].clone(), Arc::clone(&board));
                let worker_loop = WorkerLoop::new(worker, commands, responses.clone(), board, retention_us);
                if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(move || worker_loop.run())) {
                    let _ = responses.send(Response::Panicked(panic_words(panic.as_ref())));
                    std::panic::resume_unwind(panic);
                }
            })
            .map_err(failed)?
        };
        let mut threads: Vec<(usize, Thread)> = starts.iter().take(workers).collect();
        threads.sort_by_key(|(index, _)| *index);
        let threads = threads.into_iter().map(|(_, thread)| thread).collect();
        let collector = {
            let (open, board): (_, Arc<Board>) = (Arc::clone(&open), Arc::clone(&board));
            let received: Receiver<Response> = received;
            std::thread::Builder::new()
                .name("engine-answers".to_owned())
                .spawn(move || collect(&received, &open, &board))
                .map_err(|error| failed(error.to_string()))?
        };
        let sequencer =
            Sequencer { senders, threads, next_worker: 0, next_push: 0, next_number: 0, clock: 0, relations: HashMap::new() };
        Ok(EngineHandle(Arc::new(Shared {
            sequencer: Mutex::new(sequencer),
            board,
            open,
            responses,
            threads: Mutex::new(Some((guards, collector))),
        })))
    }

    // a panic in a caller while it held a lock leaves complete values behind: nothing under these locks calls out
    fn sequencer(&self) -> MutexGuard<'_, Sequencer> {
        self.0.sequencer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, OpenAnswers> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all workers' replies; the first error wins.
    fn gather(&self, replies: &Receiver<Result<(), EngineError>>, workers: usize) -> Result<(), EngineError> {
        let mut outcome = Ok(());
        for _ in 0..workers {
            match replies.recv() {
                Ok(reply) => outcome = outcome.and(reply),
                Err(_) => return Err(EngineError::WorkerPanicked(self.0.board.failure().unwrap_or_default())),
            }
        }
        outcome
    }

    /// Creates a base relation. Blocks until all workers have it.
    ///
    /// # Errors
    /// The id is taken, the key is missing for upserts, or a type cannot be kept.
    pub fn create_source(&self, spec: SourceSpec) -> Result<(), EngineError> {
        let mut sequencer = self.sequencer();
        if sequencer.relations.contains_key(&spec.id) {
            return Err(EngineError::DuplicateRelation(spec.id));
        }
        if spec.envelope == Envelope::Upsert && spec.key.is_empty() {
            return Err(EngineError::ViewFailed(spec.id, "an upsert source needs a primary key".to_owned()));
        }
        let kept = spec.keep || spec.envelope == Envelope::Upsert;
        let workers = sequencer.senders.len();
        let id = spec.id;
        if kept {
            self.0.board.add(id, workers);
        }
        let (reply, replies) = bounded(workers);
        let spec = Arc::new(spec);
        sequencer.broadcast(|| Command::CreateSource(Arc::clone(&spec), reply.clone()));
        drop(reply);
        let outcome = self.gather(&replies, workers);
        match &outcome {
            Ok(()) => {
                sequencer.relations.insert(id, Known { kept, ..Known::default() });
            }
            Err(_) => self.0.board.remove(id),
        }
        outcome
    }

    /// Creates a view over relations that exist; it begins with their contents at the last closed tick. Blocks until all workers have
    /// built it, not until it is filled: see [`Self::frontier`].
    ///
    /// # Errors
    /// The id is taken, a relation is missing, or the plan cannot be rendered.
    pub fn create_view(&self, spec: ViewSpec) -> Result<(), EngineError> {
        let mut sequencer = self.sequencer();
        let (id, errors) = (spec.id, spec.errors);
        let parts = || std::iter::once(id).chain(errors);
        if let Some(taken) = parts().find(|part| sequencer.relations.contains_key(part)) {
            return Err(EngineError::DuplicateRelation(taken));
        }
        let reads = spec.plan.reads();
        if let Some(missing) = reads.iter().find(|read| !sequencer.relations.contains_key(read)) {
            return Err(EngineError::UnknownRelation(*missing));
        }
        let (workers, as_of) = (sequencer.senders.len(), sequencer.clock.saturating_sub(1));
        parts().for_each(|part| self.0.board.add(part, workers));
        let (reply, replies) = bounded(workers);
        let spec = Arc::new(spec);
        sequencer.broadcast(|| Command::CreateView(Arc::clone(&spec), as_of, reply.clone()));
        drop(reply);
        let outcome = self.gather(&replies, workers);
        match &outcome {
            Ok(()) => {
                sequencer.relations.insert(id, Known { kept: true, reads, errors, errors_of: None });
                if let Some(errors) = errors {
                    sequencer.relations.insert(errors, Known { kept: true, errors_of: Some(id), ..Known::default() });
                }
            }
            Err(_) => parts().for_each(|part| self.0.board.remove(part)),
        }
        outcome
    }

    /// Drops a relation that nothing reads, a view with its errors. Blocks until all workers have forgotten it.
    ///
    /// # Errors
    /// It does not exist, a view reads it or its errors, or it is a view's errors.
    pub fn drop_relation(&self, id: RelationId) -> Result<(), EngineError> {
        let mut sequencer = self.sequencer();
        let Some(known) = sequencer.relations.get(&id) else { return Err(EngineError::UnknownRelation(id)) };
        if let Some(view) = known.errors_of {
            return Err(EngineError::PartOf { relation: id, view });
        }
        let parts: Vec<RelationId> = known.errors.into_iter().chain([id]).collect();
        for part in &parts {
            if let Some((reader, _)) = sequencer.relations.iter().find(|(_, known)| known.reads.contains(part)) {
                return Err(EngineError::InUse { relation: *part, reader: *reader });
            }
        }
        let workers = sequencer.senders.len();
        let (reply, replies) = bounded(workers);
        sequencer.broadcast(|| Command::Drop(id, reply.clone()));
        drop(reply);
        let outcome = self.gather(&replies, workers);
        for part in parts {
            sequencer.relations.remove(&part);
            self.0.board.remove(part);
        }
        outcome
    }

    /// Hands rows to a source, for the tick that is open. Later pushes win over earlier ones for the same key.
    ///
    /// # Errors
    /// The source does not exist.
    pub fn push(&self, id: RelationId, batch: InputBatch) -> Result<(), EngineError> {
        let mut sequencer = self.sequencer();
        if !sequencer.relations.contains_key(&id) {
            return Err(EngineError::UnknownRelation(id));
        }
        let push = sequencer.next_push;
        sequencer.next_push += 1;
        let worker = sequencer.next_worker;
        sequencer.next_worker = (worker + 1) % sequencer.senders.len();
        // a truncation concerns the keys of all workers
        if matches!(batch, InputBatch::Truncate) {
            sequencer.broadcast(|| Command::Push(id, push, InputBatch::Truncate));
            return Ok(());
        }
        sequencer.senders[worker].send(Command::Push(id, push, batch)).map_err(|_| EngineError::Stopped)
    }

    /// Closes the open tick at `time`: all rows pushed so far become visible together at that timestamp. A time that is not after the last
    /// tick's is moved there. Returns the tick's timestamp.
    pub fn advance_to(&self, time: Timestamp) -> Timestamp {
        let mut sequencer = self.sequencer();
        let time = time.max(sequencer.clock);
        sequencer.clock = time + 1;
        sequencer.broadcast(|| Command::AdvanceTo(time));
        time
    }

    /// All times below this are complete in the relation; `None` if it is not kept or does not exist.
    pub fn frontier(&self, id: RelationId) -> Option<Timestamp> {
        self.0.board.frontier(id)
    }

    /// All times below this are complete in every relation.
    pub fn least_frontier(&self) -> Timestamp {
        self.0.board.least_frontier()
    }

    /// Blocks until every relation is complete through `time`; false if that takes longer than `patience` or the engine failed.
    pub fn wait(&self, time: Timestamp, patience: Duration) -> bool {
        self.0.board.wait(time, patience)
    }

    /// Blocks until the least frontier is another one than `known`, or `patience` is over; returns it.
    pub fn wait_beyond(&self, known: Timestamp, patience: Duration) -> Timestamp {
        self.0.board.wait_beyond(known, patience)
    }

    /// What a relation's arrangement takes.
    pub fn size(&self, id: RelationId) -> Option<RelationSize> {
        self.0.board.size(id)
    }

    /// Why the engine cannot go on, if so.
    pub fn failure(&self) -> Option<String> {
        self.0.board.failure()
    }

    /// Reads a relation at one timestamp; waits, without blocking the caller, until it is complete there.
    pub fn peek(&self, request: PeekRequest, callback: PeekCallback) {
        let mut sequencer = self.sequencer();
        match sequencer.relations.get(&request.id) {
            None => return callback(Err(EngineError::UnknownRelation(request.id))),
            Some(Known { kept: false, .. }) => return callback(Err(EngineError::NotArranged(request.id))),
            Some(_) => {}
        }
        if let Some(reason) = self.0.board.failure() {
            return callback(Err(EngineError::WorkerPanicked(reason)));
        }
        let number = sequencer.next_number;
        sequencer.next_number += 1;
        self.open().open_peek(number, sequencer.senders.len(), request.limit, callback);
        sequencer.broadcast(|| Command::Peek(number, request.clone()));
    }

    /// Follows a relation from a snapshot at `as_of` on.
    ///
    /// # Errors
    /// The relation does not exist or is not kept. A timestamp that is no longer kept ends the subscription with that error.
    pub fn subscribe(
        &self,
        id: RelationId,
        as_of: Timestamp,
        callback: SubscriptionCallback,
    ) -> Result<SubscriptionId, EngineError> {
        let mut sequencer = self.sequencer();
        match sequencer.relations.get(&id) {
            None => return Err(EngineError::UnknownRelation(id)),
            Some(Known { kept: false, .. }) => return Err(EngineError::NotArranged(id)),
            Some(_) => {}
        }
        let number = sequencer.next_number;
        sequencer.next_number += 1;
        self.open().open_subscription(number, sequencer.senders.len(), callback);
        sequencer.broadcast(|| Command::Subscribe(number, id, as_of));
        Ok(SubscriptionId(number))
    }

    /// Ends a subscription; its callback is dropped.
    pub fn unsubscribe(&self, subscription: SubscriptionId) {
        self.open().close_subscription(subscription.0);
        self.sequencer().broadcast(|| Command::Unsubscribe(subscription.0));
    }

    /// Who is told of rows that views could not compute. Replaces the one before.
    pub fn listen_to_errors(&self, listener: ErrorListener) {
        self.open().listen_to_errors(listener);
    }

    /// The last closed tick's timestamp; 0 before the first.
    pub fn last_tick(&self) -> Timestamp {
        self.sequencer().clock.saturating_sub(1)
    }

    /// Stops the workers and waits for them. What was pushed and not closed is gone; open answers end with [`EngineError::Stopped`].
    pub fn shutdown(&self) {
        self.sequencer().broadcast(|| Command::Shutdown);
        let threads = self.0.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((guards, collector)) = threads {
            // a panic of a worker has been reported already
            guards.join().into_iter().for_each(drop);
            let _ = self.0.responses.send(Response::Stop);
            let _ = collector.join();
        }
    }
}
