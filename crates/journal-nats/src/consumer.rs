//! A consumer of the stream's messages in order, as everybody here makes one: it keeps nothing, and what it brings is what one
//! replica has.

use serde_json::{Value, json};

/// One that nobody asks goes after as many nanoseconds.
const IDLE: u64 = 30_000_000_000;

/// Asks for one that begins with slot `from`.
pub(crate) fn request(stream: &str, from: u64) -> Value {
    let config = json!({
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": from,
        "ack_policy": "none",
        "replay_policy": "instant",
        "num_replicas": 1,
        "mem_storage": true,
        "inactive_threshold": IDLE,
    });
    json!({ "stream_name": stream, "config": config })
}

/// The slot in the subject to which a message is acked: `$JS.ACK.STREAM.CONSUMER.TRIES.SLOT....`, or with a domain and
/// an account before the stream.
pub(crate) fn slot_of(reply: &str) -> Option<u64> {
    let parts: Vec<&str> = reply.split('.').collect();
    let at = if parts.len() == 9 { 5 } else { 7 };
    parts.get(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_of_both_forms() {
        assert_eq!(slot_of("$JS.ACK.TM_a.c.1.7.3.170000.0"), Some(7));
        assert_eq!(slot_of("$JS.ACK._.hash.TM_a.c.1.7.3.170000.0.token"), Some(7));
        assert_eq!(slot_of("_INBOX.a"), None);
    }
}
