//! What a daemon opens: a log of its own, or its part in one that several share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Failure;
use super::layer_options::{log_options, storage_options};
#[cfg(feature = "nats")]
use super::layer_options::{retention, topic_rules};
use crate::config::Config;
use crate::server::{Peers, ServedLog, Server};
use tailmark_log::eventlog::EventLog;
use tailmark_log::storage::StoreError;

/// A log that is open.
pub(super) struct Opened {
    pub(super) log: EventLog,
    #[cfg(feature = "nats")]
    joined: Option<crate::cluster::Joined>,
}

/// Opens it, on a thread that may block. What takes long ends early where nobody waits any more.
pub(super) fn opens(
    config: Config,
    addresses: Vec<SocketAddr>,
    ends: Arc<AtomicBool>,
) -> impl FnOnce() -> Result<Option<Opened>, Failure> + Send + 'static {
    let _ = (&addresses, &ends);
    move || {
        #[cfg(feature = "nats")]
        if config.journal.is_shared() {
            let goes_on = || !ends.load(std::sync::atomic::Ordering::Relaxed);
            let runtime = tokio::runtime::Handle::current();
            let joined = super::shared::join(&config, &addresses, runtime, &goes_on)?;
            return Ok(joined.map(|it| Opened { log: it.log.clone(), joined: Some(it) }));
        }
        let (dir, storage) = (config.storage.data_dir.clone(), storage_options(&config));
        let log = tailmark_log::open(dir, storage, log_options(&config))?;
        Ok(Some(Opened {
            log,
            #[cfg(feature = "nats")]
            joined: None,
        }))
    }
}

impl Opened {
    /// Who shares it.
    pub(super) fn peers(&self) -> Option<Arc<dyn Peers>> {
        #[cfg(feature = "nats")]
        return super::shared::peers(self.joined.as_ref());
        #[cfg(not(feature = "nats"))]
        None
    }

    /// Goes on by itself where others share it, for a server.
    pub(super) fn start(self, server: &mut Server) -> Result<Part, Failure> {
        #[cfg(feature = "nats")]
        if let Some(joined) = self.joined {
            let routes = std::mem::take(server.routes_mut());
            *server.routes_mut() = routes.add_service(joined.cluster.service());
            let runtime = tokio::runtime::Handle::current();
            let cluster = joined.start(server.served_log(), runtime);
            let cluster = cluster.map_err(|error| super::shared::unjoined(&error))?;
            return Ok(Part { cluster: Some(cluster) });
        }
        let _ = server;
        Ok(Part::default())
    }
}

/// The part of a daemon in a log that several share; of a log of its own, nothing.
#[derive(Clone, Default)]
pub(super) struct Part {
    #[cfg(feature = "nats")]
    cluster: Option<crate::cluster::Cluster>,
}

impl Part {
    /// Settings that may change while it runs, for logs that are opened from now on.
    pub(super) fn takes(&self, config: &Config) {
        #[cfg(feature = "nats")]
        if let Some(cluster) = &self.cluster {
            let rules = topic_rules(config);
            cluster.set_retention(&retention(config), config.retention.interval, &rules);
        }
        let _ = config;
    }

    /// Hands on what it does for others, before the server stops.
    pub(super) async fn leave(&self) {
        #[cfg(feature = "nats")]
        if let Some(cluster) = &self.cluster {
            cluster.leave().await;
        }
    }

    /// Ends what goes on by itself, closes the log, and what lies below it.
    ///
    /// # Errors
    /// I/O; what was acknowledged is durable all the same.
    pub(super) async fn close(&self, served: &ServedLog) -> Result<(), StoreError> {
        #[cfg(feature = "nats")]
        if let Some(cluster) = self.cluster.clone() {
            let ending = cluster.clone();
            let ended = tokio::task::spawn_blocking(move || ending.end()).await;
            let closed = served.log().close().await;
            let below = tokio::task::spawn_blocking(move || cluster.close()).await;
            let panicked = |_| StoreError::Stopped { reason: "closing panicked".into() };
            return closed.and(ended.map_err(panicked)).and(below.map_err(panicked)?);
        }
        served.log().close().await
    }
}
