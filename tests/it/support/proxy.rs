//! A way to the server that can be cut: whatever was on it is gone, in the middle of a frame too.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Forwards connections for as long as it lives.
pub struct Proxy {
    pub address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: AbortHandle,
}

impl Proxy {
    pub async fn to(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let connections = open.clone();
        let server = Arc::new(Mutex::new(server));
        let target = server.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let server = *target.lock().unwrap();
                let forwarding = tokio::spawn(async move {
                    // A server that is down refuses, and so do we.
                    let Ok(mut far) = TcpStream::connect(server).await else { return };
                    let _ = (near.set_nodelay(true), far.set_nodelay(true));
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
                let mut open = connections.lock().unwrap();
                open.retain(|connection| !connection.is_finished());
                open.push(forwarding.abort_handle());
            }
        });
        Proxy { address, server, open, accepting: accepting.abort_handle() }
    }

    /// Leads to another server from now on.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.server.lock().unwrap() = server;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts what is open now. Answers how many connections that were.
    pub fn cut(&self) -> usize {
        let open = std::mem::take(&mut *self.open.lock().unwrap());
        let open: Vec<_> = open.into_iter().filter(|one| !one.is_finished()).collect();
        open.iter().for_each(AbortHandle::abort);
        open.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}
