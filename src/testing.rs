//! A server for tests and examples: the whole service on a free port, over a log in memory.
//!
//! Owns how such a server is put together, and nothing of what it does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::server::{Options, Server};
use tailmark_log::eventlog::{self, EventLog};
use tailmark_log::storage::Recovered;
use tailmark_log::storage::memory::{self, Memory};
use tailmark_record::{FingerprintKey, GenerationTable, LogId, Timestamp};

/// A server that runs until this is dropped; its events go with it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = tailmark::testing::serve().await?;
/// let client = tailmark_client::Client::new(&server.url())?;
/// assert_eq!(client.log().await?.head_seq, 0);
/// # Ok(())
/// # }
/// ```
pub struct TestServer {
    address: SocketAddr,
    log: EventLog,
    _stop: DropGuard,
}

/// Starts a server on a free port of 127.0.0.1 with an empty log. Needs a tokio runtime.
///
/// # Errors
/// When there is no port, or the log does not open.
pub async fn serve() -> io::Result<TestServer> {
    let id = LogId::new(Uuid::new_v4());
    let generations = GenerationTable::created(1, Timestamp::EPOCH);
    let key = FingerprintKey::new(Uuid::new_v4().into_bytes());
    let engine = Memory::new(id, key, generations, memory::Options::default());
    let log = EventLog::open(Arc::new(engine), Recovered::default(), eventlog::Options::default())
        .map_err(io::Error::other)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::new(log.clone(), Options::default()).map_err(io::Error::other)?;
    let stop = CancellationToken::new();
    tokio::spawn(server.run(vec![listener], stop.clone()));
    Ok(TestServer { address, log, _stop: stop.drop_guard() })
}

impl TestServer {
    /// Where it listens, as a client wants it: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its log, past the network.
    pub fn log(&self) -> &EventLog {
        &self.log
    }
}
