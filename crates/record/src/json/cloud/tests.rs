use serde_json::{Value, json};

use super::*;
use crate::Seq;

const LOG: &str = "urn:uuid:1b4e28ba-2fa1-41d2-883f-0016d3cca427";

fn read(value: &Value) -> Result<(String, String, Value), String> {
    let text = value.to_string();
    let read = CloudEvent::structured(text.as_bytes()).map_err(|error| error.to_string())?;
    let event = read.event(None);
    let mut out = Vec::new();
    write_cloud_event(&mut out, &event, LOG);
    let again = serde_json::from_slice(&out).unwrap();
    Ok((event.id.to_owned(), event.body.to_owned(), again))
}

fn least() -> Value {
    json!({"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.paid"})
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut event = least();
    event[name] = value.into();
    event
}

#[test]
fn what_came_in_goes_out_as_the_same() {
    for event in [
        least(),
        with("data", json!({"x": 1.5, "y": [true, null]})),
        with("data", "a JSON string"),
        with("data_base64", "/wAB"),
        with("subject", "order 7"),
        with("time", "2026-01-31T09:30:00Z"),
        with("dataschema", "https://shop.example/schema"),
        with("partitionkey", "k"),
        with("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        let (id, _, mut again) = read(&event).unwrap();
        assert_eq!(id, "/shop 7");
        assert_eq!(again["topic"], "order.paid");
        again.as_object_mut().unwrap().remove("topic");
        // Said, where it was implied.
        if again.get("datacontenttype").is_some() && event.get("datacontenttype").is_none() {
            again.as_object_mut().unwrap().remove("datacontenttype");
        }
        assert_eq!(again, event);
    }
    let mut text = with("data", "<a/>");
    text["datacontenttype"] = "application/xml".into();
    let (_, body, again) = read(&text).unwrap();
    assert_eq!((body.as_str(), &again["data"]), ("<a/>", &json!("<a/>")));
    let mut string = with("data", "text");
    string["datacontenttype"] = "application/json; charset=utf-8".into();
    let (_, body, again) = read(&string).unwrap();
    assert_eq!((body.as_str(), &again["data"]), ("\"text\"", &json!("text")));
}

#[test]
fn numbers_and_the_order_of_keys_stay() {
    let text = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"b":1.10,"a":[12345678901234567890]}}"#;
    let read = CloudEvent::structured(text.as_bytes()).unwrap();
    assert_eq!(read.event(None).body, r#"{"b":1.10,"a":[12345678901234567890]}"#);
    assert_eq!(read.event(Some("elsewhere")).topic, "elsewhere");
}

#[test]
fn an_event_of_ours_is_one_too() {
    let event = Event {
        id: "i",
        topic: "a.b",
        body: "hello",
        seq: Seq::new(5),
        cursor: "c",
        headers: vec![("h", "v")],
        appended_at: Timestamp::parse("2026-01-31T09:30:00Z"),
        ..Event::default()
    };
    let written = |event: &Event<'_>| {
        let mut out = Vec::new();
        write_cloud_event(&mut out, event, LOG);
        serde_json::from_slice::<Value>(&out).unwrap()
    };
    assert_eq!(
        written(&event),
        json!({
            "specversion": "1.0", "id": "i", "source": LOG, "type": "a.b", "time": "2026-01-31T09:30:00Z",
            "topic": "a.b", "sequence": "5", "cursor": "c", "datacontenttype": "text/plain", "data": "hello"
        })
    );
    let json = written(&Event { body: "{\"x\":1}", kind: "k", ..event.clone() });
    assert_eq!((&json["type"], &json["data"]), (&json!("k"), &json!({"x": 1})));
    // What says that it is JSON and is not: nobody may take it for a JSON string.
    let headers = vec![(CONTENT_TYPE, "application/json")];
    let broken = written(&Event { body: "{x", headers, ..event });
    assert_eq!((&broken["data_base64"], broken.get("data")), (&json!("e3g="), None));
}

#[test]
fn attributes_that_stand_apart_are_read() {
    let attributes =
        [("specversion", "1.0"), ("id", "1"), ("source", "s"), ("type", "t"), ("myext", "5")];
    let attributes = || attributes.map(|(name, value)| (name, Cow::Borrowed(value)));
    let text = CloudEvent::binary(attributes(), b"text").unwrap();
    let event = text.event(None);
    assert_eq!((event.body, event.data.len()), ("text", 0));
    assert_eq!(event.headers, [("ce-myext", "5"), ("ce-source", "s")]);
    let data = CloudEvent::binary(attributes(), &[0xff, 0]).unwrap();
    assert_eq!((data.event(None).body, data.event(None).data), ("", &[0xff, 0][..]));
}

