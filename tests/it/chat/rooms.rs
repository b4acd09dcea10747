//! What is said in a room and who gets it.

use super::talk::{chat_chat, feed_chat, line, said, say, send, subscribe};
use crate::seed::chat::MessageType::{Chat, Join, Leave, System};
use crate::seed::chat::chat_service_client::ChatServiceClient;
use crate::seed::{chat, feed_v1 as feed};
use crate::support::inprocess::InProcess;
use crate::support::server::{from_oldest, until, within};
use tailmark_wire::feed_v1 as pb;

fn pair(from: &str, text: &str) -> feed::ChatMessage {
    say(from, text)
}

#[tokio::test]
async fn a_message_that_was_sent_reaches_a_subscriber() {
    let server = InProcess::start();
    let mut listening = subscribe(server.channel().await, "", "Alice", "").await.unwrap();
    let id = send(server.channel().await, "general", "Bob", "hello").await;
    let message = listening.message().await;
    assert_eq!(line(&message), (Chat, "Bob".into(), "hello".into()));
    assert_eq!((message.id, message.room.as_str()), (id, "general"));
    assert!(message.timestamp.is_some());
}

#[tokio::test]
async fn the_first_sketchs_chat_echoes_to_the_sender_and_tells_the_others() {
    let server = InProcess::start();
    let mut other = subscribe(server.channel().await, "general", "Alice", "").await.unwrap();
    let mut talk = feed_chat(server.channel().await, "").await.unwrap();
    for text in ["hello", "world", "bye"] {
        talk.send(say("client", text));
    }
    talk.half_close();
    let (messages, cursor) = talk.rest().await;
    let echoes = ["echo: hello", "echo: world", "echo: bye"].map(|text| pair("server", text));
    assert_eq!(messages, echoes);
    assert_eq!(cursor, server.log.cursor(server.log.bounds().head).await);
    drop(talk);
    let mut heard = Vec::new();
    for _ in 0..5 {
        heard.push(line(&other.message().await));
    }
    let expected = [
        (Join, "joined the room"),
        (Chat, "hello"),
        (Chat, "world"),
        (Chat, "bye"),
        (Leave, "left the room"),
    ];
    assert_eq!(heard, expected.map(|(kind, text)| (kind, "client".into(), text.into())));
}

#[tokio::test]
async fn the_second_sketchs_chat_echoes_in_the_messages_place() {
    let server = InProcess::start();
    let mut talk = chat_chat(server.channel().await, "").await.unwrap();
    talk.send(said("client_1", "Charlie", "one", "general"));
    let echo = talk.message().await;
    assert_eq!(line(&echo), (System, "Server".into(), "Echo: one".into()));
    assert_eq!((echo.id.as_str(), echo.room.as_str()), ("echo_client_1", "general"));
    let id = send(server.channel().await, "general", "Dave", "between").await;
    let other = talk.message().await;
    assert_eq!((line(&other), other.id), ((Chat, "Dave".into(), "between".into()), id));
    talk.send(said("client_1", "Charlie", "one", "general"));
    assert_eq!(talk.message().await.id, "echo_client_1");
    // The same id and the same words are another message all the same.
    assert_eq!(server.head(), 3);
    talk.half_close();
    assert_eq!(talk.rest().await, (vec![], server.log.cursor(server.log.bounds().head).await));
}

