//! A worker thread: builds dataflows as told, feeds them, runs them, and reports.
//!
//! The loop drains commands, runs timely (parking only when there is nothing to do: whoever sends a command unparks the thread after
//! enqueuing it), reports how far each relation is, and goes on with peeks and subscriptions. It does no I/O and holds no lock across a step.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use differential_dataflow::trace::TraceReader;
use timely::progress::Antichain;
use timely::worker::Worker;

use crate::board::{Board, RelationSize};
use crate::command::{Command, Response};
use crate::delta::Delta;
use crate::errors::{ErrorLog, error_schema};
use crate::lanes::Lanes;
use crate::layout::Layout;
use crate::operators::arrange::{RowTrace, arrange, element};
use crate::operators::below_zero::below_zero;
use crate::operators::distribute::distribute;
use crate::operators::errors::errors as view_errors;
use crate::operators::temporal::Ticks;
use crate::operators::upsert::{PushedBatch, upsert};
use crate::peek::Peek;
use crate::plan::RelationId;
use crate::protocol::{EngineError, Envelope, InputBatch, Op, SourceSpec, Timestamp, ViewSpec};
use crate::relation::{Arrangement, DeltaInput, Relation, SourceInput, UpsertInput, only_inserts};
use crate::render::{Renderer, view_layout};
use crate::rows::normalise;
use crate::subscription::Follower;

/// How long a worker may sleep when nothing is to be done; commands wake it at once.
const IDLE_PARK: Duration = Duration::from_millis(500);

/// See the module's text.
#[allow(missing_debug_implementations)]
pub struct WorkerLoop<'w> {
    worker: &'w mut Worker,
    commands: Receiver<Command>,
    responses: Sender<Response>,
    board: Arc<Board>,
    retention_us: Timestamp,
    relations: HashMap<RelationId, Relation>,
    ticks: Ticks,
    /// The next timestamp that inputs can still give.
    clock: Timestamp,
    pushed: Vec<(RelationId, u64, InputBatch)>,
    peeks: Vec<Peek>,
    followers: Vec<Follower>,
}

impl<'w> WorkerLoop<'w> {
    /// A worker without relations.
    pub fn new(
        worker: &'w mut Worker,
        commands: Receiver<Command>,
        responses: Sender<Response>,
        board: Arc<Board>,
        retention_us: Timestamp,
    ) -> Self {
        WorkerLoop {
            worker,
            commands,
            responses,
            board,
            retention_us,
            relations: HashMap::new(),
            ticks: Ticks::default(),
            clock: 0,
            pushed: Vec::new(),
            peeks: Vec::new(),
            followers: Vec::new(),
        }
    }

