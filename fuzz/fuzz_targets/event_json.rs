//! A line of JSONL, as `upload` and `POST /v1/events` read it: refused, or an event that is the same
//! after it was written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailmark_record::json::{EventJson, write_event};
use tailmark_record::{Event, Limits};

fuzz_target!(|line: &[u8]| {
    let Ok(read) = EventJson::parse(line) else { return };
    let event = read.event();
    if Limits::default().check(&event).is_err() {
        return;
    }
    let mut encoded = Vec::new();
    event.write_client_part(&mut encoded);
    let decoded = Event::parse(&encoded).expect("what was written can be read");
    let mut json = Vec::new();
    write_event(&mut json, &decoded);
    let again = EventJson::parse(&json).expect("what was written can be read");
    let again = again.event();
    let same = |event: &Event<'_>| {
        let header = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        // Stored events have them sorted.
        let mut headers: Vec<_> = event.headers.iter().map(header).collect();
        headers.sort();
        let texts = [event.id, event.topic, event.body, event.kind, event.key].map(str::to_owned);
        (texts, event.data.to_vec(), event.at, headers)
    };
    assert_eq!(same(&event), same(&again), "{}", String::from_utf8_lossy(&json));
});
