//! CloudEvents 1.0 (JSON event format and HTTP binding): an event of theirs as one of ours, and back.
//!
//! | theirs | ours |
//! |---|---|
//! | `source` and `id`, which name it together | `id`: `SOURCE ID`, so that a repeat is known; header `ce-source` |
//! | `type` | `type`, and the topic where nothing else says one |
//! | `time` | `at` |
//! | `partitionkey` | `key` |
//! | `data` | `body`, its JSON as it was sent, or a text |
//! | `data_base64` | `body` where it is text, else `data` |
//! | every other attribute | a header `ce-NAME` |
//!
//! What came in as one goes out as the same; numbers and truth values of extensions as text, and `time` as it was
//! appended where none was said. An event that did not come in as one goes out with its log as `source`.
//! `topic` and `cursor` are added, in the place of such extensions of the sender; so is `sequence` (an extension
//! that CloudEvents documents), where the sender said none, and `erased` where the content is gone.

use std::borrow::Cow;

use base64::Engine as _;
use serde_json::value::RawValue;

use super::data::not_base64;
use super::value::{UNREADABLE, json_of};
use super::{Fields, JsonError, Object, STANDARD_LENIENT, value_of, write_base64, write_string};
use crate::{Content, Event, Timestamp, excerpt};

const PREFIX: &str = "ce-";
const SOURCE: &str = "ce-source";
const CONTENT_TYPE: &str = "ce-datacontenttype";
/// What is said of every event in another way than by a header: a header of that name would say it twice.
const ITS_OWN: [&str; 9] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "datacontenttype",
    "partitionkey",
    "data",
    "data_base64",
];
/// What is added, and so cannot be an extension of somebody's.
const ADDED: [&str; 3] = ["topic", "cursor", "erased"];
const SEQUENCE: &str = "ce-sequence";

/// An event of theirs, on its way in.
#[derive(Debug, Default)]
pub struct CloudEvent<'a> {
    has_version: bool,
    their_id: Cow<'a, str>,
    id: String,
    source: Cow<'a, str>,
    kind: Cow<'a, str>,
    key: Cow<'a, str>,
    at: Option<Timestamp>,
    body: Cow<'a, str>,
    data: Cow<'a, [u8]>,
    headers: Vec<(String, Cow<'a, str>)>,
}

fn wrong(message: &str) -> JsonError {
    JsonError::saying(message)
}

impl<'a> CloudEvent<'a> {
    /// Reads one that stands in one JSON object.
    ///
    /// # Errors
    /// When it is none, or says what is not allowed.
    pub fn structured(text: &'a [u8]) -> Result<CloudEvent<'a>, JsonError> {
        let text = std::str::from_utf8(text).map_err(|error| wrong(&error.to_string()))?;
        if text.trim_start().starts_with('[') {
            let message = "an array of CloudEvents is application/cloudevents-batch+json";
            return Err(wrong(message));
        }
        let fields = Fields::parse(text)?;
        // Of two values one would be lost.
        if let Some(name) = fields.twice() {
            return Err(JsonError::about(name, "is given twice"));
        }
        let mut event = CloudEvent::default();
        let (mut data, mut base64) = (None, None);
        for (name, value) in fields.iter() {
            let is_null = value.get() == "null";
            match name {
                "data" => data = Some(value),
                "data_base64" if !is_null => base64 = Some(plain(name, value)?),
                _ if is_null => {}
                _ => event.set(name, plain(name, value)?)?,
            }
        }
        match (data, base64) {
            (Some(_), Some(_)) => {
                return Err(wrong("data and data_base64: one of them, not both"));
            }
            (Some(data), None) if event.holds_json() => {
                if json_of(data.get()).is_none() {
                    return Err(JsonError::about("data", UNREADABLE));
                }
                event.body = Cow::Borrowed(data.get());
                // What would be taken for text, if nothing said that it is JSON.
                let is_said = event.headers.iter().any(|(name, _)| name == CONTENT_TYPE);
                if !is_said && value_of(data.get()).is_none() {
                    let json = Cow::Borrowed("application/json");
                    event.headers.push((CONTENT_TYPE.to_owned(), json));
                }
            }
            (Some(data), None) if data.get() != "null" => event.body = plain("data", data)?,
            (None, Some(text)) => {
                let read = STANDARD_LENIENT.decode(text.as_bytes());
                let read = read.map_err(|error| {
                    JsonError::about("data_base64", not_base64(text.as_bytes(), &error))
                })?;
                event.take(Cow::Owned(read));
            }
            _ => {}
        }
        event.finish()
    }

    /// Reads one whose attributes stand apart from its data: the names without `ce-`, the values as
    /// they are.
    ///
    /// # Errors
    /// When they say what is not allowed.
    pub fn binary(
        attributes: impl IntoIterator<Item = (&'a str, Cow<'a, str>)>,
        data: &'a [u8],
    ) -> Result<CloudEvent<'a>, JsonError> {
        let mut event = CloudEvent::default();
        for (name, value) in attributes {
            event.set(name, value)?;
        }
        event.take(Cow::Borrowed(data));
        event.finish()
    }

