//! Topics, and the patterns that select them (the rules of NATS subjects).
//!
//! A topic is non-empty dot-separated segments without white space, control characters, `*` or
//! `>`. A pattern is a topic in which a segment `*` matches any one segment and a final `>` one or
//! more. Invariant: matching never allocates and takes time linear in the topic.

mod index;
mod meant;
mod verdicts;

use crate::{Limits, Problem};
pub use index::PatternIndex;
pub use meant::Meant;
pub use verdicts::{Verdict, Verdicts};

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

    /// The segment that begins at this place; `None`, which comes before all others, at the end.
    fn segment_at(&self, at: usize) -> Option<&str> {
        self.0.get(at..)?.split('.').next()
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

/// A union of patterns; empty selects everything. They are in the order of their segments: those
/// that begin with the same ones lie together.
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
        patterns.sort_unstable_by(|a, b| a.0.split('.').cmp(b.0.split('.')));
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

    /// Everything that is left: as [`Filter::ALL`], but for who has no need to hear of ranges that were meant to go
    /// (expired or compacted). It is not [`Filter::is_all`].
    pub fn all_that_is_left() -> Filter {
        Filter(vec![Pattern(">".into())])
    }

    /// The one topic.
    pub fn one(topic: &str) -> Filter {
        Filter(vec![Pattern(topic.into())])
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

    /// Whether it selects every topic that `other` selects: exactly, also where it takes several of its
    /// patterns to cover one of the other's (`a.*` and `a.*.>` cover `a.>`).
    pub fn contains(&self, other: &Filter) -> bool {
        if self.is_all() {
            return true;
        }
        let all = [Pattern(">".into())];
        let others = if other.is_all() { &all[..] } else { other.patterns() };
        others.iter().all(|pattern| self.covers(pattern))
    }

    fn covers(&self, other: &Pattern) -> bool {
        if self.0.iter().any(|pattern| pattern.covers(other)) {
            return true;
        }
        // Segments are any text, so no number of literals makes up for a `*`: of topics with so many
        // segments one pattern covers all or they are not covered. What is left is a final `>`, which
        // stands for each number of segments by itself. Beyond the longest of ours, all are alike.
        let Some(stem) = other.0.strip_suffix('>') else { return false };
        let depth = |pattern: &Pattern| pattern.0.split('.').count();
        let own = depth(other);
        let longest = self.0.iter().map(depth).max().unwrap_or_default().max(own);
        let mut stars = format!("{stem}*");
        for _ in own..=longest {
            let of_depth = Pattern(stars.as_str().into());
            if !self.0.iter().any(|pattern| pattern.covers(&of_depth)) {
                return false;
            }
            stars.push_str(".*");
        }
        let rest = Pattern(format!("{}>", &stars[..stars.len() - 1]).into());
        self.0.iter().any(|pattern| pattern.covers(&rest))
    }

    /// What every topic that it selects begins with, as far as that is plain.
    pub fn beginning(&self) -> &str {
        match self.0.as_slice() {
            [pattern] => pattern.beginning(),
            _ => "",
        }
    }

    /// Where the topics that it selects lie in the order of their names: each in one of these, which
    /// are in order and have nothing in common.
    pub fn ranges(&self) -> Vec<Range<'_>> {
        if self.is_all() {
            return vec![Range::beginning_with("")];
        }
        let range = |pattern| {
            let (beginning, is_one) = (Pattern::beginning(pattern), !pattern.has_wildcard());
            Range { beginning, is_one }
        };
        let mut ranges: Vec<_> = self.0.iter().map(range).collect();
        ranges.sort_unstable_by_key(|range| (range.beginning, range.is_one));
        let mut kept: Vec<Range<'_>> = Vec::new();
        let mut wide: Option<Range<'_>> = None;
        for range in ranges {
            // What begins so follows at once.
            if wide.is_some_and(|wide| range.beginning.starts_with(wide.beginning)) {
                continue;
            }
            if !range.is_one {
                wide = Some(range);
            }
            kept.push(range);
        }
        kept
    }

    /// Whether it selects `topic`.
    pub fn matches(&self, topic: &str) -> bool {
        match self.0.as_slice() {
            [] => true,
            [pattern] => pattern.matches(topic),
            patterns => any_matches(patterns, 0, Some(topic)),
        }
    }
}

/// One topic, or all that begin with some text: neighbours in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<'a> {
    beginning: &'a str,
    is_one: bool,
}

impl<'a> Range<'a> {
    /// All topics that begin so.
    pub fn beginning_with(beginning: &'a str) -> Range<'a> {
        Range { beginning, is_one: false }
    }

    /// What all of them begin with: nothing in the range is below it.
    pub fn beginning(&self) -> &'a str {
        self.beginning
    }

    /// Whether it is the one topic [`Range::beginning`].
    pub fn is_one(&self) -> bool {
        self.is_one
    }

    /// Whether `topic` is in it.
    pub fn has(&self, topic: &str) -> bool {
        if self.is_one { topic == self.beginning } else { topic.starts_with(self.beginning) }
    }

