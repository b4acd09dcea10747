//! What somebody probably meant by a pattern that is none, or one that selects hardly what was meant. For whoever
//! answers people: the command line, and the server's errors.

use std::fmt;

use crate::excerpt;

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
const REST: &str = "a final `>` stands for the rest";
const SEVERAL: &str = "several patterns are given one by one";

impl Meant {
    /// What is wrong with a pattern that cannot be read.
    pub fn by_no_pattern(text: &str) -> Option<Meant> {
        if text.ends_with('.') && !text.contains("..") && text.len() > 1 {
            return Some(Meant::instead(REST, format!("{text}>")));
        }
        if text.contains(PARTERS) && text.contains(['*', '>', '#']) {
            return Some(Meant::instead(DOTS, with_dots(text).replace('#', ">")));
        }
        if text.contains("**") {
            return Some(Meant::instead(REST, text.replace("**", ">")));
        }
        let parts = || text.split([' ', ',']).filter(|it| !it.is_empty()).map(str::to_owned);
        text.contains([' ', ',']).then(|| Meant {
            about: None,
            why: SEVERAL,
            instead: parts().collect(),
        })
    }

    /// What is a pattern, and hardly the one that was meant.
    pub fn by_pattern(pattern: &str) -> Option<Meant> {
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
    text.trim_matches(PARTERS).replace(PARTERS, ".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::topic::Pattern;

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
        for nothing in ["", ".", "a..b", "a.>.b"] {
            assert_eq!(Meant::by_no_pattern(nothing), None, "{nothing}");
        }
    }
}
