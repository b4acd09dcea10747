//! Retention by topic, as it is asked for and told of: rules, figures, and when they are looked at. What does it is in
//! `topic_retention`.

mod keeper;
mod report;
mod rules;

pub(super) use keeper::{Look, TopicKeeper};
pub use report::{RuleFound, TopicPass, TopicRetention};
pub use rules::{Keep, TopicRule, TopicRules};
