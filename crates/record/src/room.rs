//! Rooms of a chat as topics: the names that both sides of the wire agree on.
//!
//! A room is the topic `chat.` and its name as one segment, with `%XX` for each byte of what a
//! topic cannot hold there. Invariant: two rooms never share a topic.

/// The room of a message that names none.
pub const DEFAULT: &str = "general";
/// The type of an event that a chat stored.
pub const MESSAGE: &str = "chat.message";
/// The header that says who speaks.
pub const FROM: &str = "from";

const PREFIX: &str = "chat.";

/// The room that `name` means: empty is [`DEFAULT`].
pub fn named(name: &str) -> &str {
    if name.is_empty() { DEFAULT } else { name }
}

/// The topic of a room.
pub fn topic(name: &str) -> String {
    let mut topic = PREFIX.to_owned();
    for c in named(name).chars() {
        if matches!(c, '.' | '*' | '>' | '%') || c.is_control() || c.is_whitespace() {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                topic.push_str(&format!("%{byte:02X}"));
            }
        } else {
            topic.push(c);
        }
    }
    topic
}

/// Whether a topic is that of a room.
pub fn is_topic(topic: &str) -> bool {
    topic.strip_prefix(PREFIX).is_some_and(|name| !name.is_empty() && !name.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::topic::Topic;

    #[test]
    fn a_room_is_one_segment_whatever_its_name() {
        for (name, expected) in [
            ("", "chat.general"),
            ("general", "chat.general"),
            ("a.b", "chat.a%2Eb"),
            ("*", "chat.%2A"),
            (">", "chat.%3E"),
            ("100%", "chat.100%25"),
            ("two words\t", "chat.two%20words%09"),
            ("a\u{a0}b\u{85}", "chat.a%C2%A0b%C2%85"),
            ("größe/日本", "chat.größe/日本"),
            ("%2E", "chat.%252E"),
        ] {
            assert_eq!(topic(name), expected, "{name:?}");
            assert_eq!(Topic::check(&topic(name), &Limits::default()), Ok(()), "{name:?}");
            assert!(is_topic(&topic(name)), "{name:?}");
        }
    }

    #[test]
    fn not_everything_about_chat_is_a_room() {
        for topic in ["chat", "chat.", "chat.a.b", "chats.a", "a.chat.b", ""] {
            assert!(!is_topic(topic), "{topic:?}");
        }
    }
}
