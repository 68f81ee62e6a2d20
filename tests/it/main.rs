//! End-to-end tests: one binary for all of them.
#![allow(clippy::unwrap_used)]

mod crash;
mod incremental;
mod layering;
mod process;
mod runs;
