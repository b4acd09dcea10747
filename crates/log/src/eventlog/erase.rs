//! Erasing: what events said goes, and what is left are shells.
//!
//! The engine does it to what it stores ([`crate::storage::Store::erase`]). Here are the rest and the order of things: what
//! memory holds is dropped when nothing that is read holds it any more, the window of repeats forgets, and then readers
//! are told, topic by topic. An erasure that was ordered is finished: what was cut or failed goes on here in the
//! background, also after a restart.

mod notices;
mod waiting;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use uuid::Uuid;

use super::core::Core;
use super::eraser::{CancelError, EraseError, Erased, Erasure};
use super::queue::Work;
use super::trouble::Job;
use crate::storage::{EraseOrder, ErasePhase, EraseProgress};
use tailmark_record::Timestamp;

/// The turn of one erasure.
struct Turn<'a>(&'a Core);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let is_left = self.0.store.erasing().is_some();
        let mut state = self.0.eraser.state.lock();
        state.running = None;
        (state.is_due, state.has_failed) = (is_left, is_left);
        if !is_left {
            state.progress = None;
        }
        drop(state);
        if !is_left {
            // Whoever has brought it through.
            self.0.troubles.note(Job::Erasing, Ok::<(), EraseError>(()));
        }
        self.0.eraser.changed.notify_all();
    }
}

/// See [`super::EventLog::erase`].
pub(super) fn erase(
    core: &Core,
    erasure: Erasure,
    progress: &mut dyn FnMut(EraseProgress),
) -> Result<Erased, EraseError> {
    let at = (core.clock)();
    let at = if at.is_valid() { at.min(Timestamp::LAST_OF_NANOS) } else { Timestamp::EPOCH };
    let Erasure { id, seqs, reason } = erasure;
    let order = Arc::new(EraseOrder { id, reason, at, seqs });
    order.check(core.bounds().next()).map_err(EraseError::Invalid)?;
    let (turn, order) = begin(core, order)?;
    let erased = run(core, &order, progress);
    drop(turn);
    erased
}

/// Takes the turn. An order that is not through counts as it was given first.
fn begin(core: &Core, order: Arc<EraseOrder>) -> Result<(Turn<'_>, Arc<EraseOrder>), EraseError> {
    if core.queue.ended().is_some() {
        return Err(EraseError::Closing);
    }
    let mut state = core.eraser.state.lock();
    if let Some(id) = state.running {
        return Err(EraseError::Busy { id });
    }
    let order = match core.store.erasing() {
        Some(left) if left.id != order.id => return Err(EraseError::Busy { id: left.id }),
        left => left.unwrap_or(order),
    };
    state.running = Some(order.id);
    Ok((Turn(core), order))
}

/// Takes the turn for the order that is not through, if there is one. What was seen before is no order any more: it may have
/// been taken back meanwhile.
fn resume(core: &Core) -> Option<(Turn<'_>, Arc<EraseOrder>)> {
    if core.queue.ended().is_some() {
        return None;
    }
    let mut state = core.eraser.state.lock();
    if state.running.is_some() {
        return None;
    }
    let Some(order) = core.store.erasing() else {
        state.is_due = false;
        return None;
    };
    state.running = Some(order.id);
    Some((Turn(core), order))
}

/// See [`super::EventLog::cancel_erasure`].
pub(super) fn cancel(core: &Core, id: Uuid) -> Result<(), CancelError> {
    let turn = {
        let mut state = core.eraser.state.lock();
        if core.store.erasing().is_none_or(|left| left.id != id) {
            return Err(CancelError::Unknown { id });
        }
        if state.running.is_some() {
            return Err(CancelError::Begun { id });
        }
        state.running = Some(id);
        Turn(core)
    };
    let cancelled = core.store.cancel_erasing(id);
    drop(turn);
    match cancelled {
        Ok(true) => Ok(()),
        Ok(false) => Err(CancelError::Begun { id }),
        Err(error) => Err(CancelError::Failed(Arc::new(error))),
    }
}

/// Does all of it, or the rest of it.
fn run(
    core: &Core,
    order: &Arc<EraseOrder>,
    progress: &mut dyn FnMut(EraseProgress),
) -> Result<Erased, EraseError> {
    let mut watch = |now: EraseProgress| {
        core.eraser.state.lock().progress = Some(now);
        progress(now);
        match core.queue.ended() {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    };
    let segments = core.store.erase(order, &mut watch).map_err(|error| {
        let (error, is_ordered) = (Arc::new(error), core.store.erasing().is_some());
        match core.queue.ended() {
            Some(_) => EraseError::Closing,
            None if is_ordered => EraseError::Unfinished(error),
            None => EraseError::Refused(error),
        }
    })?;
    forget(core, order)?;
    let told = notices::tell(core, order, &mut watch)?;
    let unfinished = |error| EraseError::Unfinished(Arc::new(error));
    core.store.erased().map_err(unfinished)?;
    core.metrics.erased(told.events);
    Ok(Erased { segments, ..told })
}

/// Drops what memory holds. Nothing that is read from here on holds it.
fn forget(core: &Core, order: &Arc<EraseOrder>) -> Result<(), EraseError> {
    core.reads.hot.forget();
    let listeners = core.eraser.listeners.lock().clone();
    listeners.iter().for_each(|forget| forget());
    let (reply, answer) = mpsc::sync_channel(1);
    let work = Work::Forget(Arc::clone(order), reply);
    let is_closing = |_| EraseError::Closing;
    core.queue.push(work).map_err(is_closing)?;
    answer.recv().map_err(|_| EraseError::Closing)
}

/// Goes on with what was cut or has failed, until the log ends.
pub(super) fn go_on(core: &Core) {
    if let Some(order) = core.store.erasing() {
        let mut state = core.eraser.state.lock();
        state.is_due = true;
        state.progress = Some(begun(&order));
    }
    while core.eraser.wait() {
        let Some((turn, order)) = resume(core) else { continue };
        let attempt = || run(core, &order, &mut |_| {});
        let result = catch_unwind(AssertUnwindSafe(attempt));
        drop(turn);
        report(core, &order, result.ok());
    }
}

fn begun(order: &EraseOrder) -> EraseProgress {
    let (id, events) = (order.id, order.events());
    let phase = ErasePhase::Sealing;
    EraseProgress { id, phase, segments_done: 0, segments: 0, events_done: 0, events }
}

/// A problem stays to be seen until it is through.
fn report(core: &Core, order: &EraseOrder, result: Option<Result<Erased, EraseError>>) {
    let id = order.id;
    match result {
        Some(Ok(done)) => {
            let (events, notices) = (done.events, done.notices);
            tracing::info!(%id, events, notices, "an erasure that was cut is through");
        }
        // It goes on when the log is opened.
        Some(Err(EraseError::Closing)) => {}
        Some(Err(error)) => core.troubles.note(Job::Erasing, Err(error)),
        None => core.troubles.note(Job::Erasing, Err("its thread panicked")),
    }
}
