//! What a watch asks for.

use std::time::Duration;

use super::step::{Machine, Plan};
use tailmark_record::{OnLost, Start};
use tailmark_wire::feed_v1 as pb;

/// What a watch asks for, and how it behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WatchOptions {
    /// Patterns, at most 64 by default: `*` is one segment, a final `>` the rest. Empty = every
    /// topic. An event comes once, however many match.
    pub patterns: Vec<String>,
    /// Begin after this cursor; wins over `start`.
    pub after_cursor: Option<String>,
    /// Where to begin without a cursor.
    pub start: Start,
    /// End after so many events, over all connections; 0 = never.
    pub limit: u64,
    /// End at the head of the moment when the watch began.
    pub until_caught_up: bool,
    /// What to do when the start is lost.
    pub on_lost: OnLost,
    /// Yield markers too. Gaps are yielded in any case: of what is lost, which only an `on_lost` other
    /// than [`OnLost::Fail`] lets happen, and of what the server's rules for topics let go
    /// ([`GapReason::is_intended`](crate::GapReason::is_intended)).
    pub markers: bool,
    /// Leave out the gaps of what the server's rules for topics let go: what expired, and what newer
    /// events of the same key have taken the place of. Of everything that is left none is missed, but
    /// the client cannot prove it by contiguous seqs then.
    pub compacted: bool,
    /// How often the server says that it is still there: 15 s if not set, at least 1 ms. Silence
    /// of twice this and 5 s, or up to a quarter more, turns a connection that is dead, whatever
    /// holds it open, into a reconnect over a new one.
    pub heartbeat: Duration,
    /// The shortest wait before connecting again: 100 ms if not set. It doubles with each attempt
    /// that gets nowhere, and each wait is lengthened at random by up to itself.
    pub shortest_retry: Duration,
    /// Where the doubling ends: 10 s if not set. What the server asks for comes on top, and what a
    /// proxy asks for in its place up to this or a minute, whichever is more.
    pub longest_retry: Duration,
    /// Wait for a server that cannot be reached at the very beginning, too; `true` if not set.
    pub waits_for_server: bool,
    /// What this consumer is called in the server's figures, where its lag and its rate stand under
    /// that name; empty if not set: 1 to 64 letters and digits of ASCII, `.`, `_`, `-`, `:` or `/`. With a
    /// name the watch tells the server about once a second how many of its events are done: asking for
    /// the next item says that the ones before are.
    pub name: String,
}

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions {
            patterns: Vec::new(),
            after_cursor: None,
            start: Start::Latest,
            limit: 0,
            until_caught_up: false,
            on_lost: OnLost::Fail,
            markers: false,
            compacted: false,
            heartbeat: Duration::from_secs(15),
            shortest_retry: Duration::from_millis(100),
            longest_retry: Duration::from_secs(10),
            waits_for_server: true,
            name: String::new(),
        }
    }
}

impl WatchOptions {
    pub(super) fn plan(&self) -> Plan {
        Plan {
            is_unfiltered: !self.compacted
                && (self.patterns.is_empty() || self.patterns.iter().any(|p| p == ">")),
            limit: self.limit,
            until_caught_up: self.until_caught_up,
            on_lost: self.on_lost,
            waits_for_server: self.waits_for_server,
        }
    }

    /// Silence beyond which a connection counts as dead: two heartbeats missed, and some grace.
    pub(super) fn patience(&self) -> Duration {
        self.heartbeat.saturating_mul(2).saturating_add(Duration::from_secs(5))
    }

    /// The request of the next attempt. Markers are always asked for: heartbeats tell a quiet
    /// connection from a dead one, and where a filtered watch may resume.
    pub(super) fn request(&self, machine: &Machine) -> pb::WatchRequest {
        let after_cursor = machine.cursor().unwrap_or_default().to_owned();
        let start = after_cursor.is_empty().then(|| self.start.into());
        pb::WatchRequest {
            topic: String::new(),
            after_cursor,
            topics: self.patterns.clone(),
            start,
            limit: i64::try_from(machine.remaining()).unwrap_or(i64::MAX),
            until_caught_up: self.until_caught_up,
            markers: true,
            on_lost: pb::OnLost::from(self.on_lost).into(),
            heartbeat_ms: u32::try_from(self.heartbeat.as_millis()).unwrap_or(u32::MAX).max(1),
            name: self.name.clone(),
            reports_progress: !self.name.is_empty(),
            compacted: self.compacted,
        }
    }
}
