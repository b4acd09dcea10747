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
#[cfg(any(feature = "cli", feature = "server"))]
mod moment;
pub mod record;
pub mod room;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod storage;
#[cfg(feature = "cli")]
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod topic;
#[cfg(any(feature = "cli", feature = "server"))]
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
mod units;
pub mod wire;
