//! What a journal holds, and what follows from it alone: history, chain, cursors.

/// The number of a daemon.
pub type Id = u8;

/// The number of an event that a client wants stored, and its idempotent id.
pub type Op = u8;

/// The hash of a history. Zero is the empty one's.
pub type Chain = u32;

/// One commit, one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// The generation that it was written in.
    pub generation: Generation,
    /// The seq of its first event, or of the next one if it has none.
    pub first: u8,
    /// Who staged it, and its which; drawn at random in life.
    pub nonce: Nonce,
    /// The chain of the frame before it.
    pub previous: Chain,
    /// What it carries.
    pub body: Body,
}

/// A term and the generation that it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation {
    /// Goes up by one a takeover.
    pub term: u8,
    /// Tells two takeovers with the same term apart, which a rolled back journal can have seen.
    pub nonce: Nonce,
}

/// Tells one commit from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nonce {
    /// Who drew it.
    pub by: Id,
    /// How many it had drawn.
    pub count: u8,
}

/// What a frame carries; at most one event here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Body {
    /// A takeover: begins a generation.
    Term,
    /// No event. Its ack says where the log ended.
    Empty,
    /// An event.
    Event(Op),
}

/// A place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// A commit.
    Frame(Frame),
    /// A message of somebody else's.
    Foreign,
    /// Nothing: a purge beyond the end moved the end over it.
    Purged,
    /// A frame that goes on from nothing that is there, as a reader sees it: it was staged behind a
    /// commit that another's took the place of.
    Dead,
}

/// Where an event is, for as long as the log lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cursor {
    /// The generation that the event was written in.
    pub generation: Generation,
    /// Its seq.
    pub seq: u8,
}

/// What a cursor means to someone who holds these slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// This event.
    Event(Op),
    /// Its generation ended before it: the event belongs to a history that was given up.
    Diverged,
    /// Its generation is not known here.
    Unknown,
    /// The next events of the newest generation.
    Beyond,
}

impl Frame {
    /// The chain up to and with this frame.
    pub fn chain(&self) -> Chain {
        let (kind, op) = match self.body {
            Body::Term => (1, 0),
            Body::Empty => (2, 0),
            Body::Event(op) => (3, op),
        };
        let (generation, nonce) = (self.generation, self.nonce);
        let fields = [generation.term, generation.nonce.by, generation.nonce.count, self.first];
        let rest = [nonce.by, nonce.count, kind, op];
        // FNV-1a.
        let bytes = self.previous.to_le_bytes().into_iter().chain(fields).chain(rest);
        bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}

/// A length as a sequence or a seq; a model's are small.
pub fn small(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

/// What a reader makes of a stream: a frame counts if it goes on from the last one that counts.
pub fn read(stream: &[Slot]) -> Vec<Slot> {
    let mut chain = 0;
    let read = |slot: &Slot| match slot {
        Slot::Frame(frame) if frame.previous != chain => Slot::Dead,
        Slot::Frame(frame) => {
            chain = frame.chain();
            *slot
        }
        _ => *slot,
    };
    stream.iter().map(read).collect()
}

/// The frames that count among these slots, which somebody has read.
pub fn frames(slots: &[Slot]) -> impl DoubleEndedIterator<Item = &Frame> {
    slots.iter().filter_map(|slot| match slot {
        Slot::Frame(frame) => Some(frame),
        Slot::Foreign | Slot::Purged | Slot::Dead => None,
    })
}

/// The frames with an event, and the events.
pub fn events(slots: &[Slot]) -> impl Iterator<Item = (&Frame, Op)> {
    frames(slots).filter_map(|frame| match frame.body {
        Body::Event(op) => Some((frame, op)),
        Body::Term | Body::Empty => None,
    })
}

/// The chain of this history.
pub fn chain(slots: &[Slot]) -> Chain {
    frames(slots).next_back().map_or(0, Frame::chain)
}

/// The seq of the newest event.
pub fn head(slots: &[Slot]) -> u8 {
    small(events(slots).count())
}

/// The newest generation.
pub fn generation(slots: &[Slot]) -> Option<Generation> {
    frames(slots).next_back().map(|frame| frame.generation)
}

/// What a cursor means, by the table of generations in these slots.
pub fn look_up(slots: &[Slot], cursor: Cursor) -> Meaning {
    let mut rows = frames(slots).filter(|frame| frame.body == Body::Term);
    if !rows.any(|row| row.generation == cursor.generation) {
        return Meaning::Unknown;
    }
    let ends = rows.find(|row| row.generation != cursor.generation).map(|next| next.first);
    if ends.is_some_and(|first| first <= cursor.seq) {
        return Meaning::Diverged;
    }
    let event = events(slots).nth(usize::from(cursor.seq) - 1);
    event.map_or(Meaning::Beyond, |(_, op)| Meaning::Event(op))
}
