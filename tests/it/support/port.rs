//! A port that nobody else gets while a server is down.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::{TcpListener, TcpSocket};

use super::server::PATIENCE;

/// Bound and silent: who connects while nobody listens is refused, and no other test, nor any
/// connection of this machine, is given the port meanwhile.
#[derive(Clone)]
pub struct Port {
    pub address: SocketAddr,
    _held: Arc<TcpSocket>,
}

impl Port {
    pub fn reserve() -> Port {
        let held = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Port { address: held.local_addr().unwrap(), _held: Arc::new(held) }
    }

    /// Begins to listen, again after whoever did so before has stopped. A process that another test
    /// is starting has a copy of the old socket until it becomes that program.
    pub fn listen(&self) -> TcpListener {
        let begun = Instant::now();
        loop {
            match bind(self.address).and_then(|socket| socket.listen(1_024)) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    assert!(begun.elapsed() < PATIENCE, "{}: {error}", self.address);
                    std::thread::yield_now();
                }
                listener => return listener.unwrap(),
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
