//! Going on after a cursor, on both services, while others write.

use tailmark_wire::{chat as full_chat, feed_v1 as full_feed};
use tokio::task::JoinSet;
use tonic::Request;

use super::talk::{chat_chat, feed_chat, said, say, send, subscribe};
use crate::seed::chat::MessageType::{Chat, System};
use crate::seed::feed_v1 as feed;
use crate::support::inprocess::InProcess;
use crate::support::server::within;

/// The texts of a room, in the order of the log.
async fn texts(server: &InProcess, room: &str) -> Vec<String> {
    let topic = tailmark_record::room::topic(room);
    let mut texts = Vec::new();
    for seq in 1..=server.head() {
        let bytes = server.log.event(tailmark_record::Seq::new(seq)).await.unwrap().unwrap();
        let event = tailmark_record::Event::parse(&bytes).unwrap();
        if event.topic == topic {
            texts.push(event.body.to_owned());
        }
    }
    texts
}

/// Says so many things through all that can say something, each in a task.
async fn crowd(server: &InProcess, count: usize) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let channel = server.channel().await;
    tasks.spawn(async move {
        for at in 0..count {
            send(channel.clone(), "", "Unary", &format!("unary {at}")).await;
        }
    });
    let mut talk = feed_chat(server.channel().await, "").await.unwrap();
    tasks.spawn(async move {
        for at in 0..count {
            talk.send(say("Feed", &format!("feed {at}")));
        }
        talk.half_close();
        talk.rest().await;
    });
    let mut talk = chat_chat(server.channel().await, "").await.unwrap();
    tasks.spawn(async move {
        for at in 0..count {
            talk.send(said("", "Chat", &format!("chat {at}"), ""));
        }
        talk.half_close();
        talk.rest().await;
    });
    tasks
}

