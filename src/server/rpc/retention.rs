//! Conversions of what is removed by itself, between wire types and the log's.

use std::time::Duration;

use super::convert::{duration, timestamp};
use super::status::{self, Failure};
use pb::retention_rule::Keep as WireKeep;
use tailmark_log::eventlog::{
    Keep, Retention, RuleFound, TopicPass, TopicRetention, TopicRule, TopicRules,
};
use tailmark_record::Limits;
use tailmark_record::topic::Pattern;
use tailmark_wire::feed_v1 as pb;

/// Rules that a client sent.
pub(crate) fn rules(asked: &pb::RetentionRules, limits: &Limits) -> Result<TopicRules, Failure> {
    let (count, most) = (asked.rules.len(), TopicRules::MOST);
    if count > most {
        return Err(status::over_limit("rules", most, count));
    }
    let rules = asked.rules.iter().enumerate().map(|(at, asked)| rule(at, asked, limits));
    Ok(TopicRules::new(rules.collect::<Result<_, _>>()?))
}

fn rule(at: usize, asked: &pb::RetentionRule, limits: &Limits) -> Result<TopicRule, Failure> {
    let field = |name: &str| format!("rules[{at}].{name}");
    let pattern = Pattern::parse(&asked.pattern, limits)
        .map_err(|problem| status::bad_pattern(&field("pattern"), &asked.pattern, &problem))?;
    let max_age = match asked.max_age.map(Duration::try_from) {
        None => None,
        Some(Ok(age)) if !age.is_zero() => Some(age),
        Some(_) => return Err(status::bad_field(&field("max_age"), "must be above zero")),
    };
    let keep = match WireKeep::try_from(asked.keep) {
        Ok(WireKeep::Unspecified | WireKeep::All) => Keep::All,
        Ok(WireKeep::LatestPerKey) => Keep::LatestPerKey,
        Err(_) => {
            let problem = "is not a value that this server knows";
            return Err(status::bad_field(&field("keep"), problem));
        }
    };
    let max_events = (asked.max_events > 0).then_some(asked.max_events);
    Ok(TopicRule { pattern, max_age, max_events, keep })
}

/// What is removed by itself, by these rules, and what came of those in force.
pub(crate) fn retention(
    limits: &Retention,
    rules: &TopicRules,
    topics: &TopicRetention,
) -> pb::Retention {
    pb::Retention {
        max_age: limits.max_age.map(duration),
        max_bytes: limits.max_bytes.unwrap_or_default(),
        max_events: limits.max_events.unwrap_or_default(),
        rules: rules.as_slice().iter().map(of_rule).collect(),
        state: Some(state(topics)),
        dry_run: None,
    }
}

fn of_rule(rule: &TopicRule) -> pb::RetentionRule {
    let keep = match rule.keep {
        Keep::All => WireKeep::All,
        Keep::LatestPerKey => WireKeep::LatestPerKey,
    };
    pb::RetentionRule {
        pattern: rule.pattern.as_str().to_owned(),
        max_age: rule.max_age.map(duration),
        max_events: rule.max_events.unwrap_or_default(),
        keep: keep.into(),
    }
}

/// What has come of the rules for topics.
pub(crate) fn state(topics: &TopicRetention) -> pb::RetentionState {
    pb::RetentionState {
        running: topics.is_running,
        last: topics.last.as_deref().map(pass),
        totals: Some(pb::RetentionTotals {
            passes: topics.passes,
            expired: topics.expired,
            compacted: topics.compacted,
            segments: topics.segments,
            freed_bytes: topics.freed_bytes,
        }),
    }
}

/// One look at all that the rules are for.
pub(crate) fn pass(pass: &TopicPass) -> pb::RetentionPass {
    pb::RetentionPass {
        at: Some(timestamp(pass.at)),
        took: Some(duration(pass.took)),
        rules: pass.rules.iter().map(found).collect(),
        removed: pass.removed,
        segments: pass.segments,
        freed_bytes: pass.freed_bytes,
        partial: pass.is_partial,
    }
}

fn found(found: &RuleFound) -> pb::RetentionFound {
    let RuleFound { events, bytes, expired, compacted, dead_bytes } = *found;
    pb::RetentionFound { events, bytes, expired, compacted, dead_bytes }
}
