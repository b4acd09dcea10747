//! What clients make of what was taken out: the Rust client's proof, server-sent events, a caller who may see a part.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use tailmark::server::{Auth, Options, Rights, Token, TokenHash, new_token};
use tailmark_client::{Client, GapReason, Item, MarkerKind, OnLost, Start, WatchOptions};
use tailmark_log::eventlog;
use tailmark_log::storage::RemovedReason::{Compacted, Expired};
use tailmark_record::Seq;
use tailmark_record::topic::Pattern;
use tailmark_wire::feed_v1 as pb;
use tonic::Code;

use crate::support::server::{TestServer, expect, generations, memory, open, start_with, within};
use crate::support::web::{Events, get, seqs};

/// 1 to 10 of `a`, of which 3 and 4 expired and 6 was compacted away.
async fn server() -> TestServer {
    server_with(Options::default()).await
}

async fn server_with(server_options: Options) -> TestServer {
    let engine = Arc::new(memory(generations(&[1]), Default::default()));
    let options =
        eventlog::Options { recent_bytes: 0, found_bytes: 0, ..eventlog::Options::default() };
    let server = start_with(open(engine.clone(), options), server_options).await;
    server.store("a", 10).await;
    engine.remove(Seq::new(3)..Seq::new(5), Expired).unwrap();
    engine.remove(Seq::new(6)..Seq::new(7), Compacted).unwrap();
    server
}

/// What comes, in words.
async fn told(options: WatchOptions, server: &TestServer) -> Vec<String> {
    let mut watch = Client::new(&format!("http://{}", server.address)).unwrap().watch(options);
    let mut all = Vec::new();
    while let Some(item) = within("item", poll_fn(|cx| Pin::new(&mut watch).poll_next(cx))).await {
        match item.unwrap() {
            Item::Event(received) => all.push(received.seq().to_string()),
            Item::Marker(marker) if marker.kind == MarkerKind::Gap => {
                let gap = marker.gap.unwrap();
                assert!(gap.reason.is_intended());
                let why = if gap.reason == GapReason::Expired { "expired" } else { "compacted" };
                all.push(format!("{why} {}-{}", gap.from, gap.to));
            }
            other => panic!("{other:?}"),
        }
    }
    all
}

#[tokio::test]
async fn the_client_proves_that_nothing_else_is_missing() {
    let server = server().await;
    let mut options = WatchOptions::default();
    (options.start, options.until_caught_up) = (Start::Oldest, true);
    // Whatever is to be done of losses: these are none. And without markers, which it asks for by itself.
    for on_lost in [OnLost::Fail, OnLost::Oldest] {
        options.on_lost = on_lost;
        let expected = ["1", "2", "expired 3-4", "5", "compacted 6-6", "7", "8", "9", "10"];
        assert_eq!(told(options.clone(), &server).await, expected);
    }
    options.compacted = true;
    assert_eq!(told(options.clone(), &server).await, ["1", "2", "5", "7", "8", "9", "10"]);
    options.after_cursor = Some(server.cursor(3));
    assert_eq!(told(options.clone(), &server).await, ["5", "7", "8", "9", "10"]);
    options.compacted = false;
    assert_eq!(told(options, &server).await[..2], ["expired 4-4", "5"]);
    server.stop().await;
}

#[tokio::test]
async fn server_sent_events_say_it_by_a_marker_or_not() {
    let server = server().await;
    let path = "/v1/watch?from=oldest&until_caught_up";
    let all = Events::open(&server, path).await.rest().await;
    let gaps: Vec<_> = all
        .iter()
        .filter(|sent| sent.event == "marker" && sent.data.contains("GAP"))
        .map(|sent| sent.json()["marker"]["gap"].clone())
        .collect();
    let gap = |from: &str, to: &str, reason: &str| serde_json::json!({"from_seq": from, "to_seq": to, "reason": reason});
    assert_eq!(gaps, [gap("3", "4", "EXPIRED"), gap("6", "6", "COMPACTED")]);
    assert_eq!(seqs(&all), [1, 2, 5, 7, 8, 9, 10]);
    for without in ["&compacted=1", "&compacted", "&topic=a"] {
        let all = Events::open(&server, &format!("{path}{without}")).await.rest().await;
        assert_eq!(seqs(&all), [1, 2, 5, 7, 8, 9, 10]);
        assert!(all.iter().all(|sent| !sent.data.contains("GAP")), "{without}");
    }
    let refused = get(&server, "/v1/watch?compacted=perhaps").await;
    assert_eq!(refused.status, 400);
    // One event.
    let metadata = get(&server, "/v1/events/4").await.expect(404, "NOT_FOUND", "EVENT_REMOVED");
    let expected = serde_json::json!({"from_seq": "3", "to_seq": "4", "why": "EXPIRED"});
    assert_eq!(metadata, expected);
    server.stop().await;
}

/// Of which topic it was nobody can tell any more.
#[tokio::test]
async fn who_may_see_a_part_of_the_topics_does_not_learn_of_it() {
    let auth = Auth { required: true, ..Auth::default() };
    let server = server_with(Options { auth, ..Options::default() }).await;
    let mut tokens = Vec::new();
    let mut give = |pattern: &str| {
        let token = new_token().unwrap();
        let watch = vec![Pattern::parse(pattern, &Default::default()).unwrap()];
        let (name, hash) = (pattern.to_owned(), TokenHash::of(&token));
        let rights = Rights::new(Vec::new(), watch, false);
        tokens.push(Token { name, hash, rights, expires: None });
        token
    };
    let (part, all) = (give("a"), give(">"));
    server.credentials.set_known(tokens, Vec::new());
    let mut client = server.client().await;
    for seq in [4, 6, 99] {
        for (token, reason) in [(&part, "EVENT_NOT_FOUND"), (&all, "EVENT_REMOVED")] {
            let by = Some(pb::get_event_request::By::Seq(seq));
            let mut request = tonic::Request::new(pb::GetEventRequest { by });
            let bearer = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
            let status = client.get_event(request).await.unwrap_err();
            let reason = if seq == 99 { "EVENT_NOT_FOUND" } else { reason };
            let info = expect(&status, Code::NotFound, reason);
            assert!(reason == "EVENT_REMOVED" || info.len() == 2, "{info:?}");
        }
    }
    server.stop().await;
}
