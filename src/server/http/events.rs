//! `POST /v1/events`: one JSON object, or one a line, or CloudEvents. Stored as `UploadEvents` stores: durable as
//! they arrive, and events before a bad one stay.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{Request, State};
use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body as _;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;

use super::cloud::{self, Cloud, Mode};
use super::codings;
use super::query::Query;
use super::reads::json_body;
use crate::server::Shared;
use crate::server::ingest::upload::{self, Source};
use crate::server::principal::Caller;
use crate::server::rpc::deadline;
use crate::server::rpc::negotiation::{self, media_type};
use crate::server::rpc::status::{self, Failure};
use crate::server::transport::arrivals::{Arrival, Lost, SMALL_BYTES};
use tailmark_log::eventlog::{AppendOptions, Batch};
use tailmark_record::json::EventJson;
use tailmark_wire::json;

const ACCEPTED: HeaderValue = HeaderValue::from_static(
    "application/json, application/x-ndjson, application/cloudevents+json, \
     application/cloudevents-batch+json",
);
const TAKEN: &str = "application/json (one event), application/x-ndjson (one a line), or CloudEvents: \
                     application/cloudevents+json, application/cloudevents-batch+json, or any with \
                     their headers";
/// The parameters that go with CloudEvents.
const OF_CLOUD_EVENTS: &[&str] = &["topic"];
const OF_CLOUD_EVENTS_ALONE: &str =
    "is a parameter of CloudEvents alone; an event of ours names its topic itself";
/// Frames without an event that one poll goes through before it lets others run.
const FRAMES_PER_POLL: u32 = 16;
/// The same for lines with nothing in them.
const BLANK_PER_POLL: u32 = 10_000;

/// How a body says events.
enum Form {
    /// One of ours.
    Single,
    /// One of ours a line.
    Lines,
    CloudEvents(Mode),
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Form, Box<Response<Body>>> {
        match Mode::of(headers) {
            Ok(Some(mode)) => return Ok(Form::CloudEvents(mode)),
            Err(failure) => return Err(status::respond(&failure.into()).into()),
            Ok(None) => {}
        }
        match media_type(headers).as_deref() {
            Some("application/json") => Ok(Form::Single),
            Some("application/x-ndjson") => Ok(Form::Lines),
            other => {
                let found = other.unwrap_or_default();
                let mut response = status::unsupported_media_type(found, TAKEN);
                response.headers_mut().insert(header::ACCEPT, ACCEPTED);
                Err(response.into())
            }
        }
    }

    /// The parameters that there are.
    fn parameters(&self) -> &[&str] {
        if let Form::CloudEvents(_) = self { OF_CLOUD_EVENTS } else { &[] }
    }
}

