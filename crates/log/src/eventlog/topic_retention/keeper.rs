//! The rules in force, and how others tell the thread of them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{TopicRetention, TopicRules};

/// The rules, and what has come of them.
#[derive(Default)]
pub(in crate::eventlog) struct TopicKeeper {
    state: Mutex<TopicRetention>,
}

impl TopicKeeper {
    pub(in crate::eventlog) fn set(&self, rules: TopicRules) {
        self.state.lock().rules = Arc::new(rules);
    }

    pub(in crate::eventlog) fn report(&self) -> TopicRetention {
        self.state.lock().clone()
    }
}
