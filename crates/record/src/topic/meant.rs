//! What somebody probably meant by a pattern that is none, or one that selects hardly what was meant. For whoever
//! answers people: the command line, and the server's errors.

use std::fmt;

use super::{Pattern, Problem};
use crate::{Limits, excerpt};

/// What parts names in other systems.
const PARTERS: [char; 2] = ['/', ':'];

/// What was probably meant, and why the other was written wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meant {
    /// What it is about, of what was written.
    about: Option<String>,
    why: &'static str,
    /// What to write in its place, one by one.
    instead: Vec<String>,
}

const DOTS: &str = "dots part the segments";
const WHOLE: &str = "they stand for whole segments";
const REST: &str = "a final `>` stands for the rest";
const SEVERAL: &str = "several patterns are given one by one";

impl Meant {
    /// What is wrong with a pattern that cannot be read.
    pub fn by_no_pattern(text: &str) -> Option<Meant> {
        if text.ends_with('.') && !text.contains("..") && text.len() > 1 {
            return Some(Meant::instead(REST, format!("{text}>")));
        }
        let several = || text.split([' ', ',']).filter(|it| !it.is_empty()).map(str::to_owned);
        let meant = if text.contains([' ', ',']) {
            Meant { about: None, why: SEVERAL, instead: several().collect() }
        } else if text.contains(PARTERS) && text.contains(['*', '>', '#']) {
            Meant::instead(DOTS, with_dots(text).replace('#', ">"))
        } else if text.contains("**") {
            Meant::instead(REST, text.replace("**", ">"))
        } else {
            Meant::by_part(text)?
        };
        // What is no pattern either helps nobody.
        let limits = Limits { topic_segments: usize::MAX, ..Limits::default() };
        meant.instead.iter().all(|it| Pattern::parse(it, &limits).is_ok()).then_some(meant)
    }

    /// `orders*`, `orders>`: what stands for segments is written as a part of one.
    fn by_part(text: &str) -> Option<Meant> {
        let segments: Vec<_> = text.split('.').collect();
        let is_part = |it: &&str| it.len() > 1 && it.contains(['*', '>']);
        let at = segments.iter().position(is_part)?;
        let (before, part) = (segments.get(..at)?.join("."), segments.get(at)?);
        if at + 1 < segments.len() {
            let all = segments.iter().map(|it| if is_part(it) { "*" } else { it });
            return Some(Meant::instead(WHOLE, all.collect::<Vec<_>>().join(".")));
        }
        // All below that name, where it is one.
        let name = part.strip_suffix(['*', '>']).filter(|it| !it.contains(['*', '>']));
        let last = name.map_or("*".to_owned(), |name| format!("{name}.>"));
        let dot = if before.is_empty() { "" } else { "." };
        Some(Meant::instead(WHOLE, format!("{before}{dot}{last}")))
    }

    /// What is wrong with a pattern, and what was probably meant, in words.
    pub fn instead_of(text: &str, problem: &Problem) -> String {
        match (problem, Meant::by_no_pattern(text)) {
            (Problem::Illegal(why), Some(meant)) => format!("{why}; {meant}"),
            _ => problem.to_string(),
        }
    }

    /// What is a pattern, and hardly the one that was meant.
    pub fn by_pattern(pattern: &str) -> Option<Meant> {
        if let Some(apart) = without_braces(pattern) {
            return Some(Meant {
                about: Some(pattern.to_owned()),
                why: "is one pattern with braces in it; several patterns are given one by one",
                instead: apart,
            });
        }
        if pattern.contains(',') {
            let apart = pattern.split(',').filter(|it| !it.is_empty()).map(str::to_owned);
            return Some(Meant {
                about: Some(pattern.to_owned()),
                why: "is one pattern with a comma in it; several patterns are given one by one",
                instead: apart.collect(),
            });
        }
        if pattern.contains(PARTERS) && pattern.contains('#') {
            return Meant::by_no_pattern(pattern);
        }
        let segment = pattern.split('.').find(|segment| matches!(*segment, "#" | "+"))?;
        Some(Meant {
            about: Some(segment.to_owned()),
            why: "is a name like any other here; `*` stands for one segment, a final `>` for the rest",
            instead: Vec::new(),
        })
    }