#[tokio::test]
async fn a_subscription_that_is_cut_again_and_again_gets_each_message_once() {
    const EACH: usize = 200;
    let server = InProcess::start();
    let mut heard = Vec::new();
    let mut cursor = server.log.cursor(tailmark_record::Seq::ZERO).await;
    let mut tasks = crowd(&server, EACH).await;
    for round in 0.. {
        let channel = server.channel().await;
        let mut client = full_chat::chat_service_client::ChatServiceClient::new(channel);
        let mut request = full_chat::SubscribeRequest { user: "Ann".into(), ..Default::default() };
        // By the field and by metadata, in turn.
        let by_field = round % 2 == 0;
        if by_field {
            request.after_cursor = cursor.clone();
        }
        let mut request = Request::new(request);
        if !by_field {
            request.metadata_mut().insert("feed-after-cursor", cursor.parse().unwrap());
        }
        let response = within("subscribe", client.subscribe_messages(request)).await.unwrap();
        let header = response.metadata().get("feed-cursor").unwrap().to_str().unwrap().to_owned();
        assert_eq!(header, cursor);
        let mut stream = response.into_inner();
        let welcome = within("welcome", stream.message()).await.unwrap().unwrap();
        assert_eq!((welcome.seq, &welcome.cursor), (0, &cursor));
        let upto = heard.len() + 7;
        while heard.len() < upto.min(3 * EACH) {
            let message = within("message", stream.message()).await.unwrap().unwrap();
            if message.r#type() == full_chat::MessageType::Chat {
                heard.push(message.content);
                cursor = message.cursor;
            }
        }
        if heard.len() == 3 * EACH {
            break;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(heard, texts(&server, "").await);
}

#[tokio::test]
async fn a_chat_of_the_first_service_that_is_cut_gets_each_message_once() {
    const EACH: usize = 100;
    let server = InProcess::start();
    let mut heard = Vec::new();
    let mut cursor = String::new();
    let mut tasks = crowd(&server, EACH).await;
    let mut own = 0;
    for round in 0.. {
        let channel = server.channel().await;
        let mut client = full_feed::feed_service_client::FeedServiceClient::new(channel);
        let first = full_feed::ChatMessage {
            after_cursor: if round == 0 { "0".into() } else { cursor.clone() },
            ..Default::default()
        };
        let said = full_feed::ChatMessage { text: format!("own {round}"), ..first.clone() };
        own += 1;
        // It joins, says something, and stays.
        let messages = tokio_stream::StreamExt::chain(
            tokio_stream::iter([first, said]),
            tokio_stream::pending(),
        );
        let mut stream = within("chat", client.chat(messages)).await.unwrap().into_inner();
        let upto = heard.len() + 11;
        let mut has_echo = false;
        while heard.len() < upto || !has_echo {
            let message = within("message", stream.message()).await.unwrap().unwrap();
            if message.seq == 0 {
                continue;
            }
            cursor = message.cursor;
            let echo = message.text.strip_prefix("echo: ").map(str::to_owned);
            has_echo |= echo.is_some();
            heard.push(echo.unwrap_or(message.text));
            if heard.len() == 3 * EACH + own {
                break;
            }
        }
        if heard.len() == 3 * EACH + own {
            break;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(heard, texts(&server, "").await);
}

#[tokio::test]
async fn both_services_hear_one_order() {
    const EACH: usize = 150;
    let server = InProcess::start();
    let zero = server.log.cursor(tailmark_record::Seq::ZERO).await;
    let mut second = subscribe(server.channel().await, "", "", &zero).await.unwrap();
    let mut first = feed_chat(server.channel().await, &zero).await.unwrap();
    first.send(say("", ""));
    let mut tasks = crowd(&server, EACH).await;
    let (mut by_first, mut by_second) = (Vec::new(), Vec::new());
    while by_first.len() < 3 * EACH {
        let message = first.message().await;
        if message.text.contains(' ') && !message.text.ends_with("the room") {
            by_first.push(message.text);
        }
    }
    while by_second.len() < 3 * EACH {
        let message = second.message().await;
        if message.r#type() == Chat {
            by_second.push(message.content);
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(by_first, by_second);
    assert_eq!(by_first, texts(&server, "").await);
    for who in ["unary", "feed", "chat"] {
        let said: Vec<_> = by_first.iter().filter(|text| text.starts_with(who)).collect();
        assert!(said.iter().enumerate().all(|(at, text)| **text == format!("{who} {at}")));
    }
}

#[tokio::test]
async fn a_client_with_the_sketchs_fields_alone_resumes_from_header_and_trailer() {
    let server = InProcess::start();
    let talk = feed_chat(server.channel().await, "").await.unwrap();
    let cursor = talk.header("feed-cursor");
    drop(talk);
    for text in ["one", "two"] {
        send(server.channel().await, "", "Bob", text).await;
    }
    let mut talk = feed_chat(server.channel().await, &cursor).await.unwrap();
    assert_eq!((talk.header("feed-cursor"), talk.header("feed-head")), (cursor, "2".to_owned()));
    talk.send(say("Ann", "three"));
    talk.half_close();
    let (messages, cursor) = talk.rest().await;
    let expected = [("Bob", "one"), ("Bob", "two"), ("server", "echo: three")];
    assert_eq!(messages, expected.map(|(from, text)| say(from, text)));
    // What was said meanwhile in another room is passed over, and what comes after is not.
    send(server.channel().await, "other", "Bob", "x").await;
    send(server.channel().await, "", "Bob", "four").await;
    let mut talk = feed_chat(server.channel().await, &cursor).await.unwrap();
    talk.send(say("", ""));
    talk.half_close();
    let (messages, cursor) = talk.rest().await;
    let expected: [feed::ChatMessage; 1] = [say("Bob", "four")];
    assert_eq!(
        (messages, cursor),
        (expected.to_vec(), server.log.cursor(server.log.bounds().head).await)
    );
}

#[tokio::test]
async fn a_chat_of_the_second_service_replays_its_first_room_after_a_cursor() {
    let server = InProcess::start();
    for (room, text) in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2")] {
        send(server.channel().await, room, "Bob", text).await;
    }
    let mut talk = chat_chat(server.channel().await, "1").await.unwrap();
    talk.send(said("5", "Ann", "a3", "a"));
    talk.send(said("6", "Ann", "b3", "b"));
    talk.half_close();
    let messages = talk.rest().await.0;
    let heard: Vec<_> = messages
        .iter()
        .map(|message| (message.r#type(), message.room.as_str(), message.content.as_str()))
        .collect();
    assert_eq!(heard, [(Chat, "a", "a2"), (System, "a", "Echo: a3"), (System, "b", "Echo: b3")]);
}
