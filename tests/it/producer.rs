//! The client's producer: exactly once over cut connections, lost acks, restarts and kills.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tailmark::server::Options;
use tailmark_client::{Ack, Client, Error, Expect, Kind, Producer, ProducerOptions};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;

use crate::support::daemon::Daemon;
use crate::support::proxy::Proxy;
use crate::support::server::{
    TestServer, event, from_oldest, new_log, start, start_with, until, watch, within,
};

fn quick() -> ProducerOptions {
    let mut options = ProducerOptions::default();
    options.shortest_retry = Duration::from_millis(1);
    options.longest_retry = Duration::from_millis(20);
    options
}

async fn producer(url: &str, id: &str, options: ProducerOptions) -> Producer {
    let client = Client::new(url).unwrap();
    within("open", client.producer(id, options)).await.unwrap()
}

fn url(server: &TestServer) -> String {
    format!("http://{}", server.address)
}

async fn stored(address: std::net::SocketAddr) -> Vec<pb::Event> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = within("connect", endpoint.connect()).await.unwrap();
    let mut client = pb::feed_service_client::FeedServiceClient::new(channel);
    let request =
        pb::WatchRequest { start: from_oldest(), until_caught_up: true, ..Default::default() };
    watch(&mut client, request).await.unwrap().rest().await.0
}

fn numbered(producer: &str, number: u64) -> pb::Event {
    pb::Event {
        key: number.to_string(),
        body: "x".repeat(number as usize % 90),
        ..event(producer, "")
    }
}

/// What each producer was told: number to seq.
type Told = BTreeMap<String, BTreeMap<u64, u64>>;

/// Events whose ack told of an earlier one that was lost.
static REPEATED: AtomicU64 = AtomicU64::new(0);

/// Each producer's numbers from 1 on, each once, in order, and where its acks said.
fn check(events: &[pb::Event], told: &Told) -> Result<(), String> {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut seqs: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    for event in events {
        let number: u64 = event.key.parse().map_err(|_| "no number")?;
        let before = last.insert(&event.topic, number).unwrap_or(0);
        if number != before + 1 {
            return Err(format!("{}: {number} after {before}", event.topic));
        }
        seqs.insert((&event.topic, number), event.seq);
    }
    for (producer, told) in told {
        for (&number, &seq) in told {
            if seqs.get(&(producer, number)) != Some(&seq) {
                return Err(format!("{producer}: {number} was acked at {seq}"));
            }
        }
    }
    Ok(())
}

