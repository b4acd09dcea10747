//! What is refused, and in which words.

use tailmark::server::Options;
use tailmark_wire::feed_v1 as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status};

use super::talk::{Talk, chat_chat, feed_chat, refused, said, say, subscribe};
use crate::seed::chat;
use crate::seed::chat::chat_service_client::ChatServiceClient;
use crate::support::inprocess::InProcess;
use crate::support::server::{bad_field, expect, new_log, within};

const LONG: usize = 256;

fn typed(kind: i32) -> chat::Message {
    chat::Message { r#type: kind, ..said("1", "Bob", "x", "") }
}

/// Messages of the second sketch that are refused, and the field at fault.
fn bad_messages() -> Vec<(chat::Message, Code, &'static str, &'static str)> {
    let (invalid, field) = (Code::InvalidArgument, "INVALID_FIELD");
    let (over, limit) = (Code::ResourceExhausted, "LIMIT_EXCEEDED");
    let at = |seconds, nanos| chat::Message {
        timestamp: Some(prost_types::Timestamp { seconds, nanos }),
        ..said("1", "Bob", "x", "")
    };
    let long = "x".repeat(LONG);
    vec![
        (said("1", "", "x", ""), invalid, field, "user"),
        (said("1", "Bob", "", ""), invalid, field, "content"),
        (typed(1), invalid, field, "type"),
        (typed(2), invalid, field, "type"),
        (typed(3), invalid, field, "type"),
        (typed(99), invalid, field, "type"),
        (at(253_402_300_800, 0), invalid, field, "timestamp"),
        (at(0, -1), invalid, field, "timestamp"),
        (said(&long, "Bob", "x", ""), over, limit, "id"),
        (said("1", &long, "x", ""), over, limit, "user"),
        (said("1", "Bob", "x", &long), over, limit, "room"),
        // As a topic it is too long.
        (said("1", "Bob", "x", &".".repeat(100)), over, limit, "room"),
        (said("1", "Bob", &"x".repeat(1 << 20), ""), over, limit, "event"),
    ]
}

fn check(status: &Status, code: Code, reason: &str, at_fault: &str, index: usize) {
    let info = expect(status, code, reason);
    if code == Code::InvalidArgument {
        assert_eq!(bad_field(status), at_fault);
    } else {
        assert_eq!(info["what"], at_fault);
        assert!(info["actual"].parse::<usize>().unwrap() > info["limit"].parse().unwrap());
    }
    assert_eq!(info["index"], index.to_string());
}

#[tokio::test]
async fn a_bad_message_ends_a_chat_after_those_before_it_are_confirmed() {
    let server = InProcess::start();
    for (at, (bad, code, reason, at_fault)) in bad_messages().into_iter().enumerate() {
        let before = [0, 1, 100][at % 3];
        let head = server.head();
        let mut talk = chat_chat(server.channel().await, "").await.unwrap();
        for good in 0..before {
            talk.send(said(&good.to_string(), "Bob", "good", ""));
        }
        talk.send(bad);
        talk.send(said("after", "Bob", "after", ""));
        let (echoes, status) = talk.failure().await;
        let ids: Vec<_> = echoes.into_iter().map(|echo| echo.id).collect();
        assert_eq!(ids, (0..before).map(|good| format!("echo_{good}")).collect::<Vec<_>>());
        check(&status, code, reason, at_fault, before);
        assert_eq!(server.head(), head + before as u64);
    }
}

#[tokio::test]
async fn a_bad_message_ends_an_upload_after_those_before_it_are_durable() {
    let server = InProcess::start();
    for (at, (bad, code, reason, at_fault)) in bad_messages().into_iter().enumerate() {
        let before = [0, 1, 100][at % 3];
        let head = server.head();
        let mut messages = vec![said("1", "Bob", "good", ""); before];
        messages.extend([bad, said("after", "Bob", "after", "")]);
        let mut client = ChatServiceClient::new(server.channel().await);
        let upload = client.upload_messages(tokio_stream::iter(messages));
        let status = within("upload", upload).await.unwrap_err();
        check(&status, code, reason, at_fault, before);
        assert_eq!(server.head(), head + before as u64);
    }
}

#[tokio::test]
async fn a_bad_message_is_not_sent() {
    let server = InProcess::start();
    let ask = |user: &str, content: &str, room: &str| chat::SendMessageRequest {
        user: user.into(),
        content: content.into(),
        room: room.into(),
    };
    let long = "x".repeat(LONG);
    let mut client = ChatServiceClient::new(server.channel().await);
    for (request, field) in [(ask("", "x", ""), "user"), (ask("Bob", "", ""), "content")] {
        let status = within("send", client.send_message(request)).await.unwrap_err();
        expect(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(bad_field(&status), field);
    }
    for (request, what) in [
        (ask(&long, "x", ""), "user"),
        (ask("Bob", "x", &long), "room"),
        (ask("Bob", &"x".repeat(1 << 20), ""), "event"),
    ] {
        let status = within("send", client.send_message(request)).await.unwrap_err();
        assert_eq!(expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED")["what"], what);
    }
    assert_eq!(server.head(), 0);
}

#[tokio::test]
async fn a_bad_subscription_is_refused() {
    let server = InProcess::start();
    let long = "x".repeat(LONG);
    for (room, user, what) in [(long.as_str(), "", "room"), ("", long.as_str(), "user")] {
        let result = subscribe(server.channel().await, room, user, "").await;
        let info = refused(result, Code::ResourceExhausted, "LIMIT_EXCEEDED");
        assert_eq!(info["what"], what);
    }
    for call in 0..3 {
        let outcome = async |cursor: &str| {
            let channel = server.channel().await;
            match call {
                0 => subscribe(channel, "", "", cursor).await.map(|_| ()),
                1 => chat_chat(channel, cursor).await.map(|_| ()),
                _ => feed_chat(channel, cursor).await.map(|_| ()),
            }
        };
        refused(outcome("nonsense").await, Code::InvalidArgument, "CURSOR_MALFORMED");
        let info = refused(outcome("5").await, Code::OutOfRange, "CURSOR_AHEAD");
        assert_eq!(info["head"], "0");
    }
}

/// A chat of the first service with all of its fields.
async fn full_chat(server: &InProcess, cursor: &str) -> Talk<pb::ChatMessage, pb::ChatMessage> {
    let mut client = pb::feed_service_client::FeedServiceClient::new(server.channel().await);
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut request = tonic::Request::new(UnboundedReceiverStream::new(receiver));
    if !cursor.is_empty() {
        request.metadata_mut().insert("feed-after-cursor", cursor.parse().unwrap());
    }
    let (headers, stream, _) = within("chat", client.chat(request)).await.unwrap().into_parts();
    Talk { sender: Some(sender), stream, headers }
}

fn full(text: &str) -> pb::ChatMessage {
    pb::ChatMessage { from: "Bob".into(), text: text.into(), ..Default::default() }
}

#[tokio::test]
async fn the_first_services_chat_refuses_what_makes_no_sense() {
    let server = InProcess::start();
    let kind = |kind: i32| pb::ChatMessage { kind, ..full("x") };
    let mut cases: Vec<_> = [1, 2, 3, 99].map(|number| (kind(number), "kind", true)).into();
    let at = Some(prost_types::Timestamp { seconds: 0, nanos: 1 << 30 });
    cases.push((pb::ChatMessage { at, ..full("x") }, "at", true));
    cases.push((pb::ChatMessage { room: "other".into(), ..full("x") }, "room", false));
    let cursor = "3".to_owned();
    cases.push((pb::ChatMessage { after_cursor: cursor, ..full("x") }, "after_cursor", false));
    for (bad, field, also_first) in cases {
        for is_first in [false, true] {
            if is_first && !also_first {
                continue;
            }
            let head = server.head();
            let mut talk = full_chat(&server, "").await;
            if !is_first {
                talk.send(full("good"));
            }
            talk.send(bad.clone());
            let (echoes, status) = talk.failure().await;
            let index = usize::from(!is_first);
            assert_eq!((echoes.len(), server.head()), (index, head + index as u64));
            check(&status, Code::InvalidArgument, "INVALID_FIELD", field, index);
        }
    }
    // The room may be named again, and the cursor repeated.
    let cursor = server.log.cursor(tailmark_record::Seq::ZERO).await;
    let mut talk = full_chat(&server, "").await;
    for text in ["", "one", "two"] {
        let room = "general".into();
        talk.send(pb::ChatMessage { room, after_cursor: cursor.clone(), ..full(text) });
    }
    talk.half_close();
    let (messages, _) = talk.rest().await;
    let own = messages.iter().filter(|message| message.text.starts_with("echo: ")).count();
    assert_eq!((own, messages.len() as u64), (2, server.head()));
    // Said twice, not the same.
    let mut talk = full_chat(&server, "1").await;
    talk.send(pb::ChatMessage { after_cursor: "2".into(), ..full("x") });
    let status = talk.failure().await.1;
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "after_cursor", 0);
    for (cursor, code, reason) in [
        ("nonsense", Code::InvalidArgument, "CURSOR_MALFORMED"),
        ("999", Code::OutOfRange, "CURSOR_AHEAD"),
    ] {
        let mut talk = full_chat(&server, "").await;
        talk.send(pb::ChatMessage { after_cursor: cursor.into(), ..full("x") });
        expect(&talk.failure().await.1, code, reason);
    }
}

#[tokio::test]
async fn what_the_server_sets_is_not_taken_from_a_client() {
    let server = InProcess::start();
    let mut talk = full_chat(&server, "").await;
    talk.send(pb::ChatMessage { seq: 77, cursor: "nonsense".into(), ..full("x") });
    let echo = talk.message().await;
    assert_eq!(
        (echo.seq, echo.cursor.clone()),
        (1, server.log.cursor(tailmark_record::Seq::new(1)).await)
    );
    assert_eq!((echo.room.as_str(), echo.kind()), ("general", pb::chat_message::Kind::System));
    assert!(echo.at.is_some());
}

#[tokio::test]
async fn a_chat_joins_so_many_rooms_and_no_more() {
    let options = Options { patterns_per_watch: 3, ..Default::default() };
    let server = InProcess::start_with(new_log(), options);
    let mut talk = chat_chat(server.channel().await, "").await.unwrap();
    for at in 0..12 {
        talk.send(said(&at.to_string(), "Bob", "x", ["a", "b", "c"][at % 3]));
        assert_eq!(talk.message().await.id, format!("echo_{at}"));
    }
    talk.send(said("4", "Bob", "x", "d"));
    let (_, status) = talk.failure().await;
    check(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED", "rooms_per_chat", 12);
}

#[tokio::test]
async fn an_empty_from_is_nobody_and_an_empty_text_is_a_text() {
    let server = InProcess::start();
    let mut watcher = subscribe(server.channel().await, "", "Eve", "").await.unwrap();
    let mut talk = feed_chat(server.channel().await, "").await.unwrap();
    for text in ["", "", "x"] {
        talk.send(say("", text));
    }
    talk.half_close();
    let expected = ["echo: ", "echo: x"].map(|text| say("server", text));
    assert_eq!(talk.rest().await.0, expected);
    for text in ["", "x"] {
        let message = watcher.message().await;
        assert_eq!((message.user.as_str(), message.content.as_str()), ("", text));
        assert_eq!(message.r#type(), chat::MessageType::Chat);
    }
}
