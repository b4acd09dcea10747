//! Which events an erasure is about, as a dry run tells.

use tailmark_client::{Client, Kind};
use tailmark_log::eventlog::AppendOptions;
use tailmark_record::Event;
use tailmark_wire::feed_v1 as pb;

use super::{messages, of_seqs, of_topic};
use crate::support::server::{TestServer, start, within};

async fn selected(client: &Client, request: pb::EraseRequest) -> pb::EraseSelection {
    let request = pb::EraseRequest { dry_run: true, reason: String::new(), ..request };
    let mut all = messages(client, request).await;
    let last = all.pop().expect("a message");
    assert!(last.erasure.is_empty() && last.result.is_none());
    assert!(all.iter().all(|progress| progress.selection.is_none()));
    last.selection.expect("what was selected")
}

fn client(server: &TestServer) -> Client {
    Client::new(&format!("http://{}", server.address)).unwrap()
}

/// The seqs of a selection as its ends, and how many.
fn ends(selection: &pb::EraseSelection) -> (u64, u64, u64) {
    (selection.events, selection.first_seq, selection.last_seq)
}

fn topics(selection: &pb::EraseSelection) -> Vec<(&str, u64)> {
    selection.topics.iter().map(|it| (it.topic.as_str(), it.events)).collect()
}

/// Stores one event after the other, of topics with keys and types.
async fn store(server: &TestServer, events: &[(&str, &str, &str)]) {
    let mut batch = server.log.batch();
    for &(topic, key, kind) in events {
        let id = if kind.is_empty() { "" } else { "erased-1" };
        batch.push(&Event { id, topic, key, kind, body: "b", ..Event::default() }).unwrap();
    }
    server.log.append(batch, AppendOptions::default()).await.unwrap();
}

#[tokio::test]
async fn seqs_are_taken_as_they_are_named_whatever_they_are() {
    let server = start().await;
    let client = client(&server);
    store(&server, &[("a", "", ""), ("b", "k", ""), ("a", "", "tailmark.erased"), ("c", "", "")])
        .await;
    let all = selected(&client, of_seqs(&[(4, 4), (1, 3), (2, 2)])).await;
    assert_eq!(ends(&all), (4, 1, 4));
    assert_eq!(topics(&all), [("a", 2), ("b", 1), ("c", 1)]);
    assert_eq!((all.already, all.trimmed, all.up_to_seq, all.has_more_topics), (0, 0, 4, false));
    assert!(all.first_at.is_some() && all.last_at.is_some());
    let one = selected(&client, of_seqs(&[(2, 2)])).await;
    assert_eq!((ends(&one), topics(&one)), ((1, 2, 2), vec![("b", 1)]));
    // What is trimmed is counted, and no error.
    server.trim(3).await;
    let rest = selected(&client, of_seqs(&[(1, 4)])).await;
    assert_eq!((ends(&rest), rest.trimmed), ((2, 3, 4), 2));
    let gone = selected(&client, of_seqs(&[(1, 2)])).await;
    assert_eq!((ends(&gone), gone.trimmed), ((0, 0, 0), 2));
    assert_eq!(server.head(), 4, "a dry run stored something");
    server.stop().await;
}

