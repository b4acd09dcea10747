//! An index of patterns: which of them select a topic, without trying each.
//!
//! Topics that are named in full lie in one hash map; patterns with wildcards in a trie by segment,
//! as NATS' subject list has it. Must not know what stands behind a pattern. Invariant: what it
//! answers for a topic is what [`Pattern::matches`] says of each pattern in it.

use std::collections::HashMap;

use super::Pattern;

/// Values under patterns. A value is answered once for each of its patterns that selects the topic.
#[derive(Debug)]
pub struct PatternIndex<T> {
    /// Patterns without a wildcard.
    exact: HashMap<Box<str>, Vec<T>>,
    /// All others.
    root: Node<T>,
    /// How many of the others there are.
    wild: usize,
    len: usize,
}

#[derive(Debug)]
struct Node<T> {
    literals: HashMap<Box<str>, Node<T>>,
    /// Behind a `*`.
    any: Option<Box<Node<T>>>,
    /// Patterns that end here.
    here: Vec<T>,
    /// Patterns that end here with a `>`.
    rest: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node { literals: HashMap::new(), any: None, here: Vec::new(), rest: Vec::new() }
    }
}

impl<T> Default for PatternIndex<T> {
    fn default() -> Self {
        PatternIndex { exact: HashMap::new(), root: Node::default(), wild: 0, len: 0 }
    }
}

impl<T: PartialEq> PatternIndex<T> {
    /// How many patterns with a value there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a value under a pattern. The same twice has to be removed twice.
    pub fn insert(&mut self, pattern: &Pattern, value: T) {
        self.len += 1;
        let text = pattern.as_str();
        if !pattern.has_wildcard() {
            match self.exact.get_mut(text) {
                Some(values) => values.push(value),
                None => drop(self.exact.insert(text.into(), vec![value])),
            }
            return;
        }
        self.wild += 1;
        let mut node = &mut self.root;
        for segment in text.split('.') {
            node = match segment {
                ">" => return node.rest.push(value),
                "*" => node.any.get_or_insert_default(),
                _ if node.literals.contains_key(segment) => {
                    let Some(next) = node.literals.get_mut(segment) else { return };
                    next
                }
                _ => node.literals.entry(segment.into()).or_default(),
            };
        }
        node.here.push(value);
    }

    /// Removes what was added; false if it is not there.
    pub fn remove(&mut self, pattern: &Pattern, value: &T) -> bool {
        let text = pattern.as_str();
        let is_wild = pattern.has_wildcard();
        let is_removed = if is_wild {
            self.root.remove(text, value)
        } else {
            let Some(values) = self.exact.get_mut(text) else { return false };
            let is_removed = take(values, value);
            if values.is_empty() {
                self.exact.remove(text);
                shrink(&mut self.exact);
            }
            is_removed
        };
        self.len -= usize::from(is_removed);
        self.wild -= usize::from(is_removed && is_wild);
        is_removed
    }

    /// Calls `found` for each value under a pattern that selects `topic`.
    pub fn each<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a T)) {
        if let Some(values) = self.exact.get(topic) {
            values.iter().for_each(&mut found);
        }
        if self.wild > 0 {
            self.root.each(Some(topic), &mut found);
        }
    }

    /// Whether any pattern selects `topic`.
    pub fn matches(&self, topic: &str) -> bool {
        self.exact.contains_key(topic) || self.wild > 0 && self.root.matches(Some(topic))
    }
}

impl<T: PartialEq> Node<T> {
    /// `topic` is what follows this node; `None` at its end.
    fn each<'a>(&'a self, topic: Option<&str>, found: &mut impl FnMut(&'a T)) {
        let Some(topic) = topic else { return self.here.iter().for_each(found) };
        self.rest.iter().for_each(&mut *found);
        let (segment, rest) = cut(topic);
        if let Some(node) = self.literals.get(segment) {
            node.each(rest, found);
        }
        if let Some(node) = &self.any {
            node.each(rest, found);
        }
    }

    fn matches(&self, topic: Option<&str>) -> bool {
        let Some(topic) = topic else { return !self.here.is_empty() };
        let (segment, rest) = cut(topic);
        !self.rest.is_empty()
            || self.literals.get(segment).is_some_and(|node| node.matches(rest))
            || self.any.as_ref().is_some_and(|node| node.matches(rest))
    }

