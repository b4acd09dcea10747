//! CloudEvents as they come in, one in a JSON object or attributes in lines above an empty line and its data
//! below: refused, or an event that is the same after it went out as one and came in again.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use tailmark_record::json::{CloudEvent, write_cloud_event};
use tailmark_record::{Event, Limits};

fn read(bytes: &[u8]) -> Option<CloudEvent<'_>> {
    if bytes.first() == Some(&b'{') {
        return CloudEvent::structured(bytes).ok();
    }
    let at = bytes.windows(2).position(|two| two == b"\n\n")?;
    let head = std::str::from_utf8(&bytes[..at]).ok()?;
    let attributes = head.lines().filter_map(|line| line.split_once(':'));
    let attributes = attributes.map(|(name, value)| (name, Cow::Borrowed(value)));
    CloudEvent::binary(attributes, &bytes[at + 2..]).ok()
}

fn same(event: &Event<'_>) -> impl PartialEq + std::fmt::Debug + use<> {
    let header = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    // What is not said of bytes is said when they go out.
    let said = event.headers.iter().filter(|(name, _)| *name != "ce-datacontenttype");
    // Stored events have them sorted.
    let mut headers: Vec<_> = said.map(header).collect();
    headers.sort();
    let texts = [event.id, event.topic, event.kind, event.key].map(str::to_owned);
    (texts, event.at, headers)
}

fuzz_target!(|bytes: &[u8]| {
    let Some(read) = read(bytes) else { return };
    let event = read.event(None);
    if Limits::default().check(&event).is_err() {
        return;
    }
    let mut encoded = Vec::new();
    event.write_client_part(&mut encoded);
    let stored = Event::parse(&encoded).expect("what was written can be read");
    let mut json = Vec::new();
    write_cloud_event(&mut json, &stored, "log");
    let again = CloudEvent::structured(&json)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&json)));
    let again = again.event(Some(stored.topic));
    assert_eq!(same(&stored), same(&again), "{}", String::from_utf8_lossy(&json));
});
