//! What one principal or one address may have, at the limit and one over, and that another is none the
//! worse for it.

use std::num::NonZeroU32;

use tailmark::server::{Options, Rates};
use tailmark_wire::chat::chat_service_client::ChatServiceClient;
use tailmark_wire::{chat, feed_v1 as feed};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_types::StatusExt;

use super::{Known, bearing, options, rights};
use crate::support::server::{event, expect, new_log, start_with, until, watch, within};
use crate::support::web::{ask, full, request, with};

const ALL: &[&str] = &[">"];

fn rate(n: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(n)
}

#[tokio::test]
async fn a_principal_has_so_many_watches_over_all_its_connections() {
    let options = Options { watches_per_principal: Some(3), ..options() };
    let server = start_with(new_log(), options).await;
    let mut known = Known::default();
    let [ann, again] = ["ann", "ann"].map(|name| known.give(name, rights(ALL, ALL, false)));
    let bob = known.give("bob", rights(ALL, ALL, false));
    known.enforce(&server);
    let begin = async |token: &str| {
        let mut feed = server.client().await;
        watch(&mut feed, bearing(feed::WatchRequest::default(), token)).await
    };
    // Rooms are watches too, and another token of the same principal is the same principal.
    let mut held = vec![begin(&ann).await.unwrap(), begin(&again).await.unwrap()];
    let mut rooms = ChatServiceClient::new(server.channel().await);
    let listen = || chat::SubscribeRequest { room: "r".into(), ..Default::default() };
    let room = rooms.subscribe_messages(bearing(listen(), &ann)).await.unwrap();
    let over = begin(&ann).await.err().unwrap();
    let metadata = expect(&over, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert_eq!(
        (&*metadata["what"], &*metadata["limit"], &*metadata["actual"]),
        ("watches_per_principal", "3", "4")
    );
    let over = rooms.subscribe_messages(bearing(listen(), &again)).await.err().unwrap();
    expect(&over, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    let bearer = format!("Bearer {ann}");
    let asked = with(request(&server, "GET", "/v1/watch"), &[("authorization", &*bearer)]);
    let answer = ask(server.address, http::Version::HTTP_11, asked).await;
    answer.expect(429, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
    assert!(!answer.header("retry-after").is_empty());
    // The control.
    assert!(begin(&bob).await.is_ok());
    held.pop();
    drop(room);
    until("watches", || server.gauges.watches() <= 2).await;
    assert!(begin(&ann).await.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn a_principal_uses_so_many_connections() {
    let options = Options { connections_per_principal: Some(2), ..options() };
    let server = start_with(new_log(), options).await;
    let mut known = Known::default();
    let [ann, again] = ["ann", "ann"].map(|name| known.give(name, rights(ALL, ALL, false)));
    let bob = known.give("bob", rights(ALL, ALL, false));
    known.enforce(&server);
    let mut clients = Vec::new();
    for token in [&ann, &again] {
        let mut feed = server.client().await;
        feed.get_log(bearing(feed::GetLogRequest {}, token)).await.unwrap();
        clients.push(feed);
    }
    let mut third = server.client().await;
    let over = third.get_log(bearing(feed::GetLogRequest {}, &ann)).await.unwrap_err();
    let metadata = expect(&over, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert_eq!(
        (&*metadata["what"], &*metadata["limit"], &*metadata["actual"]),
        ("connections_per_principal", "2", "3")
    );
    let bearer = format!("Bearer {ann}");
    let asked = with(request(&server, "GET", "/v1/log"), &[("authorization", &*bearer)]);
    let answer = ask(server.address, http::Version::HTTP_11, asked).await;
    answer.expect(429, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
    // The control: another has his own, and on the two that she has she goes on.
    third.get_log(bearing(feed::GetLogRequest {}, &bob)).await.unwrap();
    clients[0].get_log(bearing(feed::GetLogRequest {}, &again)).await.unwrap();
    // One that another uses now is his.
    clients[1].get_log(bearing(feed::GetLogRequest {}, &bob)).await.unwrap();
    third.get_log(bearing(feed::GetLogRequest {}, &ann)).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_watches() {
    let options = Options {
        connections_per_address: Some(2),
        watches_per_address: Some(2),
        ..Options::default()
    };
    let server = start_with(new_log(), options).await;
    let one = server.client().await;
    let two = server.client().await;
    let mut held = Vec::new();
    for feed in [&one, &two] {
        held.push(watch(&mut feed.clone(), feed::WatchRequest::default()).await.unwrap());
    }
    let over = watch(&mut one.clone(), feed::WatchRequest::default()).await.err().unwrap();
    let metadata = expect(&over, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert_eq!(metadata["what"], "watches_per_address");
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let third = endpoint.connect_lazy();
    let mut third = feed::feed_service_client::FeedServiceClient::new(third);
    let over = within("refusal", third.get_log(feed::GetLogRequest {})).await.unwrap_err();
    let metadata = expect(&over, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert_eq!((&*metadata["what"], &*metadata["actual"]), ("connections_per_address", "3"));
    // Another address is not concerned.
    let other = std::net::TcpStream::connect(server.address);
    drop(other);
    drop((held, two));
    until("connections", || server.gauges.connections() <= 1).await;
    server.client().await.get_log(feed::GetLogRequest {}).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_principal_stores_so_much_in_a_second() {
    let rates = Rates { events: rate(20), bytes: rate(100_000) };
    let server = start_with(new_log(), Options { rates, ..options() }).await;
    let mut known = Known::default();
    let ann = known.give("ann", rights(ALL, ALL, false));
    let bob = known.give("bob", rights(ALL, ALL, false));
    let eve = known.give("eve", rights(ALL, ALL, false));
    known.enforce(&server);
    let mut feed = server.client().await;
    let many = |count: usize| tokio_stream::iter(vec![event("a", "b"); count]);
    // A second's worth comes at once, and one more does not.
    let stored = feed.upload_events(bearing(many(20), &ann)).await.unwrap().into_inner();
    assert_eq!(stored.stored, 20);
    let over = feed.upload_events(bearing(many(20), &ann)).await.unwrap_err();
    let metadata = expect(&over, Code::ResourceExhausted, "LIMIT_EXCEEDED");
    assert_eq!((&*metadata["what"], &*metadata["limit"]), ("events_per_principal", "20"));
    assert!(over.get_details_retry_info().is_some(), "when to come back");
    assert!(metadata["received"].parse::<u64>().unwrap() < 20);
    // The control: another's second is another's.
    feed.upload_events(bearing(many(20), &bob)).await.unwrap();

    // Whatever way it comes: as a call, a batch, plain HTTP, a room.
    let publish = || feed::PublishRequest { event: Some(event("a", "b")), expected_head: None };
    loop {
        match feed.publish(bearing(publish(), &ann)).await {
            Ok(_) => {}
            Err(status) => break drop(expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED")),
        }
    }
    let bearer = format!("Bearer {ann}");
    let headers = [("content-type", "application/json"), ("authorization", &*bearer)];
    let answer = loop {
        let mut post = with(request(&server, "POST", "/v1/events"), &headers);
        *post.body_mut() = full(r#"{"topic":"a"}"#);
        let answer = ask(server.address, http::Version::HTTP_11, post).await;
        if answer.status != 200 {
            break answer;
        }
    };
    answer.expect(429, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED");
    assert_eq!(answer.header("retry-after"), "1");

    // A batch that never fits is refused for good: no wait would help.
    use feed::append_request::{Batch, Kind, Open};
    let append = |kind| feed::AppendRequest { kind: Some(kind) };
    for (events, what) in [
        (vec![event("a", "b"); 21], "events_per_principal"),
        (vec![event("a", &"x".repeat(100_000))], "bytes_per_principal"),
    ] {
        let batch = Batch { producer_seq: 1, events, expected_head: None };
        let open = Open { producer_id: "p".into(), epoch: 0 };
        let messages =
            tokio_stream::iter(vec![append(Kind::Open(open)), append(Kind::Batch(batch))]);
        let mut answers = feed.append(bearing(messages, &eve)).await.unwrap().into_inner();
        let status = loop {
            match within("answer", answers.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a regular end"),
                Err(status) => break status,
            }
        };
        let metadata = expect(&status, Code::ResourceExhausted, "LIMIT_EXCEEDED");
        assert_eq!(&*metadata["what"], what);
        assert!(status.get_details_retry_info().is_none(), "{what}");
    }
    server.stop().await;
}

/// Who is told to come back does, and each event is stored once.
#[tokio::test]
async fn a_producer_goes_as_fast_as_it_may() {
    let rates = Rates { events: rate(100), bytes: None };
    let server = start_with(new_log(), Options { rates, ..options() }).await;
    let mut known = Known::default();
    let ann = known.give("ann", rights(ALL, ALL, false));
    known.enforce(&server);
    let mut options = tailmark_client::Options::default();
    options.token = Some(tailmark_client::TokenProvider::fixed(ann));
    let addr = format!("http://{}", server.address);
    let client = tailmark_client::Client::with_options(&addr, options).unwrap();
    let mut options = tailmark_client::ProducerOptions::default();
    options.batch_events = 20;
    let producer = within("open", client.producer("p", options)).await.unwrap();
    let begun = std::time::Instant::now();
    let mut acks = Vec::new();
    for at in 0..250 {
        acks.push(within("send", producer.send(&event("a", &at.to_string()))).await.unwrap());
    }
    for ack in acks {
        within("ack", ack.durable()).await.unwrap();
    }
    assert_eq!(server.head(), 250);
    // The control: a second's worth at once, and the rest as it may.
    assert!(begun.elapsed() >= std::time::Duration::from_millis(1_400), "{:?}", begun.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn names_of_consumers_are_for_admins() {
    let server = start_with(new_log(), options()).await;
    let mut known = Known::default();
    let all = &[">"][..];
    let plain = known.give("plain", rights(all, all, false));
    let admin = known.give("admin", rights(all, all, true));
    known.enforce(&server);
    let asked = feed::WatchRequest { name: "billing".to_owned(), ..feed::WatchRequest::default() };
    let mut client = server.client().await;
    let open = client.watch(bearing(asked, &plain)).await.unwrap();
    for (token, is_told) in [(&plain, false), (&admin, true)] {
        let bearer = format!("Bearer {token}");
        for path in ["/metrics", "/v1/log"] {
            let asked = with(request(&server, "GET", path), &[("authorization", &*bearer)]);
            let answer = ask(server.address, http::Version::HTTP_11, asked).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.text().contains("billing"), is_told, "{path}");
        }
    }
    drop(open);
    server.stop().await;
}
