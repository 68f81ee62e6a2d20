//! Actors around the engine: sources, clock, sink driver, servers, supervisor.
//!
//! ```text
//!   sources (readers on threads of their own) ──rows──▶ clock ──ticks──▶ engine ──changes──▶ sink driver ──epochs──▶ Iceberg
//!         ▲ restarts                                      │                 │
//!      supervisor ◀── failures ───────────────────────────┘                 └──peeks, changes──▶ HTTP, PostgreSQL wire
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod client;
pub mod clock;
pub mod config;
pub mod consolidate;
pub mod decode;
pub mod encode;
pub mod feeder;
pub mod http;
pub mod lake;
pub mod memory;
pub mod postgres;
pub mod service;
pub mod sink_driver;
pub mod sources;
pub mod statements;

#[cfg(test)]
mod double;
