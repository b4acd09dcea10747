//! Patterns of topics as people type them: what is wrong with one, and what was probably meant.

use super::message::quoted;
use tailmark_record::Limits;
use tailmark_record::topic::Pattern;

/// What parts names in other systems.
const PARTERS: [char; 2] = ['/', ':'];

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
    let has_wildcard = text.contains(['*', '>', '#']);
    if text.ends_with('.') && !text.contains("..") && text.len() > 1 {
        return Some(format!(
            "quote what has a `>`, as in '{text}>': a shell takes an unquoted one for itself, and may \
             have made a file of the word behind it"
        ));
    }
    if text.contains(PARTERS) && has_wildcard {
        let dots = text.trim_matches(PARTERS).replace(PARTERS, ".").replace('#', ">");
        return Some(format!("dots part the segments: '{}'", quoted(&dots)));
    }
    if text.contains("**") {
        return Some(format!(
            "a final `>` stands for the rest: '{}'",
            quoted(&text.replace("**", ">"))
        ));
    }
    text.contains([' ', ',']).then(|| "several patterns are several arguments".to_owned())
}

/// What is a pattern, and hardly the one that was meant.
pub(super) fn doubts(patterns: &[String]) -> Option<String> {
    patterns.iter().find_map(|pattern| {
        if pattern.contains(',') {
            let apart = pattern.split(',').filter(|it| !it.is_empty()).map(|it| format!("'{it}'"));
            let apart = apart.collect::<Vec<_>>().join(" ");
            return Some(format!(
                "`{}` is one pattern with a comma in it; several patterns are several arguments: {}",
                quoted(pattern),
                quoted(&apart)
            ));
        }
        if pattern.contains(PARTERS) && pattern.contains('#') {
            return meant(pattern);
        }
        let segment = pattern.split('.').find(|segment| matches!(*segment, "#" | "+"))?;
        Some(format!(
            "`{segment}` is a name like any other here; `*` stands for one segment, a final `>` for the rest"
        ))
    })
}

/// A topic of one segment in which there are others, for who thinks of files or keys.
pub(super) fn doubt_of_topic(topic: &str) -> Option<String> {
    if topic.contains('.') || !topic.trim_matches(PARTERS).contains(PARTERS) {
        return None;
    }
    let parter = topic.chars().find(|c| PARTERS.contains(c))?;
    let dots = topic.trim_matches(PARTERS).replace(PARTERS, ".");
    Some(format!(
        "`{parter}` is a character like any other here, and dots part segments: '{}'",
        quoted(&dots)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_checked_before_anything_is_sent() {
        assert!(parse_pattern("a.*.c.>").is_ok());
        assert!(parse_pattern("a..b").is_err() && parse_pattern("a.>.b").is_err());
    }

    #[test]
    fn a_topic_with_parts_that_are_none_is_told() {
        let doubt = doubt_of_topic("orders/eu");
        assert!(doubt.is_some_and(|said| said.contains("'orders.eu'")));
        assert!(doubt_of_topic("a:b:c").is_some_and(|said| said.contains("'a.b.c'")));
        for fine in ["a", "a.b", "a/b.c", "/", "a/"] {
            assert_eq!(doubt_of_topic(fine), None, "{fine}");
        }
    }

    #[test]
    fn what_was_meant_is_told() {
        for (typed, words) in [
            ("orders.", "'orders.>'"),
            ("orders/*", "'orders.*'"),
            ("/orders/eu/#", "'orders.eu.>'"),
            ("orders:eu:*", "'orders.eu.*'"),
            ("orders.**", "'orders.>'"),
            ("a b", "several arguments"),
        ] {
            let said = match parse_pattern(typed) {
                Err(said) => said,
                Ok(_) => doubts(&[typed.to_owned()]).unwrap_or_default(),
            };
            assert!(said.contains(words), "{typed}: {said}");
        }
        let doubt = |text: &str| doubts(&["fine.>".to_owned(), text.to_owned()]);
        assert!(doubt("a.b,c.d").is_some_and(|said| said.contains("'a.b' 'c.d'")));
        assert!(doubt("a.#").is_some_and(|said| said.contains("a final `>`")));
        for fine in ["a.b", "a.*", ">", "c#.x", "a+b", "orders/eu"] {
            assert_eq!(doubt(fine), None, "{fine}");
        }
    }
}
