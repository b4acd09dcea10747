//! Rooms of the real daemon, over its end and a new beginning.

use tonic::transport::{Channel, Endpoint};

use super::talk::{chat_chat, feed_chat, said, say, send, subscribe};
use crate::support::daemon::Daemon;
use crate::support::server::within;

async fn channel(daemon: &Daemon) -> Channel {
    let endpoint = Endpoint::from_shared(daemon.url().to_owned()).unwrap();
    within("connect", endpoint.connect()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_survives_a_kill_and_the_room_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path());
    let mut cursor = "0".to_owned();
    let mut expected = Vec::new();
    for round in 0..3 {
        let mut listening = subscribe(channel(&daemon).await, "", "", &cursor).await.unwrap();
        for text in &expected {
            assert_eq!(&listening.message().await.content, text);
        }
        drop(listening);
        let mut first = feed_chat(channel(&daemon).await, "").await.unwrap();
        let mut second = chat_chat(channel(&daemon).await, "").await.unwrap();
        for at in 0..20 {
            let text = format!("{round} first {at}");
            first.send(say("", &text));
            assert_eq!(first.message().await.text, format!("echo: {text}"));
            expected.push(text);
        }
        for at in 0..20 {
            let text = format!("{round} second {at}");
            second.send(said(&at.to_string(), "Bob", &text, ""));
            // Presence and signs of life may stand between.
            while second.message().await.content != format!("Echo: {text}") {}
            expected.push(text);
            // The other chat of this room hears it.
            while first.message().await.text != *expected.last().unwrap() {}
        }
        let text = format!("{round} unary");
        send(channel(&daemon).await, "", "Eve", &text).await;
        expected.push(text);
        // Without warning, or asked to; with streams open.
        match round {
            1 => assert_eq!(daemon.stop(), Some(0)),
            _ => daemon.kill(),
        }
        let (_, status) = first.failure().await;
        assert_eq!(status.metadata().contains_key("feed-cursor"), round == 1);
        daemon = Daemon::start(dir.path());
        if round == 0 {
            // From here on after what the first round said.
            let mut listening = subscribe(channel(&daemon).await, "", "", "0").await.unwrap();
            for text in &expected {
                assert_eq!(&listening.message().await.content, text);
            }
            cursor = expected.len().to_string();
            expected.clear();
        }
    }
    let mut listening = subscribe(channel(&daemon).await, "", "", &cursor).await.unwrap();
    for text in &expected {
        assert_eq!(&listening.message().await.content, text);
    }
    daemon.kill();
}
