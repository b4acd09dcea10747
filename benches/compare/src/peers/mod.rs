//! What is measured: each does the same work in the way that its own documentation says is fastest.

#[cfg(feature = "peers")]
mod jetstream;
#[cfg(feature = "peers")]
mod redis;
mod tailmark;
mod tls;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use async_trait::async_trait;

pub(crate) use self::tailmark::{Tailmark, share, start_daemon};
use crate::fan::Fan;
use crate::limits::{File, Tonic};
use crate::load::Lane;
use crate::own::{Opened, Own, Storm};
use crate::process::Server;
use crate::sample::Load;

/// The columns of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Target {
    Tailmark,
    /// It over TLS.
    TailmarkTls,
    #[cfg(feature = "peers")]
    Jetstream,
    /// It with an fsync before each ack.
    #[cfg(feature = "peers")]
    JetstreamSynced,
    #[cfg(feature = "peers")]
    Redis,
    /// The limit of the wire.
    Tonic,
    /// The limit of the disk.
    File,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Target::Tailmark => "tailmark",
            Target::TailmarkTls => "tailmark, TLS",
            #[cfg(feature = "peers")]
            Target::Jetstream => "jetstream",
            #[cfg(feature = "peers")]
            Target::JetstreamSynced => "jetstream, synced",
            #[cfg(feature = "peers")]
            Target::Redis => "redis",
            Target::Tonic => "limit: tonic",
            Target::File => "limit: file",
        }
    }

    /// Whether what is appended stays on disk, or nothing grows with it.
    pub(crate) fn keeps_events(self) -> bool {
        !matches!(self, Target::Tonic | Target::File)
    }

    /// Whether each event waits for an fsync of its own, so that a million of them take an hour.
    pub(crate) fn syncs_each(self) -> bool {
        match self {
            #[cfg(feature = "peers")]
            Target::JetstreamSynced => true,
            _ => false,
        }
    }

    /// Starts it on an empty directory of its own.
    pub(crate) async fn start(self, setup: &Setup) -> Result<Box<dyn Peer>> {
        Ok(match self {
            Target::Tailmark => match &setup.addr {
                Some(addr) => Box::new(Tailmark::attach(addr)?),
                None => Box::new(Tailmark::start(setup).await?),
            },
            Target::TailmarkTls => Box::new(tls::TailmarkTls::start(setup).await?),
            #[cfg(feature = "peers")]
            Target::Jetstream => Box::new(jetstream::Jetstream::start(setup, false).await?),
            #[cfg(feature = "peers")]
            Target::JetstreamSynced => Box::new(jetstream::Jetstream::start(setup, true).await?),
            #[cfg(feature = "peers")]
            Target::Redis => Box::new(redis::Redis::start(setup).await?),
            Target::Tonic => Box::new(Tonic::start(setup).await?),
            Target::File => Box::new(File::create(setup)?),
        })
    }
}

/// What all need to start.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The `tailmark` program.
    pub(crate) daemon: PathBuf,
    /// The `nats-server` program.
    #[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "only the peers start it"))]
    pub(crate) nats_server: PathBuf,
    /// A running daemon instead of one of our own.
    pub(crate) addr: Option<String>,
    /// Below it each server gets a directory.
    pub(crate) dir: PathBuf,
    /// Bytes of one commit of the file limit.
    pub(crate) commit_bytes: usize,
}

impl Setup {
    /// A daemon of our own, and the servers that it is measured beside.
    pub(crate) fn new(daemon: &Path, dir: &Path) -> Setup {
        Setup {
            daemon: daemon.to_owned(),
            nats_server: PathBuf::from("nats-server"),
            addr: None,
            dir: dir.to_owned(),
            commit_bytes: 1 << 20,
        }
    }

    /// A new directory, removed when dropped.
    pub(crate) fn new_dir(&self, name: &str) -> Result<tempfile::TempDir> {
        let prefix = format!("{name}.");
        Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.dir)?)
    }
}

/// How a single event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// In the protocol of the house.
    Own,
    /// By plain HTTP.
    Http,
}

/// How a log is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// One event a message, left as the bytes that came.
    Received,
    /// One event a message, decoded.
    Decoded,
    /// In batches, every event decoded.
    Batches,
}

/// One server and clients of it. What a peer has no way to do answers `None`.
#[async_trait]
pub(crate) trait Peer: Send + Sync {
    /// Its server, when we started one.
    fn server(&self) -> Option<&Server>;

    /// Stops the server and starts it again on the same data, so that nothing is cached but by the
    /// system. One that is not ours goes on as it is.
    async fn restart(&mut self) -> Result<()> {
        Ok(())
    }

    /// One producer, one event a message, until all are acked.
    async fn append(&self, _: Load) -> Result<Option<Duration>> {
        Ok(None)
    }

    /// As [`Peer::append`], in batches.
    async fn append_batches(&self, _: Load, _batch: usize) -> Result<Option<Duration>> {
        Ok(None)
    }

    /// Puts a load there, in whatever way.
    async fn fill(&self, load: Load) -> Result<()> {
        match self.append(load).await? {
            Some(_) => Ok(()),
            None => bail!("it stores nothing"),
        }
    }

    /// From the oldest event on, so many.
    async fn replay(&self, _: Replay, _events: u64) -> Result<Option<Duration>> {
        Ok(None)
    }

    /// Live: from the first publish until every watcher has everything.
    async fn fan_out(&self, _: &Arc<Fan>) -> Result<Option<Duration>> {
        Ok(None)
    }

    /// One event at a time, each from the call to its ack.
    async fn publish(&self, _events: usize) -> Result<Option<Vec<Duration>>> {
        Ok(None)
    }

    /// From asking for the events from `place` on, from 1, to having the first of them.
    async fn resume(&self, _place: u64) -> Result<Option<Duration>> {
        Ok(None)
    }

    /// All events of the rare topic, of which there are so many.
    async fn rare(&self, _events: u64) -> Result<Option<Duration>> {
        Ok(None)
    }

    /// Opens watchers that wait, on so many connections, until what comes back is dropped.
    async fn idle(
        &self,
        _watchers: usize,
        _connections: usize,
    ) -> Result<Option<Box<dyn Any + Send>>> {
        Ok(None)
    }

    /// How single events are published on the wire, for the load client.
    fn lane(&self, _: Call) -> Option<Lane> {
        None
    }

    /// Events that it has stored so far.
    async fn stored(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Opens watches that each have a topic of their own: as many as it can take.
    async fn watch_own(&self, _: &Arc<Own>) -> Result<Option<Opened>> {
        Ok(None)
    }

    /// Publishes events that go round over those topics, as fast as [`Own::lot`] has it.
    async fn publish_own(&self, _: &Arc<Own>) -> Result<()> {
        bail!("it has no topics")
    }

    /// Appends the events of a storm, or as many more rounds over its topics as it takes to have the newest in the most
    /// expensive place, and keeps where its clients are; false where that cannot be done.
    async fn fill_storm(&mut self, _: &mut Storm) -> Result<bool> {
        Ok(false)
    }

    /// All clients come back at once: until each has what it missed.
    async fn storm(&self, _: &Storm) -> Result<Option<Duration>> {
        Ok(None)
    }

    /// Brings everything to where it rests for good; false where there is no such difference.
    async fn seal(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// Bytes of the commits that it made so far, on average.
    async fn commit_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}
