//! What others do to the stream while daemons run on it: it is deleted, made anew, put back, purged and written to. What
//! is lost by that is lost; what must hold is that nobody is told anything that is not so, that every daemon goes on
//! reading what it has, takes nothing that would not be kept, and says what is wrong.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tailmark_client::{Client, Error, Kind, WatchOptions};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;

use crate::servers::program;
use crate::world::{LOG, PATIENCE, World};
use crate::{event, load, wait_for};

/// Longer than a daemon waits for the journal.
const UNTIL_TOLD: Duration = Duration::from_secs(40);

/// Events that every daemon has.
async fn begin(program: &Path, events: u64) -> (World, Vec<String>) {
    let mut world = World::start(program, 3, 3);
    (0..3).for_each(|at| world.wait_ready(at));
    world.writer().await;
    let mut cursors = Vec::new();
    publish(&world, events, &mut cursors).await;
    (world, cursors)
}

async fn publish(world: &World, events: u64, cursors: &mut Vec<String>) {
    for _ in 0..events {
        let nth = cursors.len();
        let stored = store(&world.client(nth), &format!("e{nth}")).await;
        assert_eq!(stored.seq, nth as u64 + 1);
        cursors.push(stored.cursor);
    }
    for at in 0..world.daemons() {
        wait_for(&world.client(at), cursors.len() as u64).await;
    }
}

