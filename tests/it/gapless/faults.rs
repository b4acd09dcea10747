//! Sync, then publish, with the disk engine and over sockets: what happens when the order is
//! swapped, and that each check of the checker can fail.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use rand::SeedableRng as _;
use tailmark_client::Client;
use tailmark_log::storage::{
    Chunk, Commit, Completion, Engine, Intercept, Level, Receipt, StoreError,
};
use tailmark_record::Seq;
use tailmark_record::topic::Filter;
use tailmark_wire::feed_v1 as pb;

use super::watcher::{Begin, Pace, Plan, Watcher};
use super::world::World;
use super::{auditor, finish};
use crate::support::checker::{
    History, Note, Outcome, Request, Restart, Sent, Watched, violations,
};
use crate::support::disk::{DiskServer, Setup};
use crate::support::server::{until, within};

/// A disk whose last write is never synced: the newest commit waits, and a crash loses it.
struct LastUnsynced {
    inner: Arc<dyn Engine>,
    /// The mutation: answer, and so publish, before the commit is durable.
    answers_early: bool,
    waiting: Mutex<Option<(Commit, Option<Completion>)>>,
}

impl LastUnsynced {
    fn sync(&self) {
        if let Some((commit, done)) = self.waiting.lock().unwrap().take() {
            self.inner.append(commit, done.unwrap_or_else(|| Box::new(|_| {})));
        }
    }
}

impl Intercept for LastUnsynced {
    fn inner(&self) -> &dyn Engine {
        &*self.inner
    }

    fn append(&self, commit: Commit, done: Completion) {
        self.sync();
        let (first, last) = (commit.first, commit.first.plus(commit.count.into()).prev());
        if self.answers_early {
            *self.waiting.lock().unwrap() = Some((commit, None));
            done(Ok(Receipt { first, last, level: Level::Fsync, term: 0 }));
        } else {
            *self.waiting.lock().unwrap() = Some((commit, Some(done)));
        }
    }

    fn wants_state(&self, _: usize) -> bool {
        // The commit before, which would tell, is not there yet.
        true
    }

    fn read(&self, from: Seq, end: Seq, filter: &Filter) -> Result<Chunk, StoreError> {
        if let Some((commit, _)) = &*self.waiting.lock().unwrap() {
            let to = commit.first.plus(commit.count.into());
            if (commit.first..to).contains(&from) {
                let events = commit.events.clone();
                let whole = Chunk { first: commit.first, end: to, events, complete: true };
                return Ok(whole.cut(from, end).unwrap());
            }
        }
        self.inner.read(from, end.min(self.inner.bounds().next()), filter)
    }
}