    /// A topic of one segment in which there are others, for who thinks of files or keys.
    pub fn by_topic(topic: &str) -> Option<Meant> {
        if topic.contains('.') || !topic.trim_matches(PARTERS).contains(PARTERS) {
            return None;
        }
        let parter = topic.chars().find(|c| PARTERS.contains(c))?;
        Some(Meant {
            about: Some(parter.to_string()),
            why: "is a character like any other here, and dots part segments",
            instead: vec![with_dots(topic)],
        })
    }

    fn instead(why: &'static str, text: String) -> Meant {
        Meant { about: None, why, instead: vec![text] }
    }

    /// In words; `shown` makes what was written fit to be shown.
    pub fn in_words(&self, shown: impl Fn(&str) -> String) -> String {
        let mut words = match &self.about {
            Some(about) => format!("`{}` {}", shown(about), self.why),
            None => self.why.to_owned(),
        };
        if !self.instead.is_empty() {
            let all = self.instead.iter().map(|it| format!("'{it}'")).collect::<Vec<_>>();
            words = format!("{words}: {}", shown(&all.join(" ")));
        }
        words
    }
}

impl fmt::Display for Meant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words(|text| excerpt(text).into_owned()))
    }
}

fn with_dots(text: &str) -> String {
    let segments = text.split(|c| c == '.' || PARTERS.contains(&c));
    segments.filter(|it| !it.is_empty()).collect::<Vec<_>>().join(".")
}

/// `orders.{eu,us}` as a shell would have taken it apart.
fn without_braces(pattern: &str) -> Option<Vec<String>> {
    let (before, rest) = pattern.split_once('{')?;
    let (among, behind) = rest.split_once('}')?;
    let each = among.split(',').map(|it| format!("{before}{it}{behind}"));
    among.contains(',').then(|| each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_with_parts_that_are_none_is_told() {
        let meant = |topic| Meant::by_topic(topic).map(|it| it.to_string());
        assert!(meant("orders/eu").is_some_and(|said| said.contains("'orders.eu'")));
        assert!(meant("a:b:c").is_some_and(|said| said.contains("'a.b.c'")));
        for fine in ["a", "a.b", "a/b.c", "/", "a/"] {
            assert_eq!(meant(fine), None, "{fine}");
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
            ("a b", "one by one: 'a' 'b'"),
            ("a.b,c.d", "'a.b' 'c.d'"),
            ("a.#", "a final `>`"),
            ("/orders/.*/", "'orders.*'"),
            ("orders.{eu,us}.new", "one by one: 'orders.eu.new' 'orders.us.new'"),
            ("orders*", "whole segments: 'orders.>'"),
            ("orders>", "whole segments: 'orders.>'"),
            ("*.eu*", "'*.eu.>'"),
            ("a.b*.c", "'a.*.c'"),
            ("*orders", "whole segments: '*'"),
            ("a.x*y", "whole segments: 'a.*'"),
        ] {
            let meant = match Pattern::parse(typed, &Limits::default()) {
                Err(_) => Meant::by_no_pattern(typed),
                Ok(_) => Meant::by_pattern(typed),
            };
            let said = meant.map(|it| it.to_string()).unwrap_or_default();
            assert!(said.contains(words), "{typed}: {said}");
        }
        for fine in ["a.b", "a.*", ">", "c#.x", "a+b", "orders/eu"] {
            assert_eq!(Meant::by_pattern(fine), None, "{fine}");
        }
        for nothing in ["", ".", "a..b", "a.>.b", "a..b, c", "a..*x.c"] {
            assert_eq!(Meant::by_no_pattern(nothing), None, "{nothing}");
        }
    }
}
