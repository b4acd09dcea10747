//! A server over a log on disk that can be stopped and started again at the same address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tailmark::server::{Gauges, Options, ServeError, Server};
use tailmark_log::eventlog::{self, EventLog};
use tailmark_log::storage::{Engine, Recovered, StoreError, local};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::port::Port;
use super::server::within;

/// How it is opened, each time.
#[derive(Clone)]
pub struct Setup {
    pub storage: local::Options,
    pub log: eventlog::Options,
    pub server: Options,
}

impl Setup {
    /// Slots as small as they can be, so that rolls and seals happen all the time.
    pub fn small() -> Setup {
        Setup {
            storage: local::Options {
                slot_bytes: 256 << 10,
                min_free_bytes: 0,
                ..local::Options::default()
            },
            log: eventlog::Options {
                retention_interval: Duration::from_millis(5),
                ..eventlog::Options::default()
            },
            server: Options {
                shutdown_grace: Duration::from_millis(100),
                retry_delay: Duration::from_millis(5),
                ..Options::default()
            },
        }
    }
}

pub struct DiskServer {
    pub address: SocketAddr,
    port: Port,
    pub log: EventLog,
    pub gauges: Gauges,
    dir: PathBuf,
    setup: Setup,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

/// Puts an engine around the one of the disk.
pub type Wrap<'a> = &'a dyn Fn(Arc<dyn Engine>) -> Arc<dyn Engine>;

impl DiskServer {
    pub async fn start(dir: &Path, setup: Setup) -> DiskServer {
        DiskServer::start_wrapped(dir, setup, &|engine| engine).await
    }

    pub async fn start_wrapped(dir: &Path, setup: Setup, wrap: Wrap<'_>) -> DiskServer {
        DiskServer::listen(dir, setup, Port::reserve(), wrap).await
    }

    async fn listen(dir: &Path, setup: Setup, port: Port, wrap: Wrap<'_>) -> DiskServer {
        let (engine, recovered) = within("open", open_engine(dir, &setup.storage)).await;
        let log = EventLog::open(wrap(engine), recovered, setup.log.clone()).unwrap();
        let (listener, address) = (port.listen(), port.address);
        let server = Server::new(log.clone(), setup.server.clone()).unwrap();
        let gauges = server.gauges();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(server.run(vec![listener], shutdown.clone()));
        DiskServer { address, port, log, gauges, dir: dir.to_owned(), setup, shutdown, task }
    }

    /// Stops it in order.
    pub async fn stop(self) {
        self.shutdown.cancel();
        within("stop", self.task).await.unwrap().unwrap();
        within("close", self.log.close()).await.unwrap();
    }

    /// Cuts every connection and leaves the log as it is.
    pub fn abandon(self) {
        self.task.abort();
    }

    /// Stops it in order, and opens the same directory at the same address.
    pub async fn restart(self) -> DiskServer {
        let (dir, setup, port) = (self.dir.clone(), self.setup.clone(), self.port.clone());
        self.stop().await;
        DiskServer::listen(&dir, setup, port, &|engine| engine).await
    }

    pub fn head(&self) -> u64 {
        self.log.bounds().head.get()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Opens a log. The lock of the one before goes when the last of its tasks lets go.
pub async fn open_engine(dir: &Path, options: &local::Options) -> (Arc<dyn Engine>, Recovered) {
    let mut look = tokio::time::interval(Duration::from_millis(2));
    loop {
        let (at, options) = (dir.to_owned(), options.clone());
        let opened = tokio::task::spawn_blocking(move || local::open(&at, options)).await.unwrap();
        match opened {
            Ok((engine, recovered)) => return (engine, recovered),
            Err(StoreError::Locked { .. }) => look.tick().await,
            Err(error) => panic!("{}: {error:?}", dir.display()),
        };
    }
}

/// What a crash of the process leaves on a disk: the directory as it is at this moment.
pub fn copy_dir(from: &Path, to: &Path) {
    tailmark_log::testing::copy_dir(from, to).unwrap();
}
