//! Readers that fail, panic and recover; threads that speak too late.

use std::collections::VecDeque;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use livelake_dataflow::handle::{EngineConfig, EngineHandle};
use livelake_dataflow::protocol::{Envelope, SourceSpec};

use super::*;
use crate::clock::{AllPositions, MemoryGuard};
use crate::decode::{Counters, Decoded};
use crate::sources::Position;

/// What a scripted reader does, start by start and step by step.
#[derive(Clone, Copy, Debug)]
enum Step {
    Row(i64),
    Fail,
    Panic,
    End,
}

#[derive(Debug)]
struct Script(Mutex<VecDeque<Vec<Step>>>);

struct Reader(VecDeque<Step>);

fn rows(number: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![number])) as arrow::array::ArrayRef)]).unwrap()
}

impl SourceReader for Reader {
    fn next(&mut self, _: Budget) -> Result<SourceEvent, SourceError> {
        match self.0.pop_front().unwrap() {
            Step::Row(number) => Ok(SourceEvent::Batch {
                partition: "only".to_owned(),
                decoded: Decoded {
                    inputs: vec![InputBatch::Rows { rows: rows(number), ops: None }],
                    errors: None,
                    counters: Counters { rows: 1, inputs: 1, ..Counters::default() },
                },
                position: Position::Kafka { offset: number },
                bytes: 8,
            }),
            Step::Fail => Err(SourceError::Kafka("the broker stumbled".to_owned())),
            Step::Panic => panic!("the reader's foot slipped"),
            Step::End => Ok(SourceEvent::Done),
        }
    }
}

impl Opens for Script {
    fn name(&self) -> &str {
        "s.only"
    }

    fn open(&self, _: &Positions) -> Result<Box<dyn SourceReader>, SourceError> {
        Ok(Box::new(Reader(self.0.lock().unwrap().pop_front().unwrap().into())))
    }
}

const ROWS: RelationId = RelationId(1);
const ERRORS: RelationId = RelationId(2);

fn engine() -> EngineHandle {
    let engine = EngineHandle::start(&EngineConfig { workers: 1, retention_us: 0 }).unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    let spec = SourceSpec {
        id: ROWS,
        name: "s.only".into(),
        schema,
        key: Vec::new(),
        envelope: Envelope::Append,
        keep: true,
        only_inserts: false,
    };
    engine.create_source(spec).unwrap();
    engine
}

fn clock(engine: &EngineHandle, limit: Option<u64>, once: bool) -> Addr<Clock> {
    let memory = Arc::new(MemoryGuard::new(limit));
    Clock::new(engine.clone(), Duration::from_millis(1), once, 0, AllPositions::new(), memory).start()
}

async fn ended(mut told: watch::Receiver<Outcome>) -> Outcome {
    let outcome = tokio::time::timeout(Duration::from_secs(60), told.wait_for(|outcome| *outcome != Outcome::Running)).await;
    outcome.unwrap().unwrap().clone()
}

/// Follows the pauses that a feeder makes.
#[derive(Debug, Message)]
#[rtype(result = "Duration")]
struct NextPause;

impl Handler<NextPause> for Feeder {
    type Result = actix::MessageResult<NextPause>;

    fn handle(&mut self, _: NextPause, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(self.backoff)
    }
}

#[actix::test]
async fn failures_and_panics_are_shown_and_tried_again_with_growing_pauses_until_something_comes() {
    use Step::{End, Fail, Panic, Row};
    let engine = engine();
    let clock = clock(&engine, None, false);
    let starts = [vec![Fail], vec![Panic], vec![Row(1), Row(2), Row(3), Fail], vec![End]];
    let script = Arc::new(Script(Mutex::new(starts.into_iter().collect())));
    let progress: Arc<Progress> = Arc::default();
    let (outcome, told) = watch::channel(Outcome::Running);
    let feeder = Feeder::new(script, (ROWS, ERRORS), clock.clone(), Arc::clone(&progress), outcome, false).start();
    assert_eq!(ended(told).await, Outcome::Done);
    assert_eq!(progress.restarts.load(Ordering::Relaxed), 3);
    assert_eq!(progress.rows.load(Ordering::Relaxed), 3);
    // two failures in a row, a success that starts over, one more failure
    assert_eq!(feeder.send(NextPause).await.unwrap(), BACKOFF_FIRST * 2);
    let time = clock.send(crate::clock::Flush).await.unwrap().unwrap();
    let request = livelake_dataflow::protocol::PeekRequest { id: ROWS, as_of: time, key: None, limit: None, projection: None };
    let found = crate::lake::reader::peek(&engine, request).await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
}

#[actix::test]
async fn a_panic_is_told_in_its_own_words() {
    let engine = engine();
    let clock = clock(&engine, None, true);
    let script = Arc::new(Script(Mutex::new([vec![Step::Panic]].into_iter().collect())));
    let (outcome, told) = watch::channel(Outcome::Running);
    let _feeder = Feeder::new(script, (ROWS, ERRORS), clock, Arc::default(), outcome, true).start();
    match ended(told).await {
        Outcome::Failed(reason) => assert!(reason.contains("the reader's foot slipped"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn what_an_earlier_thread_says_is_dropped() {
    let engine = engine();
    let clock = clock(&engine, None, false);
    let newest = Arc::new(AtomicU64::new(1));
    let send = |number: i64, mine: u64| {
        let batches = vec![(ROWS, InputBatch::Rows { rows: rows(number), ops: None })];
        let position = Some(("s.only".to_owned(), "only".to_owned(), Position::Kafka { offset: number }));
        clock.send(Rows { batches, position, generation: Generation { newest: Arc::clone(&newest), mine } })
    };
    send(1, 1).await.unwrap().unwrap();
    newest.store(2, Ordering::Release);
    send(2, 1).await.unwrap().unwrap();
    let (_, positions) = clock.send(crate::clock::Cut).await.unwrap();
    assert_eq!(positions["s.only"].get("only"), Some(&Position::Kafka { offset: 1 }));
    let time = clock.send(crate::clock::Flush).await.unwrap().unwrap();
    let request = livelake_dataflow::protocol::PeekRequest { id: ROWS, as_of: time, key: None, limit: None, projection: None };
    let found = crate::lake::reader::peek(&engine, request).await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
}

#[actix::test]
async fn above_the_memory_limit_sources_wait_or_a_run_with_an_end_fails() {
    let engine = engine();
    let newest = Arc::new(AtomicU64::new(1));
    let rows = || Rows {
        batches: vec![(ROWS, InputBatch::Rows { rows: rows(1), ops: None })],
        position: None,
        generation: Generation { newest: Arc::clone(&newest), mine: 1 },
    };
    let said = clock(&engine, Some(1), true).send(rows()).await.unwrap().unwrap_err();
    assert!(said.contains("engine.memory_limit"), "{said}");

    let guard = Arc::new(MemoryGuard::new(Some(1)));
    let clock = Clock::new(engine.clone(), Duration::from_millis(1), false, 0, AllPositions::new(), Arc::clone(&guard)).start();
    let waiting = clock.send(rows());
    let mut waiting = std::pin::pin!(waiting);
    // answered later than a flush that was sent after it: it has no credit
    tokio::select! {
        biased;
        answer = &mut waiting => panic!("{answer:?}"),
        time = clock.send(crate::clock::Flush) => assert!(time.unwrap().is_some()),
    }
    assert!(guard.problem().unwrap().contains("sources are not read on"));
}