    /// What of it begins with `prefix`, if anything may.
    pub fn within(self, prefix: &'a str) -> Option<Range<'a>> {
        if self.beginning.starts_with(prefix) {
            return Some(self);
        }
        let is_wider = !self.is_one && prefix.starts_with(self.beginning);
        is_wider.then_some(Range::beginning_with(prefix))
    }
}

/// Whether one of some patterns selects a topic. They are in the order of their segments and all
/// begin with the same ones, up to before `at`; `topic` is what follows those. So of many patterns
/// only those are looked at that can still select it.
fn any_matches(patterns: &[Pattern], at: usize, topic: Option<&str>) -> bool {
    let Some(topic) = topic else {
        return patterns.first().is_some_and(|it| it.segment_at(at).is_none());
    };
    let (segment, rest) = match topic.split_once('.') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (topic, None),
    };
    let those_with = |want: &str| {
        let from = patterns.partition_point(|it| it.segment_at(at) < Some(want));
        let from = patterns.get(from..).unwrap_or_default();
        let count = from.partition_point(|it| it.segment_at(at) == Some(want));
        from.get(..count).unwrap_or_default()
    };
    let goes_on = |want: &str| {
        let those = those_with(want);
        !those.is_empty() && any_matches(those, at + want.len() + 1, rest)
    };
    !those_with(">").is_empty() || goes_on("*") || goes_on(segment)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn a_filter_selects_what_one_of_its_patterns_does(
            patterns in prop::collection::vec("[ab!*](\\.[ab!-]{1,2}|\\.\\*){0,3}(\\.>)?", 1..20),
            topics in prop::collection::vec("[ab!](\\.[ab!-]{1,2}){0,4}", 1..20),
        ) {
            let filter = Filter::new(patterns.iter().map(|text| pattern(text)).collect());
            for topic in topics {
                let expected = patterns.iter().any(|text| pattern(text).matches(&topic));
                prop_assert_eq!(filter.matches(&topic), expected, "{}", topic);
            }
        }
    }

    fn filter(patterns: &[&str]) -> Filter {
        Filter::new(patterns.iter().map(|text| pattern(text)).collect())
    }

    #[test]
    fn several_patterns_may_cover_one() {
        for (wide, narrow, expected) in [
            (&["a.*", "a.*.>"][..], &["a.>"][..], true),
            (&["a.*", "a.*.*", "a.*.*.>"], &["a.>"], true),
            (&["a.*", "a.*.*.>"], &["a.>"], false),
            (&["a.*", "a.b.>"], &["a.>"], false),
            (&["a.*", "a.*.*"], &["a.>"], false),
            (&["*", "*.>"], &[], true),
            (&["*", "*.*", "*.*.>"], &[], true),
            (&["*.>"], &[], false),
            (&["a", "b"], &["*"], false),
            (&["a.>", "b"], &["a.x", "b"], true),
            (&["a.>", "b"], &["a.x", "c"], false),
            (&[], &["a", ">"], true),
            (&["a"], &[], false),
        ] {
            assert_eq!(filter(wide).contains(&filter(narrow)), expected, "{wide:?} {narrow:?}");
        }
    }

    /// Up to this many segments; patterns have fewer.
    const DEPTH: usize = 5;

    /// Every topic of these segments. None of the patterns has the last: it stands for all others.
    fn topics() -> Vec<String> {
        let mut all = vec![String::new()];
        let mut last = all.clone();
        for _ in 0..DEPTH {
            let longer =
                |topic: &String| ["a", "b", "z"].map(|segment| format!("{topic}.{segment}"));
            last = last.iter().flat_map(longer).collect();
            all.extend(last.iter().cloned());
        }
        all[1..].iter().map(|topic| topic[1..].to_owned()).collect()
    }

    fn some_filter() -> impl Strategy<Value = Filter> {
        let segment = prop_oneof![3 => Just("a"), 1 => Just("b"), 3 => Just("*")];
        let text = (proptest::collection::vec(segment, 0..4), any::<bool>());
        let text = text.prop_map(|(mut segments, has_rest)| {
            if has_rest || segments.is_empty() {
                segments.push(">");
            }
            pattern(&segments.join("."))
        });
        proptest::collection::vec(text, 1..5).prop_map(Filter::new)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// Against trying every topic.
        #[test]
        fn containment_is_exact(wide in some_filter(), narrow in some_filter()) {
            let is_within = |topic: &String| !narrow.matches(topic) || wide.matches(topic);
            prop_assert_eq!(wide.contains(&narrow), topics().iter().all(is_within));
        }
    }

    #[test]
    fn the_ranges_of_a_filter_hold_what_it_selects_once() {
        let topics = ["a", "a.b", "a.b.c", "a.bc", "ab", "b", "b.a", "c.a.b", "c.x"];
        for patterns in [
            &[][..],
            &["a"],
            &["a.*"],
            &["a.b", "a.*.c"],
            &["a.b", "ab", "b.>"],
            &["c.*.b", "c.a.>", "c.a"],
            &["*.b", "a"],
        ] {
            let filter = Filter::new(patterns.iter().map(|text| pattern(text)).collect());
            let ranges = filter.ranges();
            assert!(ranges.is_sorted_by(|a, b| a.beginning() < b.beginning()), "{ranges:?}");
            for topic in topics {
                let holding = ranges.iter().filter(|range| range.has(topic)).count();
                assert!(holding <= 1, "{topic} in {ranges:?}");
                assert!(holding == 1 || !filter.matches(topic), "{topic} in {ranges:?}");
                for prefix in ["", "a", "a.", "a.b", "c.a", "x"] {
                    let narrow = ranges.iter().filter_map(|range| range.within(prefix));
                    let holding = narrow.filter(|range| range.has(topic)).count();
                    let is_wanted = topic.starts_with(prefix) && filter.matches(topic);
                    assert!(holding == 1 || !is_wanted, "{topic} in {ranges:?} within {prefix}");
                }
            }
        }
        assert!(Filter::new(vec![pattern("a.b"), pattern("c")]).ranges().iter().all(Range::is_one));
    }

    #[test]
    fn a_filter_is_a_union() {
        let filter = Filter::new(vec![pattern("a.*"), pattern("b")]);
        assert!(filter.matches("a.x") && filter.matches("b") && !filter.matches("c"));
        assert!(Filter::ALL.matches("anything"));
        assert!(Filter::new(vec![pattern("a"), pattern(">")]).is_all());
    }
}
