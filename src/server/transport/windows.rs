//! What clients of HTTP/2 may send before it is read, shared out among their connections.
//!
//! A window is memory that its client may take at any time. So each connection has a part of what is
//! left of the budget when it begins: few have all that the settings allow, many have less each.
//! Bounded by the budget and [`LEAST_CONNECTION`] a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::server::Http2;

/// The window of a connection has at most this part of what is left.
const PART: usize = 16;
/// The least window of a connection, and of a stream: a 64th of that, as by default, so that small frames
/// that have to wait stay safe. docs/decisions/0004.
const LEAST_CONNECTION: usize = 1 << 20;
const LEAST_STREAM: usize = LEAST_CONNECTION / 64;

/// The budget of one server; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    limit: usize,
    granted: Arc<AtomicUsize>,
}

/// Of one connection.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) connection: u32,
    pub(crate) stream: u32,
    granted: Arc<AtomicUsize>,
}

impl Windows {
    pub(crate) fn new(limit: usize) -> Windows {
        Windows { limit, granted: Arc::default() }
    }

    /// For a connection.
    pub(crate) fn grant(&self, http2: &Http2) -> Window {
        let most = http2.connection_window_bytes;
        let rest = self.limit.saturating_sub(self.granted.load(Ordering::Relaxed));
        let part = u32::try_from((rest / PART).max(LEAST_CONNECTION)).unwrap_or(u32::MAX);
        let connection = part.min(most);
        self.granted.fetch_add(connection as usize, Ordering::Relaxed);
        // As much less as the connection has: what one is to the other stays as it was set.
        let stream =
            u64::from(http2.stream_window_bytes) * u64::from(connection) / u64::from(most.max(1));
        let stream = u32::try_from(stream.max(LEAST_STREAM as u64)).unwrap_or(u32::MAX);
        Window {
            connection,
            stream: stream.min(http2.stream_window_bytes),
            granted: Arc::clone(&self.granted),
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.granted.fetch_sub(self.connection as usize, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_have_all_and_many_have_less_within_the_budget() {
        const LIMIT: usize = 1 << 30;
        let (windows, http2) = (Windows::new(LIMIT), Http2::default());
        let granted = || windows.granted.load(Ordering::Relaxed);
        let mut all: Vec<Window> = (0..16).map(|_| windows.grant(&http2)).collect();
        for window in &all {
            let all = (http2.connection_window_bytes, http2.stream_window_bytes);
            assert_eq!((window.connection, window.stream), all);
        }
        all.extend((16..4_096).map(|_| windows.grant(&http2)));
        assert!(granted() <= LIMIT + all.len() * LEAST_CONNECTION, "{}", granted());
        let last = all.last().unwrap();
        assert_eq!(last.connection as usize, LEAST_CONNECTION);
        assert_eq!(last.stream as usize, LEAST_STREAM);
        assert!(all.iter().all(|it| it.connection / it.stream >= 64));
        drop(all);
        assert_eq!(granted(), 0);
        // Who sets less gets less.
        let small = Http2 { connection_window_bytes: 100_000, stream_window_bytes: 9_000, ..http2 };
        let window = windows.grant(&small);
        assert_eq!((window.connection, window.stream), (100_000, 9_000));
    }
}
