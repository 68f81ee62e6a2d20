//! Actors around the engine: sources, clock, sink driver, servers, supervisor.

pub mod service;
