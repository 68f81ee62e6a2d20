//! Actors around the engine: sources, clock, sink driver, servers, supervisor.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod service;
pub mod sources;
