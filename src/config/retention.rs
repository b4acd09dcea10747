//! What is removed by itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Invalid, Limits, within};
use tailmark_log::eventlog::{Keep, TopicRule, TopicRules};
use tailmark_record as record;
use tailmark_record::topic::{Filter, Meant, Pattern};
use tailmark_record::{excerpt, units};

const TOPICS: &str = "retention.topics";

section!(
    /// What is removed by itself; `None` keeps everything.
    Retention {
        /// Events appended longer ago than this.
        max_age: Option<Duration> as "units::duration_or_unlimited" = None,
        /// Bytes on disk beyond this.
        max_bytes: Option<u64> as "units::size_or_unlimited" = None,
        /// Events beyond this many.
        max_events: Option<u64> as "units::count_or_unlimited" = None,
        /// How often that is looked at.
        interval: Duration as "units::duration" = Duration::from_secs(1),
        /// Of single topics. The first whose pattern matches a topic counts for it.
        topics: Vec<TopicRetention> = Vec::new(),
    }
);

section!(
    /// What is removed by itself of some topics.
    TopicRetention {
        /// Which.
        pattern: String = String::new(),
        /// Events appended longer ago than this.
        max_age: Option<Duration> as "units::duration_or_unlimited" = None,
        /// Of each topic, events beyond this many.
        max_events: Option<u64> as "units::count_or_unlimited" = None,
        /// What is kept of the rest.
        keep: Keep as "keep" = Keep::All,
    }
);

/// How it is written what is kept.
mod keep {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};
    use tailmark_log::eventlog::Keep;

    const ALL: &str = "all";
    const LATEST_PER_KEY: &str = "latest-per-key";

    pub(super) fn serialize<S: Serializer>(value: &Keep, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match value {
            Keep::All => ALL,
            Keep::LatestPerKey => LATEST_PER_KEY,
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Keep, D::Error> {
        match String::deserialize(from)?.as_str() {
            ALL => Ok(Keep::All),
            LATEST_PER_KEY => Ok(Keep::LatestPerKey),
            other => Err(D::Error::unknown_variant(other, &[ALL, LATEST_PER_KEY])),
        }
    }
}

impl Retention {
    pub(super) fn check(&self, limits: &Limits) -> Result<(), Invalid> {
        let (low, high) = (Duration::from_millis(10), Duration::from_secs(3_600));
        within("retention.interval", self.interval, low, high, units::duration_text)?;
        // In other systems that is no limit. Here it would remove all there is, at once.
        let nothing_is_left = [
            ("retention.max_age", self.max_age == Some(Duration::ZERO)),
            ("retention.max_bytes", self.max_bytes == Some(0)),
            ("retention.max_events", self.max_events == Some(0)),
        ];
        if let Some((key, _)) = nothing_is_left.into_iter().find(|(_, is_it)| *is_it) {
            let problem = "0 would remove every event at once; \"unlimited\" keeps all";
            return Err(Invalid::new(key, problem));
        }
        self.rules(&limits.of_topics()).map(drop)
    }

    /// The rules for topics, which are within these limits.
    ///
    /// # Errors
    /// The first one that is not allowed, by its number and its pattern.
    pub fn rules(&self, limits: &record::Limits) -> Result<TopicRules, Invalid> {
        let (count, most) = (self.topics.len(), TopicRules::MOST);
        if count > most {
            return Err(Invalid::new(TOPICS, format!("{count} rules are more than {most}")));
        }
        let rule = |(at, rule): (usize, &TopicRetention)| {
            let named = |problem| Invalid::new(TOPICS, format!("{}: {problem}", rule.named(at)));
            rule.read(limits).map_err(named)
        };
        Ok(TopicRules::new(self.topics.iter().enumerate().map(rule).collect::<Result<_, _>>()?))
    }

    /// Rules that never count, because those before them match all that they match.
    pub(super) fn warnings(&self, limits: &Limits) -> Vec<String> {
        let Ok(rules) = self.rules(&limits.of_topics()) else { return Vec::new() };
        let patterns: Vec<_> = rules.as_slice().iter().map(|rule| rule.pattern.clone()).collect();
        let covered = (1..patterns.len()).filter_map(|at| {
            let (before, own) = (&patterns[..at], &patterns[at]);
            let by = match before.iter().position(|pattern| pattern.covers(own)) {
                Some(first) => self.topics[first].named(first),
                None => "the rules before it".to_owned(),
            };
            let is_covered = Filter::new(before.to_vec()).contains(&Filter::new(vec![own.clone()]));
            let what = self.topics[at].named(at);
            is_covered.then(|| format!("{TOPICS}: {what} never counts: all its topics are of {by}"))
        });
        covered.collect()
    }
}

impl TopicRetention {
    /// By which a person finds it.
    fn named(&self, at: usize) -> String {
        format!("rule {} (`{}`)", at + 1, excerpt(&self.pattern))
    }

    fn read(&self, limits: &record::Limits) -> Result<TopicRule, String> {
        if self.pattern.is_empty() {
            return Err("it has no pattern, which says for which topics it is".to_owned());
        }
        let pattern = Pattern::parse(&self.pattern, limits).map_err(|problem| {
            format!("its pattern {}", Meant::instead_of(&self.pattern, &problem))
        })?;
        let (low, high) = (Duration::from_secs(1), Duration::from_secs(100 * 365 * 86_400));
        if let Some(age) = self.max_age
            && !(low..=high).contains(&age)
        {
            let (age, low) = (units::duration_text(age), units::duration_text(low));
            return Err(format!("max_age: {age} is not within {low} to 100 years"));
        }
        if self.max_events == Some(0) {
            return Err("max_events: 0 would keep nothing; at least 1 stays".to_owned());
        }
        let (max_age, max_events) = (self.max_age, self.max_events);
        Ok(TopicRule { pattern, max_age, max_events, keep: self.keep })
    }
}
