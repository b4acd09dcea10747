//! What a seed stands for: who the clients are, what becomes of each of their connections, and what
//! the server goes through. Everything is counted in bytes, frames and events, not in time, so that
//! a seed means the same on every machine as far as threads and packets allow.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the client sends.
    Up,
    /// What the server sends.
    Down,
}

/// Who answers in the server's place, as a connection is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// A proxy's page in HTML, over HTTP/1.1, with this status.
    Page(u16),
    /// An answer of HTTP/2 with this status and nothing in it.
    Status(u16),
    /// Bytes that mean nothing.
    Garbage,
    /// Takes the connection and closes it.
    Nobody,
    /// Takes the connection and resets it.
    Reset,
    /// Takes the connection and never says a word.
    Mute,
}

/// What happens on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Closed at both ends, or reset, wherever in a frame that is.
    Cut { reset: bool },
    /// Ends this way in order, and goes on the other way.
    HalfClose,
    /// Stays open, and nothing moves any more.
    Freeze,
    /// This way nothing arrives any more; closed a while later.
    Swallow { then_cut: Duration },
    /// This way nothing moves for a while.
    Stall(Duration),
    /// This way pieces of so many bytes, a thousand a second at most, so many times.
    Slow { piece: usize, times: usize },
    /// The server sends GOAWAY with this code, and closes. At the end of a frame.
    GoAway(u8),
    /// The server resets the stream with this code. At the end of a frame.
    ResetStream(u8),
    /// Bytes that are no frame. At the end of a frame.
    Noise,
    /// What the client sends goes to the server twice, at the same time, over two connections.
    Twice,
    /// Cut, and what the client had sent comes to the server once more, later.
    Replay(Duration),
    /// A whole message of the server's is left out. No network does that: it must be told.
    DropMessage,
}

/// What becomes of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It passes everything.
    Pass,
    /// Somebody else answers.
    Stranger(Stranger),
    /// After so many bytes this way; of acts at the end of a frame, after so many frames.
    After(Way, u64, Act),
}

impl Fate {
    /// Whether what the client sends may come to the server more than once.
    pub fn repeats(self) -> bool {
        matches!(self, Fate::After(_, _, Act::Twice | Act::Replay(_)))
    }

    fn any(rng: &mut StdRng) -> Fate {
        let way = if rng.random_bool(0.5) { Way::Up } else { Way::Down };
        let bytes = match rng.random_range(0..4) {
            // Within the preface and the settings.
            0 => rng.random_range(0..100),
            1 => rng.random_range(100..3_000),
            _ => rng.random_range(3_000..150_000),
        };
        let frames = rng.random_range(2..60);
        let time = Duration::from_millis(rng.random_range(1..400));
        let code = *[0, 1, 2, 8, 11].choose(rng).unwrap();
        let act = match rng.random_range(0..15) {
            0..3 => Act::Cut { reset: rng.random_bool(0.5) },
            3 => Act::HalfClose,
            4 => Act::Freeze,
            5 | 6 => Act::Swallow { then_cut: time },
            7 => Act::Stall(time),
            8 => Act::Slow { piece: rng.random_range(1..80), times: rng.random_range(10..200) },
            9 => return Fate::After(Way::Down, frames, Act::GoAway(code)),
            // Not "refused": that would be a lie.
            10 => return Fate::After(Way::Down, frames, Act::ResetStream(code.max(1))),
            11 => return Fate::After(Way::Down, frames, Act::Noise),
            12 => return Fate::After(Way::Up, 0, Act::Twice),
            13 => Act::Replay(time / 4),
            _ => return Fate::Stranger(stranger(rng)),
        };
        Fate::After(way, bytes, act)
    }
}

fn stranger(rng: &mut StdRng) -> Stranger {
    let status = *[429, 502, 503, 504].choose(rng).unwrap();
    match rng.random_range(0..6) {
        0 => Stranger::Page(status),
        1 => Stranger::Status(status),
        2 => Stranger::Garbage,
        3 => Stranger::Nobody,
        4 => Stranger::Reset,
        _ => Stranger::Mute,
    }
}

/// One after the other, and then everything passes.
pub type Fates = Vec<Fate>;

fn fates(rng: &mut StdRng) -> Fates {
    (0..rng.random_range(1..6)).map(|_| Fate::any(rng)).collect()
}

