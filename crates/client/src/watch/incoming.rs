//! One attempt on the wire: events, in whatever messages they come.
//!
//! A server that has `WatchBatches` is asked for that, for many events a message are decoded much
//! faster; one that has not, for `Watch`. Knows nothing of what is delivered or resumed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use prost::Message;
use tonic::codec::Streaming;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use super::Received;
use crate::Error;
use crate::channel::Channel;
use crate::raw::Raw;
use tailmark_record::{Event, EventError, Marker, Part, Parts};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::methods::feed_service;

const BATCHES: &str = feed_service::WATCH_BATCHES.path;
const EVENTS: &str = feed_service::WATCH.path;

/// An attempt that stands.
pub(super) struct Opened {
    pub headers: MetadataMap,
    pub incoming: Incoming,
}

/// What comes.
pub(super) struct Incoming {
    pub stream: Streaming<Bytes>,
    framing: Framing,
    /// What was not handed over yet of the last message.
    rest: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Events,
    Batches,
}

/// One thing that came, read as far as the watch needs it.
pub(super) enum News {
    Event(Received),
    Marker(Marker),
}

/// Why nothing more comes.
pub(super) enum Broken {
    Call(Status),
    Message(EventError),
}

/// Begins an attempt.
pub(super) async fn open(
    mut grpc: tonic::client::Grpc<Channel>,
    request: pb::WatchRequest,
) -> Result<Opened, Error> {
    let message = Bytes::from(request.encode_to_vec());
    let mut framing = Framing::Batches;
    loop {
        crate::calls::ready(&mut grpc).await?;
        let path = PathAndQuery::from_static(match framing {
            Framing::Batches => BATCHES,
            Framing::Events => EVENTS,
        });
        match grpc.server_streaming(Request::new(message.clone()), path, Raw).await {
            Ok(response) => {
                let (headers, stream, _) = response.into_parts();
                let incoming = Incoming { stream, framing, rest: Bytes::new() };
                return Ok(Opened { headers, incoming });
            }
            // A proxy that says so has another code here: `Channel`.
            Err(status) if framing == Framing::Batches && status.code() == Code::Unimplemented => {
                framing = Framing::Events;
            }
            Err(status) => return Err(Error::from_status(status)),
        }
    }
}

impl Incoming {
    /// The next event or marker. `heard` is set when a message came.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        heard: &mut bool,
    ) -> Poll<Option<Result<News, Broken>>> {
        loop {
            if !self.rest.is_empty() {
                match self.part() {
                    Ok(Some(news)) => return Poll::Ready(Some(Ok(news))),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Some(Err(Broken::Message(error)))),
                }
            }
            let message = ready!(Pin::new(&mut self.stream).poll_next(cx));
            *heard = true;
            match message {
                None => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(Broken::Call(status)))),
                Some(Ok(bytes)) if self.framing == Framing::Batches => self.rest = bytes,
                Some(Ok(bytes)) => {
                    return Poll::Ready(Some(event(bytes).map_err(Broken::Message)));
                }
            }
        }
    }

    /// The next part of a batch.
    fn part(&mut self) -> Result<Option<News>, EventError> {
        let mut parts = Parts::new(&self.rest);
        let part = parts.next().transpose()?;
        let walked = self.rest.len() - parts.remaining();
        let news = match part {
            None => None,
            Some(Part::Marker(marker)) => Some(News::Marker(Marker::parse(marker)?)),
            Some(Part::Event(bytes)) => Some(event(self.rest.slice_ref(bytes))?),
        };
        self.rest.advance(walked);
        Ok(news)
    }
}

fn event(bytes: Bytes) -> Result<News, EventError> {
    let place = Event::place_of(&bytes)?;
    if place.has_marker
        && let Some(marker) = Marker::of_event(&bytes)?
    {
        return Ok(News::Marker(marker));
    }
    let seq = place.seq;
    // The text borrows from the message, or is empty and lies anywhere.
    let start = (place.cursor.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
    let start = if place.cursor.is_empty() { 0 } else { start };
    let cursor = start..start + place.cursor.len();
    Ok(News::Event(Received { bytes, seq, cursor }))
}