/// Uploads and watches; crashes while the last commit is not synced; opens what is on disk, and
/// goes on. What clients knew across the crash.
async fn history_of_a_crash(answers_early: bool) -> History {
    let dir = tempfile::tempdir().unwrap();
    let engine: Arc<Mutex<Option<Arc<LastUnsynced>>>> = Arc::default();
    let wrap = |inner| -> Arc<dyn Engine> {
        let waiting = Mutex::new(None);
        let wrapped = Arc::new(LastUnsynced { inner, answers_early, waiting });
        *engine.lock().unwrap() = Some(wrapped.clone());
        wrapped
    };
    let server = DiskServer::start_wrapped(dir.path(), Setup::small(), &wrap).await;
    let engine = engine.lock().unwrap().take().unwrap();
    let world = Arc::new(World::new());
    let rng = rand::rngs::StdRng::seed_from_u64(1);
    let plan = Plan { pace: Pace::Fast, begin: Begin::Oldest, ..auditor() };
    let watching = Watcher::new(plan, rng, world.clone(), server.address).await;
    let watching = tokio::spawn(watching.run());
    let client = Client::new(&server.url()).unwrap();
    for n in 1..=20u64 {
        let sent = event(n, "");
        let message = sent.event.clone();
        let client = client.clone();
        let publish = tokio::spawn(async move { client.publish(message, None).await });
        // It is in the engine's hands; the one before it is durable.
        let reached = || {
            let waiting = engine.waiting.lock().unwrap();
            waiting.as_ref().is_some_and(|(commit, _)| commit.first == Seq::new(n))
        };
        until("the commit", reached).await;
        let is_last = n == 20;
        if answers_early {
            let told = within("publish", publish).await.unwrap().unwrap();
            world.record(vec![sent], published(&told));
            until("seen", || world.seen.load(Ordering::SeqCst) == n).await;
        } else if !is_last {
            engine.sync();
            let told = within("publish", publish).await.unwrap().unwrap();
            world.record(vec![sent], published(&told));
            until("seen", || world.seen.load(Ordering::SeqCst) == n).await;
        } else {
            // Nobody is told, and nobody sees it.
            assert!(!publish.is_finished());
            publish.abort();
            world.record(vec![sent], Outcome::Unknown);
        }
    }
    // The crash: what is synced is on disk, and nothing else.
    let (acked, seen) = (world.acked.load(Ordering::SeqCst), world.seen.load(Ordering::SeqCst));
    // What is published is as good as seen: the watcher may just not have come to it.
    let seen = seen.max(server.head());
    let after_crash = tempfile::tempdir().unwrap();
    crate::support::disk::copy_dir(dir.path(), after_crash.path());
    watching.abort();
    let mut watches = Vec::new();
    if let Ok(watched) = watching.await {
        watches.push(watched);
    }
    *engine.waiting.lock().unwrap() = None;
    server.abandon();
    let server = DiskServer::start(after_crash.path(), Setup::small()).await;
    let restart = Restart { acked, seen, head: server.head() };
    let history = finish(&server, &world, watches, vec![restart]).await;
    server.stop().await;
    history
}

fn published(result: &pb::PublishResult) -> Outcome {
    Outcome::Published { seq: result.seq, duplicate: result.duplicate }
}

