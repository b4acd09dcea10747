//! The journal on real servers: the suite of shared journals, what it refuses, and daemons with event logs over one
//! stream while servers are killed and stopped. `tests/nats/ci.sh` brings the servers; without them all of it
//! is left out, and says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a test ends where something is not as it must be"
)]

mod beside;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../../../../tests/it/support/checker.rs"]
mod checker;
mod cluster;
mod daemon;
#[path = "../../../../tests/nats/outsider.rs"]
mod outsider;
#[allow(dead_code, reason = "shared with the tests of daemons")]
#[path = "../../../../tests/nats/servers.rs"]
mod servers;
mod stray;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tailmark_journal_nats::{Error, Login, NatsJournal, Settings};
use tailmark_log::storage::Level;
use tailmark_log::storage::shared::conformance::{CASES, Journals};
use tailmark_log::storage::shared::{Body, Content, Frame, FrameChain, Published, SharedJournal};
use tailmark_record::FingerprintKey;

use self::cluster::{Plan, run};
use self::outsider::Outsider;
use self::servers::{Servers, program};

/// How a daemon reaches the servers: one of them first, then the others.
fn settings(servers: &Servers, name: &str, first: usize) -> Settings {
    let count = servers.count();
    Settings {
        login: Login::User("tm".to_owned(), "tm".to_owned()),
        monitors: (0..count).map(|at| servers.monitor(at)).collect(),
        replicas: if count < 3 { 1 } else { 3 },
        ..Settings::new(
            (0..count).map(|at| servers.url(first + at)).collect(),
            name,
            FingerprintKey::new([7; 16]),
        )
    }
}

struct Streams<'a> {
    servers: &'a Servers,
    outsider: &'a Outsider,
    name: String,
    next: std::sync::atomic::AtomicUsize,
}

impl Journals for Streams<'_> {
    fn connect(&self) -> Arc<dyn SharedJournal> {
        // Each at another server first.
        let first = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let settings = settings(self.servers, &self.name, first);
        Arc::new(NatsJournal::connect(&settings).unwrap())
    }

    fn put_foreign(&self) {
        let answer = self.outsider.publish(&format!("tm.{}.j", self.name), b"somebody else's");
        assert!(answer.is_some_and(|it| it.get("seq").is_some()));
    }

    fn purge(&self, before: u64) {
        self.outsider.purge(&self.name, before);
    }
}

fn conforms(program: &Path, count: usize) {
    let servers = Servers::start(program, count, true);
    let outsider = Outsider::connect(&servers, "tm");
    for (at, (name, case)) in CASES.iter().enumerate() {
        println!("{count} servers: {name}");
        let (name, next) = (format!("case{at}"), 0.into());
        case(&Streams { servers: &servers, outsider: &outsider, name, next });
    }
}

#[test]
fn a_stream_of_one_server_is_a_journal() {
    let Some(program) = program() else { return };
    conforms(&program, 1);
}

#[test]
fn a_stream_of_three_servers_is_a_journal() {
    let Some(program) = program() else { return };
    conforms(&program, 3);
}

fn reasons(settings: &Settings) -> Vec<String> {
    match NatsJournal::connect(settings) {
        Err(Error::Unusable { reasons, .. } | Error::Weaker { reasons, .. }) => reasons,
        Err(error) => panic!("{error}"),
        Ok(_) => Vec::new(),
    }
}

fn frame(journal: &NatsJournal) -> Arc<Frame> {
    let (log, previous) = (journal.identity().id, FrameChain::default());
    let content = Content { log, previous, term: 1, writer: 1, nonce: 1, body: Body::Empty };
    Arc::new(Frame::new(content))
}

