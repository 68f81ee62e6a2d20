//! The incremental engine: plans in, exact changes out, on timely and differential dataflow. It knows no SQL.
//!
//! ```text
//!   EngineHandle ── commands ──▶ worker 0 ┐   one timely dataflow per relation, joined by shared arrangements
//!   (any thread)                worker 1 ┤
//!        ▲                         …      ┘      source ─▶ arrange ─┬─▶ map ─▶ combine ─▶ arrange ─▶ reduce ─▶ arrange (view)
//!        └── board (frontiers), collector (peeks, subscriptions) ◀──┴───────────────────────────────────────────────┘
//! ```
//!
//! Reading order: [`plan`] (what can be run) and [`protocol`] (what is promised), then [`rows`], [`lanes`], [`diffs`], [`times`] and [`batch`] (how data
//! lies in memory), [`chunk`] and [`order`] (how it gets there), [`operators`] (one family a file), [`render`] (from plan to operators), [`worker`] and [`handle`] (threads).
//!
//! Data moves as Arrow batches ([`delta`]) up to a stateful operator, where rows become byte strings whose order and equality
//! are SQL's; arrangements are differential spines over flat batches of them.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod aggregate;
pub mod batch;
pub mod board;
pub mod chunk;
pub mod collector;
pub mod command;
pub mod delta;
pub mod diffs;
pub mod errors;
pub mod exact;
pub mod fixpoint;
pub mod function;
pub mod handle;
pub mod lanes;
pub mod layout;
pub mod merge;
pub mod operators;
pub mod order;
pub mod peek;
pub mod plan;
pub mod protocol;
pub mod relation;
pub mod render;
pub mod rows;
pub mod subscription;
pub mod times;
pub mod wide;
pub mod worker;