/// Stores what the body says.
pub(super) async fn store(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let form = match Form::of(&head.headers) {
        Ok(form) => form,
        Err(response) => return *response,
    };
    let coding = negotiation::codings(&head.headers, header::CONTENT_ENCODING);
    let body = codings::decode(&shared, Body::new(body), coding.as_deref(), &head.extensions);
    let body = match body {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let query = Query::read(head.uri.query(), form.parameters()).map_err(|failure| {
        let is_for_others = !matches!(form, Form::CloudEvents(_))
            && Query::read(head.uri.query(), OF_CLOUD_EVENTS).is_ok();
        if is_for_others { status::bad_field("topic", OF_CLOUD_EVENTS_ALONE) } else { failure }
    });
    let topic = query.and_then(|query| Ok(query.one("topic")?.map(str::to_owned)));
    let topic = match topic {
        Ok(topic) => topic,
        Err(failure) => return status::respond(&failure.into()),
    };
    let options = &shared.options;
    let limit = options.message_bytes;
    let mut extensions = head.extensions;
    let is_single = !matches!(form, Form::Lines);
    if is_single {
        // What comes whole is a call with one answer; lines may come for ever.
        extensions.insert(deadline::within(options.unary_deadline));
    }
    let lines = Lines::new(body, is_single, limit, shared.arrivals.arrival());
    let metadata = MetadataMap::from_headers(head.headers);
    let result = match form {
        Form::Single | Form::Lines => {
            let request = tonic::Request::from_parts(metadata, extensions, lines);
            upload::upload_from(&shared, request, Json { limit }).await
        }
        Form::CloudEvents(mode) => {
            let events = cloud::Events::new(lines, &mode);
            let request = tonic::Request::from_parts(metadata, extensions, events);
            upload::upload_from(&shared, request, Cloud { mode, topic, limit }).await
        }
    };
    match result {
        Ok(result) => json_body(json::upload_result(&result)),
        Err(status) => status::respond(&status),
    }
}

/// One line, or a body that is one event.
pub(super) struct Line {
    number: u64,
    pub(super) text: Text,
}

pub(super) enum Text {
    Whole(Bytes),
    /// Over the limit. No more of it was read than shows that.
    TooLong,
}

/// Lines as events.
struct Json {
    limit: usize,
}

impl Source for Json {
    type Message = Line;

    fn options(&self) -> AppendOptions {
        AppendOptions { dedup: true, expected_head: None, atomic: false }
    }

    fn take(&mut self, line: Line, caller: &Caller, batch: &mut Batch) -> Result<(), Failure> {
        let taken = match &line.text {
            Text::TooLong => {
                Err(status::over_limit("message_bytes", self.limit, self.limit.saturating_add(1)))
            }
            Text::Whole(text) => EventJson::parse(text)
                .map_err(|error| status::malformed_json(&error))
                .and_then(|json| {
                    let event = caller.admit(json.event())?;
                    upload::charged(caller, batch, |batch| {
                        batch.push(&event).map_err(|error| status::invalid_event(&error))
                    })
                }),
        };
        taken.map_err(|failure| failure.with_new("line", line.number))
    }
}

/// A body as lines.
pub(super) struct Lines {
    body: Option<Body>,
    /// What came and is not read yet.
    buffer: BytesMut,
    /// Of it, what is known to hold no line end.
    scanned: usize,
    /// The whole body is one event.
    is_single: bool,
    limit: usize,
    /// The number of the last line.
    line: u64,
    /// A long line takes room as it comes.
    arrival: Arrival,
    /// The last line was handed over, whose room may go.
    is_handed: bool,
}

impl Lines {
    fn new(body: Body, is_single: bool, limit: usize, arrival: Arrival) -> Self {
        let buffer = BytesMut::new();
        Lines {
            body: Some(body),
            buffer,
            scanned: 0,
            is_single,
            limit,
            line: 0,
            arrival,
            is_handed: false,
        }
    }

    /// The next line that is whole; at the end of the body also one without its end.
    fn next_line(&mut self) -> Option<Text> {
        let end = if self.is_single {
            None
        } else {
            self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n')
        };
        let len = end.map_or(self.buffer.len(), |end| self.scanned + end);
        if len > self.limit {
            self.line += 1;
            return Some(Text::TooLong);
        }
        let text = match end {
            Some(_) => {
                let text = self.buffer.split_to(len).freeze();
                self.buffer.advance(1);
                if len > SMALL_BYTES {
                    // What is left must not keep all that there was.
                    self.buffer = BytesMut::from(&self.buffer[..]);
                }
                text
            }
            // Nothing at all is no line, but still one body.
            None if self.body.is_none() && (len > 0 || self.is_single && self.line == 0) => {
                self.buffer.split().freeze()
            }
            None => {
                self.scanned = len;
                return None;
            }
        };
        self.scanned = 0;
        self.line += 1;
        // The byte order mark that some editors put first.
        Some(Text::Whole(match text.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if self.line == 1 => text.slice_ref(rest),
            _ => text,
        }))
    }

    /// The rest of a line is not waited for.
    fn give_up(&mut self, lost: Lost) -> Poll<Option<Result<Line, Status>>> {
        self.buffer = BytesMut::new();
        self.scanned = 0;
        self.arrival.release();
        let failure = match lost {
            Lost::Late => status::deadline(),
            Lost::GaveWay(over) => status::gave_way(over),
        };
        Poll::Ready(Some(Err(failure.into())))
    }

    fn is_blank(&self, text: &Text) -> bool {
        match text {
            Text::Whole(text) => !self.is_single && text.iter().all(u8::is_ascii_whitespace),
            Text::TooLong => false,
        }
    }
}

