//! Actors around the engine: sources, clock, sink driver, servers, supervisor.

pub mod decode;
pub mod service;
pub mod sources;
