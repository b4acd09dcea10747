//! What goes on beside publishing: a tail, what daemons say to each other, and who is asked whether it syncs.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailmark_journal_nats::{Error, NatsJournal, Settings};
use tailmark_log::storage::Level;
use tailmark_log::storage::shared::{Body, Content, Frame, Published, SharedJournal, Slot};

use crate::outsider::Outsider;
use crate::servers::{Servers, program};

const PATIENCE: Duration = Duration::from_secs(60);

/// One that is down cannot be asked, and others may have asked it before.
#[test]
fn a_daemon_begins_while_a_server_is_down_that_was_seen_to_sync() {
    let Some(program) = program() else { return };
    let mut servers = Servers::start(&program, 3, true);
    let outsider = Outsider::connect(&servers, "tm");
    let settings = crate::settings(&servers, "a", 0);
    let journal = NatsJournal::connect(&settings).unwrap();
    assert_eq!(journal.identity().level, Level::Replicated);
    assert!(outsider.wait_current("a"));
    // Its own server may be the one that is down.
    let ask = |what: &str, request: &Value| {
        let begun = Instant::now();
        loop {
            match outsider.ask(what, request).filter(|it| it.get("error").is_none()) {
                Some(answer) => return answer,
                None => assert!(begun.elapsed() < PATIENCE, "{what}: no answer"),
            }
        }
    };
    let kept = || {
        let info = ask("STREAM.INFO.TM_a", &Value::Null);
        Some(info.pointer("/config/metadata/tailmark.synced")?.as_str()?.to_owned())
    };
    assert_eq!(kept().as_deref(), Some(r#"["tm1","tm2","tm3"]"#));
    servers.kill(2);
    let begun = Instant::now();
    let other = loop {
        // The others elect meanwhile.
        match NatsJournal::connect(&settings) {
            Ok(journal) => break journal,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    assert_eq!(other.identity().level, Level::Replicated);
    assert_eq!(other.strength().remembered, ["tm3"]);
    // One that nobody ever asked is weaker, as before.
    let mut config = ask("STREAM.INFO.TM_a", &Value::Null)["config"].clone();
    config["metadata"]["tailmark.synced"] = json!(r#"["tm1","tm2"]"#);
    ask("STREAM.UPDATE.TM_a", &config);
    assert!(matches!(NatsJournal::connect(&settings), Err(Error::Weaker { .. })));
    assert!(matches!(other.look_again(), Err(Error::Weaker { .. })));
    assert_eq!(other.identity().level, Level::Unsynced);
    servers.begin(2);
    let begun = Instant::now();
    while other.look_again().is_err() {
        assert!(begun.elapsed() < PATIENCE, "it does not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(other.identity().level, Level::Replicated);
    assert!(other.strength().remembered.is_empty());
    assert_eq!(kept().as_deref(), Some(r#"["tm1","tm2","tm3"]"#));
}

#[test]
fn what_is_told_is_heard_by_all_and_not_stored() {
    let Some(program) = program() else { return };
    let servers = Servers::start(&program, 1, true);
    drop(Outsider::connect(&servers, "tm"));
    let connect = || NatsJournal::connect(&crate::settings(&servers, "a", 0)).unwrap();
    let (one, other) = (connect(), connect());
    let (told, heard) = mpsc::channel();
    let listening = [&one, &other].map(|journal| {
        let told = told.clone();
        journal.listen(move |what| drop(told.send(what))).unwrap()
    });
    one.tell("here".into()).unwrap();
    for _ in 0..2 {
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "here");
    }
    drop(listening);
    one.tell("again".into()).unwrap();
    assert!(heard.recv_timeout(Duration::from_millis(300)).is_err());
    assert_eq!(one.end(), Some(0));
}

/// A follower's consumer goes with its server, or by somebody's hand: all comes, in order, and none twice.
#[test]
fn a_tail_goes_on_whatever_becomes_of_its_consumer() {
    let Some(program) = program() else { return };
    let mut servers = Servers::start(&program, 3, true);
    let outsider = Outsider::connect(&servers, "tm");
    let settings =
        |at| Settings { answer: Duration::from_secs(1), ..crate::settings(&servers, "a", at) };
    let (writer, follower) = (settings(0), settings(1));
    let writer = NatsJournal::connect(&writer).unwrap();
    let follower = NatsJournal::connect(&follower).unwrap();
    assert!(outsider.wait_current("a"));
    let (mut end, mut chain) = (0, Default::default());
    let mut publish = |count: u64| {
        let begun = Instant::now();
        let upto = end + count;
        while end < upto {
            let (log, previous) = (writer.identity().id, chain);
            let content =
                Content { log, previous, term: 1, writer: 1, nonce: end + 1, body: Body::Empty };
            let frame = Frame::new(content).into();
            match writer.publish(end, &frame) {
                Published::Stored(slot) => assert_eq!(slot, end + 1),
                // Of a try before that was not answered.
                Published::Refused { end: now } if now == end + 1 => {}
                _ => {
                    assert!(begun.elapsed() < PATIENCE, "it cannot be published");
                    continue;
                }
            }
            (end, chain) = (end + 1, frame.chain());
        }
        end
    };
    let mut slot = 0;
    let mut follow = |upto: u64| {
        let begun = Instant::now();
        while slot < upto {
            assert!(begun.elapsed() < PATIENCE, "nothing comes at {}", slot + 1);
            follower.wait(slot + 1, Duration::from_millis(200));
            if let Some(found) = follower.read(slot + 1) {
                let Slot::Frame(frame) = found else { panic!("{found:?}") };
                slot += 1;
                assert_eq!(frame.nonce, slot);
            }
        }
        begun.elapsed()
    };
    follow(publish(100));
    let delete_all = || {
        let names = outsider.ask("CONSUMER.NAMES.TM_a", &Value::Null).unwrap();
        let names = names["consumers"].as_array().cloned().unwrap_or_default();
        for name in &names {
            let delete = format!("CONSUMER.DELETE.TM_a.{}", name.as_str().unwrap());
            outsider.ask(&delete, &Value::Null).unwrap();
        }
        names.len()
    };
    assert_eq!(delete_all(), 1, "one consumer a follower");
    let took = follow(publish(20));
    println!("the consumer is deleted: {took:?}");
    assert!(took < Duration::from_secs(5));
    let mut slowest = Duration::ZERO;
    for at in [1, 0, 2] {
        servers.kill(at);
        let upto = publish(5);
        slowest = slowest.max(follow(upto));
        servers.begin(at);
        assert!(outsider.wait_current("a"));
        follow(publish(30));
    }
    println!("servers are killed one by one: {slowest:?} at most behind the writer");
}
