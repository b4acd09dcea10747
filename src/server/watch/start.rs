//! From what was asked for to the seq that a watch begins with: the rows of the cursor table, and
//! the jumps that `on_lost` makes of them.

use std::time::Duration;

use super::request::{Position, Request};
use crate::server::rpc::status::{self, Failure, LogFacts};
use crate::server::{Shared, report};
use tailmark_log::eventlog::{CursorError, EventLog, ReadError, ResolveError};
use tailmark_record::{Bounds, ChainTag, Cursor, Gap, GapReason, OnLost, Seq, Start};

/// Where a watch begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) start: Seq,
    /// What is lost before it.
    pub(super) gaps: Vec<Gap>,
    /// Of the chain before it, where the client's cursor said it and it is what is here.
    pub(super) tag: Option<ChainTag>,
}

impl Resolved {
    fn at(start: Seq) -> Self {
        Resolved { start, gaps: Vec::new(), tag: None }
    }
}

/// Finds the first seq of a watch.
pub(super) async fn resolve(shared: &Shared, request: &Request) -> Result<Resolved, Failure> {
    let (log, retry_delay) = (&shared.log, shared.options.retry_delay);
    let mut found = resolve_here(log, request, retry_delay).await?;
    // Only who writes knows whether the log here has it all.
    if let Err((CursorError::Ahead { .. } | CursorError::LogDiverged { .. }, _)) = found
        && shared.confirm().await?.is_some()
    {
        found = resolve_here(log, request, retry_delay).await?;
    }
    let (error, wanted) = match found {
        Ok(resolved) => return Ok(resolved),
        Err(error) => error,
    };
    match jump(&error, wanted, request.on_lost, &log.bounds()) {
        Some(resolved) => Ok(resolved),
        None => {
            let facts = LogFacts::of(log).await;
            Err(match &request.position {
                Position::After(_) => status::cursor(&error, &facts),
                Position::At(_) => status::start(wanted, &error, &facts),
            })
        }
    }
}

/// By what the log here has: where it begins, or why it cannot, and the first seq that was wanted.
async fn resolve_here(
    log: &EventLog,
    request: &Request,
    retry_delay: Duration,
) -> Result<Result<Resolved, (CursorError, Seq)>, Failure> {
    Ok(Err(match &request.position {
        Position::After(cursor) => match log.resolve(*cursor).await {
            Ok(start) => {
                let tag = if let Cursor::Token { tag, .. } = *cursor { tag } else { None };
                return Ok(Ok(Resolved { tag, ..Resolved::at(start) }));
            }
            Err(ResolveError::Cursor(error)) => (error, cursor.seq().next()),
            Err(ResolveError::Read(error)) => return Err(unread(&error, log, retry_delay).await),
        },
        Position::At(Start::Seq(seq)) if *seq > log.bounds().next() => {
            (CursorError::Ahead { head: log.bounds().head }, *seq)
        }
        Position::At(start) => match log.start(*start, &request.reads()).await {
            Ok(start) => return Ok(Ok(Resolved::at(start))),
            Err(ReadError::Trimmed { from, oldest }) => {
                (CursorError::Trimmed { oldest, missed: from.distance_to(oldest) }, from)
            }
            Err(error) => return Err(unread(&error, log, retry_delay).await),
        },
    }))
}

async fn unread(error: &ReadError, log: &EventLog, retry_delay: Duration) -> Failure {
    report::read(error);
    status::read(error, &LogFacts::of(log).await, retry_delay)
}

