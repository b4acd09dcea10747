//! Calls, uploads and producers under every member: what the error says is so, and nothing is stored
//! twice.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tailmark_client::{Client, Error, Kind, Producer, ProducerOptions, Saying};
use tailmark_wire::feed_v1 as pb;

use super::members::{self, Member, No, Yes, each};
use super::{When, order, setup};
use crate::support::daemon::program;
use crate::support::intermediary::Act;
use crate::support::server::{event, within};

fn named(id: &str) -> pb::Event {
    pb::Event { id: id.to_owned(), ..event("a", "") }
}

/// What a call that ended so says of itself.
fn check(member: &Member, error: &Error, maybe: bool) {
    member.check(error);
    assert_eq!(error.may_have_applied(), maybe, "{error:?}");
}

#[tokio::test]
async fn a_publish_that_never_arrived_says_so_where_that_is_certain() {
    each(members::instead(), |when, member| async move {
        let (server, proxy, client) = setup().await;
        order(&proxy, when, &member, "/Publish");
        let error = within("publish", client.publish(named("x"), None)).await.unwrap_err();
        check(&member, &error, member.maybe);
        order(&proxy, when, &member, "/Publish");
        let saying = Saying::new("ops", "ann", "hi");
        let error = within("say", client.say(&saying)).await.unwrap_err();
        check(&member, &error, member.maybe);
        assert!(proxy.is_done() && server.head() == 3);
        // A read changes nothing, whatever becomes of it.
        order(&proxy, when, &member, "/GetLog");
        let error = within("log", client.log()).await.unwrap_err();
        check(&member, &error, false);
        let again = within("again", client.publish(named("x"), None)).await.unwrap();
        assert!(!again.duplicate && again.seq == 4);
        server.stop().await;
    })
    .await;
}

/// The members that a call can meet after it was done.
fn after_all() -> Vec<(When, Member)> {
    let mut all = members::instead();
    all.retain(|(_, member)| member.maybe);
    all.iter_mut().for_each(|(when, _)| *when = When::Answer);
    all
}

#[tokio::test]
async fn a_call_whose_answer_was_replaced_may_have_been_done_and_can_be_made_again() {
    each(after_all(), |when, member| async move {
        let (server, proxy, client) = setup().await;
        order(&proxy, when, &member, "/Publish");
        let error = within("publish", client.publish(named("x"), None)).await.unwrap_err();
        check(&member, &error, true);
        assert_eq!(server.head(), 4, "it is stored all the same");
        let again = within("again", client.publish(named("x"), None)).await.unwrap();
        assert!(again.duplicate && again.seq == 4);
        order(&proxy, when, &member, "/UploadEvents");
        let error = within("upload", upload(&client, 5)).await.unwrap_err();
        check(&member, &error, true);
        assert_eq!(server.head(), 9, "it is stored all the same");
        let again = within("again", upload(&client, 5)).await.unwrap();
        assert_eq!((again.received, again.stored, again.duplicates), (5, 0, 5));
        assert!(proxy.is_done());
        server.stop().await;
    })
    .await;
}

async fn upload(client: &Client, count: usize) -> Result<pb::UploadResult, Error> {
    let events = (0..count).map(|at| Bytes::from(named(&format!("u{at}")).encode_to_vec()));
    client.upload(tokio_stream::iter(events.collect::<Vec<_>>())).await
}

#[tokio::test]
async fn an_upload_that_never_arrived_says_so_where_that_is_certain() {
    each(members::instead(), |when, member| async move {
        let (server, proxy, client) = setup().await;
        order(&proxy, when, &member, "/UploadEvents");
        let error = within("upload", upload(&client, 5)).await.unwrap_err();
        // Found too large is found on the way: what came before was passed on.
        check(&member, &error, member.maybe || error.http_status() == Some(413));
        assert_eq!(server.head(), 3);
        let again = within("again", upload(&client, 5)).await.unwrap();
        assert_eq!((again.received, again.stored), (5, 5));
        server.stop().await;
    })
    .await;
}

/// Far more than windows hold: the answer comes while most of it is not sent.
#[tokio::test]
async fn an_answer_in_the_middle_of_a_large_upload_is_read() {
    let all = [413, 503, 401].map(|status| {
        let mut all = members::instead();
        all.retain(|(_, member)| member.name == format!("HTTP {status}"));
        all.remove(0)
    });
    each(all.into(), |when, member| async move {
        let (server, proxy, client) = setup().await;
        order(&proxy, when, &member, "/UploadEvents");
        let large = pb::Event { body: "x".repeat(500_000), ..event("a", "") };
        let large = Bytes::from(large.encode_to_vec());
        let events = tokio_stream::iter(std::iter::repeat_n(large, 100));
        let error = within("upload", client.upload(events)).await.unwrap_err();
        member.check(&error);
        assert_eq!(server.head(), 3);
        server.stop().await;
    })
    .await;
}

fn quick() -> ProducerOptions {
    let mut options = ProducerOptions::default();
    (options.shortest_retry, options.longest_retry) =
        (Duration::from_millis(1), Duration::from_millis(20));
    options
}

async fn open(client: &Client) -> Result<Producer, Error> {
    within("producer", client.producer("p", quick())).await
}

const APPEND: &str = "/Append";

