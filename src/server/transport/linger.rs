//! A lingering close, as RFC 9112 section 9.6 has it: first the write side is closed, then incoming
//! bytes are read and discarded. So the last words over HTTP/2, GOAWAY and why, arrive too.
//!
//! Closing a socket over unread bytes sends a reset, and a reset takes an unread answer out of the
//! client's hands. Bounded in bytes and in time. The connection counts as open meanwhile, so nobody
//! gains anything by it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::maybe_tls::MaybeTls;

/// What is thrown away at most: more than any body that we take.
const BYTES: usize = 32 << 20;
/// In all. A client that has its answer closes at once.
pub(crate) const TIME: Duration = Duration::from_secs(5);
/// Bytes a second that prolong it: whoever still sends a body in earnest is heard to its end.
const RATE: u64 = 64 << 10;
/// However much is sent.
const LONGEST: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(2);
/// While the server stops, from the stop on.
const TIME_STOPPING: Duration = Duration::from_secs(1);
/// Connections that lay idle are not waited for.
const SILENCE_STOPPING: Duration = Duration::from_millis(200);
const BUFFER_BYTES: usize = 16 << 10;

/// Closes a connection on which everything has been said. `stop` makes it shorter, and whoever
/// drops this future closes at once.
pub(crate) async fn close(mut stream: MaybeTls, stop: &CancellationToken) {
    // What is sent before that waits until the client takes it.
    let shut = tokio::time::timeout(TIME, stream.shutdown());
    if !matches!(shut.await, Ok(Ok(()))) {
        return;
    }
    // What is thrown away need not be decrypted.
    let mut stream = stream.into_tcp();
    let begun = Instant::now();
    let mut stopped = None;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut taken = 0;
    while taken < BYTES {
        let now = Instant::now();
        let is_stopping = stop.is_cancelled();
        let mut end = begun + time(taken);
        let mut silence = SILENCE;
        if is_stopping {
            end = end.min(*stopped.get_or_insert(now) + TIME_STOPPING);
            silence = SILENCE_STOPPING;
        }
        // A read that has something at once would be done before its time is looked at.
        if now >= end {
            return;
        }
        let read = timeout_at(end.min(now + silence), stream.read(&mut buffer));
        tokio::select! {
            read = read => match read {
                Ok(Ok(read)) if read > 0 => taken += read,
                _ => return,
            },
            () = stop.cancelled(), if !is_stopping => {}
        }
    }
}

/// How long one may go on that has sent so much.
fn time(taken: usize) -> Duration {
    (TIME + Duration::from_millis(taken as u64 * 1_000 / RATE)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_sent_in_earnest_prolongs_it() {
        assert_eq!(time(0), TIME);
        // Twenty bytes a second.
        assert!(time(20 * 5) < TIME + Duration::from_millis(2));
        let body = 6 << 20;
        assert_eq!(time(body), LONGEST);
        // At the rate there is always more time than it takes.
        for seconds in 1..25 {
            let taken = usize::try_from(RATE * seconds).unwrap();
            assert_eq!(time(taken), TIME + Duration::from_secs(seconds));
        }
        assert_eq!(time(BYTES), LONGEST);
    }
}
