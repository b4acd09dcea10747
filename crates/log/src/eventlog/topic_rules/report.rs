//! What retention by topic tells of itself.

use std::sync::Arc;
use std::time::Duration;

use super::TopicRules;
use tailmark_record::Timestamp;

/// What one rule says of the events that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleFound {
    /// Events of its topics, as far as it looked.
    pub events: u64,
    /// Bytes of them, not compressed.
    pub bytes: u64,
    /// Events that are too old or too many, and still there.
    pub expired: u64,
    /// Events that a newer one of their key has taken the place of, and still there.
    pub compacted: u64,
    /// Bytes of both, not compressed.
    pub dead_bytes: u64,
}

/// One look at all that the rules concern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPass {
    /// When it was over.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What each rule found, in the order of the rules, before anything was removed.
    pub rules: Vec<RuleFound>,
    /// Events it took out.
    pub removed: u64,
    /// Segments that it wrote anew, each in place of one or several.
    pub segments: u64,
    /// Bytes on disk that it gave back.
    pub freed_bytes: u64,
    /// There were more keys and topics than its memory has room for: some that are dead were not found,
    /// and are looked for in the next passes.
    pub is_partial: bool,
}

/// The rules, and what has come of them.
#[derive(Clone, Debug, Default)]
pub struct TopicRetention {
    /// The rules.
    pub rules: Arc<TopicRules>,
    /// A pass is under way.
    pub is_running: bool,
    /// The newest pass that is over, since the start.
    pub last: Option<Arc<TopicPass>>,
    /// Passes since the start.
    pub passes: u64,
    /// Events that were taken out because they were too old or too many, since the start.
    pub expired: u64,
    /// Events that were taken out because a newer one has their key, since the start.
    pub compacted: u64,
    /// Bytes on disk given back, since the start.
    pub freed_bytes: u64,
    /// Segments written anew, each in place of one or several, since the start.
    pub segments: u64,
}
