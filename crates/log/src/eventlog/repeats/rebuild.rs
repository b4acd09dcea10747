//! Reads the window of repeats back from the engine, on a thread of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Handover;
use super::window::Window;
use crate::eventlog::core::Core;
use crate::eventlog::repeats_ready::RepeatsReady;
use crate::storage::StoreError;
use tailmark_record::Seq;

/// Reads the newest `capacity` events back that their senders named, from `from` to `head`.
/// Whatever happens, who waits for the window hears of it.
pub(in crate::eventlog) fn rebuild(
    core: &Core,
    from: Seq,
    head: Seq,
    capacity: usize,
    handover: &Handover,
) {
    let read = || read_back(core, from, head, capacity, handover);
    let ready = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let reason = "the thread that reads them back panicked".to_owned();
        RepeatsReady::Failed(Arc::new(StoreError::Stopped { reason }))
    });
    if let RepeatsReady::Failed(error) = &ready {
        tracing::error!(%error, "repeats cannot be told");
    }
    core.repeats_ready.send_replace(ready);
}

fn read_back(
    core: &Core,
    from: Seq,
    head: Seq,
    capacity: usize,
    handover: &Handover,
) -> RepeatsReady {
    let mut newest_first = Vec::new();
    let read = match capacity {
        0 => Ok(()),
        _ => core.store.fingerprints(from, &mut |seq, fingerprint| {
            // The writer puts by what is newer.
            if seq <= head {
                newest_first.push((seq, fingerprint));
            }
            newest_first.len() < capacity && core.queue.ended().is_none()
        }),
    };
    if core.queue.ended().is_some() {
        // Cut short: half a window would forget, and be kept as if it were whole. Who waits for it
        // goes on to a queue that has ended.
        return RepeatsReady::Ready;
    }
    match read {
        Ok(()) => {
            let mut window = Window::new(capacity);
            for (seq, fingerprint) in newest_first.into_iter().rev() {
                window.stage(fingerprint, seq);
            }
            window.promote();
            *handover.lock() = Some(window);
            RepeatsReady::Ready
        }
        Err(error) => RepeatsReady::Failed(Arc::new(error)),
    }
}
