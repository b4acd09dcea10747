//! A body that comes in gzip. Little of it is made at a time, whatever it says, and nothing is made before
//! it is asked for; one that swells beyond what events do is told so.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use super::gunzip::{Gunzip, Problem};
use crate::server::quotas::Grant;
use crate::server::rpc::status;

/// What is made of it before it is looked at.
const PIECE_BYTES: usize = 16 << 10;
/// So many times what came may be made of it, once that is more than is free. Deflate gets to a
/// thousand times, for nothing but repeats; real JSON to 5 or 20.
const MOST_TIMES: u64 = 200;
/// Frames of which nothing was made, after which others have their turn.
const FRAMES_PER_POLL: u32 = 16;

pub(super) struct Decoded {
    inner: Body,
    gunzip: Gunzip,
    /// What came and is not decoded yet.
    rest: Bytes,
    piece: Vec<u8>,
    problem: Option<Problem>,
    /// So much may be made of it in any case.
    free_bytes: u64,
    came: u64,
    made: u64,
    /// Nothing more comes.
    is_whole: bool,
    is_over: bool,
    _grant: Grant,
}

impl Decoded {
    pub(super) fn new(inner: Body, free_bytes: usize, grant: Grant) -> Decoded {
        Decoded {
            inner,
            gunzip: Gunzip::default(),
            rest: Bytes::new(),
            piece: Vec::new(),
            problem: None,
            free_bytes: free_bytes as u64,
            came: 0,
            made: 0,
            is_whole: false,
            is_over: false,
            _grant: grant,
        }
    }

    /// What can be made of what came; empty where more has to come.
    fn next(&mut self) -> Result<Bytes, Status> {
        if let Some(problem) = self.problem {
            return Err(status::not_gzip(problem.words()).into());
        }
        self.piece.resize(PIECE_BYTES, 0);
        let mut filled = 0;
        while filled < PIECE_BYTES {
            let step = self.gunzip.step(&self.rest, &mut self.piece[filled..]);
            let (taken, made) = match step {
                Ok(step) => step,
                // What was made before counts.
                Err(problem) if filled > 0 => {
                    self.problem = Some(problem);
                    break;
                }
                Err(problem) => return Err(status::not_gzip(problem.words()).into()),
            };
            self.rest.advance(taken);
            filled += made;
            if (taken, made) == (0, 0) {
                break;
            }
        }
        self.made += filled as u64;
        let most = self.free_bytes.saturating_add(self.came.saturating_mul(MOST_TIMES));
        if self.made > most {
            return Err(status::swells(most, self.made, MOST_TIMES).into());
        }
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
                if this.gunzip.is_between() {
                    break;
                }
                return Poll::Ready(Some(Err(status::not_gzip(Problem::Cut.words()).into())));
            }
            frames += 1;
            if frames > FRAMES_PER_POLL {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.came += data.len() as u64;
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
