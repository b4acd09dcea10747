//! What connections need of the server, and no more.

use std::net::IpAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::arrivals::Arrivals;
use super::greeting::Notices;
use crate::server::figures::Calls;
use crate::server::shares::Shares;
use crate::server::tls::Certificates;
use crate::server::{AccessRules, Gauges, Options};

/// Shared by all connections.
pub(crate) struct Serving {
    pub(crate) routes: Routes,
    pub(crate) options: Arc<Options>,
    /// Where the server speaks TLS, and nothing else.
    pub(crate) tls: Option<Certificates>,
    pub(crate) notices: Notices,
    /// Who may ask.
    pub(crate) access: AccessRules,
    pub(crate) gauges: Gauges,
    /// How many connections an address has.
    pub(crate) per_address: Shares<IpAddr>,
    /// Where requests are counted.
    pub(crate) calls: Arc<Calls>,
    pub(crate) arrivals: Arrivals,
    /// Where connections are counted until they have ended.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the server begins to stop.
    pub(crate) stop: CancellationToken,
    /// Cancelled when every connection is to end at once.
    pub(crate) cut: CancellationToken,
}
