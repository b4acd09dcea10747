//! Daemons on threads of their own over one stream, what is done to its servers, and what their clients saw.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_journal_nats::Settings;
use tailmark_log::storage::Store as _;
use tailmark_log::storage::shared::Role;
use tailmark_log::{AppendError, AppendOptions, Appended, EventLog};
use tailmark_record::topic::Filter;
use tailmark_record::{Cursor, Event, Events, Seq, Timestamp};
use tailmark_wire::feed_v1 as pb;

use crate::checker::{History, Note, Outcome, Request, Sent, Watched, violations};
use crate::daemon::Daemon;
use crate::outsider::Outsider;
use crate::servers::Servers;

const LOG: &str = "log";
/// Between faults: an election takes 4 to 9 s.
const APART: Duration = Duration::from_secs(12);
/// Who has seen nothing for as long takes over.
const SILENCE: Duration = Duration::from_secs(3);

/// What a run is made of.
pub struct Plan {
    pub servers: usize,
    pub daemons: u64,
    pub faults: usize,
    pub seed: u64,
}

/// A client that watches, wherever it is let.
#[derive(Default)]
struct Seer {
    cursor: Option<String>,
    notes: Vec<Note>,
    is_through: bool,
}

#[derive(Default)]
struct Covered {
    acked: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    terms: AtomicU64,
    doubts: AtomicU64,
    fenced: AtomicU64,
    deaths: AtomicU64,
}

/// What the daemons' threads share: their clients.
#[derive(Default)]
struct Clients {
    requests: parking_lot::Mutex<Vec<Request>>,
    named: parking_lot::Mutex<Vec<Sent>>,
    seers: Vec<tokio::sync::Mutex<Seer>>,
    wrong: parking_lot::Mutex<Vec<String>>,
    /// When each ack came.
    acks: parking_lot::Mutex<Vec<Instant>>,
    labels: AtomicU64,
    is_over: AtomicBool,
    covered: Covered,
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap())
}

fn count(what: &AtomicU64) {
    what.fetch_add(1, Ordering::Relaxed);
}

async fn append(log: EventLog, sent: &[Sent]) -> Result<Appended, AppendError> {
    let mut batch = log.batch();
    for Sent { event, .. } in sent {
        let (id, topic, body) = (&*event.id, &*event.topic, &*event.body);
        batch.push(&Event { id, topic, body, ..Event::default() }).unwrap();
    }
    let options = AppendOptions { dedup: true, atomic: true, ..AppendOptions::default() };
    log.append(batch, options).await
}

impl Clients {
    fn events(&self, rng: &mut StdRng) -> Vec<Sent> {
        let is_named = rng.random_bool(0.5);
        if is_named && rng.random_bool(0.3) {
            let named = self.named.lock();
            if !named.is_empty() {
                return vec![named[rng.random_range(0..named.len())].clone()];
            }
        }
        let mut sent = Vec::new();
        for _ in 0..if is_named { 1 } else { rng.random_range(1..4) } {
            let label = format!("e{}", self.labels.fetch_add(1, Ordering::Relaxed));
            let id = if is_named { format!("id-{label}") } else { String::new() };
            let filler = "x".repeat(rng.random_range(0..3_000));
            let (topic, body) = ("orders.eu".to_owned(), format!("{label}|{filler}"));
            sent.push(Sent { label, event: pb::Event { id, topic, body, ..pb::Event::default() } });
        }
        if is_named {
            self.named.lock().extend(sent.iter().cloned());
        }
        sent
    }

