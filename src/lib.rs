//! Tailmark: a persistent event-log feed.

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "server")]
pub mod eventlog;
#[cfg(feature = "server")]
pub mod inspect;
pub mod record;
pub mod room;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod storage;
#[cfg(feature = "cli")]
pub mod telemetry;
pub mod topic;
#[cfg(feature = "cli")]
mod units;
pub mod wire;
