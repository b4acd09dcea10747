//! Which handle to the log is served.

use std::sync::Arc;

use parking_lot::RwLock;

use tailmark_log::eventlog::EventLog;

/// The handle to the log that is served now. Clones are the same.
#[derive(Clone)]
pub(crate) struct Served(Arc<RwLock<EventLog>>);

impl Served {
    pub(crate) fn new(log: EventLog) -> Served {
        Served(Arc::new(RwLock::new(log)))
    }

    pub(crate) fn log(&self) -> EventLog {
        self.0.read().clone()
    }

    pub(super) fn change(&self, log: EventLog) {
        *self.0.write() = log;
    }
}
