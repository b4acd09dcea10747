//! Bodies that are JSON: taken as values, and given as values to who asks for that.

use crate::support::server::start;
use crate::support::web::{Events, get, post};

const BODY: &str = r#"{"b":1.10,"a":[12345678901234567890]}"#;

#[tokio::test]
async fn a_value_is_stored_as_its_text_and_given_back_as_one() {
    let server = start().await;
    let sent =
        format!("{{\"topic\":\"a\",\"body\":{BODY}}}\n{{\"topic\":\"a\",\"body\":\"{{x\"}}\n");
    let answer = post(&server, "application/x-ndjson", sent).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let single = format!("{{\"topic\":\"a\",\"body\":{BODY}}}");
    assert_eq!(post(&server, "application/json", single).await.status, 200);
    for seq in [1, 3] {
        let text = get(&server, &format!("/v1/events/{seq}")).await;
        assert_eq!(text.json()["body"], BODY, "{seq}");
        let value = get(&server, &format!("/v1/events/{seq}?json=value")).await;
        assert!(value.text().contains(&format!("\"body\":{BODY},")), "{}", value.text());
    }
    // What is none stays what it is.
    assert_eq!(get(&server, "/v1/events/2?json=value").await.json()["body"], "{x");
    for (json, expected) in [("", false), ("&json=text", false), ("&json=value", true)] {
        let path = format!("/v1/watch?from=oldest&until_caught_up{json}");
        let mut events = Events::open(&server, &path).await;
        let is_value = events.event().await.json()["body"].is_object();
        assert_eq!(is_value, expected, "{path}");
    }
    for path in ["/v1/events/1?json=guess", "/v1/watch?json=1"] {
        get(&server, path).await.expect(400, "INVALID_ARGUMENT", "INVALID_FIELD");
    }
    server.stop().await;
}
