//! Topics, and the patterns that select them (the rules of NATS subjects).
//!
//! A topic is non-empty dot-separated segments without white space, control characters, `*` or
//! `>`. A pattern is a topic in which a segment `*` matches any one segment and a final `>` one or
//! more. Invariant: matching never allocates and takes time linear in the topic.

mod index;

use crate::{Limits, Problem};
pub use index::PatternIndex;

/// Rules for topics.
pub struct Topic;

impl Topic {
    /// Checks that `text` is a topic.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(text: &str, limits: &Limits) -> Result<(), Problem> {
        check_shape(text, limits)?;
        if text.bytes().any(|c| c == b'*' || c == b'>') {
            return Err(Problem::Illegal("`*` and `>` belong in patterns, not in topics"));
        }
        Ok(())
    }
}

fn check_shape(text: &str, limits: &Limits) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::Illegal("must not be empty"));
    }
    if text.len() > limits.topic_bytes {
        return Err(Problem::OverLimit { limit: limits.topic_bytes, actual: text.len() });
    }
    let mut segments = 1;
    let mut segment_is_empty = true;
    for c in text.chars() {
        if c == '.' {
            if segment_is_empty {
                return Err(Problem::Illegal("has an empty segment"));
            }
            segments += 1;
            segment_is_empty = true;
        } else if c.is_control() || c.is_whitespace() {
            return Err(Problem::Illegal("has white space or a control character"));
        } else {
            segment_is_empty = false;
        }
    }
    if segment_is_empty {
        return Err(Problem::Illegal("has an empty segment"));
    }
    if segments > limits.topic_segments {
        return Err(Problem::TooManySegments { limit: limits.topic_segments, actual: segments });
    }
    Ok(())
}

/// Selects topics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, limits: &Limits) -> Result<Pattern, Problem> {
        check_shape(text, limits)?;
        let mut segments = text.split('.').peekable();
        while let Some(segment) = segments.next() {
            if segment == ">" && segments.peek().is_some() {
                return Err(Problem::Illegal("`>` must be the last segment"));
            }
            if segment.len() > 1 && segment.bytes().any(|c| c == b'*' || c == b'>') {
                return Err(Problem::Illegal("`*` and `>` must stand alone in a segment"));
            }
        }
        Ok(Pattern(text.into()))
    }

    /// The text it was read from.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it may select more than one topic.
    pub fn has_wildcard(&self) -> bool {
        // Neither stands but alone in a segment.
        self.0.bytes().any(|c| c == b'*' || c == b'>')
    }

    /// The segments before the first wildcard, with the dot behind them; all of it if there is
    /// none.
    fn beginning(&self) -> &str {
        let text = &*self.0;
        match text.split('.').position(|segment| matches!(segment, "*" | ">")) {
            None => text,
            Some(0) => "",
            Some(count) => {
                let dots = text.match_indices('.').nth(count - 1);
                dots.map_or(text, |(at, _)| &text[..=at])
            }
        }
    }

    /// Whether it selects every topic that `other` selects.
    pub fn covers(&self, other: &Pattern) -> bool {
        let mut others = other.0.split('.');
        for want in self.0.split('.') {
            match (want, others.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                (_, Some(">")) => return false,
                ("*", Some(_)) => {}
                (want, Some(segment)) if want == segment => {}
                _ => return false,
            }
        }
        others.next().is_none()
    }

    /// Whether it selects `topic`.
    pub fn matches(&self, topic: &str) -> bool {
        let mut topic = topic.split('.');
        for want in self.0.split('.') {
            let Some(segment) = topic.next() else { return false };
            match want {
                ">" => return true,
                "*" => {}
                want if want == segment => {}
                _ => return false,
            }
        }
        topic.next().is_none()
    }
}

/// A union of patterns; empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter(Vec<Pattern>);

impl Filter {
    /// Everything.
    pub const ALL: Filter = Filter(Vec::new());

    /// A union, without the patterns that others make needless. One that selects everything makes the filter
    /// one that does.
    pub fn new(mut patterns: Vec<Pattern>) -> Self {
        if patterns.iter().any(|pattern| pattern.as_str() == ">") {
            return Filter::ALL;
        }
        patterns.sort_unstable();
        patterns.dedup();
        let needed = |at: usize, it: &Pattern| {
            !patterns.iter().enumerate().any(|(other, pattern)| other != at && pattern.covers(it))
        };
        let is_needed: Vec<bool> =
            patterns.iter().enumerate().map(|(at, it)| needed(at, it)).collect();
        let mut is_needed = is_needed.into_iter();
        patterns.retain(|_| is_needed.next().unwrap_or(true));
        Filter(patterns)
    }

