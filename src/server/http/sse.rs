//! A watch written as server-sent events: `id:` is the cursor, `data:` the event as JSON.
//!
//! Nothing is queued: the watch is asked for more when the socket has room, so a slow reader holds
//! back its own watch and nothing else. Invariant: the id that a client has is always one from
//! which a watch goes on exactly, or one that says that there is nothing to go on with.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::body::Body;
use tonic::{Code, Status};

use super::form::Form;
use crate::server::report;
use crate::server::rpc::status;
use crate::server::transport::http1::HalfClosed;
use crate::server::watch::{CURSOR, Item, WatchStream};
use tailmark_record::json::{Bodies, Object, write_marker};
use tailmark_record::{Event, EventError, Marker, MarkerKind};

/// What the id of a stream's last frame begins with when the stream has ended for good: a browser
/// that comes back with it is told so, and stops.
pub(super) const END: &str = "end:";

const DATA: &[u8] = b"data: ";
const END_OF_DATA: &[u8] = b"\n\n";

/// Says nothing, and is there.
const COMMENT: &[u8] = b":\n\n";

/// What is written before it is handed to the connection, while more is ready.
const FRAME_BYTES: usize = 32 << 10;

/// A watch as a body.
pub(super) struct Sse {
    /// Absent when it is over.
    stream: Option<WatchStream>,
    out: Vec<u8>,
    /// The id that the client has.
    id: String,
    /// Where the connection can be half closed.
    probe: Option<Probe>,
    /// How events are written.
    form: Form,
}

impl Sse {
    /// Begins with the id of the start, which fires nothing.
    pub(super) fn new(stream: WatchStream, cursor: &str, probe: Option<Probe>, form: Form) -> Self {
        let (out, id) = (Vec::new(), String::new());
        let mut sse = Sse { stream: Some(stream), out, id, probe, form };
        sse.pass(cursor);
        sse
    }

    /// Says something to who looks at the stream as it is; programs pass over it. It must be one line.
    pub(super) fn remark(&mut self, text: &str) {
        self.line("", text);
        self.out.push(b'\n');
    }

    /// A watch that cannot begin, because of the position that was asked for.
    pub(super) fn lost(status: &Status) -> Self {
        let (out, id, form) = (Vec::new(), String::new(), Form::Events(Bodies::Text));
        let mut sse = Sse { stream: None, out, id, probe: None, form };
        sse.fail(status);
        sse
    }

    /// Moves the client's id without firing anything.
    fn pass(&mut self, cursor: &str) {
        self.write_id(cursor);
        self.out.push(b'\n');
    }

    fn write_id(&mut self, id: &str) {
        self.line("id", id);
        self.id.clear();
        self.id.push_str(id);
    }

    fn line(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, "\n"] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    /// The data of an event and its end. JSON has no line ends of its own.
    fn data(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.extend_from_slice(DATA);
        write(&mut self.out);
        self.out.extend_from_slice(END_OF_DATA);
    }

    fn event(&mut self, encoded: &[u8]) -> Result<(), EventError> {
        let event = Event::parse(encoded)?;
        self.write_id(event.cursor);
        self.out.extend_from_slice(DATA);
        self.form.write(&mut self.out, &event);
        self.out.extend_from_slice(END_OF_DATA);
        Ok(())
    }

    fn marker(&mut self, marker: &Marker) {
        match marker.kind {
            MarkerKind::Heartbeat if marker.cursor == self.id => {
                self.out.extend_from_slice(COMMENT);
                return;
            }
            MarkerKind::Heartbeat => return self.pass(&marker.cursor),
            _ => {}
        }
        self.write_id(&marker.cursor);
        self.line("event", "marker");
        if let Some(delay) = marker.retry_delay {
            self.line("retry", &delay.as_millis().to_string());
        }
        self.data(|out| write_marker(out, marker));
    }

    /// The last frame.
    fn finish(&mut self, last: &Status) {
        match last.code() {
            Code::Ok => {
                let cursor = last.metadata().get(CURSOR).and_then(|value| value.to_str().ok());
                let cursor = cursor.unwrap_or_default();
                self.write_id(&format!("{END}{cursor}"));
                self.line("event", "end");
                self.data(|out| {
                    let mut object = Object::open(out);
                    object.text("cursor", cursor);
                    object.close();
                });
            }
            // CLOSING has said it, and when to come back.
            Code::Unavailable => {}
            _ => self.fail(last),
        }
    }

    fn fail(&mut self, status: &Status) {
        let is_lost = status::is_of_position(status);
        if is_lost {
            // Coming back with the same position would meet the same.
            let id = format!("{END}{}", self.id);
            self.write_id(&id);
        }
        self.line("event", if is_lost { "lost" } else { "failed" });
        self.data(|out| status::write_json(out, status));
    }
}

/// When to write something for no reason but to see whether the client is still there: it has closed
/// its side, as one does that is gone, and one that only waits. The first answers with a reset.
pub(super) struct Probe {
    half_closed: Pin<Box<WaitForCancellationFutureOwned>>,
    every: Duration,
    /// Set once it has closed its side.
    timer: Option<Interval>,
}

impl Probe {
    pub(super) fn new(half_closed: HalfClosed, every: Duration) -> Self {
        let half_closed = Box::pin(half_closed.token.cancelled_owned());
        Probe { half_closed, every: every.max(Duration::from_millis(1)), timer: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() {
            std::task::ready!(self.half_closed.as_mut().poll(cx));
        }
        let timer = self.timer.get_or_insert_with(|| {
            let mut timer = interval(self.every);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        });
        timer.poll_tick(cx).map(|_| ())
    }
}

impl http_body::Body for Sse {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        while this.out.len() < FRAME_BYTES
            && let Some(stream) = &mut this.stream
        {
            match Pin::new(stream).poll_next(cx) {
                Poll::Ready(Some(Ok(Item::Marker(marker)))) => this.marker(&marker),
                Poll::Ready(Some(Ok(Item::Events { bytes, .. }))) => {
                    if let Err(error) = this.event(&bytes) {
                        this.stream = None;
                        report::defect(error.what());
                        this.fail(&status::internal().into());
                    }
                }
                Poll::Ready(Some(Err(last))) => {
                    this.stream = None;
                    this.finish(&last);
                }
                Poll::Ready(None) => this.stream = None,
                Poll::Pending if this.out.is_empty() => {
                    let Some(probe) = &mut this.probe else { return Poll::Pending };
                    std::task::ready!(probe.poll(cx));
                    this.out.extend_from_slice(COMMENT);
                }
                Poll::Pending => break,
            }
        }
        if this.out.is_empty() {
            return Poll::Ready(None);
        }
        let out = Bytes::from(std::mem::take(&mut this.out));
        let Some(stream) = &mut this.stream else { return Poll::Ready(Some(Ok(Frame::data(out)))) };
        stream.gone();
        Poll::Ready(Some(Ok(Frame::data(stream.count(out, false)))))
    }
}

/// The answer that such a body belongs to.
pub(super) fn response(sse: Sse) -> Response<Body> {
    let mut response = Response::new(Body::new(sse));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store, no-transform"),
        // nginx holds answers back unless it is told not to.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
