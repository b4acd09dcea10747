//! In a room nobody speaks by another's name, by whatever way it is said.

use tailmark_wire::chat::chat_service_client::ChatServiceClient;
use tailmark_wire::{chat, feed_v1 as feed};
use tonic::Code;

use super::{Known, bearing, rights, start};
use crate::support::server::{event, expect, from_oldest, watch, within};
use crate::support::web::{ask, full, request, with};

#[tokio::test]
async fn who_speaks_is_who_has_the_token() {
    let server = start().await;
    let mut known = Known::default();
    let rooms = &["chat.r"][..];
    let ann = known.give("ann", rights(rooms, rooms, true));
    known.enforce(&server);
    let mut client = ChatServiceClient::new(server.channel().await);
    let mut feed = server.client().await;

    let said = |user: &str| chat::SendMessageRequest {
        user: user.into(),
        content: "1".into(),
        room: "r".into(),
    };
    client.send_message(bearing(said("bob"), &ann)).await.unwrap();
    // A name need not be said at all.
    client.send_message(bearing(said(""), &ann)).await.unwrap();
    let message = chat::Message {
        user: "bob".into(),
        content: "2".into(),
        room: "r".into(),
        ..Default::default()
    };
    let once = || tokio_stream::iter(vec![message.clone()]);
    client.upload_messages(bearing(once(), &ann)).await.unwrap();
    let answers = client.chat(bearing(once(), &ann)).await.unwrap().into_inner();
    let mut answers = answers;
    while within("answer", answers.message()).await.unwrap().is_some() {}
    let message = feed::ChatMessage {
        from: "bob".into(),
        text: "3".into(),
        room: "r".into(),
        ..Default::default()
    };
    let once = tokio_stream::iter(vec![message]);
    let mut answers = feed.chat(bearing(once, &ann)).await.unwrap().into_inner();
    while within("answer", answers.message()).await.unwrap().is_some() {}

    // As plain events, too.
    let mut forged = event("chat.r", "4");
    forged.headers.insert("from".to_owned(), "bob".to_owned());
    let publish = feed::PublishRequest { event: Some(forged.clone()), expected_head: None };
    feed.publish(bearing(publish, &ann)).await.unwrap();
    feed.upload_events(bearing(tokio_stream::iter(vec![forged.clone()]), &ann)).await.unwrap();
    // And one that names nobody is not nobody's.
    let unnamed =
        feed::PublishRequest { event: Some(event("chat.r", "nameless")), expected_head: None };
    feed.publish(bearing(unnamed, &ann)).await.unwrap();
    use feed::append_request::{Batch, Kind, Open};
    let append = |kind| feed::AppendRequest { kind: Some(kind) };
    let messages = vec![
        append(Kind::Open(Open { producer_id: "p".into(), epoch: 0 })),
        append(Kind::Batch(Batch { producer_seq: 1, events: vec![forged], expected_head: None })),
    ];
    let answers = feed.append(bearing(tokio_stream::iter(messages), &ann)).await.unwrap();
    let mut answers = answers.into_inner();
    while within("answer", answers.message()).await.unwrap().is_some() {}
    let bearer = format!("Bearer {ann}");
    let headers = [("content-type", "application/json"), ("authorization", &*bearer)];
    let mut post = with(request(&server, "POST", "/v1/events"), &headers);
    *post.body_mut() = full(r#"{"topic":"chat.r","body":"5","headers":{"from":"bob","x":"bob"}}"#);
    assert_eq!(ask(server.address, http::Version::HTTP_11, post).await.status, 200);

    let request = feed::WatchRequest {
        topic: "chat.r".into(),
        start: from_oldest(),
        until_caught_up: true,
        ..Default::default()
    };
    let (events, _) = watch(&mut feed, bearing(request, &ann)).await.unwrap().rest().await;
    assert_eq!(events.len(), 10);
    for event in &events {
        assert_eq!(event.headers["from"], "ann", "{event:?}");
    }
    assert_eq!(events[9].headers["x"], "bob", "other headers are nobody's name");
    server.stop().await;
}

#[tokio::test]
async fn who_is_there_is_told_by_the_names_of_principals() {
    let server = start().await;
    let mut known = Known::default();
    let all = || rights(&[], &["chat.*"], false);
    let (ann, bob) = (known.give("ann", all()), known.give("bob", all()));
    known.enforce(&server);
    let mut client = ChatServiceClient::new(server.channel().await);
    let listen = |user: &str| chat::SubscribeRequest {
        user: user.into(),
        room: "r".into(),
        ..Default::default()
    };
    let mut ear =
        client.subscribe_messages(bearing(listen("ann"), &ann)).await.unwrap().into_inner();
    let welcome = within("welcome", ear.message()).await.unwrap().unwrap();
    assert!(welcome.content.ends_with("ann!"), "{}", welcome.content);
    let _kept = client.subscribe_messages(bearing(listen("mallory"), &bob)).await.unwrap();
    let came = within("news", ear.message()).await.unwrap().unwrap();
    assert_eq!((&*came.user, came.r#type()), ("bob", chat::MessageType::Join));
    server.stop().await;
}

/// Producers are each principal's own: nobody takes over another's, or learns where it is.
#[tokio::test]
async fn producers_of_two_principals_are_two() {
    let server = start().await;
    let mut known = Known::default();
    let all = || rights(&[">"], &[], false);
    let (ann, bob) = (known.give("ann", all()), known.give("bob", all()));
    known.enforce(&server);
    let mut feed = server.client().await;
    use feed::append_request::{Batch, Kind, Open};
    let append = |kind| feed::AppendRequest { kind: Some(kind) };
    let open = |id: &str| append(Kind::Open(Open { producer_id: id.into(), epoch: 0 }));
    let events = vec![event("a", "1")];
    let batch = append(Kind::Batch(Batch { producer_seq: 1, events, expected_head: None }));
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    sender.send(open("p")).await.unwrap();
    sender.send(batch.clone()).await.unwrap();
    let mut anns = feed.append(bearing(stream, &ann)).await.unwrap().into_inner();
    within("opened", anns.message()).await.unwrap().unwrap();
    within("acked", anns.message()).await.unwrap().unwrap();
    let once = tokio_stream::iter(vec![open("p")]);
    let mut bobs = feed.append(bearing(once, &bob)).await.unwrap().into_inner();
    let opened = within("opened", bobs.message()).await.unwrap().unwrap();
    let Some(feed::append_response::Kind::Opened(opened)) = opened.kind else { panic!() };
    assert_eq!((opened.last_producer_seq, &*opened.last_cursor), (0, ""));
    // Ann's goes on.
    let Some(Kind::Batch(mut next)) = batch.kind else { panic!() };
    next.producer_seq = 2;
    sender.send(append(Kind::Batch(next))).await.unwrap();
    let acked = within("acked", anns.message()).await.unwrap().unwrap();
    assert!(
        matches!(acked.kind, Some(feed::append_response::Kind::Acked(acked)) if acked.producer_seq == 2)
    );
    // The name takes its part of the room that an id has.
    let long = tokio_stream::iter(vec![open(&"x".repeat(252))]);
    let mut answers = feed.append(bearing(long, &bob)).await.unwrap().into_inner();
    let status = within("refusal", answers.message()).await.unwrap_err();
    let metadata = expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert_eq!(metadata["limit"], "251");
    server.stop().await;
}
