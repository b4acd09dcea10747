//! An answer that is coded. What comes is passed on at once, so that a watch that is live stays it: each piece
//! ends where a decompressor can give out all of it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tonic::Status;
use tonic::body::Body;

use crate::server::coding::{Coding, Encoder, Unwritten};
use crate::server::quotas::Grant;
use crate::server::report;
use crate::server::rpc::status;

/// What is compressed before others have their turn.
const PIECE_BYTES: usize = 32 << 10;

pub(super) struct Encoded {
    inner: Body,
    /// Absent once all of it is out.
    encoder: Option<Encoder>,
    /// What came and is not compressed yet.
    rest: Bytes,
    is_resting: bool,
    /// What comes counts itself as long as it is there: it is kept until what was made of it is sent.
    /// Else that is counted when it goes out, and this is not kept.
    is_counted: bool,
    _grant: Grant,
}

impl Encoded {
    pub(super) fn new(inner: Body, coding: Coding, is_counted: bool, grant: Grant) -> Encoded {
        let encoder = Some(Encoder::new(coding));
        let (rest, is_resting) = (Bytes::new(), false);
        Encoded { inner, encoder, rest, is_resting, is_counted, _grant: grant }
    }

    /// Compresses some of what came.
    fn next(&mut self) -> Result<Bytes, Unwritten> {
        let Some(encoder) = &mut self.encoder else { return Ok(Bytes::new()) };
        let raw = self.rest.split_to(PIECE_BYTES.min(self.rest.len()));
        let mut out = Vec::new();
        encoder.write(&raw, &mut out)?;
        if self.rest.is_empty() && !self.inner.is_end_stream() {
            encoder.flush(&mut out)?;
        }
        self.is_resting = raw.len() == PIECE_BYTES;
        if !self.is_counted {
            return Ok(out.into());
        }
        Ok(Bytes::from_owner(Coded { out, _raw: raw }))
    }
}

/// What goes out, and what it was made of, which is what is counted.
struct Coded {
    out: Vec<u8>,
    _raw: Bytes,
}

impl AsRef<[u8]> for Coded {
    fn as_ref(&self) -> &[u8] {
        &self.out
    }
}

/// It is written into memory.
fn failed(_: Unwritten) -> Status {
    report::defect("an answer cannot be compressed");
    status::internal().into()
}

impl http_body::Body for Encoded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if std::mem::take(&mut this.is_resting) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !this.rest.is_empty() {
                let out = this.next().map_err(failed)?;
                if !out.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(out))));
                }
                continue;
            }
            if this.encoder.is_none() {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.rest = data;
                    }
                }
                Some(Err(error)) => {
                    this.encoder = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    let mut out = Vec::new();
                    if let Some(mut encoder) = this.encoder.take() {
                        encoder.finish(&mut out).map_err(failed)?;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none()
    }
}
