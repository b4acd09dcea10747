//! What lies between a client and the server: each connection meets its fate.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::frames::Frames;
use crate::plan::{Act, Fate, Fates, Stranger, Way};

/// How often each kind of thing has happened, by its name.
#[derive(Clone, Default)]
pub struct Happened(Arc<Mutex<std::collections::BTreeMap<String, u64>>>);

impl Happened {
    pub fn note(&self, what: &str) {
        *self.0.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    pub fn all(&self) -> std::collections::BTreeMap<String, u64> {
        self.0.lock().unwrap().clone()
    }
}

pub struct Path {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    server: SocketAddr,
    fates: Fates,
    happened: Happened,
    taken: AtomicUsize,
    open: Mutex<JoinSet<()>>,
    /// What comes to the server late, or beside what the client sent.
    late: AtomicUsize,
}

impl Path {
    pub async fn to(server: SocketAddr, fates: Fates, happened: Happened) -> Path {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            fates,
            happened,
            taken: AtomicUsize::new(0),
            open: Mutex::default(),
            late: AtomicUsize::new(0),
        });
        let own = shared.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let number = own.taken.fetch_add(1, Ordering::SeqCst);
                let fate = own.fates.get(number).copied().unwrap_or(Fate::Pass);
                let connection = connection(near, fate, own.clone());
                let mut open = own.open.lock().unwrap();
                while open.try_join_next().is_some() {}
                open.spawn(connection);
            }
        });
        Path { address, shared, accepting: accepting.abort_handle() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts everything, and takes no more. What is on its way to the server late has come after this.
    pub async fn close(self) {
        self.accepting.abort();
        self.shared.open.lock().unwrap().abort_all();
        while self.shared.late.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.open.lock().unwrap().abort_all();
    }
}

/// One connection, and what both its ways know of it.
struct Connection {
    fate: Fate,
    shared: Arc<Shared>,
    is_frozen: AtomicBool,
    /// The client's bytes, for who sends them once more.
    sent: Mutex<Vec<u8>>,
}

/// The end of a connection: its sockets are dropped, and reset if it says so.
struct End {
    reset: bool,
}

fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

async fn connection(near: TcpStream, fate: Fate, shared: Arc<Shared>) {
    let _ = near.set_nodelay(true);
    if let Fate::Stranger(stranger) = fate {
        shared.happened.note(&format!("{stranger:?}").to_lowercase());
        return answer(near, stranger).await;
    }
    // A server that is down refuses, and so do we.
    let Ok(far) = TcpStream::connect(shared.server).await else {
        return reset(&near);
    };
    let _ = far.set_nodelay(true);
    let connection =
        Connection { fate, shared, is_frozen: AtomicBool::new(false), sent: Mutex::default() };
    let twin = match fate {
        Fate::After(_, _, Act::Twice) => connection.twin().await,
        _ => None,
    };
    let ((near_in, mut near_out), (far_in, mut far_out)) = (near.into_split(), far.into_split());
    let end = {
        let up = connection.pump(Way::Up, near_in, &mut far_out, twin);
        let down = connection.pump(Way::Down, far_in, &mut near_out, None);
        // In order it is over when both ways are.
        tokio::try_join!(up, down).err()
    };
    if end.is_some_and(|end| end.reset) {
        reset(near_out.as_ref());
        reset(far_out.as_ref());
    }
    // Dropped before what comes late.
    drop((near_out, far_out));
    if let Fate::After(_, _, Act::Replay(later)) = connection.fate {
        connection.replay(later);
    }
}

async fn answer(mut near: TcpStream, stranger: Stranger) {
    let page = |status: u16| {
        let page = "<html><body><h1>It does not work</h1></body></html>";
        let length = page.len();
        let head = "server: nginx\r\ncontent-type: text/html\r\nconnection: close";
        format!("HTTP/1.1 {status} Sorry\r\n{head}\r\ncontent-length: {length}\r\n\r\n{page}")
    };
    let bytes = match stranger {
        Stranger::Page(status) => page(status).into_bytes(),
        Stranger::Status(status) => crate::frames::status(status),
        Stranger::Garbage => (0..300_u32).map(|n| (n * 73 % 251) as u8).collect(),
        Stranger::Nobody => return,
        Stranger::Reset => return reset(&near),
        Stranger::Mute => {
            let _ = tokio::io::copy(&mut near, &mut tokio::io::sink()).await;
            return;
        }
    };
    let _ = near.write_all(&bytes).await;
    let _ = near.shutdown().await;
    // Until the client leaves: what was not read would cut the answer short.
    let _ = tokio::io::copy(&mut near, &mut tokio::io::sink()).await;
}

