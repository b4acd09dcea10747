//! `POST /v1/events`: events in, one JSON object or one a line, stored as `UploadEvents` stores
//! them: durable as they arrive, what came before a bad one stays.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Request, State};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Response, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use super::query::Query;
use super::reads::json_body;
use crate::eventlog::Batch;
use crate::record::json::EventJson;
use crate::server::gauges::Peer;
use crate::server::status::{self, Failure};
use crate::server::upload::{self, Source};
use crate::server::{Shared, http::media_type};
use crate::wire::json;

const TAKEN: &str = "application/json (one event) or application/x-ndjson (one a line)";
/// Frames without an event that one poll goes through before it lets others run.
const FRAMES_PER_POLL: u32 = 16;
/// What is read and thrown away of a body that was refused, so that its sender comes to read why:
/// a connection that is closed over unread bytes may take the answer with it.
const DRAIN_BYTES: usize = 16 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Stores what the body says.
pub(super) async fn store(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let is_single = match media_type(&head.headers).as_deref() {
        Some("application/json") => true,
        Some("application/x-ndjson") => false,
        other => return status::unsupported_media_type(other.unwrap_or_default(), TAKEN),
    };
    if let Some(encoding) = encoding(&head.headers) {
        return status::encoded_body(&encoding);
    }
    if let Err(failure) = Query::read(head.uri.query(), &[]) {
        return status::respond(&failure.into());
    }
    let options = &shared.options;
    // One event is a call with one answer; lines may come for ever.
    let deadline = is_single.then(|| Instant::now() + options.unary_deadline);
    let lines = Lines::new(Body::new(body), is_single, options.message_bytes);
    let peer = head.extensions.get::<Peer>();
    match upload::upload_from(&shared, lines, deadline, peer).await {
        Ok(result) => json_body(json::upload_result(&result)),
        Err(status) => status::respond(&status),
    }
}

fn encoding(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_ENCODING)?;
    (value != "identity").then(|| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// A body as events.
struct Lines {
    body: Option<Body>,
    /// What came and is not read yet.
    buffer: BytesMut,
    /// Of it, what is known to hold no line end.
    scanned: usize,
    /// The whole body is one event.
    is_single: bool,
    limit: usize,
    line: u64,
}

impl Lines {
    fn new(body: Body, is_single: bool, limit: usize) -> Self {
        let buffer = BytesMut::new();
        Lines { body: Some(body), buffer, scanned: 0, is_single, limit, line: 0 }
    }

    /// The next line that is whole; at the end of the body also one without its end.
    fn next_line(&mut self) -> Result<Option<Bytes>, Failure> {
        let end = if self.is_single {
            None
        } else {
            self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n')
        };
        let len = end.map_or(self.buffer.len(), |end| self.scanned + end);
        if len > self.limit {
            let failure = status::over_limit("message_bytes", self.limit, len);
            return Err(failure.with("line", self.line + 1));
        }
        let line = match end {
            Some(_) => {
                let line = self.buffer.split_to(len).freeze();
                self.buffer.advance(1);
                line
            }
            None if self.body.is_none() && !self.buffer.is_empty() => self.buffer.split().freeze(),
            None => {
                self.scanned = len;
                return Ok(None);
            }
        };
        self.scanned = 0;
        self.line += 1;
        Ok(Some(line))
    }

    /// Puts the event of a line into the batch; false for an empty line.
    fn take(&self, line: &[u8], batch: &mut Batch) -> Result<bool, Failure> {
        // The byte order mark that some editors put first.
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if self.line == 1 => rest,
            _ => line,
        };
        if !self.is_single && line.iter().all(u8::is_ascii_whitespace) {
            return Ok(false);
        }
        let json = EventJson::parse(line).map_err(|error| status::malformed_json(&error))?;
        batch.push(&json.event()).map_err(|error| status::invalid_event(&error))?;
        Ok(true)
    }
}

impl Source for Lines {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Batch,
    ) -> Poll<Option<Result<(), Failure>>> {
        let mut frames = 0;
        loop {
            match self.next_line() {
                Ok(None) => {}
                Ok(Some(line)) => match self.take(&line, batch) {
                    Ok(true) => return Poll::Ready(Some(Ok(()))),
                    Ok(false) => continue,
                    Err(failure) => {
                        let failure = failure.with("line", self.line);
                        return Poll::Ready(Some(Err(failure)));
                    }
                },
                Err(failure) => return Poll::Ready(Some(Err(failure))),
            }
            let Some(body) = &mut self.body else {
                // Nothing at all is no event.
                return Poll::Ready(match (self.is_single, self.line) {
                    (true, 0) => {
                        self.line = 1;
                        Some(self.take(b"", batch).map(|_| ()))
                    }
                    _ => None,
                });
            };
            frames += 1;
            if frames > FRAMES_PER_POLL {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match std::task::ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    self.body = None;
                    let status = Status::from_error(error.into());
                    return Poll::Ready(Some(Err(status::upload_broken(&status))));
                }
                None => self.body = None,
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && !body.is_end_stream()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(DRAIN_TIME, drain(body)));
        }
    }
}

async fn drain(mut body: Body) {
    let mut drained = 0;
    while drained < DRAIN_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        drained += frame.data_ref().map_or(0, Bytes::len);
    }
}
