//! Events and markers as proto3 JSON with the proto's field names.
//!
//! Written: 64-bit numbers as strings, RFC 3339 UTC times, padded base64, empty fields left out.
//! Control characters are always escaped, DEL and C1 too, so that a line is safe on a terminal.
//! Read: as leniently as proto3 JSON demands (either case of names, `null` for the default, both
//! base64 alphabets, any offset), except that a field which is not ours is an error that names it.
//! What only the server sets (`seq`, `cursor`, `appended_at`) is passed over, so that what was
//! written can be read back in; what says that an event was erased is read, and is the reader's to
//! refuse. One line is one object; nothing here splits lines.

mod cloud;
mod data;
mod erased;
mod error;
mod value;

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{Event, Gap, Marker, Timestamp, excerpt};
pub use cloud::{CloudEvent, write_cloud_event};
use data::{Data, STANDARD_LENIENT};
use erased::ErasedJson;
pub use error::JsonError;
use value::AnyValue;
pub use value::{Bodies, Elements, Fields, readable, value_of};

/// Appends an event as one JSON object, without a line end.
pub fn write_event(out: &mut Vec<u8>, event: &Event<'_>) {
    write_event_as(out, event, Bodies::Text);
}

/// The same, with its body in one of two ways.
pub fn write_event_as(out: &mut Vec<u8>, event: &Event<'_>, bodies: Bodies) {
    let value = match bodies {
        Bodies::Text => None,
        Bodies::Value => value_of(event.body),
    };
    let mut object = Object::open(out);
    object.text("id", event.id);
    object.text("topic", event.topic);
    match value {
        Some(value) => object.value("body", value),
        None => object.text("body", event.body),
    }
    object.time("at", event.at);
    object.number("seq", event.seq.get());
    object.text("cursor", event.cursor);
    object.bytes("data", event.data);
    object.text("type", event.kind);
    object.text("key", event.key);
    object.named_texts("headers", event.headers.iter().copied());
    object.time("appended_at", event.appended_at);
    if let Some(erased) = &event.erased {
        object.object("erased", |object| erased::write(object, erased));
    }
    object.close();
}

/// Appends the event that carries a marker as one JSON object, without a line end.
pub fn write_marker(out: &mut Vec<u8>, marker: &Marker) {
    let mut event = Object::open(out);
    event.text("cursor", &marker.cursor);
    event.name("marker");
    let mut object = Object::open(event.out);
    match (marker.kind.name(), marker.kind) {
        (Some(name), _) => object.text("kind", name),
        (None, super::MarkerKind::Other(number)) => object.integer("kind", number),
        (None, _) => {}
    }
    object.text("cursor", &marker.cursor);
    object.time("at", marker.at);
    object.number("oldest_seq", marker.oldest.get());
    object.number("head_seq", marker.head.get());
    object.number("lag_events", marker.lag_events);
    if let Some(gap) = marker.gap {
        object.name("gap");
        write_gap(object.out, gap);
    }
    if let Some(delay) = marker.retry_delay {
        object.text("retry_delay", &duration_text(delay));
    }
    object.close();
    event.close();
}

fn write_gap(out: &mut Vec<u8>, gap: Gap) {
    let mut object = Object::open(out);
    object.number("from_seq", gap.from.get());
    object.number("to_seq", gap.to.get());
    match (gap.reason.name(), gap.reason) {
        (Some(name), _) => object.text("reason", name),
        (None, super::GapReason::Other(number)) => object.integer("reason", number),
        (None, _) => {}
    }
    object.close();
}

/// A duration as proto3 JSON has it: seconds with 0, 3, 6 or 9 decimals and an `s`.
pub fn duration_text(duration: std::time::Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    match nanos {
        0 => format!("{seconds}s"),
        n if n % 1_000_000 == 0 => format!("{seconds}.{:03}s", n / 1_000_000),
        n if n % 1_000 == 0 => format!("{seconds}.{:06}s", n / 1_000),
        n => format!("{seconds}.{n:09}s"),
    }
}