    /// The event; the topic is its type where none is given.
    pub fn event(&'a self, topic: Option<&'a str>) -> Event<'a> {
        Event {
            id: &self.id,
            topic: topic.unwrap_or(&self.kind),
            kind: &self.kind,
            key: &self.key,
            body: &self.body,
            data: &self.data,
            at: self.at,
            headers: self.headers.iter().map(|(name, value)| (&**name, &**value)).collect(),
            has_client_id: true,
            has_client_at: self.at.is_some(),
            ..Event::default()
        }
    }

    fn set(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), JsonError> {
        match name {
            "specversion" if value == "1.0" => self.has_version = true,
            "specversion" => {
                let problem = format!("1.0 is known, not {}", excerpt(&value));
                return Err(JsonError::about(name, problem));
            }
            "id" => self.their_id = value,
            "type" => self.kind = value,
            "partitionkey" => self.key = value,
            "time" => {
                let time = Timestamp::parse(&value);
                let bad = || JsonError::about(name, "expected one as in 2026-01-31T09:30:00Z");
                self.at = Some(time.ok_or_else(bad)?);
            }
            "source" => self.source = value,
            "data" => return Err(JsonError::about(name, "this is no name of an attribute")),
            name if ADDED.contains(&name) => {}
            name => {
                if !is_name(name) {
                    return Err(JsonError::about(
                        name,
                        "an attribute's name is of a to z and 0 to 9",
                    ));
                }
                self.headers.push((format!("{PREFIX}{name}"), value));
            }
        }
        Ok(())
    }

    fn holds_json(&self) -> bool {
        let said = self.headers.iter().find(|(name, _)| name == CONTENT_TYPE);
        said.is_none_or(|(_, value)| is_json(value))
    }

    fn take(&mut self, data: Cow<'a, [u8]>) {
        match data {
            Cow::Borrowed(data) => match std::str::from_utf8(data) {
                Ok(text) => self.body = Cow::Borrowed(text),
                Err(_) => self.data = Cow::Borrowed(data),
            },
            Cow::Owned(data) => match String::from_utf8(data) {
                Ok(text) => self.body = Cow::Owned(text),
                Err(error) => self.data = Cow::Owned(error.into_bytes()),
            },
        }
    }

    fn finish(mut self) -> Result<CloudEvent<'a>, JsonError> {
        let has = [
            ("specversion", self.has_version),
            ("id", !self.their_id.is_empty()),
            ("source", !self.source.is_empty()),
            ("type", !self.kind.is_empty()),
        ];
        if let Some((name, _)) = has.iter().find(|(_, is_there)| !is_there) {
            return Err(JsonError::about(name, "is missing, which every CloudEvent has"));
        }
        self.id = format!("{} {}", self.source, self.their_id);
        self.headers.push((SOURCE.to_owned(), std::mem::take(&mut self.source)));
        // A repeat may come in another mode, where the same is said in another order, or left unsaid.
        let goes_unsaid = value_of(&self.body).is_some();
        self.headers.retain(|(name, value)| {
            !(goes_unsaid && name == CONTENT_TYPE && value.eq_ignore_ascii_case("application/json"))
        });
        self.headers.sort_unstable();
        Ok(self)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// A string without its quotes, a number or a truth value.
fn plain<'a>(name: &str, value: &'a RawValue) -> Result<Cow<'a, str>, JsonError> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'"') => Ok(Cow::Owned(serde_json::from_str(text)?)),
        Some(b'{' | b'[') => Err(JsonError::about(name, "expected a plain value")),
        _ => Ok(Cow::Borrowed(text)),
    }
}

/// Whether a media type is one of JSON.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// Appends an event as a CloudEvent in one JSON object, without a line end. `log` is the source of
/// what did not come in as one. A header `ce-NAME` that no CloudEvent could have brought is left out.
pub fn write_cloud_event(out: &mut Vec<u8>, event: &Event<'_>, log: &str) {
    let header = |name| event.headers.iter().find(|(it, _)| *it == name).map(|(_, value)| *value);
    let source = header(SOURCE);
    let of_source = |source: &str| event.id.strip_prefix(source)?.strip_prefix(' ');
    let mut object = Object::open(out);
    object.text("specversion", "1.0");
    // One that was erased has none any more, and there must be one.
    let id = if event.is_erased() { event.cursor } else { event.id };
    object.text("id", source.and_then(of_source).unwrap_or(id));
    object.text("source", source.unwrap_or(log));
    object.text("type", if event.kind.is_empty() { event.topic } else { event.kind });
    object.time("time", event.at.or(event.appended_at));
    let is_free = |name: &&str| is_name(name) && !ITS_OWN.contains(name) && !ADDED.contains(name);
    for (name, value) in &event.headers {
        if let Some(name) = name.strip_prefix(PREFIX).filter(is_free) {
            object.key(name);
            write_string(object.out, value);
        }
    }
    object.text("partitionkey", event.key);
    object.text("topic", event.topic);
    if header(SEQUENCE).is_none() {
        object.number("sequence", event.seq.get());
    }
    object.text("cursor", event.cursor);
    if let Some(erased) = &event.erased {
        object.text("erased", &erased.in_words());
    }
    write_data(&mut object, event, header(CONTENT_TYPE));
    object.close();
}

fn write_data(object: &mut Object<'_>, event: &Event<'_>, said: Option<&str>) {
    let bytes = match event.content() {
        Content::Empty => {
            object.text("datacontenttype", said.unwrap_or_default());
            return;
        }
        Content::Data(data) => {
            object.text("datacontenttype", said.unwrap_or("application/octet-stream"));
            data
        }
        Content::Body(body) => {
            let json = json_of(body);
            // Of what nobody called JSON, only what cannot be meant as text.
            let guessed = if value_of(body).is_some() { "application/json" } else { "text/plain" };
            let media_type = said.unwrap_or(guessed);
            object.text("datacontenttype", media_type);
            match json {
                _ if !is_json(media_type) => return object.text("data", body),
                Some(value) => return object.value("data", value),
                // It says that it is JSON, and is not: as a string it would be taken for one.
                None => body.as_bytes(),
            }
        }
    };
    object.key("data_base64");
    object.out.push(b'"');
    write_base64(object.out, bytes);
    object.out.push(b'"');
}

#[cfg(test)]
mod tests;
