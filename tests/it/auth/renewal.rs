//! A client whose token is renewed misses and repeats nothing, whatever it does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailmark_client::{
    Client, Item, Kind, Options, ProducerOptions, RoomItem, Saying, Start, TokenProvider,
    WatchOptions,
};
use tailmark_wire::feed_v1::Event;
use tokio_stream::StreamExt;

use super::{Known, after, rights, start};
use crate::support::server::{TestServer, within};

const ALL: &[&str] = &[">"];
const ROUNDS: usize = 6;

/// The token of the day, as somebody else renews it.
#[derive(Clone, Default)]
struct Current(Arc<Mutex<String>>);

impl Current {
    fn provider(&self) -> TokenProvider {
        let current = self.clone();
        TokenProvider::new(move || {
            let token = current.0.lock().unwrap().clone();
            async move { Ok(token) }
        })
    }

    fn client(&self, server: &TestServer) -> Client {
        client(server, self.provider())
    }
}

fn client(server: &TestServer, token: TokenProvider) -> Client {
    let mut options = Options::default();
    options.token = Some(token);
    Client::with_options(&format!("http://{}", server.address), options).unwrap()
}

/// Another token is in force, and the one before is not; for a moment the client has only the old one.
async fn renew(server: &TestServer, current: &Current, gap: Duration) {
    let mut known = Known::default();
    let token = known.give("ann", rights(ALL, ALL, true));
    known.enforce(server);
    tokio::time::sleep(gap).await;
    *current.0.lock().unwrap() = token;
}

#[tokio::test]
async fn a_watch_goes_on_exactly() {
    let server = start().await;
    let current = Current::default();
    renew(&server, &current, Duration::ZERO).await;
    let mut options = WatchOptions::default();
    (options.start, options.shortest_retry) = (Start::Oldest, Duration::from_millis(20));
    let mut watch = current.client(&server).watch(options);
    let (mut next, mut interruptions) = (1, 0);
    for round in 0..ROUNDS {
        // More than the windows hold, so that some is under way when the token goes.
        server.store("a", 10_000).await;
        let until = 10_000 * (round as u64 + 1);
        let mut renewed = false;
        while next <= until {
            match within("item", watch.next()).await.unwrap().unwrap() {
                Item::Event(event) => {
                    assert_eq!(event.seq().get(), next, "nothing missed, nothing twice");
                    next += 1;
                }
                Item::Interrupted { cause, .. } => {
                    assert_eq!((cause.kind(), cause.code()), (Kind::Denied, "UNAUTHENTICATED"));
                    interruptions += 1;
                }
                _ => {}
            }
            if next > until - 5_000 && !std::mem::replace(&mut renewed, true) {
                renew(&server, &current, Duration::from_millis(50)).await;
            }
        }
    }
    // The control. The last one may come when all has come.
    assert!(interruptions + 1 >= ROUNDS, "{interruptions} interruptions");
    server.stop().await;
}

#[tokio::test]
async fn a_producer_stores_each_event_once() {
    let server = start().await;
    let current = Current::default();
    renew(&server, &current, Duration::ZERO).await;
    let mut options = ProducerOptions::default();
    options.shortest_retry = Duration::from_millis(20);
    let client = current.client(&server);
    let producer = within("open", client.producer("p", options)).await.unwrap();
    let mut acks = Vec::new();
    for round in 0..ROUNDS {
        for at in 0..500 {
            let body = format!("{}", round * 500 + at);
            let event = Event { topic: "a".into(), body, ..Event::default() };
            acks.push(within("send", producer.send(&event)).await.unwrap());
            if at == 250 {
                renew(&server, &current, Duration::from_millis(50)).await;
            }
        }
    }
    for ack in acks {
        within("ack", ack.durable()).await.unwrap();
    }
    assert_eq!(server.head(), 500 * ROUNDS as u64);
    let mut options = WatchOptions::default();
    (options.start, options.until_caught_up) = (Start::Oldest, true);
    let mut watch = current.client(&server).watch(options);
    let mut bodies = 0;
    while let Some(item) = within("item", watch.next()).await {
        if let Item::Event(event) = item.unwrap() {
            assert_eq!(event.event().unwrap().body, bodies.to_string());
            bodies += 1;
        }
    }
    assert_eq!(bodies, 500 * ROUNDS);
    server.stop().await;
}

#[tokio::test]
async fn a_room_is_heard_on() {
    let server = start().await;
    let current = Current::default();
    renew(&server, &current, Duration::ZERO).await;
    let client = current.client(&server);
    let mut room = client.room("r", "ann", "0");
    for round in 0..ROUNDS {
        client.say(&Saying::new("r", "ann", &round.to_string())).await.unwrap();
        loop {
            match within("message", room.next()).await.unwrap() {
                RoomItem::Message(message) => {
                    assert_eq!(message.content, round.to_string());
                    break;
                }
                RoomItem::Interrupted { cause, .. } => assert_eq!(cause.kind(), Kind::Denied),
                _ => {}
            }
        }
        renew(&server, &current, Duration::from_millis(50)).await;
    }
    server.stop().await;
}

/// Waiting for a token that never comes has an end, and one that cannot change is not waited for.
#[tokio::test]
async fn what_is_refused_for_good_is_told() {
    let server = start().await;
    let mut known = Known::default();
    let token = known.give("ann", rights(ALL, ALL, true));
    known.enforce(&server);
    let refused = || TokenProvider::new(|| async { Ok("tailmark_wrong".to_owned()) });
    for provider in [refused(), TokenProvider::fixed("tailmark_wrong")] {
        let mut watch = client(&server, provider).watch(WatchOptions::default());
        let error = within("error", watch.next()).await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.reason()), (Kind::Denied, "TOKEN_INVALID"));
    }
    let mut options = WatchOptions::default();
    options.start = Start::Oldest;
    (options.shortest_retry, options.longest_retry) =
        (Duration::from_millis(1), Duration::from_millis(5));
    server.store("a", 1).await;
    let same = token.clone();
    let renewed = TokenProvider::new(move || {
        let token = same.clone();
        async move { Ok(token) }
    });
    for (provider, most) in [(TokenProvider::fixed(token), 0), (renewed, 9)] {
        known.enforce(&server);
        let mut watch = client(&server, provider).watch(options.clone());
        assert!(matches!(within("event", watch.next()).await, Some(Ok(Item::Event(_)))));
        Known::default().enforce(&server);
        let mut interruptions = 0;
        let error = loop {
            match within("item", watch.next()).await.unwrap() {
                Ok(Item::Interrupted { .. }) => interruptions += 1,
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), error.code()), (Kind::Denied, "UNAUTHENTICATED"));
        assert_eq!(interruptions, most);
    }
    let _ = after(0);
    server.stop().await;
}