impl Connection {
    fn note(&self, act: Act) {
        let name = format!("{act:?}").to_lowercase();
        let name = name.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
        self.shared.happened.note(&name);
    }

    /// A second connection to the server, whose answers nobody hears.
    async fn twin(&self) -> Option<OwnedWriteHalf> {
        let (mut answers, twin) = TcpStream::connect(self.shared.server).await.ok()?.into_split();
        self.note(Act::Twice);
        let mut open = self.shared.open.lock().unwrap();
        open.spawn(async move {
            let _ = tokio::io::copy(&mut answers, &mut tokio::io::sink()).await;
        });
        Some(twin)
    }

    /// Sends to the server what the client had sent, once more.
    fn replay(&self, later: Duration) {
        let sent = std::mem::take(&mut *self.sent.lock().unwrap());
        let shared = self.shared.clone();
        shared.late.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            tokio::time::sleep(later).await;
            if let Ok(mut stream) = TcpStream::connect(shared.server).await {
                let _ = stream.write_all(&sent).await;
                // As long as it may take the server to do what it says.
                let mut nowhere = tokio::io::sink();
                let answers = tokio::io::copy(&mut stream, &mut nowhere);
                let _ = tokio::time::timeout(Duration::from_millis(150), answers).await;
            }
            shared.late.fetch_sub(1, Ordering::SeqCst);
        });
    }

    async fn pump(
        &self,
        way: Way,
        mut from: OwnedReadHalf,
        to: &mut OwnedWriteHalf,
        mut twin: Option<OwnedWriteHalf>,
    ) -> Result<(), End> {
        let mut buffer = vec![0; 16 << 10];
        let mut passed = 0;
        let mut frames = Frames::default();
        // What is still to happen.
        let mut due = match self.fate {
            Fate::After(on, after, act) if on == way => Some((after, act)),
            _ => None,
        };
        let cut = |reset| End { reset };
        loop {
            let count = from.read(&mut buffer).await.map_err(|_| cut(true))?;
            if self.is_frozen.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if count == 0 {
                return to.shutdown().await.map_err(|_| cut(true));
            }
            let mut bytes = &buffer[..count];
            if let Some(twin) = &mut twin {
                let _ = twin.write_all(bytes).await;
            }
            if let Some((after, act)) = due {
                if let Act::GoAway(_) | Act::ResetStream(_) | Act::Noise | Act::DropMessage = act {
                    let (whole, is_done) = frames.take(bytes, after, act);
                    to.write_all(&whole).await.map_err(|_| cut(true))?;
                    if is_done {
                        due = None;
                        self.note(act);
                        if let Act::GoAway(_) | Act::Noise = act {
                            return Err(cut(false));
                        }
                    }
                    continue;
                }
                let left = after.saturating_sub(passed).min(count as u64) as usize;
                self.pass(way, to, &bytes[..left]).await?;
                passed += left as u64;
                bytes = &bytes[left..];
                if passed >= after && act != Act::Twice {
                    due = None;
                    self.note(act);
                    self.act(act, &mut from, to, &mut bytes).await?;
                }
            }
            self.pass(way, to, bytes).await?;
            passed += bytes.len() as u64;
        }
    }

    async fn pass(&self, way: Way, to: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<(), End> {
        if way == Way::Up && matches!(self.fate, Fate::After(_, _, Act::Replay(_))) {
            self.sent.lock().unwrap().extend_from_slice(bytes);
        }
        to.write_all(bytes).await.map_err(|_| End { reset: true })
    }

    /// What happens this way; `rest` is what was read and has not gone on.
    async fn act(
        &self,
        act: Act,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
        rest: &mut &[u8],
    ) -> Result<(), End> {
        match act {
            Act::Cut { reset } => return Err(End { reset }),
            Act::Replay(_) => return Err(End { reset: true }),
            Act::HalfClose => {
                let _ = to.shutdown().await;
                let _ = tokio::io::copy(from, &mut tokio::io::sink()).await;
            }
            Act::Freeze => {
                self.is_frozen.store(true, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            Act::Swallow { then_cut } => {
                let mut nowhere = tokio::io::sink();
                let swallowed = tokio::io::copy(from, &mut nowhere);
                let _ = tokio::time::timeout(then_cut, swallowed).await;
                return Err(End { reset: false });
            }
            Act::Stall(time) => tokio::time::sleep(time).await,
            Act::Slow { piece, times } => {
                for _ in 0..times {
                    let (now, later) = rest.split_at(piece.min(rest.len()));
                    to.write_all(now).await.map_err(|_| End { reset: true })?;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    *rest = later;
                }
            }
            Act::GoAway(_) | Act::ResetStream(_) | Act::Noise | Act::DropMessage | Act::Twice => {}
        }
        Ok(())
    }
}
