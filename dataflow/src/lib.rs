//! The incremental engine: SQL-free plans in, exact changes out, on timely and differential dataflow.
pub mod handle;
pub mod plan;
pub mod protocol;