#[test]
fn every_check_can_fail() {
    let at = |seq, number| pb::Event { seq, ..numbered("p", number) };
    let told: Told = [("p".to_owned(), [(2, 2)].into())].into();
    assert_eq!(check(&[at(1, 1), at(2, 2)], &told), Ok(()));
    for bad in [
        vec![at(1, 1), at(2, 2), at(3, 2)],
        vec![at(1, 1), at(2, 3)],
        vec![at(1, 2), at(2, 1)],
        vec![at(1, 1)],
        vec![at(1, 1), at(3, 2)],
    ] {
        assert!(check(&bad, &told).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn events_are_durable_once_their_ack_says_so() {
    let server = start().await;
    let producer = producer(&url(&server), "p", ProducerOptions::default()).await;
    assert_eq!((producer.position().batch, producer.position().seq), (0, None));
    let mut acks = Vec::new();
    for number in 1..=5_000 {
        acks.push(producer.send(&numbered("p", number)).await.unwrap());
    }
    for (at, ack) in acks.into_iter().enumerate() {
        let durable = within("ack", ack.durable()).await.unwrap();
        assert_eq!((durable.seq, durable.duplicate), (Some(Seq::new(at as u64 + 1)), false));
        assert!(server.head() > at as u64);
    }
    within("close", producer.close()).await.unwrap();
    assert_eq!(check(&stored(server.address).await, &Told::new()), Ok(()));
    until("no stream", || server.gauges.uploads() == 0).await;
    // The next life knows where this one came to.
    let producer = self::producer(&url(&server), "p", quick()).await;
    let position = producer.position().clone();
    assert_eq!((position.seq, position.cursor), (Some(Seq::new(5_000)), server.cursor(5_000)));
    assert!(position.batch > 0 && position.epoch > 1);
    drop(producer);
    server.stop().await;
}

async fn seq_of(ack: Ack) -> u64 {
    let durable = within("ack", ack.durable()).await.unwrap();
    REPEATED.fetch_add(u64::from(durable.duplicate), Ordering::Relaxed);
    durable.seq.expect("a seq").get()
}

/// Sends until told to end; answers what it was told.
async fn send_on(
    producer: Producer,
    id: String,
    from: u64,
    end: Arc<AtomicU64>,
) -> BTreeMap<u64, u64> {
    let mut told = BTreeMap::new();
    let mut acks = Vec::new();
    let mut number = from;
    while number <= end.load(Ordering::Relaxed) {
        acks.push((number, producer.send(&numbered(&id, number)).await.unwrap()));
        if number.is_multiple_of(100) {
            for (number, ack) in acks.drain(..) {
                told.insert(number, seq_of(ack).await);
            }
        }
        number += 1;
    }
    for (number, ack) in acks {
        told.insert(number, seq_of(ack).await);
    }
    within("close", producer.close()).await.unwrap();
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_and_lost_acks_repeat_nothing_and_lose_nothing() {
    let server = start().await;
    let proxy = Proxy::to(server.address).await;
    let end = Arc::new(AtomicU64::new(u64::MAX));
    let mut sending = tokio::task::JoinSet::new();
    for id in ["a", "b", "c"] {
        let mut options = quick();
        (options.batch_events, options.linger) = (7, Duration::ZERO);
        let producer = producer(&proxy.url(), id, options).await;
        let end = end.clone();
        sending.spawn(async move { (id, send_on(producer, id.to_owned(), 1, end).await) });
    }
    let (mut cuts, mut at_head) = (0, 0);
    // What counts is how often it is cut, not how much gets through meanwhile.
    while cuts < 60 || REPEATED.load(Ordering::Relaxed) < 100 {
        // After every few commits, whatever is under way.
        until("progress", || server.head() > at_head + 150).await;
        // What is stored from here on has its acks lost for certain.
        let before = proxy.lost();
        until("a lost answer", || {
            // Again and again: there may be no connection just now.
            proxy.lose_answers();
            proxy.lost() > before
        })
        .await;
        at_head = server.head();
        cuts += proxy.cut();
    }
    end.store(0, Ordering::Relaxed);
    let mut told = Told::new();
    while let Some(done) = within("all sent", sending.join_next()).await {
        let (id, one) = done.unwrap();
        told.insert(id.to_owned(), one);
    }
    let events = stored(server.address).await;
    assert_eq!(events.len(), told.values().map(BTreeMap::len).sum::<usize>());
    assert_eq!(check(&events, &told), Ok(()));
    drop(proxy);
    server.stop().await;
}

#[tokio::test]
async fn a_newer_life_fences_the_older_for_good() {
    let server = start().await;
    let old = producer(&url(&server), "p", quick()).await;
    old.send(&numbered("p", 1)).await.unwrap().durable().await.unwrap();
    let new = producer(&url(&server), "p", quick()).await;
    assert_eq!((new.position().batch, new.position().seq), (1, Some(Seq::FIRST)));
    let ack = old.send(&numbered("p", 2)).await.unwrap();
    let error = within("ack", ack.durable()).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Conflict, "FENCED"));
    assert!(!error.is_retryable());
    // It does not come back by itself.
    let error = old.send(&numbered("p", 3)).await.unwrap_err();
    assert_eq!((error.reason(), error.may_have_applied()), ("FENCED", false));
    assert_eq!(within("flush", old.flush()).await.unwrap_err().reason(), "FENCED");
    new.send(&numbered("p", 2)).await.unwrap().durable().await.unwrap();
    within("close", new.close()).await.unwrap();
    assert_eq!(check(&stored(server.address).await, &Told::new()), Ok(()));
    server.stop().await;
}

#[tokio::test]
async fn a_refused_batch_costs_only_itself() {
    let server = start().await;
    let producer = producer(&url(&server), "p", quick()).await;
    let expect = |topic: &str, seq| Some(Expect { topic: topic.into(), seq: Seq::new(seq) });
    let batch = [numbered("p", 1), numbered("p", 2)];
    let won = producer.send_batch(&batch, expect("p", 0)).await.unwrap();
    let lost = producer.send_batch(&batch, expect("p", 0)).await.unwrap();
    let after = producer.send_batch(&[numbered("p", 3)], None).await.unwrap();
    assert_eq!(won.await.unwrap().seq, Some(Seq::new(2)));
    let error = within("ack", lost.durable()).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Conflict, "HEAD_MOVED"));
    assert_eq!(error.metadata("actual"), Some("2"));
    assert!(!error.may_have_applied());
    assert_eq!(within("ack", after.durable()).await.unwrap().seq, Some(Seq::new(3)));
    assert_eq!(within("flush", producer.flush()).await.unwrap_err().reason(), "HEAD_MOVED");
    // Told once.
    within("flush", producer.flush()).await.unwrap();
    let bad = producer.send_batch(&[event("p", ""), event("p..p", "")], None).await.unwrap();
    let good = producer.send_batch(&[numbered("p", 4)], None).await.unwrap();
    let error = within("ack", bad.durable()).await.unwrap_err();
    assert_eq!((error.kind(), error.metadata("index")), (Kind::InvalidRequest, Some("1")));
    within("ack", good.durable()).await.unwrap();
    let nothing = producer.send_batch(&[], None).await.unwrap_err();
    assert_eq!(nothing.kind(), Kind::InvalidRequest);
    assert!(within("close", producer.close()).await.is_err());
    assert_eq!(check(&stored(server.address).await, &Told::new()), Ok(()));
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_is_waited_for_and_one_that_is_not_there_is_told() {
    let log = new_log();
    let server = start_with(log.clone(), Options::default()).await;
    let proxy = Proxy::to(server.address).await;
    let producer = producer(&proxy.url(), "p", quick()).await;
    producer.send(&numbered("p", 1)).await.unwrap().durable().await.unwrap();
    assert!(producer.interruption().is_none());
    server.stop().await;
    let mut options = quick();
    options.waits_for_server = false;
    let client = Client::new(&proxy.url()).unwrap();
    let error = within("open", client.producer("q", options)).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Connect | Kind::Unavailable), "{error:?}");
    let ack = producer.send(&numbered("p", 2)).await.unwrap();
    until("an interruption", || producer.interruption().is_some()).await;
    let server = start_with(log, Options::default()).await;
    proxy.lead_to(server.address);
    let durable = within("ack", ack.durable()).await.unwrap();
    assert_eq!(durable.seq, Some(Seq::new(2)));
    assert!(producer.interruption().is_none());
    // With nothing to send it ends whether the server is there or not.
    server.stop().await;
    until("an interruption", || producer.interruption().is_some()).await;
    within("close", producer.close()).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_left_and_what_was_sent_on_it_is_stored_once() {
    let server = start().await;
    let proxy = Proxy::to(server.address).await;
    let mut options = quick();
    options.ack_timeout = Duration::from_millis(500);
    let producer = producer(&proxy.url(), "p", options).await;
    producer.send(&numbered("p", 1)).await.unwrap().durable().await.unwrap();
    for (number, is_heard) in [(2, false), (3, true)] {
        // The server hears it and its answer is lost, or it hears nothing.
        let taken = proxy.taken();
        if is_heard {
            proxy.lose_answers()
        } else {
            proxy.freeze()
        }
        let ack = producer.send(&numbered("p", number)).await.unwrap();
        let durable = within("ack", ack.durable()).await.unwrap();
        assert_eq!((durable.seq, durable.duplicate), (Some(Seq::new(number)), is_heard));
        assert!(proxy.taken() > taken);
    }
    within("close", producer.close()).await.unwrap();
    assert_eq!(check(&stored(server.address).await, &Told::new()), Ok(()));
    proxy.cut();
    server.stop().await;
}