/// Writes one JSON object's fields, leaving out what is empty as proto3 JSON does.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Object<'a> {
    /// Begins an object.
    pub fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        let start = out.len();
        Object { out, start }
    }

    /// Ends it.
    pub fn close(self) {
        self.out.push(b'}');
    }

    fn comma(&mut self) {
        if self.out.len() > self.start {
            self.out.push(b',');
        }
    }

    /// A name that needs no escaping, and a colon.
    fn name(&mut self, name: &'static str) {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn key(&mut self, name: &str) {
        self.comma();
        write_string(self.out, name);
        self.out.push(b':');
    }

    /// A nested object under `name`, written by `fill`.
    pub fn object(&mut self, name: &'static str, fill: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        let mut nested = Object::open(self.out);
        fill(&mut nested);
        nested.close();
    }

    /// A value that is JSON already; nothing when it is empty.
    pub fn raw(&mut self, name: &'static str, json: &str) {
        if !json.is_empty() {
            self.name(name);
            self.out.extend_from_slice(json.as_bytes());
        }
    }

    /// An array of objects, each written by `fill`; nothing when it is empty.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        values: &[T],
        fill: impl Fn(&mut Object<'_>, &T),
    ) {
        if values.is_empty() {
            return;
        }
        self.name(name);
        for (at, value) in values.iter().enumerate() {
            self.out.push(if at == 0 { b'[' } else { b',' });
            let mut nested = Object::open(self.out);
            fill(&mut nested, value);
            nested.close();
        }
        self.out.push(b']');
    }

    /// An array of texts; nothing when it is empty.
    pub fn texts(&mut self, name: &'static str, values: &[String]) {
        if values.is_empty() {
            return;
        }
        self.name(name);
        for (at, value) in values.iter().enumerate() {
            self.out.push(if at == 0 { b'[' } else { b',' });
            write_string(self.out, value);
        }
        self.out.push(b']');
    }

    /// An object of texts under names of any kind; nothing when it is empty.
    pub fn named_texts<'t>(
        &mut self,
        name: &'static str,
        entries: impl IntoIterator<Item = (&'t str, &'t str)>,
    ) {
        let mut entries = entries.into_iter().peekable();
        if entries.peek().is_none() {
            return;
        }
        self.name(name);
        let mut nested = Object::open(self.out);
        for (name, value) in entries {
            nested.key(name);
            write_string(nested.out, value);
        }
        nested.close();
    }

    /// Text; nothing when it is empty.
    pub fn text(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.name(name);
            write_string(self.out, value);
        }
    }

    /// Bytes; nothing when there are none.
    fn bytes(&mut self, name: &'static str, value: &[u8]) {
        if !value.is_empty() {
            self.name(name);
            self.out.push(b'"');
            write_base64(self.out, value);
            self.out.push(b'"');
        }
    }

    /// A 64-bit number, as a string; nothing for 0.
    pub fn number(&mut self, name: &'static str, value: u64) {
        if value != 0 {
            self.name(name);
            self.out.push(b'"');
            write_decimal(self.out, value);
            self.out.push(b'"');
        }
    }

    /// A 32-bit number; nothing for 0.
    pub fn integer(&mut self, name: &'static str, value: i32) {
        if value != 0 {
            self.name(name);
            if value < 0 {
                self.out.push(b'-');
            }
            write_decimal(self.out, u64::from(value.unsigned_abs()));
        }
    }

    /// A 32-bit number without a sign; nothing for 0.
    pub fn unsigned(&mut self, name: &'static str, value: u32) {
        if value != 0 {
            self.name(name);
            write_decimal(self.out, u64::from(value));
        }
    }

    /// A truth value; nothing for `false`.
    pub fn flag(&mut self, name: &'static str, value: bool) {
        if value {
            self.name(name);
            self.out.extend_from_slice(b"true");
        }
    }

    /// A time; nothing when there is none.
    pub fn time(&mut self, name: &'static str, value: Option<Timestamp>) {
        if let Some(time) = value {
            self.name(name);
            self.out.push(b'"');
            time.write_to(self.out);
            self.out.push(b'"');
        }
    }
}

