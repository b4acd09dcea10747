//! Gauges of what is open, and the permits that enforce their limits.
//!
//! Invariant: a gauge goes down when its permit is dropped, however the work ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is open now; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gauges(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    connections: Arc<AtomicUsize>,
    watches: Arc<AtomicUsize>,
    uploads: Arc<AtomicUsize>,
    turned_away: Arc<AtomicUsize>,
    metrics_streams: Arc<AtomicUsize>,
    health_watches: Arc<AtomicUsize>,
}

/// Watches of health: for load balancers, of which each has one or a few.
const HEALTH_WATCHES: usize = 1_000;
/// Connections over the limit that are told so at a time; the others are closed without a word.
const TURNED_AWAY: usize = 64;

impl Gauges {
    /// Connections.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// Watches.
    pub fn watches(&self) -> usize {
        self.0.watches.load(Ordering::Relaxed)
    }

    /// Uploads, those included whose client has gone but whose events are still being stored.
    pub fn uploads(&self) -> usize {
        self.0.uploads.load(Ordering::Relaxed)
    }

    /// Streams of metrics.
    pub fn metrics_streams(&self) -> usize {
        self.0.metrics_streams.load(Ordering::Relaxed)
    }

    pub(crate) fn connection(&self, limit: usize) -> Result<Permit, OverLimit> {
        Permit::take(&self.0.connections, limit, "connections")
    }

    /// To tell a connection that it is one too many; `None` when enough are being told.
    pub(crate) fn turned_away(&self) -> Option<Permit> {
        Permit::take(&self.0.turned_away, TURNED_AWAY, "connections").ok()
    }

    pub(crate) fn watch(&self, limit: usize) -> Result<Permit, OverLimit> {
        Permit::take(&self.0.watches, limit, "watches")
    }

    pub(crate) fn metrics_stream(&self, limit: usize) -> Result<Permit, OverLimit> {
        Permit::take(&self.0.metrics_streams, limit, "metrics_streams")
    }

    pub(crate) fn health_watch(&self) -> Result<Permit, OverLimit> {
        Permit::take(&self.0.health_watches, HEALTH_WATCHES, "health_watches")
    }

    pub(crate) fn upload(&self) -> Permit {
        self.0.uploads.fetch_add(1, Ordering::Relaxed);
        Permit(Arc::clone(&self.0.uploads))
    }
}

/// What is limited in how much of it is open at once: less of it may be open a moment later. What
/// exceeds any other limit exceeds it for ever.
pub(crate) const AT_ONCE: [&str; 12] = [
    "connections",
    "connections_per_address",
    "watches",
    "watches_per_connection",
    "watches_per_address",
    "watches_per_principal",
    "metrics_streams",
    "health_watches",
    "rooms_per_chat",
    "tokens",
    "events_per_principal",
    "bytes_per_principal",
];

/// A limit that one more would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverLimit {
    pub(crate) what: &'static str,
    pub(crate) limit: usize,
    pub(crate) actual: usize,
}

/// One of the things counted.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Permit {
    fn take(
        count: &Arc<AtomicUsize>,
        limit: usize,
        what: &'static str,
    ) -> Result<Permit, OverLimit> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        // From here on dropping takes the count back.
        let permit = Permit(Arc::clone(count));
        if before >= limit {
            return Err(OverLimit { what, limit, actual: before.saturating_add(1) });
        }
        Ok(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all requests of one connection share; travels as a request extension.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    watches: Arc<AtomicUsize>,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Peer { address, watches: Arc::default() }
    }

    /// Watches open on the connection.
    pub(crate) fn watches(&self) -> usize {
        self.watches.load(Ordering::Relaxed)
    }

    pub(crate) fn watch(&self, limit: usize) -> Result<Permit, OverLimit> {
        Permit::take(&self.watches, limit, "watches_per_connection")
    }
}

/// The right to be one of the watches: of those on a connection, and of all.
#[derive(Debug)]
pub(crate) struct WatchPermits {
    /// Absent for a request that came by no connection of ours.
    _of_connection: Option<Permit>,
    _of_server: Permit,
}

impl WatchPermits {
    pub(crate) fn take(
        gauges: &Gauges,
        limit: usize,
        peer: Option<&Peer>,
        limit_of_connection: usize,
    ) -> Result<WatchPermits, OverLimit> {
        let of_connection = peer.map(|peer| peer.watch(limit_of_connection)).transpose()?;
        Ok(WatchPermits { _of_connection: of_connection, _of_server: gauges.watch(limit)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_refused_over_the_limit_and_comes_back() {
        let gauges = Gauges::default();
        let first = gauges.watch(1);
        assert!(first.is_ok());
        let refused = OverLimit { what: "watches", limit: 1, actual: 2 };
        assert_eq!(gauges.watch(1).err(), Some(refused));
        assert_eq!(gauges.watches(), 1);
        drop(first);
        assert_eq!(gauges.watches(), 0);
        assert!(gauges.watch(1).is_ok());
    }
}
