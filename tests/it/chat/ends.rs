//! How streams of rooms end: by the client, by the server, by time, by the network.

use std::time::Duration;

use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::talk::{chat_chat, feed_chat, line, said, say, send, subscribe};
use crate::seed::chat::MessageType::{Join, Leave};
use crate::seed::chat::chat_service_client::ChatServiceClient;
use crate::seed::feed_v1::feed_service_client::FeedServiceClient;
use crate::seed::{chat, feed_v1 as feed};
use crate::support::proxy::Proxy;
use crate::support::server::{TestServer, event, expect, start, until, within};
use tailmark_wire::feed_v1 as pb;

/// Nothing is left of any stream: neither what reads nor what takes messages.
async fn nothing_left(server: &TestServer) {
    until("nothing left", || {
        server.gauges.watches() == 0
            && server.gauges.uploads() == 0
            && server.log.status().readers == 0
    })
    .await;
}

#[tokio::test]
async fn a_half_close_without_a_word_is_a_regular_end() {
    let server = start().await;
    let mut talk = feed_chat(server.channel().await, "").await.unwrap();
    talk.half_close();
    assert_eq!(talk.rest().await, (vec![], server.cursor(0)));
    let mut talk = chat_chat(server.channel().await, "").await.unwrap();
    talk.half_close();
    assert_eq!(talk.rest().await, (vec![], server.cursor(0)));
    nothing_left(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn one_who_only_joins_and_half_closes_gets_what_there_was() {
    let server = start().await;
    for text in ["one", "two", "three"] {
        send(server.channel().await, "", "Bob", text).await;
    }
    let mut talk = feed_chat(server.channel().await, &server.cursor(1)).await.unwrap();
    talk.send(say("Ann", ""));
    talk.half_close();
    let (messages, cursor) = talk.rest().await;
    assert_eq!(messages, [say("Bob", "two"), say("Bob", "three")]);
    assert_eq!((cursor, server.head()), (server.cursor(3), 3));
    server.stop().await;
}

#[tokio::test]
async fn clients_that_go_away_leave_nothing_and_are_told_to_have_left() {
    let server = start().await;
    let mut watcher = subscribe(server.channel().await, "", "Eve", "").await.unwrap();
    for _ in 0..3 {
        let subscriber = subscribe(server.channel().await, "", "Sub", "").await.unwrap();
        let first = feed_chat(server.channel().await, "").await.unwrap();
        first.send(say("First", "hello"));
        let second = chat_chat(server.channel().await, "").await.unwrap();
        second.send(said("1", "Second", "hello", ""));
        let idle = chat_chat(server.channel().await, "").await.unwrap();
        let mut came = Vec::new();
        while came.len() < 3 {
            let message = watcher.message().await;
            if message.r#type() == Join {
                came.push(message.user);
            }
        }
        // Each has a connection of its own, which goes with it, in the middle of a stream.
        drop((subscriber, first, second, idle));
        let mut left = Vec::new();
        while left.len() < 3 {
            let message = watcher.message().await;
            if message.r#type() == Leave {
                left.push(message.user);
            }
        }
        came.sort();
        left.sort();
        assert_eq!(came, ["First", "Second", "Sub"]);
        assert_eq!(left, came);
        until("only one is left", || {
            server.gauges.watches() == 1 && server.log.status().readers == 1
        })
        .await;
    }
    drop(watcher);
    nothing_left(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_cut_network_leaves_nothing_and_what_was_stored_is_there() {
    let server = start().await;
    let proxy = Proxy::to(server.address).await;
    let through = tonic::transport::Endpoint::from_shared(proxy.url()).unwrap();
    let channel = within("connect", through.connect()).await.unwrap();
    let mut talk = chat_chat(channel.clone(), "").await.unwrap();
    let mut other = subscribe(channel, "", "Ann", "").await.unwrap();
    talk.send(said("1", "Bob", "before", ""));
    // Each hears it on its own; what is on its way is cut too.
    assert_eq!(talk.message().await.id, "echo_1");
    assert_eq!(line(&other.message().await).0, Join);
    assert_eq!(other.message().await.content, "before");
    assert!(proxy.cut() > 0);
    assert!(other.next().await.is_err());
    assert!(talk.next().await.is_err());
    nothing_left(&server).await;
    assert_eq!(server.head(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_confirms_what_it_took_and_says_when_to_come_back() {
    let server = start().await;
    let mut listening = subscribe(server.channel().await, "", "", "").await.unwrap();
    let mut first = feed_chat(server.channel().await, "").await.unwrap();
    let mut second = chat_chat(server.channel().await, "").await.unwrap();
    let mut silent = feed_chat(server.channel().await, "").await.unwrap();
    for at in 0..50 {
        first.send(say("", &at.to_string()));
        second.send(said(&at.to_string(), "Bob", "x", "other"));
    }
    until("all stored", || server.head() == 100).await;
    server.shutdown.cancel();
    let (echoes, status) = first.failure().await;
    expect(&status, Code::Unavailable, "STOPPING");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    assert!(status.metadata().contains_key("feed-cursor"));
    assert_eq!(echoes, (0..50).map(|at| say("server", &format!("echo: {at}"))).collect::<Vec<_>>());
    let (echoes, status) = second.failure().await;
    expect(&status, Code::Unavailable, "STOPPING");
    assert_eq!(echoes.len(), 50);
    expect(&silent.failure().await.1, Code::Unavailable, "STOPPING");
    expect(&listening.failure().await.1, Code::Unavailable, "STOPPING");
    let gauges = server.gauges.clone();
    server.stop().await;
    until("nothing is open", || gauges.watches() == 0 && gauges.connections() == 0).await;
}

#[tokio::test]
async fn a_stopping_server_takes_no_new_stream() {
    let server = start().await;
    // Kept open, so that the connection is.
    let held = subscribe(server.channel().await, "", "", "").await;
    let mut client = ChatServiceClient::new(server.channel().await);
    server.shutdown.cancel();
    let request = chat::SendMessageRequest::default();
    // The connection may be closed by then, which is an answer too; never a hang, never a yes.
    assert!(within("send", client.send_message(request)).await.is_err());
    drop(held);
    server.stop().await;
}

#[tokio::test]
async fn deadlines_end_streams_and_leave_nothing() {
    let server = start().await;
    let timeout = Duration::from_millis(300);
    let mut chat_client = ChatServiceClient::new(server.channel().await);
    let mut feed_client = FeedServiceClient::new(server.channel().await);
    let mut request = Request::new(chat::SubscribeRequest::default());
    request.set_timeout(timeout);
    let mut subscription =
        within("subscribe", chat_client.subscribe_messages(request)).await.unwrap().into_inner();
    let mut request = Request::new(tokio_stream::pending::<chat::Message>());
    request.set_timeout(timeout);
    let mut second = within("chat", chat_client.chat(request)).await.unwrap().into_inner();
    let mut request = Request::new(tokio_stream::pending::<feed::ChatMessage>());
    request.set_timeout(timeout);
    let mut first = within("chat", feed_client.chat(request)).await.unwrap().into_inner();
    let welcome = within("welcome", subscription.message()).await.unwrap().unwrap();
    assert_eq!(welcome.id, "system");
    let status = within("subscription", subscription.message()).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, "DEADLINE");
    let status = within("chat", second.message()).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, "DEADLINE");
    let status = within("chat", first.message()).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, "DEADLINE");
    nothing_left(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_trimmed_log_ends_a_reader_that_needs_what_is_gone() {
    let server = start().await;
    for at in 0..5 {
        send(server.channel().await, "", "Bob", &at.to_string()).await;
    }
    server.trim(4).await;
    let result = subscribe(server.channel().await, "", "", &server.cursor(1)).await;
    let info = super::talk::refused(result, Code::OutOfRange, "CURSOR_TRIMMED");
    assert_eq!((info["oldest"].as_str(), info["head"].as_str()), ("4", "5"));
    nothing_left(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_and_does_not_read_is_taken_and_confirmed_later() {
    const MESSAGES: usize = 20_000;
    let server = start().await;
    let mut talk = chat_chat(server.channel().await, "").await.unwrap();
    let text = "x".repeat(1_000);
    for at in 0..MESSAGES {
        talk.send(said(&at.to_string(), "Bob", &text, ""));
    }
    // 20 MB of confirmations that nobody reads hold back nothing.
    until("all are stored", || server.head() == MESSAGES as u64).await;
    until("nothing is held back", || server.log.status().in_flight_bytes == 0).await;
    talk.half_close();
    let mut next = 0;
    while let Some(message) = talk.next().await.unwrap() {
        if message.id.starts_with("echo_") {
            assert_eq!(message.id, format!("echo_{next}"));
            next += 1;
        } else {
            assert!(message.id.starts_with("server_"), "{}", message.id);
        }
    }
    assert_eq!(next, MESSAGES);
    nothing_left(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_stands_still_costs_nobody_and_misses_nothing() {
    const MESSAGES: usize = 5_000;
    let server = start().await;
    let mut slow = subscribe(server.channel().await, "", "", "").await.unwrap();
    let mut talk = feed_chat(server.channel().await, "").await.unwrap();
    let text = "y".repeat(2_000);
    for at in 0..MESSAGES {
        talk.send(say("Bob", &format!("{at} {text}")));
    }
    talk.half_close();
    assert_eq!(talk.rest().await.0.len(), MESSAGES);
    drop(talk);
    // Presence comes and goes meanwhile, more than is kept.
    for _ in 0..300 {
        drop(subscribe(server.channel().await, "", "Flutter", "").await.unwrap());
    }
    let mut next = 0;
    while next < MESSAGES {
        let message = slow.message().await;
        if message.r#type() == chat::MessageType::Chat {
            assert_eq!(message.content.split(' ').next().unwrap(), next.to_string());
            next += 1;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn both_services_share_the_limit_of_watches_and_a_publish_still_passes() {
    let options = tailmark::server::Options { watches_per_connection: 3, ..Default::default() };
    let server =
        crate::support::server::start_with(crate::support::server::new_log(), options).await;
    let channel = server.channel().await;
    let one = subscribe(channel.clone(), "", "", "").await.unwrap();
    let two = chat_chat(channel.clone(), "").await.unwrap();
    let three = feed_chat(channel.clone(), "").await.unwrap();
    for result in [
        subscribe(channel.clone(), "", "", "").await.map(|_| ()),
        chat_chat(channel.clone(), "").await.map(|_| ()),
        feed_chat(channel.clone(), "").await.map(|_| ()),
    ] {
        let info = super::talk::refused(result, Code::ResourceExhausted, "LIMIT_EXCEEDED");
        assert_eq!(info["what"], "watches_per_connection");
        assert_eq!((info["limit"].as_str(), info["actual"].as_str()), ("3", "4"));
    }
    let mut client = pb::feed_service_client::FeedServiceClient::new(channel.clone());
    let request = pb::PublishRequest { event: Some(event("a", "x")), expected_head: None };
    within("publish", client.publish(request)).await.unwrap();
    drop((one, two, three));
    nothing_left(&server).await;
    subscribe(channel, "", "", "").await.unwrap();
    server.stop().await;
}