fn write_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn write_base64(out: &mut Vec<u8>, data: &[u8]) {
    let start = out.len();
    // Four characters for each three bytes begun.
    out.resize(start + data.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(data, &mut out[start..]).unwrap_or_default();
    out.truncate(start + written);
}

/// Whether a byte of UTF-8 text may need an escape. 0xC2 leads U+0080 to U+00BF, of which the
/// first half are the C1 controls.
const NEEDS_CARE: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 0x20 {
        table[at] = true;
        at += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[0x7f] = true;
    table[0xc2] = true;
    table
};

/// Appends a JSON string with its quotes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut done = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if !NEEDS_CARE[usize::from(byte)] {
            continue;
        }
        let (code, len) = match byte {
            // Text is valid UTF-8, so a byte follows.
            0xc2 if bytes[at + 1] >= 0xa0 => continue,
            0xc2 => (bytes[at + 1], 2),
            byte => (byte, 1),
        };
        out.extend_from_slice(&bytes[done..at]);
        done = at + len;
        match code {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            code => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (HEX[usize::from(code >> 4)], HEX[usize::from(code & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

/// One event as a sender wrote it in JSON. Borrows what needed no unescaping.
#[derive(Debug, Default)]
pub struct EventJson<'a>(Sent<'a, Text<'a>>);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, bound(deserialize = "B: Deserialize<'de> + Default"))]
struct Sent<'a, B> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    topic: Text<'a>,
    body: B,
    at: Time,
    data: Data,
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(borrow)]
    headers: Headers<'a>,
    // The server's; read so that they are known, and passed over.
    #[serde(rename = "seq")]
    _seq: Option<IgnoredAny>,
    #[serde(rename = "cursor")]
    _cursor: Option<IgnoredAny>,
    #[serde(rename = "appended_at", alias = "appendedAt")]
    _appended_at: Option<IgnoredAny>,
    #[serde(borrow)]
    erased: Option<ErasedJson<'a>>,
    marker: Option<IgnoredAny>,
}

impl<'a> EventJson<'a> {
    /// Reads one JSON object. Its body may be any JSON value; what is no string is taken as its text.
    ///
    /// # Errors
    /// When it is not JSON, not an object, or a field is unknown or has a wrong value.
    pub fn parse(text: &'a [u8]) -> Result<EventJson<'a>, JsonError> {
        // An object begins with a brace; a JSON array would pass for a list of the fields.
        let first = text.iter().find(|c| !c.is_ascii_whitespace());
        if !matches!(first, Some(b'{')) {
            let message = "expected a JSON object, as in {\"topic\": \"a.b\", \"body\": \"...\"}";
            return Err(JsonError::saying(message).at_column(1));
        }
        match serde_json::from_slice(text) {
            Ok(sent) => Ok(EventJson(sent)),
            // Perhaps it is its body that is no string. To be read as it stands, it takes another look,
            // which bodies that are strings need not pay for.
            Err(_) => {
                let sent: Result<Sent<'a, AnyValue<'a>>, _> = serde_json::from_slice(text);
                let sent = sent.map_err(|error| value::named(text, &error))?;
                Ok(EventJson(sent.map_body(|AnyValue(body)| body)))
            }
        }
    }

    /// The event it says.
    pub fn event(&self) -> Event<'_> {
        let sent = &self.0;
        Event {
            id: &sent.id.0,
            topic: &sent.topic.0,
            body: &sent.body.0,
            data: &sent.data.0,
            at: sent.at.0,
            kind: &sent.kind.0,
            key: &sent.key.0,
            headers: sent.headers.0.iter().map(|(n, v)| (&*n.0, &*v.0)).collect(),
            erased: sent.erased.as_ref().map(ErasedJson::erased),
            has_marker: sent.marker.is_some(),
            has_client_id: !sent.id.0.is_empty(),
            has_client_at: sent.at.0.is_some(),
            ..Event::default()
        }
    }
}

impl<'a, B> Sent<'a, B> {
    fn map_body<C>(self, map: impl FnOnce(B) -> C) -> Sent<'a, C> {
        let Sent { id, topic, body, at, data, kind, key, headers, erased, marker, .. } = self;
        let body = map(body);
        let (_seq, _cursor, _appended_at) = (None, None, None);
        Sent {
            id,
            topic,
            body,
            at,
            data,
            kind,
            key,
            headers,
            erased,
            marker,
            _seq,
            _cursor,
            _appended_at,
        }
    }
}

#[derive(Debug, Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

#[derive(Debug, Default)]
struct Time(Option<Timestamp>);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<Text<'de>>::deserialize(deserializer)? {
            None => Ok(Time(None)),
            Some(Text(text)) => match Timestamp::parse(&text) {
                Some(time) => Ok(Time(Some(time))),
                None => Err(de::Error::invalid_value(
                    de::Unexpected::Str(&text),
                    &"a time as in 2026-01-31T09:30:00Z, of the years 1 to 9999",
                )),
            },
        }
    }
}

#[derive(Debug, Default)]
struct Headers<'a>(Vec<(Text<'a>, Text<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Headers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadersVisitor;
        impl<'de> Visitor<'de> for HeadersVisitor {
            type Value = Headers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_unit<E>(self) -> Result<Headers<'de>, E> {
                Ok(Headers::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers<'de>, A::Error> {
                let mut headers: Vec<(Text<'de>, Text<'de>)> = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    headers.push(entry);
                }
                // Of two values one would be lost, and nobody could say which.
                let mut names: Vec<&str> = headers.iter().map(|(name, _)| &*name.0).collect();
                names.sort_unstable();
                if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                    let name = excerpt(twice[0]);
                    return Err(de::Error::custom(format_args!(
                        "headers: `{name}` is given twice"
                    )));
                }
                Ok(Headers(headers))
            }
        }
        deserializer.deserialize_any(HeadersVisitor)
    }
}

#[cfg(test)]
mod tests;