    /// What a client was told; whether the daemon's writer goes on.
    fn told(&self, sent: Vec<Sent>, appended: &Result<Appended, AppendError>) -> bool {
        let (mut outcome, mut goes_on) = (Outcome::Refused, true);
        match appended {
            Ok(done) => {
                self.acks.lock().push(Instant::now());
                count(&self.covered.acked);
                outcome = Outcome::Uploaded(pb::UploadResult {
                    received: i32::try_from(sent.len()).unwrap(),
                    stored: done.stored,
                    duplicates: done.duplicates,
                    last_seq: done.last_event.get(),
                    ..pb::UploadResult::default()
                });
            }
            Err(AppendError::Unknown(_)) => {
                count(&self.covered.unknown);
                (outcome, goes_on) = (Outcome::Unknown, false);
            }
            Err(AppendError::NotWriter(_) | AppendError::Diverged(_)) => {
                count(&self.covered.refused);
                goes_on = false;
            }
            Err(AppendError::Busy(_)) => count(&self.covered.refused),
            Err(error) => self.wrong.lock().push(format!("refused: {error}")),
        }
        // Of a repeat the first may be there.
        if matches!(outcome, Outcome::Refused) && !sent[0].event.id.is_empty() {
            outcome = Outcome::Unknown;
        }
        self.requests.lock().push(Request { sent, outcome });
        goes_on
    }

    /// A watcher goes on at a daemon.
    async fn look(&self, who: usize, log: &EventLog) {
        let Ok(mut seer) = self.seers[who].try_lock() else { return };
        let next = match &seer.cursor {
            None => Seq::FIRST,
            // AHEAD of a daemon that has less is no verdict before the writer was asked.
            Some(text) => match log.resolve(Cursor::parse(text).unwrap()).await {
                Ok(next) => next,
                Err(_) => return,
            },
        };
        seer.notes.push(Note::Opened(next.get()));
        let mut reader = log.reader(next, Filter::ALL);
        let end = log.head().next();
        while reader.position() < end {
            let delivery = match reader.next(end).await {
                Ok(delivery) => delivery,
                Err(error) => return self.wrong.lock().push(format!("a read fails: {error}")),
            };
            for event in Events::new(&delivery.chunk.events) {
                let event = pb::Event::decode(event.unwrap()).unwrap();
                seer.cursor = Some(event.cursor.clone());
                seer.is_through |= event.body == "end|";
                seer.notes.push(Note::Event(Box::new(event)));
            }
        }
    }
}

/// A daemon's life, until all is over.
async fn live(daemon: &mut Daemon, clients: &Clients, rng: &mut StdRng) -> Result<(), String> {
    let mut heard = Instant::now();
    while !clients.is_over.load(Ordering::Relaxed) {
        daemon.refresh().await?;
        if daemon.replica.is_in_doubt() {
            count(&clients.covered.doubts);
            // Whatever became of it, its log is opened anew.
            let _ = daemon.replica.resolve();
            daemon.has_ended = true;
            continue;
        }
        if rng.random_ratio(1, 1_000) {
            count(&clients.covered.deaths);
            daemon.dies(rng.random_bool(0.3)).await?;
            continue;
        }
        if !clients.seers.is_empty() && rng.random_ratio(1, 10) {
            clients.look(rng.random_range(0..clients.seers.len()), &daemon.log).await;
        }
        match daemon.replica.role() {
            Role::Writing => {
                let mut calls = Vec::new();
                for _ in 0..rng.random_range(1..4) {
                    let (log, sent) = (daemon.log.clone(), clients.events(rng));
                    let call = sent.clone();
                    calls.push((sent, tokio::spawn(async move { append(log, &call).await })));
                }
                for (sent, call) in calls {
                    let appended = call.await.unwrap();
                    daemon.has_ended |= !clients.told(sent, &appended);
                }
                if rng.random_ratio(1, 20) {
                    let _ = daemon.replica.follow();
                }
                let is_fenced = daemon.replica.role() == Role::Following;
                clients.covered.fenced.fetch_add(u64::from(is_fenced), Ordering::Relaxed);
                heard = Instant::now();
            }
            Role::Following => {
                let taken = daemon.follow(50).await?;
                if taken > 0 {
                    heard = Instant::now();
                }
                let silence = SILENCE + Duration::from_millis(rng.random_range(0..500));
                if heard.elapsed() > silence || rng.random_ratio(1, 2_000) {
                    let is_taken = daemon.replica.take_over(now()).is_ok();
                    clients.covered.terms.fetch_add(u64::from(is_taken), Ordering::Relaxed);
                    // What it followed before that was not shown.
                    daemon.has_ended = true;
                    heard = Instant::now();
                } else if taken == 0 {
                    let replica = daemon.replica.clone();
                    let wait = move || replica.wait(Duration::from_millis(20));
                    tokio::task::spawn_blocking(wait).await.unwrap();
                }
            }
            Role::Diverged => {
                return Err(format!("daemon {} tells of a loss that is none", daemon.name));
            }
        }
    }
    Ok(())
}