/// Where to go on instead; `None` = nowhere. `wanted` is the first seq that was asked for.
fn jump(error: &CursorError, wanted: Seq, on_lost: OnLost, bounds: &Bounds) -> Option<Resolved> {
    let start = match (on_lost, error) {
        (OnLost::Fail, _) => return None,
        (OnLost::Oldest, _) => bounds.oldest,
        (OnLost::Latest, _) => bounds.next(),
        (OnLost::LastCommon, CursorError::LogDiverged { last_common, .. }) => {
            last_common.next().max(bounds.oldest)
        }
        // Both histories are the same up to the head.
        (OnLost::LastCommon, CursorError::Ahead { .. }) => bounds.next(),
        (OnLost::LastCommon, CursorError::LogChanged | CursorError::Trimmed { .. }) => {
            bounds.oldest
        }
    };
    let unknown = |reason| Gap { from: Seq::ZERO, to: Seq::ZERO, reason };
    let mut gaps = vec![match error {
        CursorError::Trimmed { .. } => {
            Gap { from: wanted, to: start.prev(), reason: GapReason::Trimmed }
        }
        CursorError::LogChanged => unknown(GapReason::LogChanged),
        CursorError::LogDiverged { .. } => unknown(GapReason::LogDiverged),
        CursorError::Ahead { .. } => unknown(GapReason::Ahead),
    }];
    if let (OnLost::LastCommon, CursorError::LogDiverged { last_common, .. }) = (on_lost, error)
        && last_common.next() < start
    {
        let from = last_common.next();
        gaps.push(Gap { from, to: start.prev(), reason: GapReason::Trimmed });
    }
    Some(Resolved { start, gaps, tag: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::{GenerationTable, Timestamp};

    fn bounds(oldest: u64, head: u64) -> Bounds {
        let generations = GenerationTable::created(1, Timestamp::EPOCH);
        Bounds { oldest: Seq::new(oldest), head: Seq::new(head), generations }
    }

    #[test]
    fn every_jump_says_what_it_leaves_out() {
        let s = Seq::new;
        let zero = |reason| Gap { from: Seq::ZERO, to: Seq::ZERO, reason };
        let trimmed = |from, to| Gap { from: s(from), to: s(to), reason: GapReason::Trimmed };
        let trim = CursorError::Trimmed { oldest: s(10), missed: 5 };
        let diverged = CursorError::LogDiverged { last_common: s(15), at_most: s(15) };
        let far = CursorError::LogDiverged { last_common: s(3), at_most: s(4) };
        let ahead = CursorError::Ahead { head: s(20) };
        use GapReason::{Ahead, LogChanged, LogDiverged};
        for (error, on_lost, start, gaps) in [
            (&trim, OnLost::Oldest, 10, vec![trimmed(5, 9)]),
            (&trim, OnLost::Latest, 21, vec![trimmed(5, 20)]),
            (&trim, OnLost::LastCommon, 10, vec![trimmed(5, 9)]),
            (&CursorError::LogChanged, OnLost::Oldest, 10, vec![zero(LogChanged)]),
            (&CursorError::LogChanged, OnLost::Latest, 21, vec![zero(LogChanged)]),
            (&CursorError::LogChanged, OnLost::LastCommon, 10, vec![zero(LogChanged)]),
            (&diverged, OnLost::Oldest, 10, vec![zero(LogDiverged)]),
            (&diverged, OnLost::Latest, 21, vec![zero(LogDiverged)]),
            (&diverged, OnLost::LastCommon, 16, vec![zero(LogDiverged)]),
            (&far, OnLost::LastCommon, 10, vec![zero(LogDiverged), trimmed(4, 9)]),
            (&ahead, OnLost::Oldest, 10, vec![zero(Ahead)]),
            (&ahead, OnLost::Latest, 21, vec![zero(Ahead)]),
            (&ahead, OnLost::LastCommon, 21, vec![zero(Ahead)]),
        ] {
            let resolved = jump(error, s(5), on_lost, &bounds(10, 20));
            let expected = Resolved { start: s(start), gaps, tag: None };
            assert_eq!(resolved, Some(expected), "{error:?} {on_lost:?}");
            assert_eq!(jump(error, s(5), OnLost::Fail, &bounds(10, 20)), None);
        }
    }
}
