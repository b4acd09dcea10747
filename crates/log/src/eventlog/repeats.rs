//! The window of repeats over a restart: it is read back from the engine while the log is open
//! already.
//!
//! Until it is there, events that are appended are put by, and appends that need the window wait
//! (in `EventLog::append`, before they are queued); reads and other appends do not.

mod rebuild;
mod window;

use std::sync::Arc;

use parking_lot::Mutex;

pub(super) use self::rebuild::rebuild;
use self::window::Window;
use crate::storage::EraseOrder;
use tailmark_record::{Fingerprint, Seq};

/// Where the window is handed over to the writer.
pub(super) type Handover = Arc<Mutex<Option<Window>>>;

/// The writer's side.
pub(super) struct Repeats {
    window: Option<Window>,
    handover: Handover,
    /// Named events that were appended before the window was there.
    deferred: Vec<(Fingerprint, Seq)>,
    /// How many of these are durable.
    deferred_durable: usize,
    capacity: usize,
    /// Erased before the window was there, which may know them.
    erased: Vec<Arc<EraseOrder>>,
}

impl Repeats {
    pub(super) fn new(capacity: usize, handover: Handover) -> Repeats {
        let (deferred, erased) = (Vec::new(), Vec::new());
        Repeats { window: None, handover, deferred, deferred_durable: 0, capacity, erased }
    }

    /// Takes the window over when it is there. Between two commits.
    pub(super) fn settle(&mut self) {
        if self.window.is_some() {
            return;
        }
        let window = self.handover.lock().take();
        if let Some(mut window) = window {
            for (fingerprint, seq) in std::mem::take(&mut self.deferred) {
                window.stage(fingerprint, seq);
            }
            window.promote();
            for order in std::mem::take(&mut self.erased) {
                window.forget(|seq| order.contains(seq));
            }
            self.window = Some(window);
        }
    }

    /// Events are erased: their repeats are told no more. Between two commits.
    pub(super) fn forget(&mut self, order: &Arc<EraseOrder>) {
        match &mut self.window {
            Some(window) => window.forget(|seq| order.contains(seq)),
            None if self.capacity > 0 => {
                self.deferred.retain(|(_, seq)| !order.contains(*seq));
                self.deferred_durable = self.deferred.len();
                self.erased.push(Arc::clone(order));
            }
            None => {}
        }
    }

    pub(super) fn find(&self, fingerprint: Fingerprint) -> Option<Seq> {
        self.window.as_ref()?.find(fingerprint)
    }

    pub(super) fn stage(&mut self, fingerprint: Fingerprint, seq: Seq) {
        match &mut self.window {
            Some(window) => window.stage(fingerprint, seq),
            None if self.capacity > 0 => self.deferred.push((fingerprint, seq)),
            None => {}
        }
    }

    pub(super) fn promote(&mut self) {
        match &mut self.window {
            Some(window) => window.promote(),
            None => {
                // A rebuild that failed never comes to take them.
                let excess = self.deferred.len().saturating_sub(self.capacity.saturating_mul(2));
                if excess > 0 {
                    self.deferred.drain(..excess + self.capacity);
                }
                self.deferred_durable = self.deferred.len();
            }
        }
    }

    pub(super) fn roll_back(&mut self) {
        match &mut self.window {
            Some(window) => window.roll_back(),
            None => self.deferred.truncate(self.deferred_durable),
        }
    }

    /// No entry of the window is below; `None` = not known yet.
    pub(super) fn start(&self, next: Seq) -> Option<Seq> {
        self.window.as_ref().map(|window| window.oldest().unwrap_or(next))
    }
}