    /// Removes a value, and nodes that nothing lies behind any more. `pattern` is what follows this node.
    fn remove(&mut self, pattern: &str, value: &T) -> bool {
        let (segment, rest) = cut(pattern);
        let below = |node: &mut Node<T>| match rest {
            Some(rest) => node.remove(rest, value),
            None => take(&mut node.here, value),
        };
        match segment {
            ">" => take(&mut self.rest, value),
            "*" => {
                let Some(node) = &mut self.any else { return false };
                let is_removed = below(node);
                if node.is_empty() {
                    self.any = None;
                }
                is_removed
            }
            _ => {
                let Some(node) = self.literals.get_mut(segment) else { return false };
                let is_removed = below(node);
                if node.is_empty() {
                    self.literals.remove(segment);
                    shrink(&mut self.literals);
                }
                is_removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.literals.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.rest.is_empty()
    }
}

/// The first segment, and what follows it.
fn cut(text: &str) -> (&str, Option<&str>) {
    match text.split_once('.') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (text, None),
    }
}

fn take<T: PartialEq>(values: &mut Vec<T>, value: &T) -> bool {
    let Some(at) = values.iter().position(|it| it == value) else { return false };
    values.swap_remove(at);
    if values.len() < values.capacity() / 4 {
        values.shrink_to_fit();
    }
    true
}

/// What has been large need not stay so.
fn shrink<V>(map: &mut HashMap<Box<str>, V>) {
    if map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Limits;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text, &Limits::default()).unwrap()
    }

    fn under(index: &PatternIndex<usize>, topic: &str) -> Vec<usize> {
        let mut found = Vec::new();
        index.each(topic, |&value| found.push(value));
        found.sort_unstable();
        found
    }

    const SEGMENTS: [&str; 4] = ["a", "b", "größe", "c"];

    prop_compose! {
        fn topic()(segments in prop::collection::vec(0..SEGMENTS.len(), 1..5)) -> String {
            segments.into_iter().map(|at| SEGMENTS[at]).collect::<Vec<_>>().join(".")
        }
    }

    prop_compose! {
        fn any_pattern()(segments in prop::collection::vec(0..SEGMENTS.len() + 2, 1..5), rest: bool) -> String {
            let segment = |at: usize| SEGMENTS.get(at).copied().unwrap_or("*");
            let mut segments: Vec<_> = segments.into_iter().map(segment).collect();
            if rest {
                segments.push(">");
            }
            segments.join(".")
        }
    }

    proptest! {
        #[test]
        fn it_answers_what_each_pattern_says(
            patterns in prop::collection::vec(any_pattern(), 0..40),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
            topics in prop::collection::vec(topic(), 1..20),
        ) {
            let mut index = PatternIndex::default();
            let mut model: Vec<(Pattern, usize)> = Vec::new();
            for (value, text) in patterns.iter().enumerate() {
                index.insert(&pattern(text), value);
                model.push((pattern(text), value));
            }
            for at in removed {
                if !model.is_empty() {
                    let (pattern, value) = model.swap_remove(at.index(model.len()));
                    prop_assert!(index.remove(&pattern, &value));
                    prop_assert!(!index.remove(&pattern, &value));
                }
            }
            prop_assert_eq!(index.len(), model.len());
            for topic in &topics {
                let mut expected: Vec<usize> =
                    model.iter().filter(|(it, _)| it.matches(topic)).map(|(_, value)| *value).collect();
                expected.sort_unstable();
                prop_assert_eq!(index.matches(topic), !expected.is_empty());
                prop_assert_eq!(under(&index, topic), expected);
            }
            for (pattern, value) in model {
                prop_assert!(index.remove(&pattern, &value));
            }
            prop_assert!(index.is_empty() && index.exact.is_empty() && index.root.is_empty());
        }
    }

    #[test]
    fn the_same_twice_goes_away_in_two_steps() {
        let mut index = PatternIndex::default();
        index.insert(&pattern("a.*"), 1);
        index.insert(&pattern("a.*"), 1);
        assert_eq!(under(&index, "a.b"), [1, 1]);
        assert!(index.remove(&pattern("a.*"), &1));
        assert_eq!(under(&index, "a.b"), [1]);
        assert!(!index.remove(&pattern("a.>"), &1) && !index.remove(&pattern("a.b"), &1));
    }
}
