//! Tailmark: a persistent event-log feed. Here: the server, offline inspection, and the program.
//!
//! Around it: `tailmark-record` has the plain values, `tailmark-wire` what goes over the network,
//! `tailmark-log` the durable log itself, `tailmark-client` the client.

pub mod backup;
mod certificate;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "nats")]
pub mod cluster;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "cli")]
pub mod doctor;
#[cfg(feature = "cli")]
mod escape;
pub mod export;
pub mod inspect;
pub mod server;
#[cfg(feature = "cli")]
pub mod telemetry;
pub mod testing;
#[cfg(feature = "cli")]
pub mod tokens;
