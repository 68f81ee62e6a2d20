//! SQL for livelake: statements, the catalog, planning, lowering to dataflows, and ad-hoc answers.
//!
//! ```text
//!   text ──statement──► Statement ──catalog──► Relation (schema, key, options, who reads whom)
//!                          │                      │
//!                          │        plan: DataFusion's planner and chosen rules, over provider
//!                          │                      ▼
//!                          │                 LogicalPlan ──lower──► dataflow::plan::Plan ──► the engine
//!                          │                      │
//!                          └──session──► the same query over a RelationReader at one timestamp ──► rows
//!                                                 │
//!                              verify compares the two; explain prints them
//! ```
//!
//! Nothing here runs a dataflow or a server. A [`catalog::Catalog`] is a value that the caller keeps; the engine's rows come
//! in by [`session::RelationReader`]. Errors are [`SqlError`]s with file, line, column and a hint.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(missing_docs)]

pub mod catalog;
pub mod error;
pub mod explain;
pub mod json_text;
pub mod lower;
pub mod name;
pub mod plan;
mod provider;
pub mod session;
pub mod statement;
pub mod types;
pub mod verify;

pub use error::{Position, SqlError, SqlErrorKind};
pub use name::RelationName;
