//! What the servers' answers mean.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use tailmark_log::storage::shared::Published;

/// Error codes of JetStream that say that a publish was not stored, and never will be: it was refused before it
/// was proposed to the other replicas.
const NOT_TAKEN: [u64; 5] = [
    10_023, // insufficient resources
    10_047, // insufficient storage
    10_054, // the message is larger than the stream's limit
    10_060, // the stream is another than was expected
    10_167, // too many requests
];
const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// Also of other failures to store, of which some replicas may not have heard.
const STORE_FAILED: u64 = 10_077;
const NO_MESSAGE: u64 = 10_037;
const NO_STREAM: u64 = 10_059;

/// An error of JetStream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{description} ({code})")]
pub struct JetStreamError {
    pub(crate) code: u64,
    pub(crate) description: String,
}

impl JetStreamError {
    /// The error in an answer, if it is one.
    pub(crate) fn of(answer: &Value) -> Option<JetStreamError> {
        let error = answer.get("error")?;
        let description = error.get("description").and_then(Value::as_str).unwrap_or_default();
        let code = error.get("err_code").and_then(Value::as_u64).unwrap_or_default();
        Some(JetStreamError { code, description: description.to_owned() })
    }

    pub(crate) fn is_no_stream(&self) -> bool {
        self.code == NO_STREAM
    }

    pub(crate) fn is_no_message(&self) -> bool {
        self.code == NO_MESSAGE
    }
}

/// What became of a publish to a stream.
pub(crate) fn published(answer: &[u8], stream: &str) -> Published {
    let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return Published::NoAnswer };
    if let Some(error) = JetStreamError::of(&answer) {
        return refused(&error);
    }
    let is_of_it = answer.get("stream").and_then(Value::as_str) == Some(stream);
    // Ours have no message id, and so none is a duplicate.
    let is_new = answer.get("duplicate").is_none_or(|it| it == &Value::Bool(false));
    match answer.get("seq").and_then(Value::as_u64) {
        Some(slot) if slot > 0 && is_of_it && is_new => Published::Stored(slot),
        _ => Published::NoAnswer,
    }
}

fn refused(error: &JetStreamError) -> Published {
    let text = error.description.as_str();
    if error.code == WRONG_LAST_SEQUENCE {
        // The number stands in the text alone; the answer's own says 0.
        let end = text.rsplit(' ').next().and_then(|end| end.parse().ok());
        return end.map_or(Published::NoAnswer, |end| Published::Refused { end });
    }
    let is_full = error.code == STORE_FAILED && text.starts_with("maximum ");
    if is_full || NOT_TAKEN.contains(&error.code) {
        return Published::NotTaken { reason: format!("the journal refuses: {error}") };
    }
    Published::NoAnswer
}

/// The message in an answer to a question of the leader's.
pub(crate) fn message(answer: &Value, slot: u64) -> Option<Bytes> {
    let message = answer.get("message")?;
    if message.get("seq")?.as_u64() != Some(slot) {
        return None;
    }
    // An empty one has none.
    let data = message.get("data").and_then(Value::as_str).unwrap_or_default();
    STANDARD.decode(data).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answer: &str) -> Published {
        published(answer.as_bytes(), "TM_a")
    }

    fn error(code: u64, text: &str) -> Published {
        of(&format!(
            r#"{{"error":{{"code":400,"err_code":{code},"description":"{text}"}},"stream":"TM_a","seq":0}}"#
        ))
    }

    /// As they were seen of nats-server 2.15.1.
    #[test]
    fn answers_mean_what_they_say() {
        assert_eq!(of(r#"{"stream":"TM_a", "seq":7}"#), Published::Stored(7));
        assert_eq!(error(10_071, "wrong last sequence: 4"), Published::Refused { end: 4 });
        assert_eq!(error(10_071, "wrong last sequence: 0"), Published::Refused { end: 0 });
        let refused = |it| matches!(it, Published::NotTaken { .. });
        assert!(refused(error(10_060, "expected stream does not match")));
        assert!(refused(error(10_077, "maximum bytes exceeded")));
        assert!(refused(error(10_023, "insufficient resources")));
    }

    #[test]
    fn all_else_is_doubt() {
        for answer in [
            "",
            "+OK",
            "{}",
            "[]",
            r#"{"stream":"TM_b","seq":7}"#,
            r#"{"stream":"TM_a","seq":0}"#,
            r#"{"stream":"TM_a","seq":-1}"#,
            r#"{"stream":"TM_a","seq":7,"duplicate":true}"#,
            r#"{"error":{"code":503,"err_code":10008,"description":"temporarily unavailable"}}"#,
            r#"{"error":{}}"#,
            r#"{"error":7,"stream":"TM_a","seq":7}"#,
        ] {
            assert_eq!(of(answer), Published::NoAnswer, "{answer}");
        }
        assert_eq!(error(10_071, "wrong last sequence"), Published::NoAnswer);
        assert_eq!(error(10_077, "disk error"), Published::NoAnswer);
    }

    #[test]
    fn a_message_is_the_one_that_was_asked_for() {
        let answer = serde_json::json!({"message": {"seq": 3, "data": "aGk="}});
        assert_eq!(message(&answer, 3), Some(Bytes::from_static(b"hi")));
        assert_eq!(message(&answer, 4), None);
        assert_eq!(message(&serde_json::json!({"message": {"seq": 3}}), 3), Some(Bytes::new()));
        assert_eq!(message(&serde_json::json!({"message": {"seq": 3, "data": "!"}}), 3), None);
    }
}
