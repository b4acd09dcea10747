//! A way to the server that can be cut: whatever was on it is gone, in the middle of a frame too. It
//! can also fall silent, as a cable that was pulled, or lose what the server answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

const PASS: u8 = 0;
/// Nothing moves any more, either way.
const FROZEN: u8 = 1;
/// What the server sends is thrown away.
const DEAF: u8 = 2;

/// Forwards connections for as long as it lives.
pub struct Proxy {
    pub address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    open: Arc<Mutex<Vec<Connection>>>,
    taken: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
    moved: Moved,
    accepting: AbortHandle,
}

/// Bytes that have passed: of what was asked, and of answers.
type Moved = Arc<[AtomicUsize; 2]>;

struct Connection {
    forwarding: AbortHandle,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    pub async fn to(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open: Arc<Mutex<Vec<Connection>>> = Arc::default();
        let (taken, lost): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let server = Arc::new(Mutex::new(server));
        let (target, connections, count) = (server.clone(), open.clone(), taken.clone());
        let (lost_bytes, moved) = (lost.clone(), Moved::default());
        let moving = moved.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let server = *target.lock().unwrap();
                let mode = Arc::new(AtomicU8::new(PASS));
                let forwarding =
                    forward(near, server, mode.clone(), lost_bytes.clone(), moving.clone());
                let forwarding = tokio::spawn(forwarding).abort_handle();
                let mut open = connections.lock().unwrap();
                open.retain(|connection| !connection.forwarding.is_finished());
                open.push(Connection { forwarding, mode });
            }
        });
        let accepting = accepting.abort_handle();
        Proxy { address, server, open, taken, lost, moved, accepting }
    }

    /// Leads to another server from now on.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.server.lock().unwrap() = server;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections it has taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Cuts what is open now. Answers how many connections that were.
    pub fn cut(&self) -> usize {
        let open = std::mem::take(&mut *self.open.lock().unwrap());
        let open: Vec<_> = open.into_iter().filter(|one| !one.forwarding.is_finished()).collect();
        open.iter().for_each(|one| one.forwarding.abort());
        open.len()
    }

    /// What is open now stays open and silent, for both ends. New connections are as ever.
    pub fn freeze(&self) {
        self.set(FROZEN);
    }

    /// On what is open now the server hears the client, and nobody hears the server.
    pub fn lose_answers(&self) {
        self.set(DEAF);
    }

    /// Bytes of answers that were lost so far.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }

    /// Bytes that have passed so far: of what was asked, and of answers.
    pub fn moved(&self) -> [usize; 2] {
        [0, 1].map(|way| self.moved[way].load(Ordering::SeqCst))
    }

    fn set(&self, mode: u8) {
        self.open.lock().unwrap().iter().for_each(|one| one.mode.store(mode, Ordering::SeqCst));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn forward(
    near: TcpStream,
    server: SocketAddr,
    mode: Arc<AtomicU8>,
    lost: Arc<AtomicUsize>,
    moved: Moved,
) {
    // A server that is down refuses, and so do we.
    let Ok(far) = TcpStream::connect(server).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let ask = pump(near_in, far_out, &mode, None, &moved[0]);
    let answer = pump(far_in, near_out, &mode, Some(&lost), &moved[1]);
    let _ = tokio::try_join!(ask, answer);
}

/// `lost` counts answers.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mode: &AtomicU8,
    lost: Option<&AtomicUsize>,
    moved: &AtomicUsize,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await;
        let mode = mode.load(Ordering::SeqCst);
        if mode == FROZEN {
            std::future::pending::<()>().await;
        }
        match (read?, lost) {
            (0, _) => return to.shutdown().await,
            (count, Some(lost)) if mode == DEAF => drop(lost.fetch_add(count, Ordering::SeqCst)),
            (count, _) => {
                to.write_all(&buffer[..count]).await?;
                moved.fetch_add(count, Ordering::SeqCst);
            }
        }
    }
}