impl Stream for Lines {
    type Item = Result<Line, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let (mut frames, mut blank) = (0, 0);
        if std::mem::take(&mut this.is_handed) {
            this.arrival.release();
        }
        loop {
            while let Some(text) = this.next_line() {
                this.arrival.whole();
                if !this.is_blank(&text) {
                    this.is_handed = true;
                    return Poll::Ready(Some(Ok(Line { number: this.line, text })));
                }
                blank += 1;
                if blank > BLANK_PER_POLL {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            let Some(body) = &mut this.body else { return Poll::Ready(None) };
            frames += 1;
            if frames > FRAMES_PER_POLL {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if this.buffer.len() > SMALL_BYTES
                && let Err(lost) =
                    std::task::ready!(this.arrival.poll_room(cx, this.buffer.capacity()))
            {
                return this.give_up(lost);
            }
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
                if this.buffer.is_empty() {
                    return Poll::Pending;
                }
                let lost = std::task::ready!(this.arrival.poll_lost(cx));
                return this.give_up(lost);
            };
            match frame {
                Some(Ok(frame)) => {
                    this.arrival.moved();
                    if let Ok(data) = frame.into_data() {
                        this.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    this.body = None;
                    // Half a line is no event.
                    this.buffer.clear();
                    return Poll::Ready(Some(Err(error)));
                }
                None => this.body = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::server::transport::arrivals::Arrivals;

    const LIMIT: usize = 64;

    /// What a body of these pieces is taken for.
    async fn lines(pieces: Vec<&[u8]>, is_single: bool) -> Vec<(u64, Option<String>)> {
        let frames: Vec<Result<_, Infallible>> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        let body = Body::new(StreamBody::new(tokio_stream::iter(frames)));
        let arrival = Arrivals::new(1 << 20, Duration::from_secs(1)).arrival();
        let mut lines = Lines::new(body, is_single, LIMIT, arrival);
        let mut all = Vec::new();
        while let Some(line) = std::future::poll_fn(|cx| Pin::new(&mut lines).poll_next(cx)).await {
            let Line { number, text } = line.unwrap();
            match text {
                Text::Whole(text) => {
                    all.push((number, Some(String::from_utf8(text.to_vec()).unwrap())));
                }
                // It ends the upload.
                Text::TooLong => {
                    all.push((number, None));
                    break;
                }
            }
        }
        all
    }

    #[tokio::test]
    async fn a_line_is_the_same_however_it_is_cut() {
        let long = format!("{{\"topic\":\"a\"}}\n{}\nmore", "x".repeat(LIMIT + 1));
        let at_limit = format!("{}\r\n{}\n{}", "y".repeat(LIMIT - 1), "z".repeat(LIMIT), "1");
        for text in [
            "",
            "\n",
            "\r\n \t\r\n\n",
            "{\"topic\":\"a\"}",
            "{\"topic\":\"a\"}\r\n\r\n{\"topic\":\"b\"}\r\n",
            "\u{feff}{\"topic\":\"a\"}\n\u{feff}{\"topic\":\"b\"}\n",
            "{\"body\":\"é€🦀\"}\n{\"body\":\"\u{2028}\"}",
            &long,
            &at_limit,
        ] {
            for is_single in [false, true] {
                let whole = lines(vec![text.as_bytes()], is_single).await;
                for at in 0..=text.len() {
                    let (begin, end) = text.as_bytes().split_at(at);
                    assert_eq!(lines(vec![begin, end], is_single).await, whole, "{text:?} at {at}");
                }
                for size in 1..5 {
                    let pieces = text.as_bytes().chunks(size).collect();
                    assert_eq!(lines(pieces, is_single).await, whole, "{text:?} by {size}");
                }
            }
        }
        let all = lines(vec![b"\xef\xbb", b"\xbfa\r", b"\n\nb"], false).await;
        assert_eq!(all, [(1, Some("a\r".to_owned())), (3, Some("b".to_owned()))]);
    }
}