fn names(history: &History) -> Vec<&'static str> {
    violations(history).iter().map(|(name, _)| *name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acked_or_seen_survives_a_crash_of_the_disk_engine() {
    let history = history_of_a_crash(false).await;
    assert_eq!((history.head, history.restarts[0].seen), (19, 19));
    assert_eq!(violations(&history), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swapped_order_over_the_disk_engine_is_caught() {
    let history = history_of_a_crash(true).await;
    let names = names(&history);
    assert!(names.contains(&"Durable"), "{names:?}");
    assert!(names.contains(&"Visible-after-durable"), "{names:?}");
}

fn event(n: u64, id: &str) -> Sent {
    let label = format!("e{n}");
    let body = format!("{label}|");
    let event = pb::Event { id: id.into(), topic: "a".into(), body, ..pb::Event::default() };
    Sent { label, event }
}

fn stored(sent: &Sent, seq: u64) -> pb::Event {
    let at = prost_types::Timestamp { seconds: 100 + seq as i64, nanos: 0 };
    pb::Event { seq, appended_at: Some(at), ..sent.event.clone() }
}

/// Six events, of which the first two are trimmed, and three watches that saw what they should.
fn good() -> History {
    let sent: Vec<_> = (1..=6).map(|n| event(n, if n == 6 { "six" } else { "" })).collect();
    let log: Vec<_> = (1..).zip(&sent).map(|(seq, sent)| stored(sent, seq)).collect();
    let all = |events: &[pb::Event]| {
        events.iter().cloned().map(Box::new).map(Note::Event).collect::<Vec<_>>()
    };
    let watched = |name: &str, notes| Watched {
        name: name.into(),
        filter: Filter::ALL,
        notes,
        is_paused: false,
        is_early: true,
    };
    let gap = Note::Gap { from: 1, to: 2, reason: pb::gap::Reason::Trimmed };
    let mut late = vec![gap, Note::Opened(3)];
    late.extend(all(&log[2..]));
    let mut refused = vec![Note::Trimmed { oldest: 3, missed: 2 }, Note::Opened(3)];
    refused.extend(all(&log[2..5]));
    refused.extend([Note::Cut, Note::Opened(6), Note::Event(Box::new(log[5].clone()))]);
    let uploaded = pb::UploadResult {
        received: 5,
        first_seq: 1,
        last_seq: 5,
        stored: 5,
        ..pb::UploadResult::default()
    };
    let publish = |duplicate| Request {
        sent: vec![sent[5].clone()],
        outcome: Outcome::Published { seq: 6, duplicate },
    };
    History {
        requests: vec![
            Request { sent: sent[..5].to_vec(), outcome: Outcome::Uploaded(uploaded) },
            publish(false),
            publish(true),
        ],
        watches: vec![
            watched("all", all(&log)),
            watched("late", late),
            watched("refused", refused),
        ],
        restarts: vec![Restart { acked: 5, seen: 5, head: 5 }],
        log: log[2..].to_vec(),
        oldest: 3,
        head: 6,
    }
}

type Tamper = fn(&mut History);

#[test]
fn every_check_can_fail() {
    assert_eq!(violations(&good()), []);
    let cases: [(&str, &str, Tamper); 17] = [
        ("Durable", "an ack of what is not there", |h| {
            h.requests.push(Request {
                sent: vec![event(7, "")],
                outcome: Outcome::Published { seq: 7, duplicate: false },
            })
        }),
        ("Durable", "an acked prefix of what is not there", |h| {
            h.requests.push(Request {
                sent: vec![event(7, ""), event(8, "")],
                outcome: Outcome::Prefix(1),
            })
        }),
        ("Durable", "a head before an ack", |h| h.restarts[0].acked = 6),
        ("Durable", "another body", |h| {
            h.requests[0].sent[3].event.body = "e4|changed".into();
        }),
        ("Durable", "refused, yet stored", |h| h.requests[0].outcome = Outcome::Refused),
        ("Ordered", "time that goes back", |h| {
            let late = Some(prost_types::Timestamp { seconds: 1_000, nanos: 0 });
            h.log[0].appended_at = late;
        }),
        ("Ordered", "an upload in another order", |h| h.requests[0].sent.swap(3, 4)),
        ("Ordered", "two events swapped on the way", |h| h.watches[0].notes.swap(2, 3)),
        ("Gapless", "an event left out", |h| drop(h.watches[0].notes.remove(3))),
        ("Gapless", "the last event left out", |h| drop(h.watches[0].notes.pop())),
        ("Gapless", "a hole after a reconnect", |h| drop(h.watches[2].notes.remove(4))),
        ("Gapless", "a log with a hole", |h| drop(h.log.remove(1))),
        ("NoRepeat", "an event twice", |h| {
            let again = h.watches[2].notes[4].clone();
            h.watches[2].notes.insert(6, again);
        }),
        ("HonestLoss", "a gap over what can be read", |h| {
            h.watches[1].notes[0] = Note::Gap { from: 1, to: 3, reason: pb::gap::Reason::Trimmed };
        }),
        ("Idempotent", "a repeat that is stored", |h| {
            let mut again = h.log[3].clone();
            (again.seq, h.head) = (7, 7);
            h.log.push(again);
        }),
        ("Isolated", "one that waited", |h| h.watches[1].is_early = false),
        ("Visible-after-durable", "seen and undone", |h| h.restarts[0].seen = 6),
    ];
    for (guarantee, what, tamper) in cases {
        let mut history = good();
        tamper(&mut history);
        let names = names(&history);
        assert!(names.contains(&guarantee), "{what}: {guarantee} did not notice, {names:?}");
    }
    // What is only in memory of a watcher is seen too.
    let mut history = good();
    let Note::Event(mut other) = history.watches[0].notes[4].clone() else { unreachable!() };
    other.body = "e5|other".into();
    history.watches[0].notes[4] = Note::Event(other);
    assert!(names(&history).contains(&"Gapless"));
    assert!(names(&history).contains(&"Visible-after-durable"));
}
