//! Patterns of topics as people type them: what is wrong with one, and what was probably meant.

use super::message::quoted;
use tailmark_record::Limits;
use tailmark_record::topic::{Meant, Pattern};

/// Checks a pattern before anything is sent; how many segments it may have, the server knows.
pub(super) fn parse_pattern(text: &str) -> Result<String, String> {
    let limits = Limits { topic_segments: usize::MAX, ..Limits::default() };
    match Pattern::parse(text, &limits) {
        Ok(_) => Ok(text.to_owned()),
        Err(problem) => Err(match meant(text) {
            Some(hint) => format!("{problem}; {hint}"),
            None => problem.to_string(),
        }),
    }
}

/// What to do about a pattern that is none.
fn meant(text: &str) -> Option<String> {
    if text.ends_with('.') && !text.contains("..") && text.len() > 1 {
        return Some(format!(
            "quote what has a `>`, as in '{}>': a shell takes an unquoted one for itself, and may \
             have made a file of the word behind it",
            quoted(text)
        ));
    }
    Meant::by_no_pattern(text).map(|it| it.in_words(quoted))
}

/// What is a pattern, and hardly the one that was meant.
pub(super) fn doubts(patterns: &[String]) -> Option<String> {
    patterns.iter().find_map(|pattern| Meant::by_pattern(pattern)).map(|it| it.in_words(quoted))
}

/// A topic of one segment in which there are others, for who thinks of files or keys.
pub(super) fn doubt_of_topic(topic: &str) -> Option<String> {
    Meant::by_topic(topic).map(|it| it.in_words(quoted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_checked_before_anything_is_sent() {
        assert!(parse_pattern("a.*.c.>").is_ok());
        assert!(parse_pattern("a..b").is_err() && parse_pattern("a.>.b").is_err());
        assert!(parse_pattern("a.").is_err_and(|said| said.contains("a shell takes")));
        assert!(parse_pattern("a/*").is_err_and(|said| said.contains("'a.*'")));
        let doubt = doubts(&["fine.>".to_owned(), "a.b,c.d".to_owned()]);
        assert!(doubt.is_some_and(|said| said.contains("'a.b' 'c.d'")));
    }
}
