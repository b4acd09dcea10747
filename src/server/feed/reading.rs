//! A reader for streams that are polled: one read at a time, with read-ahead of the next chunk, and
//! the facts that a failed read reports.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio_util::sync::ReusableBoxFuture;

use super::parked::{Parking, Ticket};
use crate::server::report;
use crate::server::rpc::status::{self, Failure, LogFacts};
use tailmark_log::eventlog::{Ahead, Delivery, EventLog, Progress, ReadError, Reader};
use tailmark_record::{GapReason, Seq};

/// Chunks without an event for its client that one poll of a stream goes through before it lets
/// others run.
pub(crate) const CHUNKS_PER_POLL: u32 = 4;

/// What was to be read could not be.
#[derive(Debug)]
pub(crate) struct Lost {
    error: ReadError,
    facts: LogFacts,
    /// Where to go on behind it.
    resume_cursor: Option<String>,
}

type Read = (Reader, Result<Delivery, Box<Lost>>);

/// A reader, and the read under way.
pub(crate) struct Reading {
    log: EventLog,
    /// Absent while it reads.
    reader: Option<Reader>,
    read: ReusableBoxFuture<'static, Read>,
    /// How far a reader is that may sleep.
    progress: Option<Arc<Progress>>,
    /// The chunk after the one at hand, which is parked from the first.
    ahead: Option<Ahead<Ticket>>,
}

impl Reading {
    pub(crate) fn new(log: EventLog, reader: Reader) -> Self {
        let read = ReusableBoxFuture::new(std::future::pending());
        Reading { log, progress: reader.progress(), reader: Some(reader), read, ahead: None }
    }

    /// Whether no read is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.reader.is_some()
    }

    /// Reads on up to `end` (exclusive), unless a read is under way: that one goes on.
    pub(crate) fn poll(
        &mut self,
        end: Seq,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Delivery, Box<Lost>>> {
        if let Some(reader) = self.reader.take() {
            self.read.set(read(reader, end, self.log.clone(), self.ahead.take()));
        }
        let (reader, result) = ready!(self.read.poll(cx));
        self.reader = Some(reader);
        Poll::Ready(result)
    }

    /// The last seq of which it is known, without a read, that nothing from `next` up to there concerns this reader.
    /// `None` where what it has delivered has not been gone through up to `next`.
    pub(crate) fn quiet_upto(&self, next: Seq) -> Option<Seq> {
        let progress = self.progress.as_ref().filter(|progress| progress.next() <= next)?;
        progress.quiet_upto()
    }

    /// Has a reader that sleeps come to the head.
    pub(crate) fn look(&self) {
        if let Some(progress) = &self.progress {
            progress.look();
        }
    }

    /// The client knows that nothing up to here is left.
    pub(crate) fn note_passed(&self, passed: Seq) {
        if let Some(progress) = &self.progress {
            progress.note_passed(passed);
        }
    }

    /// Has the next chunk read while this one is sent. Nothing that is read ahead takes the place of
    /// what is needed.
    pub(crate) fn read_ahead(&mut self, end: Option<Seq>, parking: &Parking) {
        self.ahead = match (&mut self.reader, end) {
            (Some(reader), Some(end)) if parking.has_spare_room() => {
                let parking = parking.clone();
                reader.read_ahead(end, move |delivery| parking.park_spare(delivery))
            }
            _ => None,
        };
    }

    /// What was read ahead, if it is there and there was room for it all the time.
    pub(crate) fn take_ahead(&mut self, end: Seq) -> Option<Delivery> {
        let reader = self.reader.as_mut()?;
        let Poll::Ready(kept) = self.ahead.as_mut()?.try_kept() else { return None };
        self.ahead = None;
        accept(reader, kept, end)
    }

    /// Drops what its reader has of what comes next.
    pub(crate) fn forget_ahead(&mut self) {
        if let Some(reader) = &mut self.reader {
            reader.forget_ahead();
        }
    }

    /// Whether the next read may have to wait for storage.
    pub(crate) fn is_far(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| !reader.is_at_hand())
    }

    /// Whether nothing was erased since this was read, and no read is under way.
    pub(crate) fn is_fresh(&self, delivery: &Delivery) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.is_fresh(delivery))
    }

    /// Goes on at another position. Nothing moves while a read is under way.
    pub(crate) fn jump(&mut self, to: Seq) {
        if let Some(reader) = &mut self.reader {
            reader.jump(to);
        }
    }
}

impl Lost {
    /// The end of what cannot be read, and why, if all of it from `next` up to there is gone.
    pub(crate) fn gap(&self, next: Seq) -> Option<(Seq, GapReason)> {
        // One that begins behind the position must not take along what can be read before it.
        let begins_here = match &self.error {
            ReadError::Damaged(damage) => damage.from <= next,
            ReadError::Removed(range) => range.first <= next,
            _ => true,
        };
        self.range(next).filter(|_| begins_here)
    }

    /// The cursor of the end of a range, where the range itself says what stands there: no event has to be read.
    pub(crate) fn cursor_of(&self, end: Seq, log: &EventLog) -> Option<String> {
        match &self.error {
            ReadError::Removed(range) if range.end.prev() == end => {
                range.link.known_tag().map(|tag| log.cursor_with(end, tag))
            }
            _ => None,
        }
    }

    fn range(&self, next: Seq) -> Option<(Seq, GapReason)> {
        match &self.error {
            ReadError::Trimmed { oldest, .. } => Some((oldest.prev(), GapReason::Trimmed)),
            ReadError::Damaged(damage) => Some((damage.to, GapReason::Damaged)),
            ReadError::Removed(range) => Some((range.end.prev(), range.reason.into())),
            _ => None,
        }
        // A range that does not reach the position would never let us past it.
        .filter(|(to, _)| *to >= next)
    }

    /// Why what begins with `next` cannot be read, and where to go on. Reported: a stream ends of it.
    pub(crate) fn failure(&self, next: Seq, retry_delay: Duration) -> Failure {
        report::read(&self.error);
        let failure = status::read(&self.error, &self.facts, retry_delay);
        match (self.range(next), &self.resume_cursor) {
            (Some(_), Some(cursor)) => failure.with("resume_cursor", cursor),
            _ => failure,
        }
    }
}

/// What was read ahead, if it was kept and is what comes next.
fn accept(reader: &mut Reader, kept: Option<Ticket>, end: Seq) -> Option<Delivery> {
    reader.accept(kept?.redeem()?, end)
}

/// One read, with what a failure has to tell.
async fn read(mut reader: Reader, end: Seq, log: EventLog, ahead: Option<Ahead<Ticket>>) -> Read {
    if let Some(ahead) = ahead.filter(|ahead| ahead.from() == reader.position())
        && let Some(delivery) = accept(&mut reader, ahead.kept().await, end)
    {
        return (reader, Ok(delivery));
    }
    match reader.next(end).await {
        Ok(delivery) => (reader, Ok(delivery)),
        Err(error) => {
            // Of those there may be very many, and no stream ends of them.
            let is_intended = matches!(&error, ReadError::Removed(it) if it.is_intended());
            let facts = match is_intended {
                true => LogFacts::at_hand(&log),
                false => LogFacts::of(&log).await,
            };
            let mut lost = Box::new(Lost { error, facts, resume_cursor: None });
            if let Some((to, _)) = lost.range(reader.position()).filter(|_| !is_intended) {
                lost.resume_cursor = Some(log.cursor(to).await);
            }
            (reader, Err(lost))
        }
    }
}
