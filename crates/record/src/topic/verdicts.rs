//! What a filter said of the topics of a run of events, so that it is asked about each but once.
//!
//! Holds no text: it knows where in the run a topic lay, and compares. Where more topics want a place
//! than there are, the last takes it, and they cost as much as they would without. Invariant: what
//! it answers is what [`Filter::matches`] says.

use super::Filter;

/// Topics that are remembered, at most, and of those that have the same hash.
const PLACES: usize = 128;
const ALIKE: usize = 4;
/// Fewer patterns are tried as fast as they are looked up.
const MIN_PATTERNS: usize = 5;

/// See the module. Of one run, and one filter.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    /// None where the filter needs no memory, or nothing was asked yet.
    places: Vec<Place>,
}

/// Where in the run the topic lies, and whether it is selected.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    start: usize,
    len: usize,
    is_match: bool,
}

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the topic is selected.
    pub is_match: bool,
    /// Whether the filter had to be asked.
    pub is_new: bool,
}

impl Verdicts {
    /// Whether the filter selects a topic that lies in the run.
    pub fn on(&mut self, filter: &Filter, run: &[u8], topic: &str) -> Verdict {
        if filter.is_all() {
            return Verdict { is_match: true, is_new: false };
        }
        if filter.patterns().len() < MIN_PATTERNS {
            return Verdict { is_match: filter.matches(topic), is_new: true };
        }
        if self.places.is_empty() {
            self.places = vec![Place::default(); PLACES];
        }
        let text = |place: &Place| run.get(place.start..place.start + place.len);
        let alike = group(topic.as_bytes()) * ALIKE;
        let places = self.places.get_mut(alike..alike + ALIKE).unwrap_or_default();
        if let Some(known) =
            places.iter().find(|it| it.len > 0 && text(it) == Some(topic.as_bytes()))
        {
            return Verdict { is_match: known.is_match, is_new: false };
        }
        let is_match = filter.matches(topic);
        let start = topic.as_ptr().addr().wrapping_sub(run.as_ptr().addr());
        let place = Place { start, len: topic.len(), is_match };
        if start < run.len() && text(&place) == Some(topic.as_bytes()) {
            places.rotate_right(1);
            if let Some(first) = places.first_mut() {
                *first = place;
            }
        }
        Verdict { is_match, is_new: true }
    }

    /// Another run begins.
    pub fn clear(&mut self) {
        self.places = Vec::new();
    }
}

/// FNV-1a of the end of a topic, where topics differ most.
fn group(topic: &[u8]) -> usize {
    let end = topic.get(topic.len().saturating_sub(24)..).unwrap_or(topic);
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = end.iter().fold(0x811c_9dc5, mix);
    usize::from(u8::try_from(hash >> 24).unwrap_or_default()) % (PLACES / ALIKE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Limits;
    use crate::topic::Pattern;

    fn filter(patterns: &[String]) -> Filter {
        let parse = |text: &String| Pattern::parse(text, &Limits::default()).unwrap();
        Filter::new(patterns.iter().map(parse).collect())
    }

    proptest! {
        #[test]
        fn it_says_what_the_filter_says(
            patterns in prop::collection::vec("[ab*](\\.[ab*]){0,3}", 0..10),
            topics in prop::collection::vec("[ab](\\.[ab]){0,4}", 0..200),
        ) {
            let filter = filter(&patterns);
            let run = topics.join("|");
            let mut verdicts = Verdicts::default();
            for topic in run.split('|') {
                let verdict = verdicts.on(&filter, run.as_bytes(), topic);
                prop_assert_eq!(verdict.is_match, filter.matches(topic));
                // One that lies elsewhere.
                let other = topic.to_owned();
                let verdict = verdicts.on(&filter, run.as_bytes(), &other);
                prop_assert_eq!(verdict.is_match, filter.matches(topic));
            }
        }
    }

    #[test]
    fn the_filter_is_asked_once_about_each_topic_of_a_run() {
        let patterns: Vec<_> = (0..64).map(|at| format!("*.*.x{at}.>")).collect();
        let filter = filter(&patterns);
        let topics: Vec<_> = (0..1_000).map(|at| format!("a.b.x{}.d", at % 10 * 7)).collect();
        let run = topics.join("|");
        let mut verdicts = Verdicts::default();
        let mut asked = || {
            let of = |topic| verdicts.on(&filter, run.as_bytes(), topic);
            run.split('|').map(of).filter(|verdict| verdict.is_new).count()
        };
        assert_eq!(asked(), 10);
        assert_eq!(asked(), 0);
        verdicts.clear();
        // The same place in another run says nothing of it.
        let other = run.replace("a.b.x0.d", "a.b.y0.d");
        let first = other.split('|').next().unwrap();
        let expected = Verdict { is_match: false, is_new: true };
        assert_eq!(verdicts.on(&filter, other.as_bytes(), first), expected);
    }
}