#[test]
fn what_is_wrong_is_named() {
    for (event, words) in [
        (json!({}), "specversion: is missing"),
        (json!({"specversion": "1.0", "id": "1", "type": "t"}), "source: is missing"),
        (with("specversion", "0.3"), "specversion: 1.0 is known, not 0.3"),
        (with("time", "yesterday"), "time: expected"),
        (with("My-Ext", "1"), "a to z and 0 to 9"),
        (with("ext", json!({})), "ext: expected a plain value"),
        (with("data_base64", "?"), "data_base64: "),
    ] {
        let said = read(&event).unwrap_err();
        assert!(said.contains(words), "{event}: {said}");
    }
    // Of two values one would be lost.
    let least = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t""#;
    for name in ["id", "data", "ext"] {
        let said =
            CloudEvent::structured(format!(r#"{least},"{name}":"2","{name}":"3"}}"#).as_bytes())
                .map(drop)
                .unwrap_err();
        assert_eq!(
            (said.field(), said.message()),
            (Some(name), &*format!("{name}: is given twice"))
        );
    }
    let mut both = with("data", 1);
    both["data_base64"] = "".into();
    assert!(read(&both).unwrap_err().contains("not both"));
}

#[test]
fn a_header_that_is_no_attribute_is_none_and_says_nothing_twice() {
    let names = [
        "ce-specversion",
        "ce-id",
        "ce-type",
        "ce-time",
        "ce-partitionkey",
        "ce-data",
        "ce-data_base64",
        "ce-topic",
        "ce-cursor",
        "ce-erased",
        "ce-",
        "ce-Upper",
        "ce-a-b",
        "ce-ä",
    ];
    // The sender's own sequence stands in the place of ours.
    let good =
        [("ce-subject", "order 7"), ("ce-x1", "y"), ("ce-dataschema", "s"), ("ce-sequence", "007")];
    let headers = names.iter().map(|name| (*name, "forged")).chain(good).collect();
    let seq = Seq::new(5);
    let event =
        Event { id: "i", topic: "a.b", body: "x", key: "k", headers, seq, ..Event::default() };
    let mut out = Vec::new();
    write_cloud_event(&mut out, &event, LOG);
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains("forged"), "{text}");
    let fields = Fields::parse(&text).unwrap();
    let mut all: Vec<_> = fields.iter().map(|(name, _)| name).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "{text}");
    for (name, value) in good {
        let name = name.strip_prefix("ce-").unwrap();
        assert_eq!(fields.get(name).unwrap().get(), format!("\"{value}\""));
    }
    CloudEvent::structured(text.as_bytes()).unwrap();
    let attributes = [("specversion", "1.0"), ("id", "7"), ("source", "s"), ("type", "t")];
    let binary = |more: &[(&'static str, &'static str)]| {
        let all = attributes.iter().chain(more).map(|(name, value)| (*name, (*value).into()));
        CloudEvent::binary(all.collect::<Vec<_>>(), b"x").map(drop)
    };
    binary(&[]).unwrap();
    assert!(binary(&[("data", "y")]).unwrap_err().to_string().contains("data"));
}

#[test]
fn a_repeat_in_another_mode_is_the_same_event() {
    let structured = |said: Option<&str>| {
        let mut event = with("data", json!({"a": 1}));
        event["zext"] = "z".into();
        event["aext"] = "a".into();
        if let Some(said) = said {
            event["datacontenttype"] = said.into();
        }
        event.to_string()
    };
    let attributes = [
        ("specversion", "1.0"),
        ("aext", "a"),
        ("datacontenttype", "application/json"),
        ("type", "order.paid"),
        ("zext", "z"),
        ("id", "7"),
        ("source", "/shop"),
    ];
    let attributes = attributes.map(|(name, value)| (name, Cow::Borrowed(value)));
    let binary = CloudEvent::binary(attributes, br#"{"a":1}"#).unwrap();
    for said in [None, Some("application/json"), Some("Application/JSON")] {
        let text = structured(said);
        let same = CloudEvent::structured(text.as_bytes()).unwrap();
        assert_eq!(same.event(None), binary.event(None), "{said:?}");
    }
    // What says more than that stays.
    let text = structured(Some("application/vnd.a+json"));
    let other = CloudEvent::structured(text.as_bytes()).unwrap();
    assert!(other.event(None).headers.contains(&("ce-datacontenttype", "application/vnd.a+json")));
}
