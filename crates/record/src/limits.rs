//! What an event may be.

use super::Event;
use crate::topic::Topic;

/// Upper bounds, all inclusive. The defaults are those of the wire contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one event's client part as encoded.
    pub event_bytes: usize,
    /// Events in one batch.
    pub batch_events: usize,
    /// Encoded bytes of one batch.
    pub batch_bytes: usize,
    /// Bytes of a topic or a pattern.
    pub topic_bytes: usize,
    /// Segments of a topic or a pattern.
    pub topic_segments: usize,
    /// Bytes of an id, a type or a key, each.
    pub name_bytes: usize,
    /// Header entries.
    pub headers: usize,
    /// Bytes of all header names and values together.
    pub header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            event_bytes: 1 << 20,
            batch_events: 10_000,
            batch_bytes: 4 << 20,
            topic_bytes: 255,
            topic_segments: 32,
            name_bytes: 255,
            headers: 32,
            header_bytes: 8 << 10,
        }
    }
}

/// Why an event is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidEvent {
    /// The field's wire name; of headers that are too large in sum the limit's, `header_bytes`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It breaks a rule.
    #[error("{0}")]
    Illegal(&'static str),
    /// It is larger than allowed.
    #[error("{actual} is over the limit of {limit}")]
    OverLimit {
        /// The limit in force.
        limit: usize,
        /// What was sent.
        actual: usize,
    },
    /// A topic or pattern of more segments than allowed.
    #[error("{actual} segments are over the limit of {limit}")]
    TooManySegments {
        /// The limit in force.
        limit: usize,
        /// What was sent.
        actual: usize,
    },
}

impl Limits {
    /// Checks an event that a client sent.
    ///
    /// # Errors
    /// The first field that breaks a rule or a limit.
    pub fn check(&self, event: &Event<'_>) -> Result<(), InvalidEvent> {
        let illegal = |field, why| Err(InvalidEvent { field, problem: Problem::Illegal(why) });
        if event.has_marker {
            return illegal("marker", "only a server sends markers");
        }
        if event.erased.is_some() {
            return illegal("erased", "only a server says that an event was erased");
        }
        Topic::check(event.topic, self)
            .map_err(|problem| InvalidEvent { field: "topic", problem })?;
        if !event.body.is_empty() && !event.data.is_empty() {
            return illegal("data", "set body or data, not both");
        }
        for (field, value) in [("id", event.id), ("type", event.kind), ("key", event.key)] {
            over(field, self.name_bytes, value.len())?;
        }
        if let Some(at) = event.at
            && !at.is_valid()
        {
            return illegal("at", "outside the years 1 to 9999, or nanos out of range");
        }
        if !event.headers.is_empty() {
            over("headers", self.headers, event.headers.len())?;
            let bytes = event.headers.iter().map(|(n, v)| n.len() + v.len()).sum();
            over("header_bytes", self.header_bytes, bytes)?;
            if event.headers.iter().any(|(name, _)| name.is_empty()) {
                return illegal("headers", "a header needs a name");
            }
        }
        Ok(())
    }
}

/// Refuses `actual` over `limit`.
pub(crate) fn over(field: &'static str, limit: usize, actual: usize) -> Result<(), InvalidEvent> {
    if actual > limit {
        let problem = Problem::OverLimit { limit, actual };
        return Err(InvalidEvent { field, problem });
    }
    Ok(())
}
