//! Frames that cost more than they say. Each flood is told to be calm, or ended by h2; the victim goes on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tailmark::server::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Semaphore;

use super::victim::{Victim, connect, elsewhere};
use crate::support::frames::{self, cancel, frame};
use crate::support::server::{TestServer, new_log, start_with, until, within};

const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// How a connection fared.
#[derive(Debug, PartialEq, Eq)]
enum Fared {
    /// It was told to go, by this code and in these words.
    Ended(u32, String),
    /// It was closed without a word.
    Closed,
    /// It was answered to the end.
    Answered,
}

/// How fast it is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// As fast as it is taken.
    Full,
    /// Each piece when the one before was taken.
    Step,
}

/// Sends this and then each of those, reading all the while what comes; at the end a ping.
async fn send(
    address: SocketAddr,
    from: IpAddr,
    pace: Pace,
    first: Vec<u8>,
    rest: impl Iterator<Item = Vec<u8>> + Send + 'static,
) -> Fared {
    let (read, mut write) = connect(address, from).await.into_split();
    let last = frame(frames::PING, 0, 0, b"the last");
    let step = frame(frames::PING, 0, 0, b"one step");
    let taken = Arc::new(Semaphore::new(0));
    let steps = Arc::clone(&taken);
    let writes = tokio::spawn(async move {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for mut bytes in [preface, first].into_iter().chain(rest).chain([last]) {
            if pace == Pace::Step && !bytes.ends_with(b"the last") && !bytes.starts_with(b"PRI") {
                bytes.extend_from_slice(&step);
            }
            let waits = bytes.ends_with(b"one step");
            if write.write_all(&bytes).await.is_err() {
                break;
            }
            if waits {
                steps.acquire().await.unwrap().forget();
            }
        }
        write
    });
    let mut read = BufReader::new(read);
    let fared = within("the end", async {
        loop {
            let mut head = [0; 9];
            if read.read_exact(&mut head).await.is_err() {
                return Fared::Closed;
            }
            let [a, b, c, kind, flags, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            if read.read_exact(&mut payload).await.is_err() {
                return Fared::Closed;
            }
            match kind {
                frames::GOAWAY => {
                    let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
                    let words = String::from_utf8_lossy(&payload[8..]).into_owned();
                    return Fared::Ended(code, words);
                }
                frames::PING if flags & 1 == 1 => match &payload[..] {
                    b"the last" => return Fared::Answered,
                    b"one step" => taken.add_permits(1),
                    _ => {}
                },
                _ => {}
            }
        }
    });
    let fared = fared.await;
    writes.abort();
    fared
}

/// Whole requests from a stream on, each reset as soon as it has been made.
fn resets(first: u32, count: u32) -> Vec<u8> {
    let streams = (first..first + count).map(|at| 1 + 2 * at);
    streams.flat_map(|at| [frames::begin(at, "GetLog", true), cancel(at)].concat()).collect()
}

/// So many of them, ten at a time.
fn tens(count: u32) -> impl Iterator<Item = Vec<u8>> {
    (0..count / 10).map(|ten| resets(10 * ten, 10))
}

async fn flood(server: &TestServer, from: u8, first: Vec<u8>, rest: Vec<Vec<u8>>) -> Fared {
    send(server.address, elsewhere(from), Pace::Full, first, rest.into_iter()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_reset_as_they_begin_have_a_budget() {
    // A thousand at once, and a hundred a second.
    let options = Options { max_concurrent_streams: 100, ..Options::default() };
    let server = start_with(new_log(), options).await;
    let mut victim = Victim::new(server.address, elsewhere(2)).await;
    // In steps, so that each has begun: what has not h2 counts by itself.
    let attack = send(server.address, elsewhere(1), Pace::Step, Vec::new(), tens(50_000));
    let (fared, _) = tokio::join!(attack, victim.lives(20));
    let words = "too many streams were reset in a short time".to_owned();
    assert_eq!(fared, Fared::Ended(ENHANCE_YOUR_CALM, words));
    until("the attacker's end", || server.gauges.connections() == 1).await;
    // Who comes back from there has less, and enough for whoever means no harm.
    let fared = flood(&server, 1, Vec::new(), vec![resets(0, 800)]).await;
    assert!(matches!(fared, Fared::Ended(ENHANCE_YOUR_CALM, _)), "{fared:?}");
    let few = send(server.address, elsewhere(1), Pace::Step, Vec::new(), tens(80));
    assert_eq!(few.await, Fared::Answered);
    // The control: who comes from elsewhere has what there is at once.
    let many = send(server.address, elsewhere(3), Pace::Step, Vec::new(), tens(800));
    assert_eq!(many.await, Fared::Answered);
    victim.lives(5).await;
    server.stop().await;
}

/// As fast as they are taken, with everything as by default: 120,000 a second took the victim's p99 from 12
/// to 600 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_are_ended() {
    let server = start_with(new_log(), Options::default()).await;
    let mut victim = Victim::new(server.address, elsewhere(2)).await;
    let rest = (0..600).map(|at| resets(200 * at, 200)).collect();
    let (fared, _) = tokio::join!(flood(&server, 1, Vec::new(), rest), victim.lives(20));
    assert!(matches!(fared, Fared::Ended(ENHANCE_YOUR_CALM, _)), "{fared:?}");
    until("the attacker's end", || server.gauges.connections() == 1).await;
    server.stop().await;
}

/// Each such change looks at all streams: 600 µs of processor time a kB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_are_changed_so_often_and_no_more() {
    let server = start_with(new_log(), Options::default()).await;
    let mut victim = Victim::new(server.address, elsewhere(2)).await;
    let watches = (0..1_000).flat_map(|at| frames::begin(1 + 2 * at, "Watch", true)).collect();
    let window = |at: u32| {
        let size: u32 = if at.is_multiple_of(2) { 65_535 } else { 1 << 20 };
        frame(SETTINGS, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat())
    };
    let attack = flood(&server, 1, watches, (0..2_000).map(window).collect());
    let (fared, _) = tokio::join!(attack, victim.lives(10));
    let words = "too many changes of settings in a short time".to_owned();
    assert_eq!(fared, Fared::Ended(ENHANCE_YOUR_CALM, words));
    until("the attacker's watches", || server.gauges.watches() == 1).await;
    // The control: a client that finds its window by and by.
    assert_eq!(flood(&server, 3, Vec::new(), (0..60).map(window).collect()).await, Fared::Answered);
    server.stop().await;
}

/// MadeYouReset (CVE-2025-8671): the client makes us reset what it has begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_we_are_made_to_reset_are_so_many() {
    let server = start_with(new_log(), Options::default()).await;
    let mut victim = Victim::new(server.address, elsewhere(2)).await;
    let one = |at: u32| {
        let stream = 1 + 2 * at;
        // A window that grows beyond what there is is an error of its stream.
        let error = frame(WINDOW_UPDATE, 0, stream, &(u32::MAX >> 1).to_be_bytes());
        [frames::begin(stream, "Watch", true), error].concat()
    };
    let attack = flood(&server, 1, Vec::new(), (0..5_000).map(one).collect());
    let (fared, _) = tokio::join!(attack, victim.lives(10));
    assert!(matches!(fared, Fared::Ended(ENHANCE_YOUR_CALM, _)), "{fared:?}");
    until("the attacker's watches", || server.gauges.watches() == 1).await;
    assert_eq!(flood(&server, 3, Vec::new(), (0..100).map(one).collect()).await, Fared::Answered);
    server.stop().await;
}