#[tokio::test]
async fn who_drops_a_producer_hears_that_the_outcome_is_unknown() {
    let server = start().await;
    let mut options = quick();
    options.linger = Duration::from_secs(3_600);
    let producer = producer(&url(&server), "p", options).await;
    let ack = producer.send(&numbered("p", 1)).await.unwrap();
    drop(producer);
    let error: Error = within("ack", ack.durable()).await.unwrap_err();
    assert!(error.may_have_applied());
    until("no stream", || server.gauges.uploads() == 0).await;
    server.stop().await;
}

/// Producers over a daemon that is killed again and again, which themselves are dropped in the
/// middle and come back to where they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_of_the_daemon_or_of_producers_repeats_or_loses_anything() {
    const KILLS: usize = 12;
    let mut rng = StdRng::seed_from_u64(7);
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path());
    let proxy = Proxy::to(daemon.address()).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let acked = Arc::new(AtomicU64::new(0));
    let mut lives = tokio::task::JoinSet::new();
    for id in ["a", "b"] {
        let (url, is_over, acked) = (proxy.url(), is_over.clone(), acked.clone());
        let seed = rng.random();
        lives.spawn(async move { (id.to_owned(), live(&url, id, seed, &is_over, &acked).await) });
    }
    for kill in 0..KILLS {
        let before = acked.load(Ordering::Relaxed);
        let more = rng.random_range(1..400);
        until("acks", || acked.load(Ordering::Relaxed) > before + more).await;
        if kill % 2 == 1 {
            // Killed, or stopped, with acks that nobody has heard.
            proxy.lose_answers();
        }
        if kill % 4 == 3 {
            assert_eq!(daemon.stop(), Some(0));
        } else {
            daemon.kill();
        }
        daemon = Daemon::start(dir.path());
        proxy.lead_to(daemon.address());
    }
    is_over.store(true, Ordering::Relaxed);
    let mut told = Told::new();
    while let Some(life) = within("the last acks", lives.join_next()).await {
        let (id, one) = life.unwrap();
        told.insert(id, one);
    }
    let events = stored(daemon.address()).await;
    assert_eq!(check(&events, &told), Ok(()));
    assert!(told.values().all(|one| !one.is_empty()));
}

