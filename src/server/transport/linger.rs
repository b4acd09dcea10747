//! The end of an HTTP/1.1 connection, in two steps as RFC 9112 section 9.6 has it: first we say no
//! more, then we read and throw away what its client is still sending.
//!
//! A socket that is closed over unread bytes answers them with a reset, and a reset takes the last
//! answer out of the client's hands if it has not read it yet. Bounded in bytes and in time; the
//! connection counts as open meanwhile, so that nobody gains anything by it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// What is thrown away at most: more than any body that we take.
const BYTES: usize = 32 << 20;
/// In all, and in silence. A client that has its answer closes at once.
const TIME: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(2);
/// In silence while the server stops: connections that lay idle are not waited for.
const SILENCE_STOPPING: Duration = Duration::from_millis(200);
const BUFFER_BYTES: usize = 16 << 10;

/// Closes a connection on which everything has been said. `stop` makes it shorter, and whoever
/// drops this future closes at once.
pub(crate) async fn close(mut stream: TcpStream, stop: &CancellationToken) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let end = Instant::now() + TIME;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = BYTES;
    while left > 0 {
        let is_stopping = stop.is_cancelled();
        let silence = if is_stopping { SILENCE_STOPPING } else { SILENCE };
        let read = timeout_at(end.min(Instant::now() + silence), stream.read(&mut buffer));
        tokio::select! {
            read = read => match read {
                Ok(Ok(read)) if read > 0 => left = left.saturating_sub(read),
                _ => return,
            },
            () = stop.cancelled(), if !is_stopping => {}
        }
    }
}
