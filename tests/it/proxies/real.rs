//! nginx and HAProxy, set up as `deploy/` has them, before a daemon that stops and is killed again
//! and again: every event once and in order, for each kind of client.

use std::future::poll_fn;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use prost::Message as _;
use tailmark_client::{
    Backoff, Client, Error, Item, MemoryStore, Options, Pem, ProducerOptions, RoomItem, Saying,
    Start, WatchOptions,
};
use tailmark_wire::feed_v1 as pb;
use tokio::task::JoinHandle;

use crate::support::daemon::{Daemon, program};
use crate::support::port::Port;
use crate::support::reverse_proxy::{Brand, ReverseProxy, are_there};
use crate::support::server::{event, until, within};
use crate::support::tls::Authority;

/// How often the daemon ends in each run.
const ENDS: usize = 20;
/// The topic of the last event.
const END: &str = "end";

fn quick(patterns: &[&str]) -> WatchOptions {
    let mut options = WatchOptions::default();
    options.start = Start::Oldest;
    options.patterns = patterns.iter().map(|pattern| pattern.to_string()).collect();
    (options.shortest_retry, options.longest_retry) =
        (Duration::from_millis(1), Duration::from_millis(50));
    options
}

/// How far each of the clients has come.
#[derive(Default)]
struct Progress {
    counts: [AtomicU64; 6],
    /// Those who store end.
    is_over: AtomicBool,
}

const WATCH: usize = 0;
const KEPT: usize = 1;
const PRODUCER: usize = 2;
const ROOM: usize = 3;
const UPLOAD: usize = 4;
const PROGRAM: usize = 5;

impl Progress {
    fn advance(&self, who: usize) {
        self.counts[who].fetch_add(1, Ordering::SeqCst);
    }

