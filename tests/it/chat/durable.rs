//! Nobody hears of a message before it is durable: not its sender, not the others.

use std::sync::Arc;
use std::time::Duration;

use tailmark::server::Options;
use tailmark_log::storage::memory::{Memory, Options as MemoryOptions};
use tailmark_log::storage::{Engine, StoreError};
use tonic::Code;

use super::talk::{ChatTalk, chat_chat, feed_chat, said, say, send, subscribe};
use crate::seed::chat::MessageType::Chat;
use crate::support::broken::Broken;
use crate::support::inprocess::InProcess;
use crate::support::server::{expect, generations, memory, open, until};

fn quick() -> Options {
    Options { chat_heartbeat: Duration::from_millis(20), ..Default::default() }
}

fn over(engine: Arc<dyn Engine>) -> InProcess {
    InProcess::start_with(open(engine, Default::default()), quick())
}

fn held() -> (Arc<Memory>, InProcess) {
    let options = MemoryOptions { hold: true, ..Default::default() };
    let engine = Arc::new(memory(generations(&[1]), options));
    (engine.clone(), over(engine))
}

/// So many signs of life, and nothing else.
async fn only_heartbeats(talk: &mut ChatTalk, count: usize) {
    for _ in 0..count {
        let message = talk.message().await;
        assert!(message.id.starts_with("server_"), "{message:?}");
        assert_eq!((message.user.as_str(), message.room.as_str()), ("Server", ""));
    }
}

async fn next_but_heartbeats(talk: &mut ChatTalk) -> crate::seed::chat::Message {
    loop {
        let message = talk.message().await;
        if !message.id.starts_with("server_") {
            return message;
        }
    }
}

#[tokio::test]
async fn a_message_is_neither_confirmed_nor_delivered_before_it_is_durable() {
    let (engine, server) = held();
    let mut talk = chat_chat(server.channel().await, "").await.unwrap();
    // Also before the first message.
    only_heartbeats(&mut talk, 2).await;
    let mut other = subscribe(server.channel().await, "", "", "").await.unwrap();
    talk.send(said("1", "Bob", "held", ""));
    until("the commit under way", || engine.held() == 1).await;
    only_heartbeats(&mut talk, 10).await;
    assert_eq!(server.head(), 0);
    // The control: the same streams tell it as soon as it is let go, and nothing before.
    engine.release();
    assert_eq!(next_but_heartbeats(&mut talk).await.id, "echo_1");
    let join = other.message().await;
    assert_ne!(join.r#type(), Chat);
    assert_eq!(other.message().await.content, "held");
    assert_eq!(server.head(), 1);
}

#[tokio::test]
async fn others_messages_wait_for_the_answer_and_keep_their_order() {
    let (engine, server) = held();
    let release = {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(1));
            loop {
                tick.tick().await;
                engine.release();
            }
        })
    };
    let mut one = chat_chat(server.channel().await, "").await.unwrap();
    let mut two = chat_chat(server.channel().await, "").await.unwrap();
    one.send(said("join", "One", "join", ""));
    assert_eq!(next_but_heartbeats(&mut one).await.id, "echo_join");
    two.send(said("join", "Two", "join", ""));
    assert_eq!(next_but_heartbeats(&mut two).await.id, "echo_join");
    for at in 0..100 {
        one.send(said(&format!("one-{at}"), "One", "x", ""));
        two.send(said(&format!("two-{at}"), "Two", "x", ""));
    }
    let mut heard = [Vec::new(), Vec::new()];
    for (talk, heard) in [&mut one, &mut two].into_iter().zip(&mut heard) {
        while heard.len() < 200 {
            let message = next_but_heartbeats(talk).await;
            let is_own = message.id.starts_with("echo_");
            let id = message.id.trim_start_matches("echo_").to_owned();
            if id.contains('-') {
                heard.push((id, is_own));
            }
        }
    }
    release.abort();
    let [one, two] = heard;
    assert!(one.iter().zip(&two).all(|(a, b)| a.0 == b.0 && a.1 != b.1), "{one:?} {two:?}");
    for who in ["one", "two"] {
        let said: Vec<_> = one.iter().filter(|(id, _)| id.starts_with(who)).collect();
        let in_order = said.iter().enumerate().all(|(at, (id, _))| *id == format!("{who}-{at}"));
        assert!(in_order && said.len() == 100);
    }
}

#[tokio::test]
async fn a_failed_write_confirms_nothing_and_delivers_nothing() {
    let engine = Arc::new(Broken::whole(memory(generations(&[1]), MemoryOptions::default())));
    let server = over(engine.clone());
    let mut other = subscribe(server.channel().await, "", "", "").await.unwrap();
    let mut feed = feed_chat(server.channel().await, "").await.unwrap();
    let mut talk = chat_chat(server.channel().await, "").await.unwrap();
    talk.send(said("good", "Bob", "good", ""));
    assert_eq!(next_but_heartbeats(&mut talk).await.id, "echo_good");
    let full = || StoreError::DiskFull { available_bytes: 1, needed_bytes: 2 };
    engine.fail_next(full());
    talk.send(said("bad", "Bob", "bad", ""));
    let (messages, status) = talk.failure().await;
    assert!(messages.iter().all(|message| message.id.starts_with("server_")), "{messages:?}");
    expect(&status, Code::ResourceExhausted, "DISK_FULL");
    engine.fail_next(full());
    feed.send(say("Ann", "bad too"));
    let (messages, status) = feed.failure().await;
    // It began when the call came, so it may hear what was said since; never what failed.
    assert!(messages.iter().all(|message| *message == say("Bob", "good")), "{messages:?}");
    expect(&status, Code::ResourceExhausted, "DISK_FULL");
    // Room again: what comes next is the next message of the others.
    send(server.channel().await, "", "Eve", "after").await;
    let mut chat = Vec::new();
    while chat.len() < 2 {
        let message = other.message().await;
        if message.r#type() == Chat {
            chat.push(message.content);
        }
    }
    assert_eq!(chat, ["good", "after"]);
    assert_eq!(server.head(), 2);
}