#[tokio::test]
async fn an_upload_is_counted_and_heard_in_its_rooms() {
    let server = InProcess::start();
    let mut general = subscribe(server.channel().await, "general", "", "").await.unwrap();
    let mut aside = subscribe(server.channel().await, "a.b c", "", "").await.unwrap();
    let messages: Vec<_> = (0..6)
        .map(|at| said(&format!("batch_{at}"), "Bob", "text", ["", "a.b c"][at % 2]))
        .collect();
    let mut client = ChatServiceClient::new(server.channel().await);
    let upload = client.upload_messages(tokio_stream::iter(messages));
    let answer = within("upload", upload).await.unwrap().into_inner();
    assert_eq!(answer, chat::UploadResponse { message_count: 6, success: true });
    for at in [0, 2, 4] {
        let message = general.message().await;
        assert_eq!((message.id, message.room.as_str()), (format!("batch_{at}"), "general"));
        let message = aside.message().await;
        assert_eq!((message.id, message.room.as_str()), (format!("batch_{}", at + 1), "a.b c"));
    }
    let client = pb::feed_service_client::FeedServiceClient::new(server.channel().await);
    let request = pb::WatchRequest {
        topic: "chat.a%2Eb%20c".into(),
        start: from_oldest(),
        until_caught_up: true,
        ..Default::default()
    };
    let mut client = client;
    let mut events = crate::support::server::watch(&mut client, request).await.unwrap();
    let (events, _) = events.rest().await;
    assert_eq!(events.len(), 3);
    for event in events {
        assert_eq!((event.body.as_str(), event.r#type.as_str()), ("text", "chat.message"));
        assert_eq!(event.headers, [("from".to_owned(), "Bob".to_owned())].into());
    }
}

#[tokio::test]
async fn an_upload_of_nothing_is_one() {
    let server = InProcess::start();
    let mut client = ChatServiceClient::new(server.channel().await);
    let upload = client.upload_messages(tokio_stream::iter(Vec::new()));
    let answer = within("upload", upload).await.unwrap().into_inner();
    assert_eq!(answer, chat::UploadResponse { message_count: 0, success: true });
}

#[tokio::test]
async fn nobody_hears_another_room() {
    let server = InProcess::start();
    let mut a = subscribe(server.channel().await, "a", "", "").await.unwrap();
    for (room, text) in [("b", "1"), ("a", "2"), ("A", "3"), ("*", "4"), (">", "5"), ("a", "6")] {
        send(server.channel().await, room, "Bob", text).await;
    }
    assert_eq!(a.message().await.content, "2");
    assert_eq!(a.message().await.content, "6");
    let mut star = subscribe(server.channel().await, "*", "", "0").await.unwrap();
    assert_eq!(star.message().await.content, "4");
}

#[tokio::test]
async fn a_plain_event_of_the_rooms_topic_is_a_message() {
    let server = InProcess::start();
    let mut listening = subscribe(server.channel().await, "general", "", "").await.unwrap();
    let mut client = pb::feed_service_client::FeedServiceClient::new(server.channel().await);
    let event = |from: &str| pb::Event {
        id: format!("of {from}"),
        topic: "chat.general".into(),
        body: "from outside".into(),
        headers: if from.is_empty() {
            Default::default()
        } else {
            [("from".to_owned(), from.to_owned())].into()
        },
        ..Default::default()
    };
    for from in ["", "robot"] {
        let request = pb::PublishRequest { event: Some(event(from)), expected_head: None };
        within("publish", client.publish(request)).await.unwrap();
        let message = listening.message().await;
        assert_eq!(line(&message), (Chat, from.into(), "from outside".into()));
        assert_eq!(message.id, format!("of {from}"));
    }
}

#[tokio::test]
async fn two_streams_of_one_user_are_one_presence_and_two_readers() {
    let server = InProcess::start();
    let mut watcher = subscribe(server.channel().await, "r", "Eve", "").await.unwrap();
    let one = subscribe(server.channel().await, "r", "Ann", "").await.unwrap();
    let two = subscribe(server.channel().await, "r", "Ann", "").await.unwrap();
    // One more of Eve's hears nothing of herself.
    let unseen = subscribe(server.channel().await, "r", "", "").await.unwrap();
    let mut eve = subscribe(server.channel().await, "r", "Eve", "").await.unwrap();
    assert_eq!(line(&watcher.message().await).0, Join);
    drop((one, unseen));
    until("two are gone", || server.gauges.watches() == 3).await;
    send(server.channel().await, "r", "x", "mark").await;
    assert_eq!(watcher.message().await.content, "mark");
    assert_eq!(eve.message().await.content, "mark");
    drop(two);
    for talk in [&mut watcher, &mut eve] {
        assert_eq!(line(&talk.message().await), (Leave, "Ann".into(), "left the room".into()));
    }
}

#[tokio::test]
async fn the_sender_is_excluded_by_stream_and_not_by_name() {
    let server = InProcess::start();
    let mut one = chat_chat(server.channel().await, "").await.unwrap();
    let mut two = chat_chat(server.channel().await, "").await.unwrap();
    one.send(said("1", "Ann", "first", "r"));
    assert_eq!(one.message().await.id, "echo_1");
    two.send(said("2", "Ann", "second", "r"));
    assert_eq!(two.message().await.id, "echo_2");
    assert_eq!(line(&one.message().await), (Chat, "Ann".into(), "second".into()));
    one.send(said("3", "Ann", "third", "r"));
    assert_eq!(line(&two.message().await), (Chat, "Ann".into(), "third".into()));
    assert_eq!(one.message().await.id, "echo_3");
}

#[tokio::test]
async fn a_chat_hears_a_room_from_its_first_message_to_it() {
    let server = InProcess::start();
    let mut talk = chat_chat(server.channel().await, "").await.unwrap();
    send(server.channel().await, "a", "Bob", "too early").await;
    talk.send(said("1", "Ann", "in a", "a"));
    assert_eq!(talk.message().await.id, "echo_1");
    send(server.channel().await, "b", "Bob", "still not there").await;
    send(server.channel().await, "a", "Bob", "now").await;
    assert_eq!(talk.message().await.content, "now");
    talk.send(said("2", "Ann", "in b", "b"));
    assert_eq!(talk.message().await.id, "echo_2");
    for (room, text) in [("b", "x"), ("a", "y"), ("b", "z")] {
        send(server.channel().await, room, "Bob", text).await;
        let message = talk.message().await;
        assert_eq!((message.room.as_str(), message.content.as_str()), (room, text));
    }
}