/// Servers elect meanwhile.
async fn store(client: &Client, id: &str) -> pb::PublishResult {
    let begun = Instant::now();
    loop {
        match client.publish(event(id, "a"), None).await {
            Ok(stored) => return stored,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A log is opened anew when its daemon's part changes, and whoever asks meanwhile is told to ask again.
async fn read(ask: impl AsyncFn() -> Result<pb::Event, Error>) -> pb::Event {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(event) => return event,
            Err(error) if error.reason() == "STOPPING" => {
                assert!(begun.elapsed() < UNTIL_TOLD, "{error:?}");
            }
            Err(error) => panic!("{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Everything that was acked is read at a daemon, by seq and by cursor, and it is never told that this is all.
async fn goes_on_reading(client: &Client, cursors: &[String]) {
    for (seq, cursor) in (1..).zip(cursors) {
        let event = read(async || client.event(Seq::new(seq)).await).await;
        assert_eq!((event.seq, &event.cursor), (seq, cursor));
        assert_eq!(read(async || client.event_at(cursor).await).await.seq, seq);
    }
    let mut options = WatchOptions::default();
    options.after_cursor = cursors.first().cloned();
    options.until_caught_up = true;
    let read = load::read_all(client, options);
    if let Ok(told) = tokio::time::timeout(Duration::from_secs(4), read).await {
        let error = told.expect_err("it is told where a log ends that has no journal");
        assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    }
}

/// A publish that must not be taken; it is told within bounds.
async fn is_refused(client: &Client, id: &str) -> Error {
    let asked = tokio::time::timeout(UNTIL_TOLD, client.publish(event(id, "a"), None));
    asked.await.expect("no answer").expect_err("it is acked, and will not be kept")
}

/// The same at so many daemons at once.
async fn are_refused(world: &World, daemons: usize) -> Vec<Error> {
    let ask = |at| {
        let client = world.client(at);
        tokio::spawn(async move { is_refused(&client, "after").await })
    };
    let asked: Vec<_> = (0..daemons).map(ask).collect();
    let mut errors = Vec::new();
    for asked in asked {
        errors.push(asked.await.unwrap());
    }
    errors
}

/// Until a daemon says what is wrong.
async fn says(world: &World, at: usize, is_it: impl Fn(&pb::JournalStatus) -> bool) {
    let begun = Instant::now();
    loop {
        let journal = world.journal(at).await;
        if journal.as_ref().is_some_and(&is_it) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "daemon {} says {journal:#?}", at + 1);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn has_diverged(journal: &pb::JournalStatus) -> bool {
    journal.role() == pb::DaemonRole::Diverged && !journal.trouble.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_deleted_and_made_anew_takes_nothing_and_is_told() {
    let Some(program) = program() else { return };
    let (mut world, cursors) = begin(&program, 12).await;
    let outsider = world.outsider();
    let config = outsider.info(LOG).unwrap()["config"].clone();
    let deleted = outsider.ask(&format!("STREAM.DELETE.TM_{LOG}"), &Value::Null).unwrap();
    assert_eq!(deleted["success"], json!(true));

    for at in 0..3 {
        // Also where nobody publishes.
        says(&world, at, |it| it.trouble.contains("stream not found")).await;
        assert!(world.journal(at).await.unwrap().replicas.is_empty(), "servers that hold nothing");
    }
    for error in are_refused(&world, 3).await {
        // Who writes tries for longer than a client waits.
        let is_told = ["JOURNAL_UNAVAILABLE", "WRITER_UNAVAILABLE"].contains(&error.reason());
        assert!(is_told || error.may_have_applied(), "{error:?}");
    }
    for at in 0..3 {
        goes_on_reading(&world.client(at), &cursors).await;
    }
    // A daemon with a copy makes no other stream in the place of its own.
    world.kill_daemon(2);
    world.begin_daemon(2);
    let (code, said) = world.ended(2);
    assert!(code == Some(5) && said.contains("stream not found"), "{code:?}: {said}");
    assert!(outsider.info(LOG).unwrap().get("error").is_some(), "it has made a stream");

    // The same again, by somebody else, and empty.
    let made = outsider.ask(&format!("STREAM.CREATE.TM_{LOG}"), &config).unwrap();
    assert!(made.get("error").is_none(), "{made}");
    are_refused(&world, 2).await;
    for at in 0..2 {
        says(&world, at, |it| it.trouble.contains("made anew") || has_diverged(it)).await;
        goes_on_reading(&world.client(at), &cursors).await;
    }
    // One that comes to it with a copy finds that the journal is not that of the copy.
    world.begin_daemon(2);
    world.wait_ready(2);
    says(&world, 2, has_diverged).await;
    let error = is_refused(&world.client(2), "after").await;
    assert_eq!(error.reason(), "JOURNAL_DIVERGED", "{error:?}");
    goes_on_reading(&world.client(2), &cursors).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_put_back_to_an_older_state_is_found_by_every_daemon() {
    let Some(program) = program() else { return };
    let (mut world, mut cursors) = begin(&program, 12).await;
    (0..3).for_each(|at| world.servers.kill(at));
    (0..3).for_each(|at| world.servers.save(at));
    (0..3).for_each(|at| world.servers.begin(at));
    publish(&world, 12, &mut cursors).await;
    (0..3).for_each(|at| world.servers.kill(at));
    (0..3).for_each(|at| world.servers.put_back(at));
    (0..3).for_each(|at| world.servers.begin(at));

    for at in 0..3 {
        // Whoever is asked first, nothing is stored behind a history that is gone.
        let begun = Instant::now();
        loop {
            let error = is_refused(&world.client(at), "after").await;
            if error.reason() == "JOURNAL_DIVERGED" {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{error:?}");
        }
        says(&world, at, has_diverged).await;
    }
    for at in 0..3 {
        goes_on_reading(&world.client(at), &cursors).await;
    }
    // It is not forgotten either.
    world.kill_daemon(1);
    world.begin_daemon(1);
    world.wait_ready(1);
    says(&world, 1, has_diverged).await;
    goes_on_reading(&world.client(1), &cursors).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_others_edit_and_purge_is_told_as_what_it_is() {
    let Some(program) = program() else { return };
    let (world, mut cursors) = begin(&program, 12).await;
    let outsider = world.outsider();
    let subject = format!("tm.{LOG}.j");

    // Deleted by others: the stream allows it to nobody.
    let delete = format!("STREAM.MSG.DELETE.TM_{LOG}");
    let deleted = outsider.ask(&delete, &json!({ "seq": 3 })).unwrap();
    assert_eq!(deleted["error"]["err_code"], json!(10_057), "{deleted}");
    // Foreign messages are passed over by everybody.
    for _ in 0..5 {
        assert!(outsider.publish(&subject, b"somebody else's").unwrap().get("seq").is_some());
    }
    publish(&world, 12, &mut cursors).await;

    // What begins like a frame and is none is not passed over, and nothing behind it is acked.
    let last = outsider.info(LOG).unwrap()["state"]["last_seq"].clone();
    let get = format!("STREAM.MSG.GET.TM_{LOG}");
    let message = outsider.ask(&get, &json!({ "seq": last })).unwrap();
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut frame = base64.decode(message["message"]["data"].as_str().unwrap()).unwrap();
    // Behind the head's length and its mark.
    let middle = frame.len() / 2;
    frame[middle] ^= 1;
    assert!(outsider.publish(&subject, &frame).unwrap().get("seq").is_some());
    for error in are_refused(&world, 3).await {
        assert!(error.is_retryable() || error.may_have_applied(), "{error:?}");
    }
    for at in 0..3 {
        says(&world, at, |it| it.trouble.contains("slot")).await;
        goes_on_reading(&world.client(at), &cursors).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_purged_beyond_its_end_takes_nothing_and_is_told() {
    let Some(program) = program() else { return };
    let (world, cursors) = begin(&program, 12).await;
    let outsider = world.outsider();
    let last = outsider.info(LOG).unwrap()["state"]["last_seq"].as_u64().unwrap();
    outsider.purge(LOG, last + 100);
    for error in are_refused(&world, 3).await {
        assert!(
            error.is_retryable()
                || error.may_have_applied()
                || error.reason() == "JOURNAL_DIVERGED",
            "{error:?}"
        );
    }
    for at in 0..3 {
        says(&world, at, |it| it.trouble.contains("purged")).await;
        goes_on_reading(&world.client(at), &cursors).await;
    }
}

/// What a daemon says of which servers hold other bytes, and of how many have all.
fn witnessed(journal: &pb::JournalStatus) -> (Vec<&str>, usize) {
    let differs = journal.replicas.iter().filter(|it| it.differs_at_slot > 0);
    let current = journal.replicas.iter().filter(|it| it.is_current && !it.is_offline);
    (differs.map(|it| it.server.as_str()).collect(), current.count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_what_its_peers_lost_is_named_until_it_is_emptied() {
    let Some(program) = program() else { return };
    let (mut world, cursors) = begin(&program, 12).await;
    (0..3).for_each(|at| world.servers.kill(at));
    (0..2).for_each(|at| world.servers.save(at));
    (0..3).for_each(|at| world.servers.begin(at));
    let mut lost = cursors.clone();
    publish(&world, 12, &mut lost).await;

    // Two are put back and go on with a daemon that knows of nothing else; the third comes when that has more than was lost.
    (0..3).for_each(|at| world.kill_daemon(at));
    (0..3).for_each(|at| world.servers.kill(at));
    (0..2).for_each(|at| world.servers.put_back(at));
    (0..2).for_each(|at| world.servers.begin(at));
    world.empty_daemon(0);
    // The third cannot be asked whether it syncs.
    world.allow_weaker();
    world.begin_daemon(0);
    world.wait_ready(0);
    for nth in 0..30 {
        let stored = store(&world.client(0), &format!("f{nth}")).await;
        assert_eq!(stored.seq, 13 + nth);
    }
    says(&world, 0, |it| witnessed(it) == (Vec::new(), 2)).await;
    world.servers.begin(2);
    // JetStream tells it as current.
    says(&world, 0, |it| witnessed(it) == (vec!["tm3"], 3)).await;
    assert!(world.said(0).contains("tm3 holds other bytes than the log"), "{}", world.said(0));

    world.servers.kill(2);
    says(&world, 0, |it| witnessed(it).1 == 2).await;
    world.servers.empty(2);
    world.servers.begin(2);
    says(&world, 0, |it| witnessed(it) == (Vec::new(), 3)).await;
}
