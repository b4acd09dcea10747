//! Rights: which topics may be published to, which watched, and whether the log itself may be changed.

use tailmark_record::topic::{Filter, Pattern};

/// What a principal may do. By default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    publish: Grant,
    watch: Grant,
    admin: bool,
}

/// Topics. A filter without patterns selects everything, so nothing at all is told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Grant(Option<Filter>);

impl Grant {
    fn new(patterns: Vec<Pattern>) -> Grant {
        Grant(Some(patterns).filter(|patterns| !patterns.is_empty()).map(Filter::new))
    }

    fn contains(&self, filter: &Filter) -> bool {
        self.0.as_ref().is_some_and(|granted| granted.contains(filter))
    }

    fn matches(&self, topic: &str) -> bool {
        self.0.as_ref().is_some_and(|granted| granted.matches(topic))
    }

    fn is_all(&self) -> bool {
        self.0.as_ref().is_some_and(|granted| granted.contains(&Filter::ALL))
    }

    fn texts(&self) -> Vec<&str> {
        match &self.0 {
            None => Vec::new(),
            Some(filter) if filter.is_all() => vec![">"],
            Some(filter) => filter.patterns().iter().map(Pattern::as_str).collect(),
        }
    }
}

impl Rights {
    /// To publish to and to watch what these patterns select, each; and to do what concerns the log as
    /// a whole. One does not include another.
    pub fn new(publish: Vec<Pattern>, watch: Vec<Pattern>, admin: bool) -> Rights {
        Rights { publish: Grant::new(publish), watch: Grant::new(watch), admin }
    }

    /// Whether an event of this topic may be stored.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.publish.matches(topic)
    }

    /// Whether events of this topic may be seen.
    pub fn may_see(&self, topic: &str) -> bool {
        self.watch.matches(topic)
    }

    /// Whether all that a filter selects may be seen.
    pub fn may_watch(&self, filter: &Filter) -> bool {
        self.watch.contains(filter)
    }

    /// Whether anything may be stored at all.
    pub fn publishes_something(&self) -> bool {
        self.publish.0.is_some()
    }

    /// Whether anything may be seen at all.
    pub fn watches_something(&self) -> bool {
        self.watch.0.is_some()
    }

    /// What may be seen; `None` for nothing.
    pub(crate) fn watch_filter(&self) -> Option<&Filter> {
        self.watch.0.as_ref()
    }

    /// Whether everything may be seen.
    pub fn watches_all(&self) -> bool {
        self.watch.is_all()
    }

    /// Whether the log itself may be changed.
    pub fn is_admin(&self) -> bool {
        self.admin
    }

    /// What may be published to, as patterns.
    pub fn publish(&self) -> Vec<&str> {
        self.publish.texts()
    }

    /// What may be watched, as patterns.
    pub fn watch(&self) -> Vec<&str> {
        self.watch.texts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::Limits;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text, &Limits::default()).unwrap()).collect()
    }

    #[test]
    fn nothing_granted_is_nothing_and_not_everything() {
        let none = Rights::default();
        assert!(!none.may_publish("a") && !none.may_see("a") && !none.is_admin());
        assert!(!none.may_watch(&Filter::ALL) && !none.watches_something());
        assert_eq!((none.publish(), none.watch()), (vec![], vec![]));
        let all = Rights::new(patterns(&[">"]), patterns(&[">"]), true);
        assert!(all.may_publish("a") && all.may_see("a.b") && all.watches_all());
        assert!(all.may_watch(&Filter::ALL));
        assert_eq!((all.publish(), all.watch()), (vec![">"], vec![">"]));
    }

    #[test]
    fn rights_are_apart_from_each_other() {
        let rights = Rights::new(patterns(&["in.>"]), patterns(&["out.*", "out.*.>"]), false);
        assert!(rights.may_publish("in.a") && !rights.may_see("in.a"));
        assert!(rights.may_see("out.a") && !rights.may_publish("out.a") && !rights.watches_all());
        assert!(rights.may_watch(&Filter::new(patterns(&["out.>"]))));
        assert!(!rights.may_watch(&Filter::new(patterns(&["out.>", "in.a"]))));
        assert!(!rights.may_watch(&Filter::ALL));
    }
}
