//! Heartbeats: what each daemon tells the others of itself, and what they remember of it.
//!
//! They decide nothing that must be right. Who writes is decided by the journal; a heartbeat that is lost, late or of
//! somebody who is gone costs time alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use tailmark_log::storage::shared::Role;

/// How often each daemon tells.
pub(super) const EVERY: Duration = Duration::from_millis(500);
/// Who was not heard for so long is not asked to store anything, and does not keep others from taking over.
pub(super) const SILENCE: Duration = Duration::from_secs(3);
/// And after so long is not told of any more.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Daemons that are remembered.
const MOST: usize = 256;

/// What a daemon says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beat {
    /// Of this run of it.
    pub(super) id: u64,
    /// `server.instance_id`.
    pub(super) daemon: String,
    /// Where it takes what is passed on to it.
    pub(super) address: String,
    pub(super) role: Part,
    pub(super) term: u64,
    pub(super) slot: u64,
    pub(super) head: u64,
    /// It stops, and the daemon with this id is to take over as soon as it has all up to the slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) heir: Option<u64>,
    /// It stops.
    #[serde(default)]
    pub(super) leaves: bool,
    pub(super) version: String,
}

/// [`Role`], as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    Following,
    Writing,
    Diverged,
}

impl From<Role> for Part {
    fn from(role: Role) -> Part {
        match role {
            Role::Following => Part::Following,
            Role::Writing => Part::Writing,
            Role::Diverged => Part::Diverged,
        }
    }
}

impl Beat {
    pub(super) fn encode(&self) -> bytes::Bytes {
        // Plain values, which JSON can always express.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// `None` where it is something else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Beat> {
        serde_json::from_slice(bytes).ok()
    }
}

/// What was heard last of each daemon.
#[derive(Debug, Default)]
pub(super) struct Heard(BTreeMap<u64, (Beat, Instant)>);

impl Heard {
    /// Remembers it. The answer is another daemon of the same name that lives, where there is one.
    pub(super) fn take(&mut self, beat: Beat, now: Instant) -> Option<u64> {
        self.0.retain(|_, (_, at)| now.duration_since(*at) < FORGOTTEN);
        // A daemon that comes back is another run of the same.
        let is_older = |id: u64, it: &Beat, at: Instant| {
            id != beat.id && it.daemon == beat.daemon && now.duration_since(at) > SILENCE
        };
        self.0.retain(|id, (it, at)| !is_older(*id, it, *at));
        let twin = self.0.iter().find(|(id, (it, _))| **id != beat.id && it.daemon == beat.daemon);
        let twin = twin.filter(|(_, (it, _))| !it.leaves).map(|(id, _)| *id);
        if self.0.len() < MOST || self.0.contains_key(&beat.id) {
            self.0.insert(beat.id, (beat, now));
        }
        twin
    }

    /// All of them, and when.
    pub(super) fn all(&self) -> impl Iterator<Item = &(Beat, Instant)> {
        self.0.values()
    }

    /// Those who live.
    fn living(&self, now: Instant) -> impl Iterator<Item = &(Beat, Instant)> {
        self.all().filter(move |(_, at)| now.duration_since(*at) < SILENCE)
    }

    /// Who writes, of those who live and say so: in the newest term, and in none before `term`.
    pub(super) fn writer(&self, term: u64, now: Instant) -> Option<&(Beat, Instant)> {
        let writing = |(it, _): &&(Beat, Instant)| it.role == Part::Writing && it.term >= term;
        self.living(now).filter(writing).max_by_key(|(it, _)| it.term)
    }

    /// Who is to take over from a daemon that stops: of those who follow and stay the one that has most.
    pub(super) fn heir(&self, own: u64, now: Instant) -> Option<&Beat> {
        let follows = |it: &&Beat| it.id != own && it.role == Part::Following && !it.leaves;
        self.living(now).map(|(it, _)| it).filter(follows).max_by_key(|it| (it.slot, it.id))
    }

    pub(super) fn name_of(&self, id: u64) -> Option<&str> {
        self.0.get(&id).map(|(it, _)| it.daemon.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(id: u64, daemon: &str, role: Part, term: u64) -> Beat {
        Beat {
            id,
            daemon: daemon.to_owned(),
            address: format!("http://{daemon}:1"),
            role,
            term,
            slot: 10 * id,
            head: 0,
            heir: None,
            leaves: false,
            version: "1".to_owned(),
        }
    }

    #[test]
    fn a_beat_comes_through_and_nothing_else_is_one() {
        let it = Beat { heir: Some(3), leaves: true, ..beat(u64::MAX, "a", Part::Writing, 2) };
        assert_eq!(Beat::decode(&it.encode()), Some(it));
        for other in [&b""[..], b"{}", b"hello", b"[1]"] {
            assert_eq!(Beat::decode(other), None);
        }
        // What a newer daemon adds is passed over.
        let text = r#"{"id":1,"daemon":"a","address":"","role":"following","term":1,"slot":2,"head":3,"version":"9","new":1}"#;
        assert!(Beat::decode(text.as_bytes()).is_some());
    }

    #[test]
    fn who_writes_is_who_says_so_lives_and_has_the_newest_term() {
        let (mut heard, now) = (Heard::default(), Instant::now());
        heard.take(beat(1, "a", Part::Writing, 3), now);
        heard.take(beat(2, "b", Part::Following, 4), now);
        let writer = |heard: &Heard, term, at| heard.writer(term, at).map(|(it, _)| it.id);
        assert_eq!(writer(&heard, 3, now), Some(1));
        // One that was relieved.
        assert_eq!(writer(&heard, 4, now), None);
        heard.take(beat(2, "b", Part::Writing, 4), now);
        assert_eq!(writer(&heard, 3, now), Some(2));
        assert_eq!(writer(&heard, 3, now + SILENCE), None);
    }

    #[test]
    fn the_heir_stays_and_has_most() {
        let (mut heard, now) = (Heard::default(), Instant::now());
        for id in 1..5 {
            heard.take(beat(id, &format!("d{id}"), Part::Following, 1), now);
        }
        assert_eq!(heard.heir(4, now).map(|it| it.id), Some(3));
        heard.take(Beat { leaves: true, ..beat(3, "d3", Part::Following, 1) }, now);
        assert_eq!(heard.heir(4, now).map(|it| it.id), Some(2));
        heard.take(beat(2, "d2", Part::Diverged, 1), now);
        assert_eq!(heard.heir(4, now).map(|it| it.id), Some(1));
        assert!(heard.heir(4, now + SILENCE).is_none());
    }

    #[test]
    fn two_that_live_by_one_name_are_found_and_one_that_came_back_is_not_two() {
        let (mut heard, now) = (Heard::default(), Instant::now());
        assert_eq!(heard.take(beat(1, "a", Part::Following, 1), now), None);
        assert_eq!(heard.take(beat(2, "a", Part::Following, 1), now), Some(1));
        let later = now + SILENCE + EVERY;
        assert_eq!(heard.take(beat(3, "a", Part::Following, 1), later), None);
        assert_eq!(heard.all().count(), 1);
    }
}
