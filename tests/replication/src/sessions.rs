//! Why opening a producer's stream is always a commit, also in the same epoch.
//!
//! Of a producer's streams only the one opened last may append. Each daemon keeps which that is.
//! If only the daemon that opened it knew, a daemon that wrote before, and writes again, would
//! take what comes on the stream that it remembers.

use stateright::{Model, Property};

/// Whoever appends has the stream that was opened last.
pub const NEWEST: &str = "only the stream opened last appends";
/// A stream goes on at another writer than the one that opened it.
pub const MOVES: &str = "a stream goes on at another writer";

/// One producer, and two daemons that write in turns.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    /// Whether opening a stream is a commit, which every daemon applies.
    pub are_committed: bool,
    /// Streams that are opened.
    pub streams: u8,
    /// Times that the writer changes.
    pub takeovers: u8,
}

/// What everybody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    writer: usize,
    /// The stream that is the newest, by the memory of each daemon.
    newest: [u8; 2],
    /// The stream that is the newest.
    opened: u8,
    /// At whom it was opened.
    opened_at: usize,
    takeovers: u8,
    /// What stream the last batch came on, and whether that was the newest.
    last: Option<(u8, bool)>,
    has_moved: bool,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The producer, or a second one of its name, opens a stream.
    Open,
    /// A batch comes on a stream, and is stored if the writer takes it for the newest.
    Append(u8),
    /// The other daemon becomes the writer. It has applied all commits.
    TakeOver,
}

impl Model for Sessions {
    type State = Known;
    type Action = Event;

    fn init_states(&self) -> Vec<Known> {
        vec![Known::default()]
    }

    fn actions(&self, it: &Known, events: &mut Vec<Event>) {
        events.extend((it.opened < self.streams).then_some(Event::Open));
        events.extend((1..=it.opened).map(Event::Append));
        events.extend((it.takeovers < self.takeovers).then_some(Event::TakeOver));
    }

    fn next_state(&self, last: &Known, event: Event) -> Option<Known> {
        let mut next = last.clone();
        match event {
            Event::Open => {
                next.opened += 1;
                next.opened_at = next.writer;
                next.newest[next.writer] = next.opened;
                if self.are_committed {
                    next.newest = [next.opened; 2];
                }
            }
            Event::Append(stream) if next.newest[next.writer] == stream => {
                next.last = Some((stream, stream == next.opened));
                next.has_moved |= next.writer != next.opened_at;
            }
            Event::Append(_) => return None,
            Event::TakeOver => {
                next.takeovers += 1;
                next.writer = 1 - next.writer;
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(NEWEST, |_, it| it.last.is_none_or(|(_, newest)| newest)),
            Property::<Self>::sometimes(MOVES, |_, it| it.has_moved),
        ]
    }
}