#[test]
fn what_promises_less_is_refused_unless_that_is_meant() {
    let Some(program) = program() else { return };
    let servers = Servers::start(&program, 1, true);
    let outsider = Outsider::connect(&servers, "tm");
    let settings = settings(&servers, "a", 0);

    // As it is asked for: one replica, synced.
    let journal = NatsJournal::connect(&settings).unwrap();
    assert_eq!(journal.identity().level, Level::Fsync);
    assert_eq!(NatsJournal::connect(&settings).unwrap().identity().id, journal.identity().id);
    // More replicas, a server that cannot be asked, another key, nobody let in.
    assert_eq!(reasons(&Settings { replicas: 3, ..settings.clone() }).len(), 1);
    let unseen = Settings { monitors: Vec::new(), ..settings.clone() };
    assert!(reasons(&unseen)[0].contains("cannot be seen"));
    let weaker = Settings { allow_weaker: true, ..unseen };
    assert_eq!(NatsJournal::connect(&weaker).unwrap().identity().level, Level::Unsynced);
    let key = Settings { key: FingerprintKey::new([8; 16]), ..settings.clone() };
    assert!(reasons(&key)[0].contains("another key"));
    let nobody =
        Settings { login: Login::None, answer: Duration::from_millis(500), ..settings.clone() };
    assert!(matches!(NatsJournal::connect(&nobody), Err(Error::Connect { .. })));
    let none = Settings { create: false, name: "none".to_owned(), ..settings.clone() };
    assert!(matches!(NatsJournal::connect(&none), Err(Error::Stream { action: "find", .. })));

    // A stream that somebody changed so that it removes messages is refused, whatever is allowed.
    let mut config = outsider.ask("STREAM.INFO.TM_a", &Value::Null).unwrap()["config"].clone();
    config["max_age"] = json!(3_600_000_000_000u64);
    outsider.ask("STREAM.UPDATE.TM_a", &config).unwrap();
    let allowed = Settings { allow_weaker: true, ..settings.clone() };
    assert!(reasons(&allowed)[0].contains("max_age"));

    // Who is a guest gets nothing stored, nor a message deleted.
    let guest = Outsider::connect(&servers, "guest");
    assert_eq!(guest.publish("tm.a.j", b"mine"), None);
    assert_eq!(journal.publish(0, &frame(&journal)), Published::Stored(1));
    let deleted = outsider.ask("STREAM.MSG.DELETE.TM_a", &json!({ "seq": 1 })).unwrap();
    assert_eq!(deleted["error"]["err_code"], json!(10_057));

    // A stream that is gone, and one that another made in its place: nothing is stored, and it is told.
    outsider.ask("STREAM.DELETE.TM_a", &Value::Null).unwrap();
    let Published::NotTaken { reason } = journal.publish(1, &frame(&journal)) else { panic!() };
    assert!(reason.contains("stream not found"), "{reason}");
    NatsJournal::connect(&settings).unwrap();
    let Published::NotTaken { reason } = journal.publish(1, &frame(&journal)) else { panic!() };
    assert!(reason.contains("made anew"), "{reason}");
    assert_eq!(journal.end(), None);
}

#[test]
fn a_server_that_acks_before_it_syncs_is_weaker() {
    let Some(program) = program() else { return };
    let servers = Servers::start(&program, 1, false);
    drop(Outsider::connect(&servers, "tm"));
    let settings = settings(&servers, "a", 0);
    assert!(reasons(&settings)[0].contains("sync_interval is not always"));
    let weaker = Settings { allow_weaker: true, ..settings };
    let journal = NatsJournal::connect(&weaker).unwrap();
    assert_eq!(journal.identity().level, Level::Unsynced);
    assert_eq!(journal.strength().weaknesses.len(), 1);
}

/// Writes and reads of two daemons that take over from each other, on one server that is killed.
#[test]
fn two_daemons_on_one_server_are_one_log() {
    let Some(program) = program() else { return };
    run(&program, &Plan { servers: 1, daemons: 2, faults: 3, seed: 1 });
}

/// Three of them on three servers, of which one or two are killed or stopped.
#[test]
fn three_daemons_on_three_servers_are_one_log() {
    let Some(program) = program() else { return };
    let faults = std::env::var("NATS_FAULTS").map_or(6, |it| it.parse().unwrap());
    let seed = std::env::var("NATS_SEED").map_or(1, |it| it.parse().unwrap());
    run(&program, &Plan { servers: 3, daemons: 3, faults, seed });
}