/// How a watcher goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// One watch from the beginning to the end.
    Once,
    /// `KeptWatch`, begun again and again from the cursor that was kept.
    Kept,
    /// A control: after a connection is lost it resumes so many events too far, or too early.
    Off(i64),
}

#[derive(Clone, Debug)]
pub struct WatchPlan {
    pub manner: Manner,
    /// None: everything.
    pub patterns: Vec<&'static str>,
    pub has_markers: bool,
    /// Whether it asks for the first event by its number, or for the oldest that there is.
    pub is_from_first: bool,
    pub seed: u64,
    pub fates: Fates,
}

#[derive(Clone, Debug)]
pub struct SendPlan {
    /// Whether its events have ids, so that it may send again what may not have come.
    pub is_named: bool,
    /// A control: sends again what has no id.
    pub is_careless: bool,
    pub turns: usize,
    pub seed: u64,
    pub fates: Fates,
}

#[derive(Clone, Debug)]
pub struct ProducePlan {
    pub events: u64,
    pub seed: u64,
    pub fates: Fates,
}

#[derive(Clone, Debug)]
pub struct RoomPlan {
    /// Messages said.
    pub said: usize,
    pub speaking: Fates,
    pub listening: Fates,
}

/// Something that the server goes through, once there are so many more events.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    /// Stopped in order, or torn away from its connections; gone for a while.
    Restart { in_order: bool, down: Duration },
    /// All but the newest eighth of the log is trimmed.
    Trim,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub watches: Vec<WatchPlan>,
    pub sends: Vec<SendPlan>,
    pub produces: Vec<ProducePlan>,
    pub rooms: Vec<RoomPlan>,
    pub turns: Vec<(u64, Turn)>,
}

pub const TOPICS: [&str; 3] = ["orders.eu", "orders.us", "users"];
/// The topic of the last event of a run.
pub const END: &str = "end";

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        // Where something is trimmed, nobody may ask what it was.
        let trims = rng.random_bool(0.25);
        let watches = (0..rng.random_range(2..4)).map(|_| watch(rng, trims)).collect();
        let sends = (0..rng.random_range(1..3)).map(|_| send(rng)).collect();
        let produces = if trims { 0 } else { rng.random_range(0..3) };
        let produce = |rng: &mut StdRng| ProducePlan {
            events: rng.random_range(20..200),
            seed: rng.random(),
            fates: fates(rng),
        };
        let produces = (0..produces).map(|_| produce(rng)).collect();
        let rooms = if trims { 0 } else { rng.random_range(0..2) };
        let room = |rng: &mut StdRng| RoomPlan {
            said: rng.random_range(3..20),
            speaking: fates(rng),
            listening: fates(rng),
        };
        let rooms = (0..rooms).map(|_| room(rng)).collect();
        let turn = |rng: &mut StdRng| {
            let down = Duration::from_millis([0, rng.random_range(0..200)][rng.random_range(0..2)]);
            let restart = Turn::Restart { in_order: rng.random_bool(0.5), down };
            let turn = if trims && rng.random_bool(0.6) { Turn::Trim } else { restart };
            (rng.random_range(1..250), turn)
        };
        let turns = (0..rng.random_range(0..3)).map(|_| turn(rng)).collect();
        Plan { seed, watches, sends, produces, rooms, turns }
    }
}

fn watch(rng: &mut StdRng, trims: bool) -> WatchPlan {
    let patterns: &[&str] = match rng.random_range(0..4) {
        0 => &["orders.>", END],
        1 => &["users", "*.us", END],
        _ => &[],
    };
    let manner = if rng.random_bool(0.4) { Manner::Kept } else { Manner::Once };
    WatchPlan {
        manner,
        patterns: patterns.to_vec(),
        // What is trimmed is told by a gap, which needs them.
        has_markers: trims || rng.random_bool(0.5),
        // By the time that it gets through, the oldest may be another.
        is_from_first: trims || rng.random_bool(0.5),
        seed: rng.random(),
        fates: fates(rng),
    }
}

fn send(rng: &mut StdRng) -> SendPlan {
    let fates = fates(rng);
    let is_named = rng.random_bool(0.6) || fates.iter().any(|fate| fate.repeats());
    SendPlan {
        is_named,
        is_careless: false,
        turns: rng.random_range(3..8),
        seed: rng.random(),
        fates,
    }
}
