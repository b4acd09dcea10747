//! The cursors of places, for streams that are polled.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tailmark_log::eventlog::EventLog;
use tailmark_record::Seq;

/// Finds one cursor at a time: at once where memory has it, else by a read.
#[derive(Default)]
pub(crate) struct Naming(Option<Pending>);

struct Pending {
    seq: Seq,
    cursor: Pin<Box<dyn Future<Output = String> + Send>>,
}

impl Naming {
    /// The cursor of `seq`, where it is known before it is asked for.
    pub(crate) fn know(&mut self, seq: Seq, cursor: String) {
        self.0 = Some(Pending { seq, cursor: Box::pin(std::future::ready(cursor)) });
    }

    /// The cursor of `seq`. Asked for another seq, it forgets the one before.
    pub(crate) fn poll(&mut self, log: &EventLog, seq: Seq, cx: &mut Context<'_>) -> Poll<String> {
        if let Some(cursor) = log.known_cursor(seq) {
            self.0 = None;
            return Poll::Ready(cursor);
        }
        let pending = match self.0.take() {
            Some(pending) if pending.seq == seq => pending,
            _ => {
                let log = log.clone();
                Pending { seq, cursor: Box::pin(async move { log.cursor(seq).await }) }
            }
        };
        let pending = self.0.insert(pending);
        let cursor = std::task::ready!(pending.cursor.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(cursor)
    }
}
