//! Puts the workers' parts of an answer together and hands them to whoever asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use crossbeam_channel::Receiver;

use crate::board::Board;
use crate::command::Response;
use crate::errors::RowError;
use crate::handle::{PeekCallback, SubscriptionCallback};
use crate::plan::RelationId;
use crate::protocol::{Changes, EngineError, SubscriptionEvent, Timestamp};

/// Called with errors of data as they come and go.
pub type ErrorListener = Box<dyn Fn(RelationId, Vec<RowError>) + Send>;

struct OpenPeek {
    waiting_for: usize,
    rows: Result<Vec<RecordBatch>, EngineError>,
    limit: usize,
    callback: PeekCallback,
}

struct OpenSubscription {
    uppers: Vec<Timestamp>,
    told: Timestamp,
    held: BTreeMap<Timestamp, Vec<Changes>>,
    callback: SubscriptionCallback,
}

/// Answers under way. Shared by the handle, which opens them, and the collector's thread, which closes them.
#[derive(Default)]
pub struct OpenAnswers {
    peeks: HashMap<u64, OpenPeek>,
    subscriptions: HashMap<u64, OpenSubscription>,
    errors: Option<ErrorListener>,
}

impl std::fmt::Debug for OpenAnswers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenAnswers").field("peeks", &self.peeks.len()).field("subscriptions", &self.subscriptions.len()).finish()
    }
}

impl OpenAnswers {
    /// A peek was sent to all workers.
    pub fn open_peek(&mut self, number: u64, workers: usize, limit: Option<usize>, callback: PeekCallback) {
        let peek = OpenPeek { waiting_for: workers, rows: Ok(Vec::new()), limit: limit.unwrap_or(usize::MAX), callback };
        self.peeks.insert(number, peek);
    }

    /// A subscription was sent to all workers.
    pub fn open_subscription(&mut self, number: u64, workers: usize, callback: SubscriptionCallback) {
        let subscription = OpenSubscription { uppers: vec![0; workers], told: 0, held: BTreeMap::new(), callback };
        self.subscriptions.insert(number, subscription);
    }

    /// Nothing more is told.
    pub fn close_subscription(&mut self, number: u64) {
        self.subscriptions.remove(&number);
    }

    /// Who is told of errors of data.
    pub fn listen_to_errors(&mut self, listener: ErrorListener) {
        self.errors = Some(listener);
    }

    fn peeked(&mut self, number: u64, part: Result<Vec<RecordBatch>, EngineError>) {
        let Some(peek) = self.peeks.get_mut(&number) else { return };
        match (&mut peek.rows, part) {
            (Ok(rows), Ok(more)) => rows.extend(more),
            (Ok(_), Err(error)) => peek.rows = Err(error),
            (Err(_), _) => {}
        }
        peek.waiting_for -= 1;
        if peek.waiting_for == 0
            && let Some(peek) = self.peeks.remove(&number)
        {
            let mut left = peek.limit;
            (peek.callback)(peek.rows.map(|rows| {
                rows.into_iter()
                    .map_while(|batch| {
                        let kept = batch.slice(0, batch.num_rows().min(left));
                        left -= kept.num_rows();
                        (kept.num_rows() > 0).then_some(kept)
                    })
                    .collect()
            }));
        }
    }

    fn followed(&mut self, number: u64, worker: usize, changes: Vec<Changes>, upper: Timestamp) {
        let Some(subscription) = self.subscriptions.get_mut(&number) else { return };
        subscription.uppers[worker] = upper;
        for change in changes {
            subscription.held.entry(change.as_of).or_default().push(change);
        }
        let reached = subscription.uppers.iter().min().copied().unwrap_or(0);
        if reached > subscription.told {
            subscription.told = reached;
            let later = subscription.held.split_off(&reached);
            for change in std::mem::replace(&mut subscription.held, later).into_values().flatten() {
                (subscription.callback)(SubscriptionEvent::Changes(change));
            }
            (subscription.callback)(SubscriptionEvent::Progress(reached));
        }
    }

    fn ended(&mut self, number: u64, error: Option<EngineError>) {
        if let Some(mut subscription) = self.subscriptions.remove(&number) {
            (subscription.callback)(SubscriptionEvent::End(error));
        }
    }

    fn fail_all(&mut self, error: &EngineError) {
        for peek in std::mem::take(&mut self.peeks).into_values() {
            (peek.callback)(Err(error.clone()));
        }
        for number in self.subscriptions.keys().copied().collect::<Vec<_>>() {
            self.ended(number, Some(error.clone()));
        }
    }
}

/// The collector's thread: until the last worker and the handle are gone.
pub fn collect(responses: &Receiver<Response>, open: &Arc<Mutex<OpenAnswers>>, board: &Board) {
    while let Ok(response) = responses.recv() {
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        match response {
            Response::Peeked(number, part) => open.peeked(number, part),
            Response::Followed { number, worker, changes, upper } => open.followed(number, worker, changes, upper),
            Response::Ended(number, error) => open.ended(number, error),
            Response::Errors(id, errors) => {
                if let Some(listener) = &open.errors {
                    listener(id, errors);
                }
            }
            Response::Panicked(reason) => {
                board.fail(reason.clone());
                open.fail_all(&EngineError::WorkerPanicked(reason));
            }
            Response::Stop => {
                open.fail_all(&EngineError::Stopped);
                return;
            }
        }
    }
}
