//! How long a writer may trust its last ack: the one place where the protocol looks at a clock.
//!
//! A writer answers what depends on the head without a commit if one of its own was stored just
//! now ([`Rule::ConfirmedByCommit`](crate::rules::Rule)), and nobody takes over before a longer
//! silence ([`Rule::SilenceFirst`](crate::rules::Rule)). `world/` takes these two for one fact:
//! while a writer trusts itself, nobody takes over. Here that fact is checked, with two clocks.

use stateright::{Model, Property};

/// While a writer answers by itself, no other term is stored.
pub const NO_OTHER: &str = "no other term while a writer trusts itself";
/// Another daemon does take over.
pub const TAKES_OVER: &str = "another takes over";

/// A writer and a daemon that waits for its silence.
#[derive(Clone, Copy, Debug)]
pub struct Trust {
    /// Ticks of the writer's clock that it trusts an acked commit.
    pub trusted: u8,
    /// What these ticks are counted from.
    pub since: Since,
    /// Ticks of the other's clock without a word of the writer before it takes over.
    pub silence: u8,
    /// Ticks of the other's clock between two of the writer's, at most.
    pub faster: u8,
    /// Ticks of the writer's clock that are looked at.
    pub ticks: u8,
    /// Commits that the writer sends.
    pub commits: u8,
}

/// What a writer counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// When it sent the commit that was acked.
    Sent,
    /// When the ack came, however long it was under way.
    Acked,
}

/// Both of them, and the log between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Clocks {
    writer: u8,
    other: u8,
    /// Ticks of the other's clock since the writer's last.
    ticked: u8,
    /// When the commit in flight was sent, and whether it is stored.
    in_flight: Option<(u8, bool)>,
    sent: u8,
    /// The writer trusts itself before this.
    trusts_until: u8,
    /// The writer's commits in the log, and those that the other has seen.
    stored: u8,
    seen: u8,
    /// By the other's clock: when it saw the last one.
    heard: u8,
    /// The TERM frame under way, and how many commits it follows on.
    term: Option<u8>,
    is_taken_over: bool,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The writer's clock ticks.
    Tick,
    /// The other's clock ticks.
    OtherTicks,
    /// The writer sends a commit.
    Send,
    /// The log stores it, if no term came before it.
    Store,
    /// The writer hears of it.
    Ack,
    /// The other sees the next commit.
    See,
    /// The other has heard nothing for long enough, and sends a TERM frame.
    TakeOver,
    /// The log stores it, if it follows on the newest commit.
    StoreTerm,
}

impl Model for Trust {
    type State = Clocks;
    type Action = Event;

    fn init_states(&self) -> Vec<Clocks> {
        vec![Clocks::default()]
    }

    fn actions(&self, it: &Clocks, events: &mut Vec<Event>) {
        let mut can = |is: bool, event| events.extend(is.then_some(event));
        can(it.writer < self.ticks, Event::Tick);
        can(it.ticked < self.faster, Event::OtherTicks);
        can(it.in_flight.is_none() && it.sent < self.commits, Event::Send);
        can(it.in_flight.is_some_and(|(_, stored)| !stored), Event::Store);
        can(it.in_flight.is_some_and(|(_, stored)| stored), Event::Ack);
        can(it.seen < it.stored, Event::See);
        let is_silent = it.other > it.heard + self.silence;
        can(is_silent && it.term.is_none() && !it.is_taken_over, Event::TakeOver);
        can(it.term.is_some(), Event::StoreTerm);
    }

    fn next_state(&self, last: &Clocks, event: Event) -> Option<Clocks> {
        let mut next = last.clone();
        match event {
            Event::Tick => (next.writer, next.ticked) = (next.writer + 1, 0),
            Event::OtherTicks => (next.other, next.ticked) = (next.other + 1, next.ticked + 1),
            Event::Send => {
                next.sent += 1;
                next.in_flight = Some((next.writer, false));
            }
            Event::Store if next.is_taken_over => next.in_flight = None,
            Event::Store => {
                next.stored += 1;
                next.in_flight = next.in_flight.map(|(sent, _)| (sent, true));
            }
            Event::Ack => {
                let (sent, _) = next.in_flight.take()?;
                let since = if self.since == Since::Sent { sent } else { next.writer };
                next.trusts_until = since + self.trusted;
            }
            Event::See => (next.seen, next.heard) = (next.seen + 1, next.other),
            Event::TakeOver => next.term = Some(next.seen),
            Event::StoreTerm => next.is_taken_over = next.term.take()? == next.stored,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(NO_OTHER, |_, it| {
                !it.is_taken_over || it.writer >= it.trusts_until
            }),
            Property::<Self>::sometimes(TAKES_OVER, |_, it| it.is_taken_over),
        ]
    }
}
