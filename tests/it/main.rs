//! End-to-end tests: one binary for all of them.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod crash;
mod docs;
mod examples;
mod histories;
mod incremental;
mod layering;
mod machine;
mod months;
mod nexmark;
mod past;
mod process;
mod random_queries;
mod runs;
mod tpch;
mod view_errors;
