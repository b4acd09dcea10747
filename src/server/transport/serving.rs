//! What connections need of the server, and no more.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::arrivals::Arrivals;
use super::greeting::Notices;
use super::vanished::Vanished;
use super::windows::Windows;
use crate::server::figures::Calls;
use crate::server::quotas::Quotas;
use crate::server::tls::Certificates;
use crate::server::{AccessRules, Options};

/// Shared by all connections.
pub(crate) struct Serving {
    pub(crate) routes: Routes,
    pub(crate) options: Arc<Options>,
    /// Where the server speaks TLS, and nothing else.
    pub(crate) tls: Option<Certificates>,
    pub(crate) notices: Notices,
    /// Who sees when a client of HTTP/1.1 is gone.
    pub(crate) vanished: Vanished,
    /// Who may ask.
    pub(crate) access: AccessRules,
    /// How many connections there may be, and what may be open on them.
    pub(crate) quotas: Arc<Quotas>,
    /// Where requests are counted.
    pub(crate) calls: Arc<Calls>,
    pub(crate) arrivals: Arrivals,
    /// Most bytes of an event.
    pub(crate) event_bytes: usize,
    pub(crate) windows: Windows,
    /// Where connections are counted until they have ended.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the server begins to stop.
    pub(crate) stop: CancellationToken,
    /// Cancelled when every connection is to end at once.
    pub(crate) cut: CancellationToken,
}
