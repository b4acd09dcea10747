//! CloudEvents 1.0 over `POST /v1/events`, in the three ways of their HTTP binding: an object with
//! everything, an array of such, and attributes in headers beside the data.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, header};
use percent_encoding::percent_decode;
use tonic::Status;

use super::events::{Line, Lines, Text};
use crate::server::ingest::upload::Source;
use crate::server::principal::Caller;
use crate::server::rpc::negotiation::media_type;
use crate::server::rpc::status::{self, Failure};
use tailmark_log::eventlog::{AppendOptions, Batch};
use tailmark_record::json::{CloudEvent, Elements, JsonError};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const PREFIX: &str = "ce-";
const VERSION: &str = "ce-specversion";
/// What is said to an object where an array should be.
const SINGLE: &str = "expected an array: a single CloudEvent is application/cloudevents+json";

/// How a request carries them.
#[derive(Debug)]
pub(super) enum Mode {
    /// One object with everything.
    Structured,
    /// An array of such objects.
    Batch,
    /// Attributes, by name without the prefix, and the body is the data.
    Binary(Vec<(String, String)>),
}

impl Mode {
    /// How a request does, if it does.
    ///
    /// # Errors
    /// When a header holds no value of theirs.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Mode>, Failure> {
        match media_type(headers).as_deref() {
            Some(STRUCTURED) => return Ok(Some(Mode::Structured)),
            Some(BATCH) => return Ok(Some(Mode::Batch)),
            _ if headers.contains_key(VERSION) => {}
            // What says this much is meant as one.
            _ if ["ce-id", "ce-source", "ce-type"].iter().any(|it| headers.contains_key(*it)) => {
                return Err(status::bad_field(VERSION, "is missing, which every CloudEvent has"));
            }
            _ => return Ok(None),
        }
        let mut attributes = Vec::new();
        for name in headers.keys() {
            let (attribute, decodes) = match name.as_str().strip_prefix(PREFIX) {
                Some(attribute) => (attribute, true),
                None if *name == header::CONTENT_TYPE => ("datacontenttype", false),
                None => continue,
            };
            let mut values = headers.get_all(name).iter();
            let (value, more) = (values.next(), values.next());
            let bytes = value.map_or(&b""[..], |value| value.as_bytes());
            if more.is_some() {
                return Err(status::bad_field(name.as_str(), "is given twice"));
            }
            let text = if decodes {
                percent_decode(bytes).decode_utf8().map(Cow::into_owned).ok()
            } else {
                std::str::from_utf8(bytes).map(str::to_owned).ok()
            };
            let text = text.ok_or_else(|| status::bad_field(name.as_str(), "is not UTF-8"))?;
            attributes.push((attribute.to_owned(), text));
        }
        Ok(Some(Mode::Binary(attributes)))
    }
}

impl Mode {
    /// An attribute, or the data, as the request has it.
    fn typed(&self, name: &str) -> String {
        match self {
            Mode::Structured | Mode::Batch => name.to_owned(),
            Mode::Binary(_) => match name {
                "datacontenttype" => header::CONTENT_TYPE.as_str().to_owned(),
                "data" | "body" | "topic" => name.to_owned(),
                _ => format!("{PREFIX}{name}"),
            },
        }
    }
}

/// A part of a body.
pub(super) enum Piece {
    Event(Text),
    /// What should be an array of objects is none.
    NoArray(JsonError),
}

/// The body as one event or many.
pub(super) struct Events {
    /// It comes as one.
    body: Lines,
    is_batch: bool,
    /// An array, and the place in it.
    array: Option<(Bytes, Elements)>,
}

impl Events {
    pub(super) fn new(body: Lines, mode: &Mode) -> Events {
        let is_batch = matches!(mode, Mode::Batch);
        Events { body, is_batch, array: None }
    }
}

impl Stream for Events {
    type Item = Result<Piece, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some((whole, elements)) = &mut this.array {
                match elements.next(whole) {
                    Ok(Some(one)) => {
                        let event = Text::Whole(whole.slice_ref(one));
                        return Poll::Ready(Some(Ok(Piece::Event(event))));
                    }
                    Ok(None) => this.array = None,
                    Err(error) => {
                        this.array = None;
                        return Poll::Ready(Some(Ok(Piece::NoArray(error))));
                    }
                }
            }
            let line = match ready!(Pin::new(&mut this.body).poll_next(cx)) {
                Some(Ok(Line { text, .. })) => text,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            let Text::Whole(whole) = &line else {
                return Poll::Ready(Some(Ok(Piece::Event(line))));
            };
            if !this.is_batch {
                return Poll::Ready(Some(Ok(Piece::Event(line))));
            }
            if whole.trim_ascii_start().starts_with(b"{") {
                return Poll::Ready(Some(Ok(Piece::NoArray(JsonError::saying(SINGLE)))));
            }
            match Elements::of(whole) {
                Ok(elements) => this.array = Some((whole.clone(), elements)),
                Err(error) => return Poll::Ready(Some(Ok(Piece::NoArray(error)))),
            }
        }
    }
}

/// Takes them.
pub(super) struct Cloud {
    pub(super) mode: Mode,
    /// Where they go; each by its type if nobody says.
    pub(super) topic: Option<String>,
    pub(super) limit: usize,
}

impl Source for Cloud {
    type Message = Piece;

    fn options(&self) -> AppendOptions {
        AppendOptions { dedup: true, expected_head: None, atomic: false }
    }

    fn take(&mut self, piece: Piece, caller: &Caller, batch: &mut Batch) -> Result<(), Failure> {
        let text = match &piece {
            Piece::NoArray(error) => return Err(status::malformed_json(error)),
            Piece::Event(text) => text,
        };
        let text = match text {
            Text::TooLong => {
                let actual = self.limit.saturating_add(1);
                return Err(status::over_limit("message_bytes", self.limit, actual));
            }
            Text::Whole(text) => text,
        };
        let read = match &self.mode {
            Mode::Structured | Mode::Batch => CloudEvent::structured(text),
            Mode::Binary(attributes) => {
                let all = attributes.iter();
                CloudEvent::binary(
                    all.map(|(name, value)| (&**name, Cow::Borrowed(&**value))),
                    text,
                )
            }
        };
        let read = read.map_err(|error| {
            let attribute = error.field().map(|field| self.mode.typed(field));
            let (ours, theirs) = (error.field().unwrap_or_default().to_owned(), attribute);
            status::malformed_json(&error.called(&ours, &theirs.unwrap_or_default()))
        })?;
        let event = caller.admit(read.event(self.topic.as_deref()))?;
        caller.may_store(1, text.len())?;
        batch.push(&event).map_err(|error| {
            // What became the topic is their type, unless the request names a topic.
            let theirs = match (error.field, &self.topic) {
                ("topic", None) => "type",
                ("key", _) => "partitionkey",
                (other, _) => other,
            };
            status::invalid_event(&error).called(error.field, &self.mode.typed(theirs))
        })
    }
}
