//! Server-side failures, written to the program's log for the operator. A client hears of them in
//! general terms only.
//!
//! A failure is reported where it is met, so once. Mapping it to a status may happen any number of
//! times, and logs nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use tailmark_log::eventlog::{AppendError, CancelError, EraseError, Erased, ReadError};
use tailmark_log::storage::{Damage, StoreError};
use tailmark_record::Reason;

/// A defect of ours.
pub(crate) fn defect(detail: &str) {
    tracing::error!(detail, "internal error");
}

/// Why a batch was not stored, unless its sender has to change something or nobody has.
pub(crate) fn append(error: &AppendError) {
    match error {
        AppendError::Busy(detail) => tracing::error!(%detail, "append refused"),
        AppendError::Stopped(detail) => tracing::error!(detail, "append refused"),
        AppendError::NotWriter(detail) => tracing::warn!(detail, "append refused"),
        AppendError::Diverged(detail) => tracing::error!(detail, "append refused"),
        AppendError::Unknown(detail) => tracing::error!(%detail, "append failed"),
        AppendError::RepeatsUnknown(detail) => match &**detail {
            StoreError::Damaged(found) => damage(found),
            detail => tracing::error!(%detail, "repeats cannot be told"),
        },
        AppendError::Refused(detail) => defect(&detail.to_string()),
        AppendError::Partial { error, .. } => append(error),
        AppendError::DiskFull(detail) => {
            static BOUND: Bound = Bound::new();
            BOUND.line(|left_out| {
                let remedy = Reason::DiskFull.remedy();
                tracing::warn!(%detail, remedy, left_out, "an append found no room and was refused");
            });
        }
        AppendError::HeadMoved { .. }
        | AppendError::Fenced { .. }
        | AppendError::ProducerHole { .. }
        | AppendError::ProducerUnknown
        | AppendError::Closing
        | AppendError::TooLarge { .. } => {}
    }
}

/// Why events could not be read, unless they are gone in good order.
pub(crate) fn read(error: &ReadError) {
    match error {
        ReadError::Damaged(found) => damage(found),
        ReadError::Store(detail) => tracing::error!(%detail, "read failed"),
        ReadError::Trimmed { .. } | ReadError::Removed(_) | ReadError::Closing => {}
    }
}

/// Why a backup could not be read.
pub(crate) fn backup(error: &dyn std::error::Error) {
    tracing::error!(%error, "a backup could not be read");
}

/// Why a dry run of retention could not begin.
pub(crate) fn dry_run(error: &dyn std::error::Error) {
    tracing::error!(%error, "a dry run could not begin");
}

/// An erasure begins: who ordered it, and why, can be found later.
pub(crate) fn erases(principal: &str, erasure: Uuid, events: u64, why: &str) {
    tracing::info!(target: "audit", principal, %erasure, events, why, "erasing");
}

/// It is done.
pub(crate) fn erased(done: &Erased) {
    let Erased { id, events, segments, notices, .. } = done;
    tracing::info!(target: "audit", erasure = %id, events, segments, notices, "erased");
}

/// It was taken back before it had erased anything.
pub(crate) fn erasure_cancelled(principal: &str, erasure: Uuid) {
    tracing::info!(target: "audit", principal, %erasure, "an erasure was taken back");
}

/// Why it was not taken back.
pub(crate) fn erasure_not_cancelled(error: &CancelError) {
    tracing::error!(%error, "an erasure could not be taken back");
}

/// Why events were not erased.
pub(crate) fn erase(error: &EraseError) {
    tracing::error!(%error, "an erasure is not done");
}

fn damage(damage: &Damage) {
    tracing::error!(%damage, "damage found");
}

/// Somebody asked for what is not theirs.
pub(crate) fn refused(principal: &str, right: &'static str) {
    static BOUND: Bound = Bound::new();
    BOUND.line(|left_out| {
        tracing::warn!(target: "audit", principal, right, left_out, "refused");
    });
}

/// Somebody did what is for who administers.
pub(crate) fn acted(principal: &str, act: &'static str) {
    static BOUND: Bound = Bound::new();
    BOUND.line(|left_out| {
        tracing::info!(target: "audit", principal, act, left_out, "admin");
    });
}

/// Somebody came without a credential that counts.
pub(crate) fn unauthenticated(peer: Option<SocketAddr>, reason: Reason) {
    static BOUND: Bound = Bound::new();
    let peer = peer.map(tracing::field::display);
    BOUND.line(|left_out| {
        tracing::warn!(target: "audit", peer, %reason, left_out, "not authenticated");
    });
}

/// Lines of one kind in one second; whoever is refused may try as often as they like.
const LINES: u64 = 20;

/// Keeps lines that others cause to so many a second.
struct Bound(Mutex<Second>);

struct Second {
    begun: Option<Instant>,
    lines: u64,
    left_out: u64,
}

impl Bound {
    const fn new() -> Bound {
        Bound(Mutex::new(Second { begun: None, lines: 0, left_out: 0 }))
    }

    /// Writes the line, with how many were left out before it; or leaves it out.
    fn line(&self, write: impl FnOnce(u64)) {
        let mut second = self.0.lock();
        if second.begun.is_none_or(|begun| begun.elapsed() >= Duration::from_secs(1)) {
            (second.begun, second.lines) = (Some(Instant::now()), 0);
        }
        if second.lines >= LINES {
            second.left_out += 1;
            return;
        }
        second.lines += 1;
        let left_out = std::mem::take(&mut second.left_out);
        drop(second);
        write(left_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_others_cause_are_bounded() {
        let bound = Bound::new();
        let mut lines = Vec::new();
        (0..1_000).for_each(|_| bound.line(|left_out| lines.push(left_out)));
        assert!(lines.len() <= 2 * usize::try_from(LINES).unwrap(), "{}", lines.len());
        assert!(lines.len() >= usize::try_from(LINES).unwrap());
    }
}
