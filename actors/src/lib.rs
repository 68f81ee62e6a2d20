//! Actors around the engine: sources, clock, sink driver, servers, supervisor.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod client;
pub mod encode;
pub mod http;
pub mod postgres;
pub mod service;
pub mod statements;

#[cfg(test)]
mod double;
