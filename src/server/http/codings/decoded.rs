//! A body that comes in gzip. Little of it is made at a time, whatever it says, and nothing is made before
//! it is asked for; one that swells beyond what events do is told so.

use std::io::{self, BufRead, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use crate::server::quotas::Grant;
use crate::server::rpc::status;

/// What is made of it before it is looked at.
const PIECE_BYTES: usize = 16 << 10;
/// So many times what came may be made of it, once that is more than one message. Deflate gets to a
/// thousand times, for nothing but zeros; real JSON to 5 or 20.
const MOST_TIMES: u64 = 200;

pub(super) struct Decoded {
    inner: Body,
    decoder: MultiGzDecoder<Pieces>,
    message_bytes: u64,
    came: u64,
    made: u64,
    is_over: bool,
    _grant: Grant,
}

/// What came and is not decoded yet. Without any, more is to come, or it is over.
struct Pieces {
    rest: Bytes,
    is_over: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() && !self.is_over {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.rest)
    }

    fn consume(&mut self, read: usize) {
        self.rest.advance(read);
    }
}

impl Decoded {
    pub(super) fn new(inner: Body, message_bytes: usize, grant: Grant) -> Decoded {
        let decoder = MultiGzDecoder::new(Pieces { rest: Bytes::new(), is_over: false });
        let message_bytes = message_bytes as u64;
        Decoded { inner, decoder, message_bytes, came: 0, made: 0, is_over: false, _grant: grant }
    }

    /// What can be made of what came; `None` where more has to come.
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let mut piece = vec![0; PIECE_BYTES];
        let read = match self.decoder.read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(_) if self.decoder.get_ref().is_over => return Err(status::gzip_cut().into()),
            Err(error) => return Err(status::not_gzip(&error).into()),
        };
        self.made += read as u64;
        let most = self.message_bytes.saturating_add(self.came.saturating_mul(MOST_TIMES));
        if self.made > most {
            return Err(status::swells(most, self.made, MOST_TIMES).into());
        }
        piece.truncate(read);
        Ok(Some(piece.into()))
    }
}

impl http_body::Body for Decoded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        while !this.is_over {
            match this.next() {
                Ok(Some(piece)) if piece.is_empty() => this.is_over = true,
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Err(failed) => {
                    this.is_over = true;
                    return Poll::Ready(Some(Err(failed)));
                }
                Ok(None) => match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            this.came += data.len() as u64;
                            this.decoder.get_mut().rest = data;
                        }
                    }
                    Some(Err(error)) => {
                        this.is_over = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                    None => this.decoder.get_mut().is_over = true,
                },
            }
        }
        Poll::Ready(None)
    }
}