#[tokio::test]
async fn a_producer_is_opened_over_all_that_passes() {
    each(members::instead_or_at_once(), |when, member| async move {
        let (server, proxy, client) = setup().await;
        order(&proxy, when, &member, APPEND);
        let producer = match open(&client).await {
            Ok(producer) => {
                assert_eq!(member.passes, Yes);
                producer
            }
            Err(error) => {
                assert_ne!(member.passes, Yes);
                member.check(&error);
                open(&client).await.unwrap()
            }
        };
        assert!(proxy.is_done());
        within("ack", producer.send(&event("a", "")).await.unwrap().durable()).await.unwrap();
        within("close", producer.close()).await.unwrap();
        assert_eq!(server.head(), 4);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_producer_stores_each_event_once_over_all_that_passes() {
    let all = [members::instead_or_at_once(), members::midway()].concat();
    each(all, |when, member| async move {
        let (server, proxy, client) = setup().await;
        let producer = open(&client).await.unwrap();
        within("ack", producer.send(&event("a", "")).await.unwrap().durable()).await.unwrap();
        order(&proxy, when, &member, APPEND);
        if when != When::More {
            proxy.cut();
        }
        // Midway the first is stored, and its ack is what gets lost.
        let ack = within("ack", producer.send(&event("a", "")).await.unwrap().durable()).await;
        match ack {
            Ok(durable) => {
                assert_ne!(member.passes, No);
                assert_eq!(durable.seq.unwrap().get(), 5);
                let next = producer.send(&event("a", "")).await.unwrap();
                let next = within("ack", next.durable()).await.unwrap();
                assert_eq!(next.seq.unwrap().get(), 6);
                assert_eq!(server.head(), 6, "each once");
            }
            Err(error) => {
                assert_eq!(member.passes, No);
                member.check(&error);
                assert!(error.may_have_applied() || server.head() == 4, "{error:?}");
            }
        }
        assert!(proxy.is_done());
        drop(producer);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn who_is_told_when_to_come_back_waits_so_long() {
    let (server, proxy, client) = setup().await;
    let after = |value| Act::Http(503, value, "");
    for (act, asked) in [
        (after(&[("retry-after", "7")]), Some(7)),
        (after(&[("retry-after", "99999999999999")]), Some(3_600)),
        (after(&[("retry-after", "99999999999999999999999")]), None),
        (after(&[("retry-after", "-1")]), None),
        (after(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")]), None),
        (after(&[]), None),
        // Nobody is to come back to these.
        (Act::Http(403, &[("retry-after", "7")], ""), None),
    ] {
        proxy.order(When::Request, "/GetLog", act.clone(), 1);
        let error = within("log", client.log()).await.unwrap_err();
        assert_eq!(error.retry_delay(), asked.map(Duration::from_secs), "{act:?}");
    }
    server.stop().await;
}

/// What a person reads who runs the program.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_says_who_answered_and_what_to_do() {
    let (server, proxy, _) = setup().await;
    const HTML: &[(&str, &str)] = &[("content-type", "text/html"), ("server", "nginx")];
    for (status, exit, said, hint) in [
        (502, 5, "answered 502 Bad Gateway in the server's place (nginx)", "is the daemon running"),
        (503, 5, "503 Service Unavailable", "is the daemon running"),
        (429, 5, "429 Too Many Requests", "too many requests"),
        (401, 5, "401 Unauthorized", "lets through"),
        (403, 5, "403 Forbidden", "lets through"),
        (404, 5, "404 Not Found", "is this a tailmark server?"),
        (413, 5, "413 Payload Too Large", "docs/http.md"),
        (400, 5, "400 Bad Request", "docs/http.md"),
        (200, 5, "200 OK with text/html", "is this a tailmark server?"),
    ] {
        for (args, path) in [
            (&["status"][..], "/GetLog"),
            (&["watch"], "/GetLog"),
            (&["publish", "a", "b"], "/Publish"),
            (&["metrics", "--once"], "/StreamMetrics"),
        ] {
            proxy.order(When::Request, path, Act::Http(status, HTML, "<p>"), 1);
            let mut command = program(args);
            command.arg("--addr").arg(proxy.url());
            let run = tokio::task::spawn_blocking(move || command.output().unwrap());
            let output = within("the program", run).await.unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            let name = format!("{status} {args:?}: {text}");
            assert_eq!(output.status.code(), Some(exit), "{name}");
            assert!(text.contains(said) && text.contains("hint:"), "{name}");
            // What may be stored is what matters most to who stores.
            let is_publish = args[0] == "publish";
            let maybe = is_publish && matches!(status, 200 | 400 | 502 | 503);
            assert!(text.contains(if maybe { "it may be stored" } else { hint }), "{name}");
        }
    }
    // Once: what was ordered for calls that were not made would be found here.
    assert!(proxy.is_done() && server.head() == 3);
    server.stop().await;
}

#[tokio::test]
async fn what_speaks_no_http2_is_told_apart() {
    let (server, proxy, client) = setup().await;
    let http1: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    proxy.order(When::Connection, "", Act::Bytes(http1), 1);
    let error = within("log", client.log()).await.unwrap_err();
    assert!(error.is_foreign() && error.http_status().is_none(), "{error:?}");
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Unavailable, true));
    server.stop().await;
}
