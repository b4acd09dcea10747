//! Errors of `accept`: who waits is served as soon as it can be, and nobody else notices.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tailmark_client::{Client, Item};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;

use super::{event, get, options};
use crate::support::daemon::Daemon;
use crate::support::server::{until, within};

/// What the accept loop waits after an error that another try would meet again, and what it looks at
/// beside that: `src/server/transport/accept.rs`.
const PAUSE: Duration = Duration::from_millis(50);

/// Files that the process has open.
fn open_files(daemon: &Daemon) -> u64 {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap().count() as u64
}

/// Lets the daemon open no more than so many from here on; answers what it was.
fn allow(daemon: &Daemon, files: u64) -> u64 {
    let limit = Rlimit { current: Some(files), ..getrlimit(Resource::Nofile) };
    let id = Pid::from_raw(daemon.id() as i32);
    prlimit(id, Resource::Nofile, limit).unwrap().current.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_there_are_no_descriptors_is_served_when_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("said");
    // Refused connections are said once a second at most.
    let shell = format!("exec \"$0\" \"$@\" 2>'{}'", said.display());
    let daemon = Daemon::start_with(&dir.path().join("log"), &shell);
    let client = Client::new(daemon.url()).unwrap();
    let mut watch = client.watch(options());
    client.publish(event(1), None).await.unwrap();
    let text = || std::fs::read_to_string(&said).unwrap();
    assert!(!text().contains("accept failed"), "{}", text());

    let before = allow(&daemon, open_files(&daemon));
    let begun = Instant::now();
    // The kernel has taken it; the daemon cannot.
    let mut waiting = within("connect", TcpStream::connect(daemon.address())).await.unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", daemon.address());
    waiting.write_all(head.as_bytes()).await.unwrap();
    until("what is said of it", || text().contains("accept failed")).await;
    assert!(text().contains("Too many open files"), "{}", text());
    // Whoever is there goes on: events are stored and seen.
    for number in 2..=20 {
        client.publish(event(number), None).await.unwrap();
    }
    let mut seen = 0;
    while seen < 20 {
        if let Item::Event(received) = within("a watch", watch.next()).await.unwrap().unwrap() {
            seen += 1;
            assert_eq!(received.event().unwrap().seq.get(), seen);
        }
    }
    // Meanwhile it tries now and then, and not all the time.
    tokio::time::sleep(PAUSE * 40).await;
    let tries = tries(&text());
    let most = begun.elapsed().as_millis() / PAUSE.as_millis() + 1;
    assert!((1..=most).contains(&tries.into()), "{tries} tries, {most} at most: {}", text());

    allow(&daemon, before);
    let mut answer = [0; 12];
    within("an answer", waiting.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let ready = get(&daemon, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    drop((waiting, watch));
    assert_eq!(daemon.stop(), Some(0));
}

/// How often an accept has failed, as the lines say.
fn tries(text: &str) -> u64 {
    let lines = text.lines().filter(|line| line.contains("accept failed"));
    let counts = lines.map(|line| {
        let count = line.split("count=").nth(1).and_then(|rest| rest.split_whitespace().next());
        count.unwrap_or_else(|| panic!("no count: {line}")).parse::<u64>().unwrap()
    });
    counts.sum()
}

/// All that Linux says, but for what a listener of another kind would be told (accept(2)).
const ERRORS: [&str; 10] = [
    "ECONNABORTED",
    "EINTR",
    "EMFILE",
    "ENFILE",
    "ENOBUFS",
    "ENOMEM",
    "EPROTO",
    "EPERM",
    "ETIMEDOUT",
    "EHOSTUNREACH",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_error_of_accept_ends_the_loop_or_costs_who_comes_anything_but_time() {
    if Command::new("strace").arg("--version").output().is_err() {
        println!("LEFT OUT: strace is missing");
        return;
    }
    for error in ERRORS {
        let dir = tempfile::tempdir().unwrap();
        // Each second one fails.
        let inject = format!("inject=accept4:error={error}:when=1+2");
        let strace = format!("exec strace -D -f -qq -o /dev/null -e trace=accept4 -e {inject}");
        let daemon = Daemon::start_with(dir.path(), &format!("{strace} \"$0\" \"$@\""));
        for _ in 0..5 {
            let health = get(&daemon, "/healthz").await;
            assert!(health.starts_with("HTTP/1.1 200"), "{error}: {health}");
        }
        let client = Client::new(daemon.url()).unwrap();
        client.publish(event(1), None).await.unwrap();
        assert_eq!(daemon.stop(), Some(0), "{error}");
    }
}
