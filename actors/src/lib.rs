//! Actors around the engine: sources, clock, sink driver, servers, and the lake that holds them together.
//!
//! ```text
//!   files, Kafka,        feeder: one a source                                     sink driver: one a lake
//!   generator ──▶ sources ──▶ decode ──rows──▶ clock ──ticks──▶ engine ──changes──▶ pending epoch ──▶ Iceberg
//!                    ▲          │ errors         │ credit          │                    │
//!                    │          └─▶ name$errors  │                 ├──peeks──▶ lake ──▶ http, postgres ──▶ client, page
//!                    └── started again ◀─────────┘                 └──subscriptions─────▶    (by the trait in service)
//! ```
//!
//! Actors own state and time; readers have a thread each, and what computes runs on the engine's workers or on the runtime's threads. A
//! feeder starts a reader that failed or panicked again, under a new generation number, so that what the old one still says is dropped; the
//! sink driver sends an epoch that was not acknowledged again as it was. Mailboxes are bounded: whoever sends data waits for the answer.
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