    /// Whether it selects every topic.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Its patterns; none for everything.
    pub fn patterns(&self) -> &[Pattern] {
        &self.0
    }

    /// Its patterns, if each of them selects one topic.
    pub fn exact(&self) -> Option<&[Pattern]> {
        let is_exact = !self.is_all() && !self.0.iter().any(Pattern::has_wildcard);
        is_exact.then_some(&self.0)
    }

    /// What every topic that it selects begins with, as far as that is plain.
    pub fn beginning(&self) -> &str {
        match self.0.as_slice() {
            [pattern] => pattern.beginning(),
            _ => "",
        }
    }

    /// Whether it selects `topic`.
    pub fn matches(&self, topic: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text, &Limits::default()).unwrap()
    }

    #[test]
    fn topics_follow_the_rules() {
        let limits = Limits::default();
        for good in ["a", "orders.eu.created", "größe.日本", "a-b_c/d"] {
            assert_eq!(Topic::check(good, &limits), Ok(()), "{good:?}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a\u{7}b", "a\u{a0}b", "a.*", ">", "a*b"] {
            assert!(Topic::check(bad, &limits).is_err(), "{bad:?}");
        }
        assert_eq!(Topic::check(&"x".repeat(255), &limits), Ok(()));
        assert!(Topic::check(&"x".repeat(256), &limits).is_err());
        assert_eq!(Topic::check(&["x"; 32].join("."), &limits), Ok(()));
        assert!(Topic::check(&["x"; 33].join("."), &limits).is_err());
    }

    #[test]
    fn what_matches_begins_as_the_filter_says() {
        for (patterns, beginning) in [
            (&["a.b"][..], "a.b"),
            (&["a.*"], "a."),
            (&["a.b.>"], "a.b."),
            (&["a.*.b"], "a."),
            (&["*.b"], ""),
            (&[">"], ""),
            (&["a.b", "a.c"], ""),
            (&[], ""),
        ] {
            let filter = Filter::new(patterns.iter().map(|text| pattern(text)).collect());
            assert_eq!(filter.beginning(), beginning, "{patterns:?}");
            for topic in ["a.b", "a.b.c", "a.x.b", "a", "ab", "x.b"] {
                assert!(!filter.matches(topic) || topic.starts_with(beginning), "{topic}");
            }
        }
    }

    #[test]
    fn patterns_match_as_nats_has_it() {
        for (text, topic, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.b", "a", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.>", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a.b", true),
            ("a.*.c.>", "a.b.c.d", true),
            ("a.*.c.>", "a.b.c", false),
        ] {
            assert_eq!(pattern(text).matches(topic), expected, "{text} on {topic}");
        }
        for bad in ["", ">.a", "a.>.b", "a*", "a.b>", "a..*", "**"] {
            assert!(Pattern::parse(bad, &Limits::default()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pattern_covers_what_selects_nothing_else() {
        for (wide, narrow, expected) in [
            ("a.>", "a.b", true),
            ("a.>", "a.b.>", true),
            ("a.>", "a.*", true),
            ("a.>", "a", false),
            ("a.*", "a.>", false),
            ("a.*", "a.b", true),
            ("a.b", "a.*", false),
            ("*.*", "a.*", true),
            ("*.b", "a.*", false),
            ("*", ">", false),
            (">", "*", true),
            ("a", "a", true),
        ] {
            assert_eq!(pattern(wide).covers(&pattern(narrow)), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn a_filter_keeps_the_patterns_that_it_needs() {
        let patterns = ["a.b", "a.*", "c", "c", "a.>", "*.b", "b.b"].map(pattern).to_vec();
        let kept = Filter::new(patterns);
        let texts: Vec<_> = kept.patterns().iter().map(Pattern::as_str).collect();
        assert_eq!(texts, ["*.b", "a.>", "c"]);
        // Neither of two covers the other.
        assert_eq!(Filter::new(["a.*", "*.b"].map(pattern).to_vec()).patterns().len(), 2);
    }

    #[test]
    fn a_filter_is_a_union() {
        let filter = Filter::new(vec![pattern("a.*"), pattern("b")]);
        assert!(filter.matches("a.x") && filter.matches("b") && !filter.matches("c"));
        assert!(Filter::ALL.matches("anything"));
        assert!(Filter::new(vec![pattern("a"), pattern(">")]).is_all());
    }
}