/// A list of headers that does not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_end_are_ended() {
    let server = start_with(new_log(), Options::default()).await;
    let mut victim = Victim::new(server.address, elsewhere(2)).await;
    // A literal without indexing: `a`, and a hundred bytes.
    let field = [&[0, 1, b'a', 100][..], &[b'b'; 100]].concat();
    let first = frame(frames::HEADERS, 0, 1, &field);
    let more = vec![frame(CONTINUATION, 0, 1, &field).repeat(100); 200];
    let attack = flood(&server, 1, first, more);
    let (fared, _) = tokio::join!(attack, victim.lives(10));
    assert_ne!(fared, Fared::Answered);
    until("the attacker's end", || server.gauges.connections() == 1).await;
    server.stop().await;
}

/// What says nothing at all: frames of no bytes, pings, priorities and frames that nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_that_say_nothing_leave_the_victim_alone() {
    let server = start_with(new_log(), Options::default()).await;
    let mut victim = Victim::new(server.address, elsewhere(2)).await;
    let upload = frames::begin(1, "UploadEvents", false);
    for nothing in [
        frame(frames::DATA, 0, 1, &[]),
        frames::ping(),
        frame(2, 0, 3, &[0, 0, 0, 0, 7]),
        frame(99, 0, 0, &[]),
    ] {
        let attack = flood(&server, 1, upload.clone(), vec![nothing.repeat(1_000); 100]);
        // Whether it is too much depends on how fast the machine is.
        let (fared, _) = tokio::join!(attack, victim.lives(10));
        let is_calm = matches!(fared, Fared::Ended(ENHANCE_YOUR_CALM, _) | Fared::Answered);
        assert!(is_calm, "{fared:?}");
        until("the attacker's end", || server.gauges.connections() == 1).await;
        until("the attacker's upload", || server.gauges.uploads() == 0).await;
    }
    server.stop().await;
}