    fn now(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

/// An event as a watcher sees it.
type Seen = (u64, String, String);

fn seen(item: Result<Item, Error>) -> Option<Seen> {
    match item.unwrap_or_else(|error| panic!("a watch has ended: {error:?}")) {
        Item::Event(received) => {
            let event = received.event().unwrap();
            let tailmark_record::Content::Body(body) = event.content() else { panic!("no body") };
            Some((event.seq.get(), event.topic.to_owned(), body.to_owned()))
        }
        _ => None,
    }
}

fn watch(client: &Client, progress: &Arc<Progress>) -> JoinHandle<Vec<Seen>> {
    let (mut watch, progress) = (client.watch(quick(&[])), progress.clone());
    tokio::spawn(async move {
        let mut all: Vec<Seen> = Vec::new();
        while all.last().is_none_or(|(_, topic, _)| topic != END) {
            let item = poll_fn(|cx| Pin::new(&mut watch).poll_next(cx)).await;
            all.extend(seen(item.expect("more")));
            progress.advance(WATCH);
        }
        all
    })
}

fn kept(client: &Client, progress: &Arc<Progress>) -> JoinHandle<Vec<Seen>> {
    let (client, progress) = (client.clone(), progress.clone());
    tokio::spawn(async move {
        let (store, options) = (MemoryStore::new(), quick(&["numbers", END]));
        let mut watch = client.watch_kept(options, store).await.unwrap();
        let mut all: Vec<Seen> = Vec::new();
        while all.last().is_none_or(|(_, topic, _)| topic != END) {
            all.extend(seen(watch.next().await.expect("more")));
            progress.advance(KEPT);
        }
        all
    })
}

/// Answers how many it has stored.
fn produce(client: &Client, progress: &Arc<Progress>) -> JoinHandle<u64> {
    let (client, progress) = (client.clone(), progress.clone());
    tokio::spawn(async move {
        let mut options = ProducerOptions::default();
        (options.shortest_retry, options.longest_retry) =
            (Duration::from_millis(1), Duration::from_millis(50));
        let producer = client.producer("p", options).await.unwrap();
        let mut number = 0;
        while !progress.is_over() {
            // Some are under way at any time.
            for _ in 0..10 {
                number += 1;
                drop(producer.send(&event("numbers", &number.to_string())).await.unwrap());
            }
            producer.flush().await.unwrap();
            progress.advance(PRODUCER);
        }
        producer.close().await.unwrap();
        number
    })
}

/// Tries again for as long as it may pass, as every user of the library can.
async fn again<T, F: Future<Output = Result<T, Error>>>(call: impl Fn() -> F) -> T {
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
    loop {
        match call().await {
            Ok(result) => return result,
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(backoff.next(error.retry_delay())).await;
            }
            Err(error) => panic!("does not pass: {error:?}"),
        }
    }
}

/// Says one thing after the other, and answers how many.
fn speak(client: &Client, progress: &Arc<Progress>) -> JoinHandle<u64> {
    let (client, progress) = (client.clone(), progress.clone());
    tokio::spawn(async move {
        let mut number = 0;
        while !progress.is_over() {
            number += 1;
            let saying = Saying::new("ops", "ann", &number.to_string());
            again(|| client.say(&saying)).await;
        }
        number
    })
}

/// Hears until somebody says that it is over.
fn listen(client: &Client, progress: &Arc<Progress>) -> JoinHandle<Vec<String>> {
    let (mut room, progress) = (client.room("ops", "bob", "0"), progress.clone());
    tokio::spawn(async move {
        let mut heard: Vec<String> = Vec::new();
        while heard.last().is_none_or(|text| text != END) {
            match room.next().await.unwrap_or_else(|error| panic!("a room has ended: {error:?}")) {
                RoomItem::Message(message) => heard.push(message.content),
                _ => continue,
            }
            progress.advance(ROOM);
        }
        heard
    })
}

/// Uploads events with ids, and answers how many.
fn upload(client: &Client, progress: &Arc<Progress>) -> JoinHandle<u64> {
    let (client, progress) = (client.clone(), progress.clone());
    tokio::spawn(async move {
        let mut number = 0;
        while !progress.is_over() {
            let some: Vec<Bytes> = (number + 1..=number + 20)
                .map(|number| {
                    let (id, body) = (format!("upload {number}"), number.to_string());
                    let event = pb::Event { id, ..event("uploads", &body) };
                    event.encode_to_vec().into()
                })
                .collect();
            number += 20;
            let upload = || client.upload(tokio_stream::iter(some.clone()));
            assert_eq!(again(upload).await.received, 20);
            progress.advance(UPLOAD);
        }
        number
    })
}

/// `tailmark watch`; killed when dropped.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run_program(
    url: &str,
    ca: Option<&Path>,
    progress: &Arc<Progress>,
) -> (Watching, JoinHandle<Vec<u64>>) {
    let mut command = program(&["watch", "--json", "--from", "oldest", "--wait", "--addr", url]);
    if let Some(ca) = ca {
        command.arg("--ca").arg(ca);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (out, mut errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        let _ = std::io::Read::read_to_string(&mut errors, &mut said);
        said
    });
    let progress = progress.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut seqs = Vec::new();
        for line in BufReader::new(out).lines() {
            let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            seqs.push(event["seq"].as_str().unwrap().parse().unwrap());
            progress.advance(PROGRAM);
            if event["topic"] == END {
                return seqs;
            }
        }
        panic!("`tailmark watch` has ended: {}", said.join().unwrap());
    });
    (Watching(child), read)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Stop,
    Kill,
    /// The one and the other.
    Both,
}

const SETTINGS: [(&str, &str); 2] =
    [("TAILMARK_SERVER_RETRY_DELAY", "10ms"), ("TAILMARK_STORAGE_SLOT_BYTES", "256 KiB")];

/// All kinds of clients at once through the proxy, while the daemon behind it ends and begins again.
async fn each_event_once_and_in_order(brand: Brand, ends: Ends) {
    each_once(brand, ends, None).await;
}

