//! What is `WatchBatches`' own: which events share a message. What it has in common with `Watch` is
//! tested over both in `watch`.

use bytes::Bytes;
use prost::Message;
use tailmark_log::eventlog;
use tailmark_record::{Event, Events};
use tailmark_wire::feed_v1 as pb;

use crate::support::raw;
use crate::support::server::{
    TestServer, event, from_oldest, start, watch as watch_events, watch_batches as watch, within,
};

fn replay(topic: &str) -> pb::WatchRequest {
    pb::WatchRequest {
        topic: topic.to_owned(),
        start: from_oldest(),
        until_caught_up: true,
        ..Default::default()
    }
}

/// The messages of a replay, as bytes.
async fn messages(server: &TestServer, request: pb::WatchRequest) -> Vec<Bytes> {
    let message = request.encode_to_vec().into();
    let mut stream = raw::stream(server.channel().await, "WatchBatches", message).await.unwrap();
    let mut messages = Vec::new();
    while let Some(message) = within("batch", stream.message()).await.unwrap() {
        messages.push(message);
    }
    messages
}

/// The events of an encoded batch, as bytes.
fn events(batch: &Bytes) -> Vec<Bytes> {
    let decoded = pb::EventBatch::decode(batch.clone()).unwrap();
    let entries = batch.slice(..decoded.encoded_len());
    let events: Vec<Bytes> =
        Events::new(&entries).map(|event| entries.slice_ref(event.unwrap())).collect();
    assert_eq!(events.len(), decoded.events.len());
    events
}

#[tokio::test]
async fn stored_bytes_come_as_they_are_filtered_or_not() {
    let server = start().await;
    for topic in ["a", "b", "a", "a", "b", "b", "b", "a", "c"] {
        for _ in 0..50 {
            server.store(topic, 7).await;
        }
    }
    let single = raw::stream(server.channel().await, "Watch", replay("").encode_to_vec().into());
    let mut single = single.await.unwrap();
    let mut stored = Vec::new();
    while let Some(event) = within("event", single.message()).await.unwrap() {
        stored.push(event);
    }
    assert_eq!(stored.len() as u64, server.head());
    for topic in ["", "a", "b", "c", "*", "none"] {
        let wanted: Vec<Bytes> = stored
            .iter()
            .filter(|bytes| topic.len() != 1 || topic == "*" || Event::topic_of(bytes) == Ok(topic))
            .filter(|_| topic != "none")
            .map(unfilled)
            .collect();
        let came: Vec<Bytes> =
            messages(&server, replay(topic)).await.iter().flat_map(events).collect();
        assert_eq!(came.len(), wanted.len(), "{topic}");
        assert!(came == wanted, "{topic}");
    }
    server.stop().await;
}

/// A message without filler, which is at its end.
fn unfilled(message: &Bytes) -> Bytes {
    let event = pb::Event::decode(message.clone()).unwrap();
    message.slice(..event.encoded_len())
}

#[tokio::test]
async fn a_batch_has_many_events_and_is_bounded() {
    let server = start().await;
    // One commit that is larger than any batch, and one event that is.
    let mut batch = server.log.batch();
    let body = "x".repeat(1_000);
    for _ in 0..2_500 {
        batch.push(&Event { topic: "a", body: &body, ..Event::default() }).unwrap();
    }
    server.log.append(batch, eventlog::AppendOptions::default()).await.unwrap();
    let mut client = server.client().await;
    let large = event("a", &"x".repeat(900 << 10));
    client.upload_events(tokio_stream::iter([large])).await.unwrap();
    let batches: Vec<_> = messages(&server, replay("")).await.iter().map(events).collect();
    assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 2_501);
    let (last, rest) = batches.split_last().unwrap();
    assert_eq!(last.len(), 1);
    for batch in rest {
        let bytes: usize = batch.iter().map(Bytes::len).sum();
        assert!(bytes <= 64 << 10, "{bytes}");
    }
    // As full as they can be, but for the last one of the commit.
    for batch in &rest[..rest.len() - 1] {
        assert!(batch.len() >= 50, "{}", batch.len());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_live_event_comes_at_once_and_a_limit_cuts_a_batch() {
    let server = start().await;
    let mut client = server.client().await;
    let mut live = watch(&mut client, pb::WatchRequest::default()).await.unwrap();
    for seq in 1..=20 {
        server.store("a", 1).await;
        // Nothing else is stored before it is there.
        assert_eq!(live.event().await.seq, seq);
    }
    server.store("a", 100).await;
    for limit in [1, 7, 119, 120, 121] {
        let request = pb::WatchRequest { limit, ..replay("") };
        let (events, cursor) = watch(&mut client, request.clone()).await.unwrap().rest().await;
        assert_eq!(events.len() as i64, limit.min(120));
        assert_eq!(cursor, server.cursor(events.len() as u64));
        let one_by_one = watch_events(&mut client, request).await.unwrap().rest().await;
        assert_eq!((events, cursor), one_by_one);
    }
    server.stop().await;
}
