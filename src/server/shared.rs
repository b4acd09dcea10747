//! What the calls share. Handlers borrow it; layers below get only the parts that they need.

use std::sync::Arc;
use std::time::Instant;

use tailmark_log::eventlog::EventLog;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::Auth;
use super::feed::parked::Parking;
use super::feed::shared_frames::SharedFrames;
use super::figures::Figures;
use super::quotas::Quotas;
use super::transport::arrivals::Arrivals;
use super::{Gauges, Options};

/// What the calls share.
pub(crate) struct Shared {
    pub(crate) log: EventLog,
    pub(crate) options: Arc<Options>,
    /// Who calls.
    pub(crate) auth: Arc<Auth>,
    pub(crate) gauges: Gauges,
    pub(crate) figures: Arc<Figures>,
    /// What may be open at once.
    pub(crate) quotas: Arc<Quotas>,
    /// Cancelled when the server begins to stop.
    pub(crate) stop: CancellationToken,
    /// Room for messages that are not whole yet.
    pub(crate) arrivals: Arrivals,
    /// Chunks of watches that wait for their clients.
    pub(crate) parking: Parking,
    /// What watches send alike.
    pub(crate) shared_frames: Arc<SharedFrames>,
    /// Whose turn it is to erase.
    pub(crate) erasing: Arc<Semaphore>,
    /// Whose turn it is to look what retention or an erasure would remove.
    pub(crate) dry_runs: Arc<Semaphore>,
    /// Connections, uploads and what comes in on chats.
    pub(crate) tasks: TaskTracker,
    pub(crate) started: Instant,
}
