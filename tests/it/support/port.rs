//! A port that nobody else gets while a server is down.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};

/// Bound and silent: who connects while nobody listens is refused, and no other test, nor any
/// connection of this machine, is given the port meanwhile.
#[derive(Clone)]
pub struct Port {
    pub address: SocketAddr,
    _held: Arc<TcpSocket>,
}

impl Port {
    pub fn reserve() -> Port {
        let held = bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        Port { address: held.local_addr().unwrap(), _held: Arc::new(held) }
    }

    /// Begins to listen, again after whoever did so before has stopped.
    pub fn listen(&self) -> TcpListener {
        bind(self.address).listen(1_024).unwrap()
    }
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}
