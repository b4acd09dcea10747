//! A data directory that is put back from a copy, and copies that both live on: nobody who stood
//! beyond the copy is fooled, whichever way he comes back.

use std::path::Path;

use tailmark_client::{
    Client, CursorStore, CursorStoreError, FileStore, ProducerOptions, WatchOptions,
};
use tailmark_log::eventlog::{self, EventLog};
use tailmark_log::testing::copy_dir;
use tailmark_record::{Cursor, CursorMint, Event, Generation};
use tailmark_wire::chat as full_chat;
use tailmark_wire::feed_v1 as pb;
use tonic::{Code, Request, Status};

use crate::support::logdir;
use crate::support::server::{
    TestServer, event, expect, start_on, start_with, watch, watch_batches, within,
};
use crate::support::web::{Answer, ask, get, request};

/// How a directory comes to be an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The copy takes the directory's place: `cp -r`, another volume.
    Copied,
    /// Each file is renamed into the directory: `rsync -a --delete`.
    Synced,
    /// The directory and its files are what they were, with what was in them: a snapshot of a volume or
    /// of a machine.
    RolledBack,
}

const SHAPES: [Shape; 3] = [Shape::Copied, Shape::Synced, Shape::RolledBack];

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

fn put_back(shape: Shape, copy: &Path, dir: &Path) {
    if shape == Shape::Copied {
        std::fs::remove_dir_all(dir).unwrap();
        copy_dir(copy, dir).unwrap();
        return;
    }
    for segment in std::fs::read_dir(dir.join("segments")).unwrap() {
        let path = segment.unwrap().path();
        if !copy.join(path.strip_prefix(dir).unwrap()).exists() {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    for path in files(dir) {
        if !copy.join(path.strip_prefix(dir).unwrap()).exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
    for path in files(copy) {
        let to = dir.join(path.strip_prefix(copy).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        if shape == Shape::Synced {
            let new = to.with_extension("new-of-sync");
            std::fs::copy(&path, &new).unwrap();
            std::fs::rename(&new, &to).unwrap();
        } else {
            // Not made anew where it is there.
            std::fs::write(&to, std::fs::read(&path).unwrap()).unwrap();
        }
    }
}

fn open(dir: &Path) -> EventLog {
    let (engine, recovered) = logdir::open(dir);
    EventLog::open(engine, recovered, eventlog::Options::default()).unwrap()
}

async fn append(log: &EventLog, topic: &str, bodies: std::ops::Range<u64>) {
    for n in bodies {
        let mut batch = log.batch();
        let body = format!("{topic} {n}");
        batch.push(&Event { topic, body: &body, ..Event::default() }).unwrap();
        log.append(batch, eventlog::AppendOptions::default()).await.unwrap();
    }
}

/// A log of 10 events, of which a copy was taken; then 10 more, at whose end readers stand; then the copy
/// was put back, and 15 others appended.
struct Rollback {
    dir: tempfile::TempDir,
    server: TestServer,
    /// Of every event of the lost history, from 0 on.
    cursors: Vec<String>,
}

const ROOM: &str = "chat.general";

async fn roll_back(shape: Shape) -> Rollback {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    std::fs::create_dir(&data).unwrap();
    let log = open(&data);
    append(&log, ROOM, 0..10).await;
    log.close().await.unwrap();
    drop(log);
    copy_dir(&data, &copy).unwrap();
    let log = open(&data);
    append(&log, ROOM, 10..20).await;
    let mut cursors = Vec::new();
    for seq in 0..=20u64 {
        cursors.push(log.cursor(seq.into()).await);
    }
    log.close().await.unwrap();
    drop(log);
    put_back(shape, &copy, &data);
    let log = open(&data);
    append(&log, ROOM, 100..115).await;
    let server = start_with(log, Default::default()).await;
    Rollback { dir, server, cursors }
}

/// What is known of where the histories parted: after event 10.
fn last_common(shape: Shape, seq: u64) -> (String, Option<String>) {
    match shape {
        // A generation begins where the directory is found to be another.
        Shape::Copied | Shape::Synced => ("10".to_owned(), None),
        // Somewhere before the event that is another one.
        Shape::RolledBack => ("0".to_owned(), Some((seq - 1).to_string())),
    }
}

#[track_caller]
fn expect_diverged(status: &Status, shape: Shape, seq: u64) {
    let info = expect(status, Code::FailedPrecondition, "LOG_DIVERGED");
    let (certain, at_most) = last_common(shape, seq);
    assert_eq!(info["last_common_seq"], certain, "{shape:?}");
    assert_eq!(info.get("last_common_at_most_seq").cloned(), at_most, "{shape:?}");
}

fn after(cursor: &str) -> pb::WatchRequest {
    pb::WatchRequest { after_cursor: cursor.into(), until_caught_up: true, ..Default::default() }
}

#[tokio::test]
async fn a_watch_of_the_lost_history_is_told_over_every_call() {
    for shape in SHAPES {
        let Rollback { dir: _dir, server, cursors } = roll_back(shape).await;
        let mut client = server.client().await;
        for seq in 11..=20u64 {
            let cursor = &cursors[seq as usize];
            let status = watch(&mut client, after(cursor)).await.err().unwrap();
            expect_diverged(&status, shape, seq);
            let status = watch_batches(&mut client, after(cursor)).await.err().unwrap();
            expect_diverged(&status, shape, seq);
            let by = Some(pb::get_event_request::By::Cursor(cursor.clone()));
            let got = within("get", client.get_event(pb::GetEventRequest { by })).await;
            expect_diverged(&got.err().unwrap(), shape, seq);
        }
        // What both histories have goes on exactly.
        for seq in 0..=10u64 {
            let mut watching = watch(&mut client, after(&cursors[seq as usize])).await.unwrap();
            let (events, _) = watching.rest().await;
            assert_eq!(
                events.iter().map(|event| event.seq).collect::<Vec<_>>(),
                (seq + 1..=25).collect::<Vec<_>>()
            );
        }
        server.stop().await;
    }
}

/// Without the chain the readers are fooled where nothing else tells: this is what it is for.
#[tokio::test]
async fn a_cursor_without_a_tag_is_taken_where_a_whole_disk_was_rolled_back() {
    for shape in SHAPES {
        let Rollback { dir: _dir, server, cursors } = roll_back(shape).await;
        let Ok(Cursor::Token { generation, seq, .. }) = Cursor::parse(&cursors[20]) else {
            panic!("{}", cursors[20]);
        };
        let old = CursorMint::new(server.log.id(), generation).mint_place(seq);
        let mut client = server.client().await;
        let watching = watch(&mut client, after(&old)).await;
        assert_eq!(watching.is_ok(), shape == Shape::RolledBack, "{shape:?}");
        server.stop().await;
    }
}

#[tokio::test]
async fn rooms_tell_it() {
    for shape in SHAPES {
        let Rollback { dir: _dir, server, cursors } = roll_back(shape).await;
        let channel = server.channel().await;
        let mut client = full_chat::chat_service_client::ChatServiceClient::new(channel.clone());
        let lost = full_chat::SubscribeRequest {
            room: "general".into(),
            user: "Ann".into(),
            after_cursor: cursors[20].clone(),
        };
        let status = within("subscribe", client.subscribe_messages(lost)).await.err().unwrap();
        expect_diverged(&status, shape, 20);
        let mut client = pb::feed_service_client::FeedServiceClient::new(channel);
        let joins = pb::ChatMessage {
            room: "general".into(),
            after_cursor: cursors[20].clone(),
            ..Default::default()
        };
        let answer = within("chat", client.chat(Request::new(tokio_stream::iter([joins])))).await;
        let status = match answer {
            Err(status) => status,
            Ok(stream) => within("message", stream.into_inner().message()).await.err().unwrap(),
        };
        expect_diverged(&status, shape, 20);
        server.stop().await;
    }
}

fn metadata_of(answer: &Answer) -> serde_json::Value {
    let text = answer.text();
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(text);
    let json: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(json["reason"], "LOG_DIVERGED", "{text}");
    json["metadata"].clone()
}

#[tokio::test]
async fn http_tells_it() {
    for shape in SHAPES {
        let Rollback { dir: _dir, server, cursors } = roll_back(shape).await;
        let (certain, at_most) = last_common(shape, 20);
        let cursor = &cursors[20];
        let mut by_header = request(&server, "GET", "/v1/watch?until_caught_up");
        by_header.headers_mut().insert("last-event-id", cursor.parse().unwrap());
        for answer in [
            ask(server.address, http::Version::HTTP_11, by_header).await,
            get(&server, &format!("/v1/watch?after_cursor={cursor}")).await,
            get(&server, &format!("/v1/events/{cursor}")).await,
        ] {
            let metadata = metadata_of(&answer);
            assert_eq!(metadata["last_common_seq"], certain.as_str(), "{shape:?}");
            let found = metadata.get("last_common_at_most_seq").and_then(|it| it.as_str());
            assert_eq!(found, at_most.as_deref(), "{shape:?}");
        }
        server.stop().await;
    }
}

/// A store that has a position.
#[derive(Debug)]
struct Kept(String);

impl CursorStore for Kept {
    fn load(&mut self) -> Result<Option<String>, CursorStoreError> {
        Ok(Some(self.0.clone()))
    }

    fn save(&mut self, cursor: &str) -> Result<(), CursorStoreError> {
        panic!("nothing new is kept: {cursor}");
    }
}

#[tokio::test]
async fn the_client_library_and_the_command_line_tell_it() {
    for shape in SHAPES {
        let Rollback { dir, server, cursors } = roll_back(shape).await;
        let url = format!("http://{}", server.address);
        let client = Client::new(url.as_str()).unwrap();
        let kept = Kept(cursors[20].clone());
        let mut watch = client.watch_kept(WatchOptions::default(), kept).await.unwrap();
        let error = within("kept", watch.next()).await.unwrap().err().unwrap();
        assert_eq!(error.reason(), "LOG_DIVERGED", "{error}");

        let state = dir.path().join("state");
        FileStore::open(&state, &[]).unwrap().save(&cursors[20]).unwrap();
        let (state_text, state) = (std::fs::read(&state).unwrap(), state);
        let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_tailmark"))
            .args(["watch", "--addr", &url, "--until-caught-up", "--state"])
            .arg(&state)
            .output();
        let output = within("watch", run).await.unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("history"), "{said}");
        assert_eq!(std::fs::read(&state).unwrap(), state_text, "the position is as it was");
        server.stop().await;
    }
}

/// A producer whose acked batches are gone hears so, and nothing of it is stored again behind its back.
#[tokio::test]
async fn a_producer_hears_that_acked_batches_are_gone() {
    for shape in SHAPES {
        let dir = tempfile::tempdir().unwrap();
        let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
        std::fs::create_dir(&data).unwrap();
        let server = start_with(open(&data), Default::default()).await;
        let mut options = ProducerOptions::default();
        options.shortest_retry = std::time::Duration::from_millis(1);
        options.longest_retry = std::time::Duration::from_millis(20);
        let client = Client::new(format!("http://{}", server.address).as_str()).unwrap();
        let producer = within("open", client.producer("p", options)).await.unwrap();
        for n in 0..3 {
            within("send", producer.send(&event("a", &n.to_string())))
                .await
                .unwrap()
                .durable()
                .await
                .unwrap();
        }
        let port = server.port.clone();
        let log = server.log.clone();
        server.stop().await;
        log.close().await.unwrap();
        drop(log);
        copy_dir(&data, &copy).unwrap();

        let server = start_on(port.clone(), open(&data), Default::default()).await;
        for n in 3..6 {
            within("send", producer.send(&event("a", &n.to_string())))
                .await
                .unwrap()
                .durable()
                .await
                .unwrap();
        }
        let log = server.log.clone();
        server.stop().await;
        log.close().await.unwrap();
        drop(log);
        put_back(shape, &copy, &data);

        let server = start_on(port.clone(), open(&data), Default::default()).await;
        let sent = within("send", producer.send(&event("a", "6"))).await;
        let error = match sent {
            Ok(pending) => within("ack", pending.durable()).await.err().unwrap(),
            Err(error) => error,
        };
        assert!(error.to_string().contains("was acked"), "{shape:?}: {error}");
        assert_eq!(server.head(), 3, "nothing is stored as if all were there");
        server.stop().await;
    }
}

/// Both go on: each tells the other's readers, and those of what they share go on at either.
#[tokio::test]
async fn two_copies_that_live_on_tell_each_others_readers() {
    for while_it_runs in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::create_dir(&one).unwrap();
        let log = open(&one);
        append(&log, "a", 0..10).await;
        let log = match while_it_runs {
            true => {
                copy_dir(&one, &two).unwrap();
                log
            }
            false => {
                log.close().await.unwrap();
                drop(log);
                copy_dir(&one, &two).unwrap();
                open(&one)
            }
        };
        let other = open(&two);
        append(&log, "a", 10..20).await;
        append(&other, "a", 50..62).await;
        let (ours, theirs) = (log.cursor(20.into()).await, other.cursor(22.into()).await);
        let early = log.cursor(7.into()).await;
        let generation = |text: &str| match Cursor::parse(text) {
            Ok(Cursor::Token { generation, .. }) => generation,
            other => panic!("{other:?}"),
        };
        assert_ne!(generation(&ours), generation(&theirs), "the copy is known to be one");
        assert_eq!(generation(&ours), Generation { counter: 1, ..generation(&ours) });
        let one = start_with(log, Default::default()).await;
        let two = start_with(other, Default::default()).await;
        let mut client = two.client().await;
        let status = watch(&mut client, after(&ours)).await.err().unwrap();
        assert_eq!(
            expect(&status, Code::FailedPrecondition, "LOG_DIVERGED")["last_common_seq"],
            "10"
        );
        assert_eq!(watch(&mut client, after(&early)).await.unwrap().rest().await.0.len(), 15);
        let mut client = one.client().await;
        let status = watch(&mut client, after(&theirs)).await.err().unwrap();
        let info = expect(&status, Code::FailedPrecondition, "LOG_DIVERGED");
        // The first has not heard of the second's generation: it can't know where that began.
        assert_eq!(
            (info["last_common_seq"].as_str(), info["last_common_at_most_seq"].as_str()),
            ("0", "20")
        );
        assert_eq!(watch(&mut client, after(&early)).await.unwrap().rest().await.0.len(), 13);
        one.stop().await;
        two.stop().await;
    }
}
