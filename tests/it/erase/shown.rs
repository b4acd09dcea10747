//! What is left of an event that was erased, wherever a reader comes across it.

use serde_json::{Value, json};
use tailmark_client::{Client, Item, RoomItem, Start, WatchOptions};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::feed_v1::chat_message::Kind;
use tokio_stream::StreamExt;

use super::{erased, of_seqs};
use crate::support::server::{TestServer, start, within};
use crate::support::web::{Events, get, post};

/// A server with an event of a room and one of a topic, both erased.
async fn server_with_shells() -> (TestServer, Client, String) {
    let server = start().await;
    let room = json!({
        "topic": "chat.r", "id": "i-1", "body": "secret", "headers": {"from": "ann"}, "type": "chat.message",
        "at": "2026-01-31T09:30:00Z"
    });
    let data = json!({"topic": "a", "data": "/wA=", "key": "k"});
    for event in [room, data] {
        assert_eq!(post(&server, "application/json", event.to_string()).await.status, 200);
    }
    let client = Client::new(&format!("http://{}", server.address)).unwrap();
    let result = erased(&client, of_seqs(&[(1, 2)])).await;
    assert_eq!((result.events, result.notices), (2, 2));
    (server, client, result.erasure)
}

#[tokio::test]
async fn plain_http_tells_it_as_a_field_of_its_own() {
    let (server, _, erasure) = server_with_shells().await;
    let document = get(&server, "/openapi.json").await.json();
    let known = document["components"]["schemas"]["Event"]["properties"].as_object().unwrap();
    for (path, topic) in [("/v1/events/1", "chat.r"), ("/v1/events/2?json=value", "a")] {
        let event = get(&server, path).await.json();
        let told = &event["erased"];
        assert_eq!((&told["reason"], &told["erasure"]), (&json!("asked for"), &json!(erasure)));
        for digest in ["rest_digest", "payload_digest"] {
            assert_eq!(told[digest].as_str().unwrap().len(), 24, "16 bytes in base64");
        }
        assert!(told["erased_at"].is_string());
        assert_eq!(event["topic"], topic);
        let fields: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(fields.iter().all(|field| known.contains_key(*field)), "{fields:?}");
        for gone in ["id", "body", "data", "type", "key", "headers"] {
            assert!(!fields.contains(&gone), "{gone}: {event}");
        }
    }
    // Its sender gave that time, and it stays.
    assert_eq!(get(&server, "/v1/events/1").await.json()["at"], "2026-01-31T09:30:00Z");
    let cloud = get(&server, "/v1/events/1?format=cloudevents").await;
    assert_eq!(cloud.status, 200);
    assert!(!cloud.text().contains("secret"), "{}", cloud.text());
    let mut events = Events::open(&server, "/v1/watch?from=oldest&until_caught_up").await;
    let first = events.event().await.json();
    assert_eq!(first["erased"]["reason"], "asked for");
    // What was written can be read, and does not pass for an event that is empty.
    let again = post(&server, "application/json", first.to_string()).await;
    assert_eq!(
        (again.status.as_u16(), &again.json()["metadata"]["field"]),
        (400, &json!("erased"))
    );
    server.stop().await;
}

#[tokio::test]
async fn a_client_gets_it_as_a_field_and_a_notice_as_an_event() {
    let (server, client, erasure) = server_with_shells().await;
    let event = within("get", client.event(1.into())).await.unwrap();
    let told = event.erased.expect("what was erased");
    assert_eq!((told.reason.as_str(), &told.erasure), ("asked for", &erasure));
    assert!(event.id.is_empty() && event.body.is_empty() && event.headers.is_empty());
    let mut options = WatchOptions::default();
    (options.patterns, options.start) = (vec!["a".into()], Start::Oldest);
    options.until_caught_up = true;
    let mut watch = client.watch(options);
    let mut seen = Vec::new();
    while let Some(item) = within("item", watch.next()).await {
        if let Item::Event(received) = item.unwrap() {
            let event = received.event().unwrap();
            seen.push((
                event.seq.get(),
                event.is_erased(),
                event.kind.to_owned(),
                event.body.to_owned(),
            ));
        }
    }
    let [shell, notice] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((shell.0, shell.1, shell.2.as_str()), (2, true, ""));
    assert_eq!((notice.1, notice.2.as_str()), (false, "tailmark.erased"));
    let body: Value = serde_json::from_str(&notice.3).unwrap();
    assert_eq!(body, json!({"erasure": erasure, "reason": "asked for", "seqs": [[2, 2]]}));
    // What a client says of an erasure is refused, be it whatever.
    let forged = pb::Erased { reason: "r".into(), ..Default::default() };
    let forged = pb::Event { topic: "a".into(), erased: Some(forged), ..Default::default() };
    let error = within("publish", client.publish(forged, None)).await.unwrap_err();
    assert_eq!((error.reason(), error.metadata("field")), ("INVALID_FIELD", Some("event.erased")));
    server.stop().await;
}

#[tokio::test]
async fn rooms_show_it_in_words() {
    let (server, client, _) = server_with_shells().await;
    let mut feed = server.client().await;
    let begin = server.cursor(0);
    let joins =
        pb::ChatMessage { room: "r".into(), after_cursor: begin.clone(), ..Default::default() };
    let stream = tokio_stream::once(joins).chain(tokio_stream::pending());
    let mut chat = within("chat", feed.chat(stream)).await.unwrap().into_inner();
    let first = loop {
        let message = within("message", chat.message()).await.unwrap().unwrap();
        if message.seq != 0 {
            break message;
        }
    };
    assert_eq!((first.seq, first.kind()), (1, Kind::Message));
    assert_eq!((first.from.as_str(), first.text.as_str()), ("", "(erased: asked for)"));
    let mut room = client.room("r", "bob", &begin);
    loop {
        if let RoomItem::Message(message) = within("item", room.next()).await.unwrap()
            && message.seq == 1
        {
            assert_eq!(message.content, "(erased: asked for)");
            break;
        }
    }
    drop(chat);
    server.stop().await;
}
