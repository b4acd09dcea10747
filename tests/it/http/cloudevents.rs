//! CloudEvents 1.0 over HTTP: in by all three ways of their binding, out of a watch and by number.

use serde_json::{Value, json};

use crate::support::server::start;
use crate::support::web::{BOTH, Events, ask, full, get, post, request, with};

const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
const BATCH: &str = "application/cloudevents-batch+json";

fn event(id: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/shop", "type": "order.paid", "subject": "order 1",
        "time": "2026-01-31T09:30:00Z", "datacontenttype": "application/json", "partitionkey": "k",
        "data": {"total": 12.5}
    })
}

#[tokio::test]
async fn all_three_ways_are_taken_and_give_the_same_back() {
    let server = start().await;
    assert_eq!(post(&server, STRUCTURED, event("1").to_string()).await.status, 200);
    let batch = json!([event("2"), event("1"), event("3")]).to_string();
    let answer = post(&server, BATCH, batch).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // The first is known already.
    assert_eq!(
        (&answer.json()["stored"], &answer.json()["duplicates"]),
        (&"2".into(), &"1".into())
    );
    for (at, version) in BOTH.into_iter().enumerate() {
        let id = (4 + at).to_string();
        let mut request = with(
            request(&server, "POST", "/v1/events"),
            &[
                ("content-type", "application/json"),
                ("ce-specversion", "1.0"),
                ("ce-id", &id),
                ("ce-source", "/shop"),
                ("ce-type", "order.paid"),
                ("ce-subject", "order%201"),
                ("ce-time", "2026-01-31T09:30:00Z"),
                ("ce-partitionkey", "k"),
            ],
        );
        *request.body_mut() = full(r#"{"total": 12.5}"#);
        let answer = ask(server.address, version, request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(server.head(), 5);
    let mut events =
        Events::open(&server, "/v1/watch?from=oldest&until_caught_up&format=cloudevents").await;
    for seq in 1..=5 {
        let one = get(&server, &format!("/v1/events/{seq}?format=cloudevents")).await;
        assert_eq!(one.header("content-type"), "application/cloudevents+json");
        let sent = events.event().await.json();
        assert_eq!(sent, one.json());
        let mut expected = event(&seq.to_string());
        expected["topic"] = "order.paid".into();
        expected["sequence"] = seq.to_string().into();
        expected["cursor"] = server.cursor(seq).into();
        assert_eq!(sent, expected);
    }
    // As ours, too.
    let ours = get(&server, "/v1/events/1?json=value").await.json();
    assert_eq!((&ours["id"], &ours["body"]["total"]), (&"/shop 1".into(), &12.5.into()));
    server.stop().await;
}

#[tokio::test]
async fn the_topic_is_the_type_or_what_the_url_says() {
    let server = start().await;
    let mut request =
        with(request(&server, "POST", "/v1/events?topic=a.b"), &[("content-type", STRUCTURED)]);
    *request.body_mut() = full(event("1").to_string());
    assert_eq!(ask(server.address, BOTH[0], request).await.status, 200);
    assert_eq!(get(&server, "/v1/events/1").await.json()["topic"], "a.b");
    // A type that is no topic needs one.
    let mut other = event("2");
    other["type"] = "order paid".into();
    let refused = post(&server, STRUCTURED, other.to_string()).await;
    let facts = refused.expect(400, "INVALID_ARGUMENT", "INVALID_FIELD");
    assert_eq!(facts["field"], "type");
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_cloud_event_is_refused_and_what_came_before_it_stays() {
    let server = start().await;
    let mut bad = event("2");
    bad.as_object_mut().unwrap().remove("source");
    let refused = post(&server, BATCH, json!([event("1"), bad, event("3")]).to_string()).await;
    let facts = refused.expect(400, "INVALID_ARGUMENT", "EVENT_MALFORMED");
    assert!(refused.text().contains("source: is missing"), "{}", refused.text());
    assert_eq!((&facts["index"], server.head()), (&"1".into(), 1));
    for (content_type, body) in [
        (STRUCTURED, "[]"),
        (STRUCTURED, ""),
        (BATCH, "{}"),
        (BATCH, "[1"),
        (BATCH, "[1]"),
        (BATCH, "[[]]"),
        (STRUCTURED, "{\"specversion\":\"1.0\"}"),
    ] {
        post(&server, content_type, body).await.expect(400, "INVALID_ARGUMENT", "EVENT_MALFORMED");
    }
    assert_eq!(post(&server, BATCH, "[]").await.status, 200);
    assert_eq!(post(&server, "application/cloudevents+avro", "x").await.status, 415);
    get(&server, "/v1/watch?format=xml").await.expect(400, "INVALID_ARGUMENT", "INVALID_FIELD");
    assert_eq!(server.head(), 1);
    server.stop().await;
}
