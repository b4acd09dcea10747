//! `GET /openapi.json` beside what is really there: paths, parameters, reasons and answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tailmark_record::Reason;
use tailmark_wire::feed_v1 as pb;

use crate::support::server::{TestServer, start};
use crate::support::web::{Events, get, post};

async fn document(server: &TestServer) -> Value {
    let answer = get(server, "/openapi.json").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    answer.json()
}

/// What of a value is not as a schema says; the keywords that the document uses, and no others.
fn problems(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    const KNOWN: [&str; 17] = [
        "type",
        "properties",
        "additionalProperties",
        "required",
        "items",
        "enum",
        "const",
        "pattern",
        "format",
        "description",
        "contentEncoding",
        "minLength",
        "minimum",
        "$ref",
        "summary",
        "title",
        "default",
    ];
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.trim_start_matches('#')).unwrap_or(&Value::Null);
        assert!(target.is_object(), "{name} leads nowhere");
        return problems(root, target, value, at, found);
    }
    for key in schema.as_object().unwrap().keys() {
        assert!(KNOWN.contains(&key.as_str()), "{key} is not looked at");
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = match &schema["type"] {
        Value::Null => vec![kind],
        Value::String(one) => vec![one.as_str()],
        all => all.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect(),
    };
    if !kinds.contains(&kind) {
        found.push(format!("{at} is {kind}, not {kinds:?}"));
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        found.push(format!("{at} is {value}"));
    }
    if schema["pattern"] == "^[0-9]+$" {
        let text = value.as_str().unwrap_or_default();
        if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
            found.push(format!("{at} is no number: {value}"));
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            found.push(format!("{at} lacks {name}"));
        }
    }
    for (name, part) in value.as_object().into_iter().flatten() {
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => found.push(format!("{at} has {name}")),
            (Value::Null, Value::Null) => {}
            (Value::Null, other) | (other, _) => {
                problems(root, other, part, &format!("{at}.{name}"), found);
            }
        }
    }
    if let (Some(all), Value::Object(_)) = (value.as_array(), &schema["items"]) {
        for part in all {
            problems(root, &schema["items"], part, &format!("{at}[]"), found);
        }
    }
}

fn of(document: &Value, name: &str, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let schema = &document["components"]["schemas"][name];
    assert!(schema.is_object(), "no schema {name}");
    problems(document, schema, value, name, &mut found);
    found
}

