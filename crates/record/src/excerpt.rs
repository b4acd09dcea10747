//! What a client sent, in a message: enough of it to be known again, never megabytes.

use std::borrow::Cow;

/// Characters that are shown of a text.
const SHOWN: usize = 100;
/// Characters at either end of a message that is too long as a whole.
const MESSAGE_BEGIN: usize = 160;
const MESSAGE_END: usize = 240;

/// The beginning of a text, with an ellipsis where something is left out.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// Both ends of a message, with an ellipsis where something is left out: what is wrong often stands
/// behind what was sent.
pub fn shorten(message: &mut String) {
    let begin = message.char_indices().nth(MESSAGE_BEGIN).map(|(at, _)| at);
    let end = message.char_indices().nth_back(MESSAGE_END - 1).map(|(at, _)| at);
    if let (Some(begin), Some(end)) = (begin, end)
        && begin < end
    {
        message.replace_range(begin..end, "…");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_shown_as_it_is() {
        for text in ["", "orders.eu", &"é".repeat(SHOWN)] {
            assert!(matches!(excerpt(text), Cow::Borrowed(shown) if shown == text));
            let mut message = text.to_owned();
            shorten(&mut message);
            assert_eq!(message, text);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for one in ["x", "é", "€", "🦀"] {
            let shown = excerpt(&one.repeat(1_000_000)).into_owned();
            assert_eq!(shown, one.repeat(SHOWN) + "…");
            let mut message = format!("unknown field `{}`, expected `id`", one.repeat(1_000_000));
            shorten(&mut message);
            assert!(message.starts_with("unknown field `"), "{message}");
            assert!(message.ends_with("`, expected `id`"), "{message}");
            assert_eq!(message.chars().count(), MESSAGE_BEGIN + 1 + MESSAGE_END);
        }
        let mut message = "x".repeat(MESSAGE_BEGIN + MESSAGE_END);
        shorten(&mut message);
        assert!(!message.contains('…'));
        message.push('x');
        shorten(&mut message);
        assert_eq!(message.chars().count(), MESSAGE_BEGIN + 1 + MESSAGE_END);
    }
}