fn on_a_thread<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap().block_on(future)
}

/// Does something to the servers, and waits until they are well again.
fn fault(servers: &mut Servers, outsider: &Outsider, rng: &mut StdRng) -> &'static str {
    let leader = outsider.leader(LOG).unwrap_or_default();
    let other = (leader + 1) % servers.count();
    let down = Duration::from_millis(rng.random_range(300..6_000));
    let (what, killed) = match rng.random_range(0..5) {
        _ if servers.count() == 1 => ("the server is killed", vec![leader]),
        0 | 1 => ("the leader is killed", vec![leader]),
        2 => ("a follower is killed", vec![other]),
        3 => ("the leader and one more are killed", vec![leader, other]),
        _ => {
            servers.pause(leader, Duration::from_secs(rng.random_range(2..9)));
            ("the leader is stopped for a while", Vec::new())
        }
    };
    killed.iter().for_each(|at| servers.kill(*at));
    std::thread::sleep(down);
    killed.iter().for_each(|at| servers.begin(*at));
    what
}

/// Runs a plan, and holds what all saw against every guarantee.
pub fn run(program: &Path, plan: &Plan) {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut servers = Servers::start(program, plan.servers, true);
    let outsider = Outsider::connect(&servers, "tm");
    // So short that what is not answered is heard of.
    let (answer, patience) = (Duration::from_millis(1_000), Duration::from_millis(1_500));
    let settings = |at: usize| Settings { answer, patience, ..crate::settings(&servers, LOG, at) };
    let daemons: Vec<_> = (1..)
        .zip(0..plan.daemons)
        .map(|(name, at)| Daemon::new(name, settings(usize::try_from(at).unwrap())))
        .collect();
    let clients = Arc::new(Clients {
        seers: (0..4).map(|_| Default::default()).collect(),
        ..Clients::default()
    });
    let threads: Vec<_> = daemons
        .into_iter()
        .map(|mut daemon| {
            let (clients, mut rng) =
                (clients.clone(), StdRng::seed_from_u64(plan.seed ^ daemon.name));
            std::thread::spawn(move || {
                on_a_thread(async {
                    let lived = live(&mut daemon, &clients, &mut rng).await;
                    clients.wrong.lock().extend(lived.err());
                    daemon
                })
            })
        })
        .collect();
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(5));
    for nth in 0..plan.faults {
        let at = Instant::now();
        let what = fault(&mut servers, &outsider, &mut rng);
        assert!(
            plan.servers == 1 || outsider.wait_current(LOG),
            "the replicas do not become current"
        );
        println!("fault {}: {what}", nth + 1);
        std::thread::sleep(APART.saturating_sub(at.elapsed()).max(Duration::from_secs(3)));
    }
    let time = begun.elapsed();
    clients.is_over.store(true, Ordering::Relaxed);
    let mut daemons: Vec<Daemon> = threads.into_iter().map(|it| it.join().unwrap()).collect();
    on_a_thread(settle(&mut daemons, &clients));
    print(&clients, time);
    let log = on_a_thread(all_have_one_log(&mut daemons, &clients));
    let mut wrong: Vec<String> = std::mem::take(&mut *clients.wrong.lock());
    let watches = clients.seers.iter().enumerate().map(|(who, seer)| Watched {
        name: format!("watcher {who}"),
        filter: Filter::ALL,
        notes: std::mem::take(&mut seer.try_lock().unwrap().notes),
        is_paused: false,
        is_early: true,
    });
    let (watches, head) = (watches.collect(), log.len() as u64);
    let requests = std::mem::take(&mut *clients.requests.lock());
    let history = History { requests, watches, restarts: Vec::new(), log, oldest: 1, head };
    wrong.extend(violations(&history).into_iter().map(|(kind, what)| format!("{kind}: {what}")));
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let covered = &clients.covered;
    for (what, count) in [("acks", &covered.acked), ("takeovers", &covered.terms)] {
        assert!(count.load(Ordering::Relaxed) > 0, "no {what}");
    }
}