#[tokio::test]
async fn it_has_every_path_and_no_other() {
    let server = start().await;
    let document = document(&server).await;
    assert_eq!(
        (&document["openapi"], &document["info"]["version"]),
        (&json!("3.1.0"), &json!("0.1.0"))
    );
    let source = include_str!("../../../src/server/http/mod.rs");
    let routes = source.split(".route(").skip(1);
    let routes: BTreeSet<_> = routes.map(|part| part.split('"').nth(1).unwrap()).collect();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.keys().map(String::as_str).collect::<BTreeSet<_>>(), routes);
    // The parameters are those that the server names when it gets another.
    for (path, methods) in paths.iter().filter(|(path, _)| path.starts_with("/v1/")) {
        for (method, operation) in methods.as_object().unwrap() {
            let all = operation["parameters"].as_array().into_iter().flatten();
            let ours =
                all.filter(|one| one["in"] == "query").map(|one| one["name"].as_str().unwrap());
            let ours: BTreeSet<_> = ours.collect();
            let asked = format!("{}?nonsense=1", path.replace("{seq}", "1"));
            let answer = match method.as_str() {
                "get" => get(&server, &asked).await,
                _ => post(&server, "application/cloudevents+json", "").await,
            };
            if method == "get" {
                let message = answer.json()["message"].as_str().unwrap().to_owned();
                let known = message.split("known: ").nth(1).unwrap().to_owned();
                let known: BTreeSet<_> = known.split(", ").filter(|name| *name != "none").collect();
                assert_eq!(ours, known, "{path}");
            }
        }
    }
    let reasons = &document["components"]["schemas"]["Error"]["properties"]["reason"]["enum"];
    let reasons: Vec<_> =
        reasons.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(reasons, Reason::ALL.iter().map(|it| it.as_str()).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn what_a_daemon_of_a_shared_journal_says_is_as_it_says() {
    let server = start().await;
    let document = document(&server).await;
    let heard = Some(prost_types::Duration { seconds: 1, nanos: 5_000_000 });
    let journal = pb::JournalStatus {
        stream: "TM_x".to_owned(),
        daemon: "d1".to_owned(),
        role: pb::DaemonRole::Following.into(),
        term: 3,
        slot: 41,
        writer: "d2".to_owned(),
        durability: pb::Durability::Replicated.into(),
        writer_heard: heard,
        trouble: "a frame is missing".to_owned(),
        daemons: vec![pb::Daemon {
            name: "d1".to_owned(),
            address: "http://127.0.0.1:1".to_owned(),
            role: pb::DaemonRole::Writing.into(),
            term: 3,
            slot: 41,
            head_seq: 7,
            lag_slots: 1,
            heard,
            version: "0.1.0".to_owned(),
            is_this: true,
        }],
        replicas: vec![pb::JournalReplica {
            server: "s1".to_owned(),
            leads: true,
            is_current: true,
            is_offline: true,
            lag: 4,
            differs_at_slot: 21,
        }],
        weaknesses: vec!["one replica".to_owned()],
        takeovers: 1,
        forwarded: 2,
        forwards_failed: 1,
        in_doubt: 1,
    };
    let log_id = "8f14e45f-ceea-467f-9a3c-5f2d1b0c7a11".to_owned();
    let status = pb::LogStatus { log_id, journal: Some(journal), ..pb::LogStatus::default() };
    let said: Value = serde_json::from_slice(&tailmark_wire::json::log_status(&status)).unwrap();
    assert_eq!(of(&document, "LogStatus", &said), Vec::<String>::new());
    // Nothing that a daemon says is missing in the document, and nothing else is in it.
    let schema =
        &document["components"]["schemas"]["LogStatus"]["properties"]["journal"]["properties"];
    for (part, value) in [
        ("", &said["journal"]),
        ("/daemons/items/properties", &said["journal"]["daemons"][0]),
        ("/replicas/items/properties", &said["journal"]["replicas"][0]),
    ] {
        let told: BTreeSet<_> = value.as_object().unwrap().keys().collect();
        let known: BTreeSet<_> =
            schema.pointer(part).unwrap().as_object().unwrap().keys().collect();
        assert_eq!(told, known, "{part}");
    }
    server.stop().await;
}

#[tokio::test]
async fn answers_are_as_it_says() {
    let server = start().await;
    let document = document(&server).await;
    let sent = json!({
        "topic": "a.b", "body": {"x": [1]}, "id": "i", "type": "t", "key": "k", "headers": {"h": "v"},
        "at": "2026-01-31T09:30:00Z"
    });
    let none: Vec<String> = Vec::new();
    assert_eq!(of(&document, "NewEvent", &sent), none);
    let stored = post(&server, "application/json", sent.to_string()).await.json();
    assert_eq!(of(&document, "UploadResult", &stored), none);
    let data = json!({"topic": "a", "data": "/wA="}).to_string();
    assert_eq!(post(&server, "application/json", data).await.status, 200);
    for (path, name) in [
        ("/v1/events/1", "Event"),
        ("/v1/events/1?json=value", "Event"),
        ("/v1/events/2", "Event"),
        ("/v1/events/1?format=cloudevents", "CloudEvent"),
        ("/v1/events/2?format=cloudevents", "CloudEvent"),
        ("/v1/topics", "Topics"),
        ("/v1/topics?page_size=1", "Topics"),
        ("/v1/log", "LogStatus"),
        ("/v1/history", "History"),
        ("/v1/principal", "Principal"),
    ] {
        let answer = get(&server, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(of(&document, name, &answer.json()), none, "{path}");
    }
    let mut events = Events::open(&server, "/v1/watch?from=oldest&until_caught_up").await;
    assert_eq!(of(&document, "Event", &events.event().await.json()), none);
    for path in ["/v1/events/9", "/v1/events/x", "/v1/watch?from=soon", "/health"] {
        let answer = get(&server, path).await;
        assert!(answer.status.as_u16() >= 400, "{path}");
        assert_eq!(of(&document, "Error", &answer.json()), none, "{path}");
    }
    // What is not so is seen.
    for (name, value) in [
        ("Event", json!({"id": "i", "topic": "a", "seq": 1, "cursor": "c", "appended_at": "t"})),
        ("Event", json!({"id": "i", "topic": "a", "cursor": "c", "appended_at": "t"})),
        ("UploadResult", json!({"recieved": 1})),
        ("Topics", json!({"topics": [{"events": "1"}]})),
        ("Error", json!({"code": "c", "reason": "NO_SUCH_REASON", "message": "m"})),
        ("LogStatus", json!({"log_id": "i", "limits": {"watches": "many"}})),
    ] {
        assert!(!of(&document, name, &value).is_empty(), "{name} {value}");
    }
    server.stop().await;
}
