//! Looks whether every server holds the same journal.
//!
//! A server whose peers were put back to an older state keeps what it had, and the journal's servers do not compare. Whoever
//! writes behind a state that was put back begins a term there, so the frames of terms are where such a server differs
//! first: comparing these, and the newest one, costs a handful of messages however long the journal is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::Inner;
use tailmark_log::storage::shared::Place;
use tailmark_wire::feed_v1 as pb;

/// Terms that are compared, the newest ones.
const TERMS: usize = 4;
/// How often, where nothing has changed.
const EVERY: Duration = Duration::from_secs(600);
/// While a server is known to differ: whether it was cured.
const AGAIN: Duration = Duration::from_secs(60);
/// After a takeover, or when a server has come back: by then it has what it lacked.
const SOON: Duration = Duration::from_secs(15);

/// What is known of the servers.
#[derive(Default)]
pub(super) struct Witnessed {
    /// Where terms began, as far as this daemon saw it.
    terms: VecDeque<Place>,
    /// The first place at which a server has other bytes than the copy here.
    strays: BTreeMap<String, u64>,
}

impl Witnessed {
    /// A term began there.
    pub(super) fn begins(&mut self, place: Place) {
        if self.terms.len() == TERMS {
            self.terms.pop_front();
        }
        self.terms.push_back(place);
    }

    /// Another compares now, and says what it finds.
    pub(super) fn forget(&mut self) {
        self.strays.clear();
    }

    /// Where this server differs; 0 = nowhere that was compared.
    pub(super) fn differs_at(&self, server: &str) -> u64 {
        self.strays.get(server).copied().unwrap_or_default()
    }
}

/// When it is time to compare.
pub(super) struct Schedule {
    due: Instant,
    term: u64,
    current: BTreeSet<String>,
}

impl Schedule {
    pub(super) fn new() -> Schedule {
        Schedule { due: Instant::now() + SOON, term: 0, current: BTreeSet::new() }
    }

    /// Whether it is time, as the servers are and in this term.
    pub(super) fn is_due(
        &mut self,
        servers: &[pb::JournalReplica],
        term: u64,
        now: Instant,
    ) -> bool {
        let is_well = |it: &&pb::JournalReplica| it.is_current && !it.is_offline;
        let current: BTreeSet<_> =
            servers.iter().filter(is_well).map(|it| it.server.clone()).collect();
        let has_come = current.difference(&self.current).next().is_some();
        if has_come || term != self.term {
            self.due = self.due.min(now + SOON);
        }
        (self.current, self.term) = (current, term);
        let is_due = now >= self.due;
        if is_due {
            self.due = now + EVERY;
        }
        is_due
    }

    /// A server differs: it is looked at again before long.
    pub(super) fn again(&mut self, now: Instant) {
        self.due = self.due.min(now + AGAIN);
    }
}

/// Compares what each server has with the copy here; whether one is known to differ. Blocks.
pub(super) fn compare(inner: &Inner) -> bool {
    let places: Vec<_> = {
        let newest = inner.replica.place();
        let witnessed = inner.witnessed.lock();
        witnessed.terms.iter().copied().chain([newest]).filter(|it| it.slot > 0).collect()
    };
    let (mut strays, mut all, mut unheard) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for place in places {
        match inner.journal.strays(place.slot, &[place.chain]) {
            Ok((found, silent)) => {
                for it in found {
                    strays.entry(it.server.clone()).or_insert_with(|| (it.slot, it.to_string()));
                }
                unheard.extend(silent);
            }
            Err(error) => {
                tracing::debug!(%error, "the journal's servers could not be compared");
                return !inner.witnessed.lock().strays.is_empty();
            }
        }
    }
    all.extend(inner.servers.lock().iter().map(|it| it.server.clone()));
    let mut witnessed = inner.witnessed.lock();
    for (server, (slot, what)) in &strays {
        if witnessed.differs_at(server) == 0 {
            tracing::error!(server, slot, "{what}");
        }
    }
    // Of whom nothing was heard stays what was known.
    witnessed.strays.retain(|server, _| unheard.contains(server) && all.contains(server));
    witnessed.strays.extend(strays.into_iter().map(|(server, (slot, _))| (server, slot)));
    !witnessed.strays.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, is_current: bool) -> pb::JournalReplica {
        pb::JournalReplica { server: name.to_owned(), is_current, ..Default::default() }
    }

    #[test]
    fn it_is_time_after_a_takeover_and_when_a_server_has_come_back_and_now_and_then() {
        let (begun, mut schedule) = (Instant::now(), Schedule::new());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let all = [server("a", true), server("b", true), server("c", true)];
        assert!(!schedule.is_due(&all, 1, at(1)));
        assert!(schedule.is_due(&all, 1, at(20)), "the first time");
        assert!(!schedule.is_due(&all, 1, at(60)), "nothing has changed");
        assert!(!schedule.is_due(&all, 2, at(61)));
        assert!(schedule.is_due(&all, 2, at(77)), "a takeover");
        assert!(!schedule.is_due(
            &[server("a", true), server("b", true), server("c", false)],
            2,
            at(80)
        ));
        assert!(!schedule.is_due(&all, 2, at(200)));
        assert!(schedule.is_due(&all, 2, at(216)), "a server has come back");
        assert!(!schedule.is_due(&all, 2, at(700)));
        assert!(schedule.is_due(&all, 2, at(820)), "now and then");
        schedule.again(at(821));
        assert!(!schedule.is_due(&all, 2, at(880)));
        assert!(schedule.is_due(&all, 2, at(881)), "while one differs");
    }

    #[test]
    fn the_newest_terms_are_kept() {
        let mut witnessed = Witnessed::default();
        (1..=9).for_each(|slot| witnessed.begins(Place { slot, ..Place::default() }));
        assert_eq!(witnessed.terms.iter().map(|it| it.slot).collect::<Vec<_>>(), [6, 7, 8, 9]);
    }
}