/// The same, over TLS where there is an authority that vouches for the proxy.
async fn each_once(brand: Brand, ends: Ends, authority: Option<&Authority>) {
    if brand != Brand::Envoy && !are_there() {
        return;
    }
    let (dir, port) = (tempfile::tempdir().unwrap(), Port::reserve());
    let log = dir.path().join("log");
    let mut daemon = Daemon::start_at(&log, port.address, &SETTINGS);
    let (mut options, ca) = (Options::default(), dir.path().join("ca.pem"));
    let proxy = match authority {
        Some(authority) => {
            std::fs::write(&ca, &authority.pem).unwrap();
            options.tls.ca = Some(Pem::file(&ca));
            ReverseProxy::start_tls(brand, port.address, &authority.server()).await
        }
        None => ReverseProxy::start(brand, port.address, &[]).await,
    };
    let client = Client::with_options(&proxy.url(), options).unwrap();
    let progress = Arc::new(Progress::default());
    let watch = watch(&client, &progress);
    let kept = kept(&client, &progress);
    let room = listen(&client, &progress);
    let (_watching, printed) = run_program(&proxy.url(), authority.map(|_| &*ca), &progress);
    let produced = produce(&client, &progress);
    let spoken = speak(&client, &progress);
    let uploaded = upload(&client, &progress);
    for end in 0..ENDS {
        // All have come back and got further.
        let before = progress.now();
        let further = || progress.now().iter().zip(&before).all(|(now, before)| now > before);
        let all_live = || {
            let tasks = [watch.is_finished(), kept.is_finished(), room.is_finished()];
            let more = [produced.is_finished(), spoken.is_finished(), uploaded.is_finished()];
            !tasks.iter().chain(&more).any(|ended| *ended) && !printed.is_finished()
        };
        until("progress of all", || further() || !all_live()).await;
        assert!(all_live(), "one has ended: {:?}", progress.now());
        if ends == Ends::Kill || ends == Ends::Both && end % 2 == 0 {
            daemon.kill();
        } else {
            assert_eq!(daemon.stop(), Some(0));
        }
        daemon = Daemon::start_at(&log, port.address, &SETTINGS);
    }
    progress.is_over.store(true, Ordering::SeqCst);
    let produced = within("the producer", produced).await.unwrap();
    let spoken = within("the speaker", spoken).await.unwrap();
    let uploaded = within("the uploads", uploaded).await.unwrap();
    let last = Saying::new("ops", "ann", END);
    again(|| client.say(&last)).await;
    let last = pb::Event { id: END.to_owned(), ..event(END, END) };
    again(|| client.publish(last.clone(), None)).await;

    let seen = within("the watch", watch).await.unwrap();
    let seqs: Vec<_> = seen.iter().map(|(seq, ..)| *seq).collect();
    assert!(seqs.iter().copied().eq(1..=seen.len() as u64), "{seqs:?}");
    let numbers = |topic: &str| {
        let of_topic = seen.iter().filter(|(_, of, _)| of == topic);
        of_topic.map(|(.., body)| body.clone()).collect::<Vec<_>>()
    };
    let up_to = |last: u64| (1..=last).map(|number| number.to_string()).collect::<Vec<_>>();
    assert_eq!(numbers("numbers"), up_to(produced));
    assert_eq!(numbers("uploads"), up_to(uploaded));
    let said = [up_to(spoken), vec![END.to_owned()]].concat();
    assert_eq!(numbers("chat.ops"), said);
    let kept = within("the kept watch", kept).await.unwrap();
    let own = seen.iter().filter(|(_, topic, _)| topic == "numbers" || topic == END);
    assert!(own.eq(&kept), "{kept:?}");
    assert_eq!(within("the room", room).await.unwrap(), said);
    assert_eq!(within("the program", printed).await.unwrap(), seqs);
    // A daemon that was away at each end, else this would prove nothing.
    assert!(produced > ENDS as u64 && spoken > ENDS as u64);
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_behind_nginx_stops_again_and_again() {
    each_event_once_and_in_order(Brand::Nginx, Ends::Stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_behind_nginx_is_killed_again_and_again() {
    each_event_once_and_in_order(Brand::Nginx, Ends::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_behind_haproxy_stops_again_and_again() {
    each_event_once_and_in_order(Brand::HaProxy, Ends::Stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_behind_haproxy_is_killed_again_and_again() {
    each_event_once_and_in_order(Brand::HaProxy, Ends::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_behind_nginx_with_tls_stops_and_is_killed_again_and_again() {
    each_once(Brand::Nginx, Ends::Both, Some(&Authority::new("of the proxy"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_behind_haproxy_with_tls_stops_and_is_killed_again_and_again() {
    each_once(Brand::HaProxy, Ends::Both, Some(&Authority::new("of the proxy"))).await;
}

/// It is not in Debian: `tests/clients/ci.sh` gets it from PyPI.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs ENVOY to name the program"]
async fn a_daemon_behind_envoy_stops_and_is_killed_again_and_again() {
    each_event_once_and_in_order(Brand::Envoy, Ends::Stop).await;
    each_event_once_and_in_order(Brand::Envoy, Ends::Kill).await;
}
