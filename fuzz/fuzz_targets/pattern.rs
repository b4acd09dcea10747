//! Patterns and filters: every way to ask whether a topic is selected says the same.
//! Lines: patterns, an empty line, topics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailmark_record::Limits;
use tailmark_record::topic::{Filter, Pattern, Topic};

fuzz_target!(|text: &str| {
    let limits = Limits::default();
    let (patterns, topics) = text.split_once("\n\n").unwrap_or((text, text));
    let patterns = patterns.lines().take(8).filter_map(|line| Pattern::parse(line, &limits).ok());
    let patterns: Vec<_> = patterns.collect();
    let filter = Filter::new(patterns.clone());
    let topics = topics.lines().take(16).filter(|line| Topic::check(line, &limits).is_ok());
    let topics: Vec<_> = topics.collect();
    for topic in &topics {
        let is_selected = patterns.is_empty() || patterns.iter().any(|one| one.matches(topic));
        assert_eq!(filter.matches(topic), is_selected, "{filter:?} {topic}");
        if is_selected && !patterns.is_empty() {
            assert!(topic.starts_with(filter.beginning()), "{filter:?} {topic}");
            assert!(filter.ranges().iter().any(|range| range.has(topic)), "{filter:?} {topic}");
        }
        assert!(Filter::one(topic).matches(topic));
    }
    for one in &patterns {
        assert!(one.covers(one));
        let alone = Filter::new(vec![one.clone()]);
        assert!(filter.contains(&alone), "{filter:?} {one:?}");
        for other in &patterns {
            let is_covered = one.covers(other);
            assert_eq!(alone.contains(&Filter::new(vec![other.clone()])), is_covered);
            let escapes = topics.iter().find(|topic| other.matches(topic) && !one.matches(topic));
            assert!(!is_covered || escapes.is_none(), "{one:?} covers {other:?}: {escapes:?}");
        }
    }
});
