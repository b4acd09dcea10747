//! A server over a log on disk that is stopped, or torn away, and comes back at the same address.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tailmark::server::Server;
use tailmark_log::eventlog::EventLog;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::disk::{Setup, open_engine};
use crate::support::port::Port;
use crate::support::server::within;

pub struct Daemon {
    pub address: SocketAddr,
    pub log: EventLog,
    port: Port,
    dir: PathBuf,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Daemon {
    pub async fn start(dir: PathBuf) -> Daemon {
        Daemon::listen(dir, Port::reserve()).await
    }

    async fn listen(dir: PathBuf, port: Port) -> Daemon {
        let setup = Setup::small();
        let (engine, recovered) = within("open", open_engine(&dir, &setup.storage)).await;
        let log = EventLog::open(engine, recovered, setup.log).unwrap();
        let listener = port.listen();
        let server = Server::new(log.clone(), setup.server).unwrap();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { server.run(vec![listener], stop).await.unwrap() });
        Daemon { address: port.address, log, port, dir, shutdown, task }
    }

    pub fn head(&self) -> u64 {
        self.log.bounds().head.get()
    }

    /// In order, as SIGTERM stops it, or without a word to anybody. What is acked meanwhile counts.
    pub async fn stop(self, in_order: bool) -> (PathBuf, Port) {
        if in_order {
            self.shutdown.cancel();
            within("stop", self.task).await.unwrap();
        } else {
            self.task.abort();
            let _ = within("abort", self.task).await;
        }
        within("close", self.log.close()).await.unwrap();
        (self.dir, self.port)
    }

    pub async fn restart(self, in_order: bool, down: Duration) -> Daemon {
        let (dir, port) = self.stop(in_order).await;
        tokio::time::sleep(down).await;
        Daemon::listen(dir, port).await
    }
}