/// One writes the last event, and everybody reads up to it.
async fn settle(daemons: &mut [Daemon], clients: &Clients) {
    let begun = Instant::now();
    let mut is_ended = false;
    let count = daemons.len();
    for round in 0.. {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody can write at the end");
        let daemon = &mut daemons[round % count];
        if daemon.replica.resolve().is_err() || daemon.replica.take_over(now()).is_err() {
            continue;
        }
        daemon.has_ended = true;
        daemon.refresh().await.unwrap();
        let (label, topic) = ("end".to_owned(), "end".to_owned());
        let event = pb::Event { topic, body: "end|".into(), ..pb::Event::default() };
        let sent = vec![Sent { label, event }];
        let appended = append(daemon.log.clone(), &sent).await;
        is_ended |= appended.is_ok();
        daemon.has_ended |= !clients.told(sent, &appended);
        if is_ended {
            break;
        }
    }
    for daemon in daemons.iter_mut() {
        let begun = Instant::now();
        while daemon.replica.resolve().is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "a doubt that does not end");
        }
        daemon.has_ended = true;
        daemon.refresh().await.unwrap();
        let mut quiet = 0;
        while quiet < 20 {
            match daemon.follow(1_000).await {
                Ok(0) => {
                    quiet += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(_) => quiet = 0,
                Err(what) => return clients.wrong.lock().push(what),
            }
        }
    }
    for who in 0..clients.seers.len() {
        for daemon in daemons.iter() {
            clients.look(who, &daemon.log).await;
        }
        if !clients.seers[who].lock().await.is_through {
            clients.wrong.lock().push(format!("watcher {who} does not see the end"));
        }
    }
}

/// The log, which all have, with one chain.
async fn all_have_one_log(daemons: &mut [Daemon], clients: &Clients) -> Vec<pb::Event> {
    let mut logs = Vec::new();
    for daemon in daemons.iter() {
        let (mut next, end, mut events) = (Seq::FIRST, daemon.log.head().next(), Vec::new());
        while next < end {
            let delivery = daemon.log.reader(next, Filter::ALL).next(end).await.unwrap();
            let chunk = delivery.chunk;
            events.extend(
                Events::new(&chunk.events).map(|it| pb::Event::decode(it.unwrap()).unwrap()),
            );
            next = chunk.end;
        }
        logs.push((daemon.replica.links().head, events));
        daemon.log.close().await.unwrap();
    }
    let (first, rest) = logs.split_first().unwrap();
    for (at, other) in rest.iter().enumerate() {
        if other != first {
            let (one, two) = (first.1.len(), other.1.len());
            clients
                .wrong
                .lock()
                .push(format!("daemon {} has another log: {two} events, of {one}", at + 2));
        }
    }
    logs.swap_remove(0).1
}

fn print(clients: &Clients, time: Duration) {
    let mut acks = std::mem::take(&mut *clients.acks.lock());
    acks.sort_unstable();
    let longest = acks.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default();
    let of = |it: &AtomicU64| it.load(Ordering::Relaxed);
    let Covered { acked, unknown, refused, terms, doubts, fenced, deaths } = &clients.covered;
    println!(
        "{:.0} s: {} acked, {} unknown, {} refused; {} takeovers, {} fenced, {} tries to settle a doubt, {} deaths; \
         {:.1} s at most without an ack",
        time.as_secs_f64(),
        of(acked),
        of(unknown),
        of(refused),
        of(terms),
        of(fenced),
        of(doubts),
        of(deaths),
        longest.as_secs_f64(),
    );
}
