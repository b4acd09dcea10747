//! What of which topics is removed by itself.

use std::time::Duration;

use tailmark_record::topic::{Filter, Pattern};

/// What is kept of a topic's events, beside the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// All of them.
    #[default]
    All,
    /// Of those with a key, the newest of each topic and key. Those without one stay.
    LatestPerKey,
}

/// One rule. The first whose pattern matches a topic counts for it, and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRule {
    /// The topics.
    pub pattern: Pattern,
    /// Events appended longer ago go, by the clock that [`Retention::max_age`](crate::eventlog::Retention::max_age) goes by.
    pub max_age: Option<Duration>,
    /// Of each topic, events beyond so many go, the oldest first. At least 1.
    pub max_events: Option<u64>,
    /// What is kept of the rest.
    pub keep: Keep,
}

impl TopicRule {
    /// Whether it ever removes anything. One that does not keeps its topics from those after it.
    pub fn removes(&self) -> bool {
        self.max_age.is_some() || self.max_events.is_some() || self.keep != Keep::All
    }
}

/// Rules, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRules(Vec<TopicRule>);

impl TopicRules {
    /// Most rules of a log.
    pub const MOST: usize = 256;

    /// In this order.
    pub fn new(rules: Vec<TopicRule>) -> TopicRules {
        TopicRules(rules)
    }

    /// Each of them.
    pub fn as_slice(&self) -> &[TopicRule] {
        &self.0
    }

    /// Whether none of them ever removes anything.
    pub fn is_idle(&self) -> bool {
        !self.0.iter().any(TopicRule::removes)
    }

    /// The place of the rule that counts for a topic.
    pub fn of(&self, topic: &str) -> Option<usize> {
        self.0.iter().position(|rule| rule.pattern.matches(topic))
    }

    /// The topics of all rules that remove something, and perhaps others.
    pub fn filter(&self) -> Filter {
        let removing = self.0.iter().filter(|rule| rule.removes());
        Filter::new(removing.map(|rule| rule.pattern.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::Limits;

    fn rule(pattern: &str, max_events: Option<u64>) -> TopicRule {
        let pattern = Pattern::parse(pattern, &Limits::default()).unwrap();
        TopicRule { pattern, max_age: None, max_events, keep: Keep::All }
    }

    #[test]
    fn the_first_rule_that_matches_counts_and_one_that_removes_nothing_shields_its_topics() {
        let rules = TopicRules::new(vec![
            rule("a.keep", None),
            rule("a.>", Some(5)),
            rule("a.b.>", Some(1)),
        ]);
        assert_eq!(rules.of("a.keep"), Some(0));
        assert_eq!(rules.of("a.b.c"), Some(1));
        assert_eq!(rules.of("b"), None);
        assert!(!rules.is_idle());
        assert!(TopicRules::new(vec![rule("a.keep", None)]).is_idle());
        assert!(rules.filter().matches("a.keep") && rules.filter().matches("a.x"));
        assert!(!rules.filter().matches("b"));
    }
}
