//! A body that comes coded. Little of it is made at a time, whatever it says, and nothing is made before
//! it is asked for; one that swells beyond what events do is told so.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use crate::server::coding::{Coding, Decoder, Problem, Swelling};
use crate::server::quotas::Grant;
use crate::server::rpc::status;

/// What is made of it before it is looked at.
const PIECE_BYTES: usize = 16 << 10;
/// Frames of which nothing was made, after which others have their turn.
const FRAMES_PER_POLL: u32 = 16;

pub(super) struct Decoded {
    inner: Body,
    coding: Coding,
    decoder: Decoder,
    swelling: Swelling,
    /// What came and is not decoded yet.
    rest: Bytes,
    piece: Vec<u8>,
    problem: Option<Problem>,
    /// Nothing more comes.
    is_whole: bool,
    is_over: bool,
    _grant: Grant,
}

impl Decoded {
    pub(super) fn new(inner: Body, coding: Coding, swelling: Swelling, grant: Grant) -> Decoded {
        Decoded {
            inner,
            coding,
            decoder: Decoder::new(coding),
            swelling,
            rest: Bytes::new(),
            piece: Vec::new(),
            problem: None,
            is_whole: false,
            is_over: false,
            _grant: grant,
        }
    }

    fn not(&self, problem: Problem) -> Status {
        status::not_coded(self.coding, problem).into()
    }

    /// What can be made of what came; empty where more has to come.
    fn next(&mut self) -> Result<Bytes, Status> {
        if let Some(problem) = self.problem {
            return Err(self.not(problem));
        }
        self.piece.resize(PIECE_BYTES, 0);
        let mut filled = 0;
        while filled < PIECE_BYTES {
            let step = self.decoder.step(&self.rest, &mut self.piece[filled..]);
            let (taken, made) = match step {
                Ok(step) => step,
                // What was made before counts.
                Err(problem) if filled > 0 => {
                    self.problem = Some(problem);
                    break;
                }
                Err(problem) => return Err(self.not(problem)),
            };
            self.rest.advance(taken);
            filled += made;
            if (taken, made) == (0, 0) {
                break;
            }
        }
        self.swelling.made(filled).map_err(|over| status::swells(self.coding, over))?;
        Ok(Bytes::copy_from_slice(&self.piece[..filled]))
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
        let mut frames = 0;
        while !this.is_over {
            match this.next() {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Err(failed) => {
                    this.is_over = true;
                    return Poll::Ready(Some(Err(failed)));
                }
            }
            if this.is_whole {
                this.is_over = true;
                if this.decoder.is_between() {
                    break;
                }
                return Poll::Ready(Some(Err(this.not(Problem::Cut))));
            }
            frames += 1;
            if frames > FRAMES_PER_POLL {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.swelling.came(data.len());
                        this.rest = data;
                    }
                }
                Some(Err(error)) => {
                    this.is_over = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => this.is_whole = true,
            }
        }
        Poll::Ready(None)
    }
}
