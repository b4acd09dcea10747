//! The window of repeats over a restart: it is read back from the engine while the log is open
//! already.
//!
//! Until it is there, events that are appended are put by, and appends that need the window wait
//! (in `EventLog::append`, before they are queued); reads and other appends do not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::core::Core;
use super::window::Window;
use crate::storage::StoreError;
use tailmark_record::{Fingerprint, Seq};

/// Whether repeats can be told.
#[derive(Clone, Debug)]
pub(super) enum RepeatsReady {
    NotYet,
    Ready,
    /// Not in this run of the log: what was stored cannot be read.
    Failed(Arc<StoreError>),
}

/// Where the window is handed over to the writer.
pub(super) type Handover = Arc<Mutex<Option<Window>>>;

/// Reads the newest `capacity` events back that their senders named, from `from` to `head`. Whatever
/// happens, who waits for the window hears of it.
pub(super) fn rebuild(core: &Core, from: Seq, head: Seq, capacity: usize, handover: &Handover) {
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
        _ => core.engine.fingerprints(from, &mut |seq, fingerprint| {
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
            *handover.lock().unwrap_or_else(PoisonError::into_inner) = Some(window);
            RepeatsReady::Ready
        }
        Err(error) => RepeatsReady::Failed(Arc::new(error)),
    }
}

/// The writer's side.
pub(super) struct Repeats {
    window: Option<Window>,
    handover: Handover,
    /// Named events that were appended before the window was there.
    put_by: Vec<(Fingerprint, Seq)>,
    /// How many of these are durable.
    put_by_durable: usize,
    capacity: usize,
}

impl Repeats {
    pub fn new(capacity: usize, handover: Handover) -> Repeats {
        Repeats { window: None, handover, put_by: Vec::new(), put_by_durable: 0, capacity }
    }

    /// Takes the window over when it is there. Between two commits.
    pub fn settle(&mut self) {
        if self.window.is_some() {
            return;
        }
        let window = self.handover.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut window) = window {
            for (fingerprint, seq) in std::mem::take(&mut self.put_by) {
                window.stage(fingerprint, seq);
            }
            window.promote();
            self.window = Some(window);
        }
    }

    pub fn find(&self, fingerprint: Fingerprint) -> Option<Seq> {
        self.window.as_ref()?.find(fingerprint)
    }

    pub fn stage(&mut self, fingerprint: Fingerprint, seq: Seq) {
        match &mut self.window {
            Some(window) => window.stage(fingerprint, seq),
            None if self.capacity > 0 => self.put_by.push((fingerprint, seq)),
            None => {}
        }
    }

    pub fn promote(&mut self) {
        match &mut self.window {
            Some(window) => window.promote(),
            None => {
                // A rebuild that failed never comes to take them.
                let excess = self.put_by.len().saturating_sub(2 * self.capacity);
                if excess > 0 {
                    self.put_by.drain(..excess + self.capacity);
                }
                self.put_by_durable = self.put_by.len();
            }
        }
    }

    pub fn roll_back(&mut self) {
        match &mut self.window {
            Some(window) => window.roll_back(),
            None => self.put_by.truncate(self.put_by_durable),
        }
    }

    /// No entry of the window is below; `None` = not known yet.
    pub fn start(&self, next: Seq) -> Option<Seq> {
        self.window.as_ref().map(|window| window.oldest().unwrap_or(next))
    }
}
