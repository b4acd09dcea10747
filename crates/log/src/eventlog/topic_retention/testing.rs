//! Passes as tests order them, without the thread.

use super::pass::{self, Done, Order};
use super::survey::{ROOM, Share};
use crate::eventlog::core::Core;
use crate::eventlog::topic_rules::{TopicPass, TopicRules};
use crate::storage::StoreError;
use tailmark_record::Timestamp;

/// What a pass is to do.
#[derive(Clone, Copy, Default)]
pub(in crate::eventlog) struct Ordered {
    pub is_in_peace: bool,
    pub is_dry: bool,
    pub room: Option<usize>,
    pub share: Shares,
}

/// Whose turn it is.
#[derive(Clone, Copy)]
pub(in crate::eventlog) struct Shares(Share);

impl Default for Shares {
    fn default() -> Self {
        Shares(Share::ALL)
    }
}

impl Shares {
    /// After a pass.
    pub(in crate::eventlog) fn after(self, pass: &Passed) -> Shares {
        Shares(self.0.next(pass.is_full))
    }
}

#[derive(Debug)]
pub(in crate::eventlog) struct Passed {
    pub pass: TopicPass,
    pub is_full: bool,
    pub failure: Option<StoreError>,
}

impl std::ops::Deref for Passed {
    type Target = TopicPass;

    fn deref(&self) -> &TopicPass {
        &self.pass
    }
}

/// One pass, as of a moment.
pub(in crate::eventlog) fn pass(
    core: &Core,
    rules: &TopicRules,
    at: Timestamp,
    ordered: Ordered,
) -> Result<Passed, StoreError> {
    pass_while(core, rules, at, ordered, &mut |_| true)
}

/// The same, for as long as it is said to go on.
pub(in crate::eventlog) fn pass_while(
    core: &Core,
    rules: &TopicRules,
    at: Timestamp,
    ordered: Ordered,
    goes_on: &mut dyn FnMut(f64) -> bool,
) -> Result<Passed, StoreError> {
    let Ordered { is_in_peace, is_dry, room, share } = ordered;
    let order = Order { share: share.0, room: room.unwrap_or(ROOM), is_in_peace, is_dry };
    let Done { pass, is_full, failure, .. } = pass::run(core, rules, Some(at), order, goes_on)?;
    Ok(Passed { pass, is_full, failure })
}