#[tokio::test]
async fn a_topic_is_narrowed_by_key_by_time_and_by_seq() {
    let server = start().await;
    let client = client(&server);
    store(&server, &[("u.1", "ann", ""), ("u.2", "ann", ""), ("u.1", "bob", ""), ("v", "ann", "")])
        .await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    store(&server, &[("u.1", "ann", ""), ("u.1", "", "tailmark.erased")]).await;
    let by = |topic: &str, key: &str| pb::EraseRequest {
        key: (!key.is_empty()).then(|| key.into()),
        ..of_topic(topic)
    };
    // Notices are left out: only by their seqs they go. A sender's type alone makes none.
    let mut sent = server.log.batch();
    sent.push(&Event { topic: "w", kind: "tailmark.erased", ..Event::default() }).unwrap();
    server.log.append(sent, AppendOptions::default()).await.unwrap();
    assert_eq!(ends(&selected(&client, of_topic("w")).await), (1, 7, 7));
    assert_eq!(ends(&selected(&client, of_topic("u.1")).await), (3, 1, 5));
    assert_eq!(ends(&selected(&client, of_seqs(&[(6, 6)])).await), (1, 6, 6));
    let all = selected(&client, of_topic("u.*")).await;
    assert_eq!((ends(&all), topics(&all)), ((4, 1, 5), vec![("u.1", 3), ("u.2", 1)]));
    assert_eq!(ends(&selected(&client, of_topic(">")).await), (6, 1, 7));
    let ann = selected(&client, by("u.>", "ann")).await;
    assert_eq!((ends(&ann), topics(&ann)), ((3, 1, 5), vec![("u.1", 2), ("u.2", 1)]));
    assert_eq!(ends(&selected(&client, by("u.>", "an")).await), (0, 0, 0));
    assert_eq!(ends(&selected(&client, of_topic("nobody")).await), (0, 0, 0));
    let later = within("get", client.event(5.into())).await.unwrap().appended_at;
    let before = pb::EraseRequest { before: later, ..by("u.>", "ann") };
    assert_eq!(ends(&selected(&client, before).await), (2, 1, 2));
    let up_to = pb::EraseRequest { up_to_seq: 3, ..of_topic("u.1") };
    let up_to = selected(&client, up_to).await;
    assert_eq!((ends(&up_to), up_to.up_to_seq), ((2, 1, 3), 3));
    server.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_its_field() {
    let server = start().await;
    let client = client(&server);
    server.store("a", 3).await;
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let many = vec![(1, 1); 4_001];
    let cases = [
        ("seqs", "INVALID_FIELD", pb::EraseRequest { reason: "r".into(), ..Default::default() }),
        ("topic", "INVALID_FIELD", pb::EraseRequest { topic: "a".into(), ..of_seqs(&[(1, 1)]) }),
        ("key", "INVALID_FIELD", pb::EraseRequest { key: Some("k".into()), ..of_seqs(&[(1, 1)]) }),
        ("before", "INVALID_FIELD", pb::EraseRequest { before: time(1), ..of_seqs(&[(1, 1)]) }),
        ("up_to_seq", "INVALID_FIELD", pb::EraseRequest { up_to_seq: 1, ..of_seqs(&[(1, 1)]) }),
        ("seqs[1]", "INVALID_FIELD", of_seqs(&[(1, 1), (0, 1)])),
        ("seqs[0]", "INVALID_FIELD", of_seqs(&[(2, 1)])),
        ("seqs[0]", "INVALID_FIELD", of_seqs(&[(1, 4)])),
        ("topic", "INVALID_FIELD", of_topic("a..b")),
        ("before", "INVALID_FIELD", pb::EraseRequest { before: time(i64::MAX), ..of_topic("a") }),
        ("up_to_seq", "INVALID_FIELD", pb::EraseRequest { up_to_seq: 4, ..of_topic("a") }),
        ("reason", "INVALID_FIELD", pb::EraseRequest { reason: String::new(), ..of_topic("a") }),
        ("reason", "LIMIT_EXCEEDED", pb::EraseRequest { reason: "é".repeat(101), ..of_topic("a") }),
        ("key", "LIMIT_EXCEEDED", pb::EraseRequest { key: Some("k".repeat(256)), ..of_topic("a") }),
        ("key", "INVALID_FIELD", pb::EraseRequest { key: Some(String::new()), ..of_topic("a") }),
        ("seqs", "LIMIT_EXCEEDED", of_seqs(&many)),
    ];
    for (field, reason, request) in cases {
        let error = within("erase", client.erase(request)).await.map(drop).unwrap_err();
        let named = error.metadata("field").or(error.metadata("what"));
        assert_eq!((named, error.reason()), (Some(field), reason), "{error}");
        if reason == "INVALID_FIELD" {
            assert_eq!(error.kind(), Kind::InvalidRequest, "{error}");
        }
        assert!(!error.may_have_applied(), "{error}");
    }
    server.stop().await;
}

/// A reader that scans everything, and gets rare events between many others, keeps no more than these.
#[tokio::test]
async fn many_runs_of_a_topic_among_others_are_all_found() {
    let server = start().await;
    let client = client(&server);
    let topics_of = ["a", "b", "b", "c.1", "c.2"];
    let events: Vec<_> = (0..10_000).map(|at| (topics_of[at % 5], "", "")).collect();
    for part in events.chunks(5_000) {
        store(&server, part).await;
    }
    let b = selected(&client, of_topic("b")).await;
    assert_eq!((ends(&b), topics(&b)), ((4_000, 2, 9_998), vec![("b", 4_000)]));
    let c = selected(&client, of_topic("c.*")).await;
    assert_eq!((ends(&c), topics(&c)), ((4_000, 4, 10_000), vec![("c.1", 2_000), ("c.2", 2_000)]));
    server.stop().await;
}