    /// Runs until told to stop, or until the handle is gone.
    pub fn run(mut self) {
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Shutdown) | Err(TryRecvError::Disconnected) => return self.stop(),
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            let park = if self.peeks.is_empty() { Some(IDLE_PARK) } else { Some(Duration::ZERO) };
            self.worker.step_or_park(park);
            self.report();
            self.work_on_peeks();
            self.work_on_followers();
        }
    }

    fn stop(self) {
        for dataflow in self.worker.installed_dataflows() {
            self.worker.drop_dataflow(dataflow);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::CreateSource(spec, reply) => {
                let outcome = self.create_source(&spec);
                let _ = reply.send(outcome);
            }
            Command::CreateView(spec, as_of, reply) => {
                let outcome = self.create_view(&spec, as_of);
                let _ = reply.send(outcome);
            }
            Command::Drop(id, reply) => {
                let outcome = self.drop_relation(id);
                let _ = reply.send(outcome);
            }
            Command::Push(id, sequence, batch) => self.pushed.push((id, sequence, batch)),
            Command::AdvanceTo(time) => self.advance_to(time),
            Command::Peek(number, request) => self.peeks.push(Peek::new(number, request)),
            Command::Subscribe(number, id, as_of) => self.follow(number, id, as_of),
            Command::Unsubscribe(number) => self.followers.retain(|follower| follower.number != number),
            Command::Shutdown => {}
        }
    }

    fn create_source(&mut self, spec: &SourceSpec) -> Result<(), EngineError> {
        let failed = |reason: String| EngineError::ViewFailed(spec.id, reason);
        let layout = Layout::new(&spec.schema, &spec.key).map_err(|error| failed(error.to_string()))?;
        let again = || layout.again().map_err(|error| failed(error.to_string()));
        let (codecs, watched) = (again()?.into_codecs(), again()?);
        let unkeyed = (spec.envelope == Envelope::Append).then(|| spec.name.clone());
        let errors = ErrorLog::over(unkeyed.into_iter().collect());
        let dataflow = self.worker.next_dataflow_index();
        let (clock, name, log) = (self.clock, spec.name.as_str(), errors.clone());
        let (input, trace) = match spec.envelope {
            Envelope::Upsert => self.worker.dataflow_named(name, |scope| {
                let mut input = UpsertInput::new();
                let arranged = upsert(input.to_stream(scope), codecs.0, codecs.1, log, name);
                input.advance_to(clock);
                (SourceInput::Upsert(input), Some(arranged.trace))
            }),
            Envelope::Append if spec.keep => self.worker.dataflow_named(name, |scope| {
                let mut input = DeltaInput::new();
                let rows = distribute(input.to_stream(scope), codecs.0, codecs.1, false, log.clone());
                let arranged = arrange(rows, Lanes::multiplicity(), name);
                below_zero(&arranged, watched, log);
                input.advance_to(clock);
                (SourceInput::Append(input), Some(arranged.trace))
            }),
            Envelope::Append => (SourceInput::Readers(Vec::new()), None),
        };
        let kept = trace.is_some();
        let relation = Relation {
            name: spec.name.clone(),
            arrangement: trace.map(|trace| Arrangement { trace, layout: std::rc::Rc::new(layout) }),
            input: Some(input),
            readers: Vec::new(),
            reads: Vec::new(),
            dataflows: if kept { vec![dataflow] } else { Vec::new() },
            errors,
            errors_kept_in: None,
            only_inserts: spec.only_inserts && spec.envelope == Envelope::Append,
            since: clock.saturating_sub(1),
            reported: 0,
        };
        self.relations.insert(spec.id, relation);
        Ok(())
    }

    fn create_view(&mut self, spec: &ViewSpec, as_of: Timestamp) -> Result<(), EngineError> {
        let failed = |reason: String| EngineError::ViewFailed(spec.id, reason);
        let layout = view_layout(&spec.plan, &spec.key).map_err(failed)?;
        let codecs = layout.again().map_err(|error| failed(error.to_string()))?.into_codecs();
        let reads = spec.plan.reads();
        let errors = ErrorLog::over(self.unkeyed_sources(&reads));
        let kept_errors = match spec.errors {
            None => None,
            Some(id) => Some((id, Layout::new(&error_schema(), &[]).map_err(|error| failed(error.to_string()))?)),
        };
        let reported = if kept_errors.is_some() { ErrorLog::default() } else { errors.clone() };
        let dataflow = self.worker.next_dataflow_index();
        let (relations, ticks, clock) = (&mut self.relations, self.ticks.clone(), self.clock);
        let (rendered, inputs) = self.worker.dataflow_named(&spec.name, |scope| {
            let mut renderer =
                Renderer { scope, relations, inputs: Vec::new(), as_of, errors: errors.clone(), ticks, rendered: Vec::new() };
            let rendered = renderer.render(&spec.plan).and_then(|stream| {
                let rows = distribute(stream, codecs.0, codecs.1, false, errors.clone());
                let view = arrange(rows, Lanes::multiplicity(), &spec.name);
                let Some((_, layout)) = &kept_errors else { return Ok((view.trace, None)) };
                let (keys, vals) = layout.again().map_err(|error| error.to_string())?.into_codecs();
                let rows = view_errors(&view, errors.clone(), reported.clone(), as_of);
                let rows = distribute(rows, keys, vals, false, reported.clone());
                let kept = arrange(rows, Lanes::multiplicity(), &format!("{}: errors", spec.name));
                Ok((view.trace, Some(kept.trace)))
            });
            (rendered, renderer.inputs)
        });
        let (trace, errors_trace) = match rendered {
            Ok(traces) => traces,
            Err(reason) => {
                drop(inputs);
                self.worker.drop_dataflow(dataflow);
                return Err(failed(reason));
            }
        };
        for (read, mut input) in inputs {
            input.advance_to(clock);
            if let Some(Relation { input: Some(SourceInput::Readers(readers)), .. }) = self.relations.get_mut(&read) {
                readers.push((spec.id, input));
            }
        }
        for read in &reads {
            if let Some(relation) = self.relations.get_mut(read) {
                relation.readers.push(spec.id);
            }
        }
        let kept = |name: String, trace: RowTrace, layout: Layout| Relation {
            name,
            arrangement: Some(Arrangement { trace, layout: std::rc::Rc::new(layout) }),
            input: None,
            readers: Vec::new(),
            reads: Vec::new(),
            dataflows: Vec::new(),
            errors: ErrorLog::default(),
            errors_kept_in: None,
            only_inserts: false,
            since: as_of,
            reported: 0,
        };
        if let Some(((id, layout), trace)) = kept_errors.zip(errors_trace) {
            self.relations.insert(id, kept(format!("{}: errors", spec.name), trace, layout));
        }
        let view = kept(spec.name.clone(), trace, layout);
        let only_inserts = only_inserts(&self.relations, &spec.plan);
        let view =
            Relation { reads, dataflows: vec![dataflow], errors: reported, errors_kept_in: spec.errors, only_inserts, ..view };
        self.relations.insert(spec.id, view);
        Ok(())
    }

    /// The names of the sources without a key from which rows of these relations come. Only of those can rows be taken away that were
    /// never there; a source with a key takes the old row from its own state.
    fn unkeyed_sources(&self, relations: &[RelationId]) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for relation in relations.iter().filter_map(|id| self.relations.get(id)) {
            match &relation.input {
                Some(SourceInput::Upsert(_)) => {}
                Some(_) => names.push(relation.name.clone()),
                None => names.extend(self.unkeyed_sources(&relation.reads)),
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    fn drop_relation(&mut self, id: RelationId) -> Result<(), EngineError> {
        let relation = self.relations.get(&id).ok_or(EngineError::UnknownRelation(id))?;
        let errors = relation.errors_kept_in;
        for part in errors.into_iter().chain([id]) {
            if let Some(reader) = self.relations.get(&part).and_then(|relation| relation.readers.first()) {
                return Err(EngineError::InUse { relation: part, reader: *reader });
            }
        }
        let mut ended = Vec::new();
        self.followers.retain(|follower| {
            let stays = follower.relation != id && Some(follower.relation) != errors;
            if !stays {
                ended.push(follower.number);
            }
            stays
        });
        for number in ended {
            self.respond(Response::Ended(number, None));
        }
        drop(errors.and_then(|errors| self.relations.remove(&errors)));
        if let Some(relation) = self.relations.remove(&id) {
            for read in &relation.reads {
                if let Some(read) = self.relations.get_mut(read) {
                    read.readers.retain(|reader| *reader != id);
                    if let Some(SourceInput::Readers(readers)) = &mut read.input {
                        readers.retain(|(reader, _)| *reader != id);
                    }
                }
            }
            let dataflows = relation.dataflows.clone();
            drop(relation);
            dataflows.into_iter().for_each(|dataflow| self.worker.drop_dataflow(dataflow));
        }
        Ok(())
    }

    /// Closes the tick: feeds what was pushed at its timestamp and lets all inputs pass it.
    fn advance_to(&mut self, time: Timestamp) {
        let time = time.max(self.clock);
        for relation in self.relations.values_mut() {
            match &mut relation.input {
                Some(SourceInput::Upsert(input)) => input.advance_to(time),
                Some(SourceInput::Append(input)) => input.advance_to(time),
                Some(SourceInput::Readers(readers)) => readers.iter_mut().for_each(|(_, input)| input.advance_to(time)),
                None => {}
            }
        }
        for (id, sequence, batch) in std::mem::take(&mut self.pushed) {
            let Some(relation) = self.relations.get_mut(&id) else { continue };
            match (&mut relation.input, batch) {
                (Some(SourceInput::Upsert(input)), InputBatch::Rows { rows, ops }) => {
                    input.send(PushedBatch { sequence, rows: Some((rows, ops)) });
                }
                (Some(SourceInput::Upsert(input)), InputBatch::Truncate) => input.send(PushedBatch { sequence, rows: None }),
                (Some(SourceInput::Append(input)), InputBatch::Rows { rows, ops }) => input.send(to_delta(rows, ops)),
                (Some(SourceInput::Readers(readers)), InputBatch::Rows { rows, ops }) => {
                    let delta = to_delta(normalised(rows), ops);
                    readers.iter_mut().for_each(|(_, input)| input.send(delta.clone()));
                }
                (_, InputBatch::Truncate) => {
                    relation.errors.push(time, "a source without a key cannot be truncated".to_owned(), String::new(), 1);
                }
                (None, _) => {}
            }
        }
        self.clock = time + 1;
        let clock = self.clock;
        // what is not complete yet will be asked for, however long it takes
        let since = time.saturating_sub(self.retention_us).min(self.board.least_frontier().saturating_sub(1));
        for relation in self.relations.values_mut() {
            match &mut relation.input {
                Some(SourceInput::Upsert(input)) => input.advance_to(clock),
                Some(SourceInput::Append(input)) => input.advance_to(clock),
                Some(SourceInput::Readers(readers)) => readers.iter_mut().for_each(|(_, input)| input.advance_to(clock)),
                None => {}
            }
            if since > relation.since {
                relation.since = since;
                if let Some(arrangement) = &mut relation.arrangement {
                    arrangement.trace.set_logical_compaction(Antichain::from_elem(since).borrow());
                }
            }
        }
        self.ticks.close(time);
        self.ticks.forget_before(self.board.least_frontier());
    }

    fn report(&mut self) {
        let index = self.worker.index();
        let mut upper = Antichain::new();
        let mut failures = Vec::new();
        for (id, relation) in &mut self.relations {
            let errors = relation.errors.take();
            if !errors.is_empty() {
                failures.push(Response::Errors(*id, errors));
            }
            let Some(arrangement) = &mut relation.arrangement else { continue };
            arrangement.trace.read_upper(&mut upper);
            let frontier = element(upper.borrow()).unwrap_or(Timestamp::MAX);
            if frontier != relation.reported {
                relation.reported = frontier;
                arrangement.trace.set_physical_compaction(upper.borrow());
                let mut size = RelationSize::default();
                arrangement.trace.map_spans(|span| {
                    if let Some(batch) = &span.inner {
                        size.rows += batch.row_count();
                        size.updates += batch.update_count() as u64;
                        size.bytes += batch.heap_size() as u64;
                    }
                });
                self.board.report(*id, index, frontier, size);
            }
        }
        failures.into_iter().for_each(|failure| self.respond(failure));
    }

    fn work_on_peeks(&mut self) {
        let mut at = 0;
        while at < self.peeks.len() {
            let id = self.peeks[at].relation();
            match self.peeks[at].work(self.relations.get_mut(&id)) {
                Some(answer) => {
                    let peek = self.peeks.swap_remove(at);
                    self.respond(Response::Peeked(peek.number, answer));
                }
                None => at += 1,
            }
        }
    }

    fn follow(&mut self, number: u64, id: RelationId, as_of: Timestamp) {
        let outcome = match self.relations.get(&id) {
            None => Err(EngineError::UnknownRelation(id)),
            Some(relation) => match &relation.arrangement {
                None => Err(EngineError::NotArranged(id)),
                Some(_) if as_of < relation.since => Err(EngineError::Compacted { as_of, since: relation.since }),
                Some(arrangement) => Ok(Follower::new(number, id, arrangement, as_of)),
            },
        };
        match outcome {
            Ok(follower) => self.followers.push(follower),
            Err(error) => self.respond(Response::Ended(number, Some(error))),
        }
    }

    fn work_on_followers(&mut self) {
        let worker = self.worker.index();
        let mut said = Vec::new();
        self.followers.retain_mut(|follower| match follower.poll() {
            Ok(None) => true,
            Ok(Some((changes, upper))) => {
                said.push(Response::Followed { number: follower.number, worker, changes, upper });
                true
            }
            Err(error) => {
                said.push(Response::Ended(follower.number, Some(EngineError::ViewFailed(follower.relation, error.to_string()))));
                false
            }
        });
        said.into_iter().for_each(|response| self.respond(response));
    }

    /// The collector outlives the workers; a message that it no longer takes is about an engine that is being dropped.
    fn respond(&self, response: Response) {
        let _ = self.responses.send(response);
    }
}

/// Inserted rows count once, retracted ones minus once.
fn to_delta(rows: RecordBatch, ops: Option<Vec<u8>>) -> Delta {
    let minus = |op: u8| op == Op::Retract as u8 || op == Op::Delete as u8;
    let diffs = ops.map(|ops| ops.into_iter().map(|op| if minus(op) { -1 } else { 1 }).collect());
    Delta { rows, diffs }
}

/// The rows with one zero and one NaN among their floats, as the encoding of kept rows has them: readers of a source that is not kept see
/// its rows before any encoding.
fn normalised(rows: RecordBatch) -> RecordBatch {
    let columns = rows.columns().iter().map(normalise).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    // the same types and number of rows: it cannot be refused
    RecordBatch::try_new_with_options(rows.schema(), columns, &options).unwrap_or(rows)
}
