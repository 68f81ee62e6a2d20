//! A worker's part of a relation: its arrangement if it has one, its inputs, and who reads it.

use std::collections::HashMap;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::core::input::Handle;

use crate::delta::Delta;
use crate::errors::ErrorLog;
use crate::layout::Layout;
use crate::operators::arrange::RowTrace;
use crate::operators::upsert::PushedBatch;
use crate::plan::{Plan, RelationId};
use crate::protocol::Timestamp;

/// An input of pushed deltas.
pub type DeltaInput = Handle<Timestamp, CapacityContainerBuilder<Vec<Delta>>>;
/// An input of pushed upserts.
pub type UpsertInput = Handle<Timestamp, CapacityContainerBuilder<Vec<PushedBatch>>>;

/// How pushed rows get in.
#[allow(missing_debug_implementations)]
pub enum SourceInput {
    /// Into the relation's own dataflow, by key.
    Upsert(UpsertInput),
    /// Into the relation's own dataflow, as they are.
    Append(DeltaInput),
    /// Straight into each reader's dataflow: nothing is kept.
    Readers(Vec<(RelationId, DeltaInput)>),
}

/// A relation's rows, sorted by key, shared by everything that reads them.
#[derive(Clone)]
#[allow(missing_debug_implementations)]
pub struct Arrangement {
    /// The shared trace; this handle bounds its compaction.
    pub trace: RowTrace,
    /// What its bytes mean.
    pub layout: Rc<Layout>,
}

/// Whether no row of a plan over these relations is ever taken away.
pub fn only_inserts(relations: &HashMap<RelationId, Relation>, plan: &Plan) -> bool {
    plan.only_inserts(&|id| relations.get(&id).is_some_and(|relation| relation.only_inserts))
}

/// See the module's text.
#[allow(missing_debug_implementations)]
pub struct Relation {
    /// For logs.
    pub name: String,
    /// Where its rows are, if they are kept.
    pub arrangement: Option<Arrangement>,
    /// How rows come in; `None` for views.
    pub input: Option<SourceInput>,
    /// Views that read it.
    pub readers: Vec<RelationId>,
    /// Relations that it reads.
    pub reads: Vec<RelationId>,
    /// The dataflows to drop with it.
    pub dataflows: Vec<usize>,
    /// What its operators could not compute, to be reported.
    pub errors: ErrorLog,
    /// The relation that keeps those of a view, if one does.
    pub errors_kept_in: Option<RelationId>,
    /// Whether no row of it is ever taken away.
    pub only_inserts: bool,
    /// The oldest timestamp at which it can be read.
    pub since: Timestamp,
    /// The last frontier that was reported.
    pub reported: Timestamp,
}