/// Lives of one producer, one after the other.
async fn live(
    url: &str,
    id: &str,
    seed: u64,
    is_over: &AtomicBool,
    acked: &AtomicU64,
) -> BTreeMap<u64, u64> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut told = BTreeMap::new();
    let client = Client::new(url).unwrap();
    loop {
        let producer = producer(url, id, quick()).await;
        // Where was I?
        let mut number = match producer.position().seq {
            Some(seq) => number_at(&client, seq).await,
            None => 0,
        };
        for _ in 0..rng.random_range(1..20) {
            let mut acks = Vec::new();
            for _ in 0..rng.random_range(1..60) {
                number += 1;
                acks.push((number, producer.send(&numbered(id, number)).await.unwrap()));
            }
            // Some acks nobody hears.
            let heard = rng.random_range(0..=acks.len());
            for (number, ack) in acks.drain(..heard) {
                let durable = within("ack", ack.durable()).await.unwrap();
                told.insert(number, durable.seq.unwrap().get());
                acked.fetch_add(1, Ordering::Relaxed);
            }
        }
        if is_over.load(Ordering::Relaxed) {
            within("close", producer.close()).await.unwrap();
            return told;
        }
        // Dropped in the middle.
    }
}

async fn number_at(client: &Client, seq: Seq) -> u64 {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    within("the last event", async {
        loop {
            look.tick().await;
            match client.event(seq).await {
                Ok(event) => return event.key.parse().unwrap(),
                Err(error) if error.is_retryable() => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

#[test]
fn the_bench_appends_as_a_producer() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    for batch in ["1", "150"] {
        let args = ["bench", "append", "--producer", "p", "--events", "1500", "--batch", batch];
        let report = daemon.output(&[&args[..], &["--publishes", "1", "--json"]].concat(), b"");
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["events"], 1_500);
        assert_eq!(report["work"], "append as a producer");
    }
    let status: serde_json::Value =
        serde_json::from_str(&daemon.output(&["status", "--json"], b"")).unwrap();
    assert_eq!(status["head_seq"], "3002");
    assert_eq!(daemon.stop(), Some(0));
}
