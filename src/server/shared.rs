//! What all requests share.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tailmark_log::eventlog::EventLog;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::chat::Presence;
use super::feed::parked::Parking;
use super::feed::shared_frames::SharedFrames;
use super::figures::Figures;
use super::rpc::status;
use super::transport::arrivals::Arrivals;
use super::{AccessRules, Gauges, Options};

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) log: EventLog,
    pub(crate) options: Options,
    /// Who may ask.
    pub(crate) access: AccessRules,
    pub(crate) gauges: Gauges,
    pub(crate) figures: Figures,
    /// Lines of the program's log that nobody took, where the program counts them.
    pub(crate) dropped_log_lines: OnceLock<Arc<AtomicU64>>,
    /// Cancelled when the server begins to stop.
    pub(crate) stop: CancellationToken,
    /// Room for messages that are not whole yet.
    pub(crate) arrivals: Arrivals,
    /// Chunks of watches that wait for their clients.
    pub(crate) parking: Parking,
    /// What watches send alike.
    pub(crate) shared_frames: Arc<SharedFrames>,
    /// Who is in which room.
    pub(crate) presence: Presence,
    /// Connections, uploads and what comes in on chats.
    pub(crate) tasks: TaskTracker,
    pub(crate) started: Instant,
}

/// What failures about positions tell, the time of the oldest event included where it can be read.
pub(crate) async fn facts(log: &EventLog) -> status::LogFacts {
    let bounds = log.bounds();
    let oldest_time = if bounds.is_empty() { None } else { log.time_of(bounds.oldest).await.ok() };
    status::LogFacts::new(log.id(), &bounds, oldest_time)
}
