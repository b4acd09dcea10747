//! A cache of framed events, shared by watches without a filter: the newest events, framed once for
//! all.
//!
//! A watch at the same position as another sends the very bytes that the other sent, instead of its
//! own copy. On a miss it frames for itself. Invariant: the entry under a seq begins with that
//! event and has every event up to its end.

use bytes::Bytes;
use parking_lot::Mutex;

use super::machine::{ChunkPosition, Machine, Step};
use crate::server::unsent::Unsent;
use tailmark_log::bounded::Bounded;
use tailmark_record::Seq;

/// Bytes that are kept. What is older is in HTTP/2's hands, or is framed again.
const MAX_BYTES: usize = 2 << 20;
/// Pieces that are kept. A watch that is farther behind than so many commits meets few others there.
const MAX_PIECES: usize = 64;

/// The newest pieces, by the seq that each begins with.
#[derive(Debug)]
pub(crate) struct SharedFrames {
    kept: Mutex<Kept>,
    /// Where they are counted for as long as somebody has them.
    unsent: Unsent,
}

#[derive(Debug)]
struct Kept {
    pieces: Bounded<Seq, Piece>,
    /// Nothing is kept that begins at or before it: a watch may hold what was read before it was erased.
    forgotten: Seq,
}

fn no_pieces() -> Bounded<Seq, Piece> {
    Bounded::new(MAX_BYTES).at_most(MAX_PIECES)
}

/// Some events, framed.
#[derive(Clone, Debug)]
struct Piece {
    end: Seq,
    /// Bytes of their entries.
    entry_bytes: usize,
    frames: Bytes,
}

impl SharedFrames {
    pub(crate) fn new(unsent: Unsent) -> Self {
        let kept = Kept { pieces: no_pieces(), forgotten: Seq::ZERO };
        SharedFrames { kept: Mutex::new(kept), unsent }
    }

    /// Drops everything, and keeps nothing any more of events up to this one.
    pub(crate) fn forget(&self, up_to: Seq) {
        let mut kept = self.kept.lock();
        kept.forgotten = kept.forgotten.max(up_to);
        let pieces = std::mem::replace(&mut kept.pieces, no_pieces());
        drop(kept);
        // Freed without the lock.
        drop(pieces);
    }

    /// The machine's next step, taken from what others have sent where it can be, and kept for
    /// others where they may come to the same place; and whether what it sends is shared.
    ///
    /// `most` are the bytes that may join what is buffered, `None` where nothing is. What joins it is
    /// copied, so it is held once more. What goes alone is held once, whoever sends it.
    pub(crate) fn step(
        &self,
        machine: &mut Machine,
        most: Option<usize>,
        head: impl Fn() -> Seq,
    ) -> (Step, bool) {
        let from = machine.shared_place();
        if let Some(from) = from.filter(|_| !machine.is_walked())
            && let Some((frames, to)) = self.find(from)
        {
            if most.is_some_and(|most| frames.len() > most) {
                // What is buffered goes first.
                return (Step::Rest, false);
            }
            if machine.pass_shared(to) {
                return (Step::Event(frames), true);
            }
        }
        match (machine.step(head), from, machine.shared_place()) {
            (Step::Event(frames), Some(from), Some(to)) => {
                let frames = self.unsent.share(frames);
                self.keep(from, to, &frames);
                (Step::Event(frames), true)
            }
            (step, ..) => (step, false),
        }
    }

    /// What others sent from a place on, and where it ends.
    fn find(&self, from: ChunkPosition) -> Option<(Bytes, ChunkPosition)> {
        let kept = self.kept.lock();
        let piece = kept.pieces.get(&from.next)?;
        let to = ChunkPosition { next: piece.end, walked: from.walked + piece.entry_bytes };
        Some((piece.frames.clone(), to))
    }

    /// Keeps what was framed from one place up to another.
    fn keep(&self, from: ChunkPosition, to: ChunkPosition, frames: &Bytes) {
        let entry_bytes = to.walked.saturating_sub(from.walked);
        let piece = Piece { end: to.next, entry_bytes, frames: frames.clone() };
        let mut kept = self.kept.lock();
        if from.next <= kept.forgotten {
            return;
        }
        let evicted = kept.pieces.insert(from.next, piece, frames.len());
        drop(kept);
        // Freed without the lock.
        drop(evicted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(next: u64, walked: usize) -> ChunkPosition {
        ChunkPosition { next: Seq::new(next), walked }
    }

    #[test]
    fn the_newest_are_kept_and_found_by_where_they_begin() {
        let shared = SharedFrames::new(Unsent::new(1 << 20));
        let frames = Bytes::from(vec![7; 64 << 10]);
        let count = 3 * MAX_PIECES as u64;
        for at in 0..count {
            let from = place(1 + 10 * at, 100);
            assert!(shared.find(from).is_none());
            shared.keep(from, place(11 + 10 * at, 164), &frames);
            // Another watch may have walked more of a chunk that begins elsewhere.
            let (found, to) = shared.find(place(1 + 10 * at, 500)).unwrap();
            assert_eq!((found, to), (frames.clone(), place(11 + 10 * at, 564)));
            assert!(shared.find(place(2 + 10 * at, 100)).is_none());
        }
        let kept = shared.kept.lock();
        let (bytes, len) = (kept.pieces.bytes(), kept.pieces.len());
        drop(kept);
        assert_eq!(bytes, len * frames.len());
        assert!(bytes <= MAX_BYTES && bytes > MAX_BYTES - frames.len());
        let tiny = Bytes::from_static(b"tiny");
        for at in count..2 * count {
            shared.keep(place(1 + 10 * at, 0), place(11 + 10 * at, 64), &tiny);
        }
        assert_eq!(shared.kept.lock().pieces.len(), MAX_PIECES);
    }

    #[test]
    fn what_is_forgotten_is_not_found_and_not_kept_again() {
        let shared = SharedFrames::new(Unsent::new(1 << 20));
        let frames = Bytes::from_static(b"frames");
        let keep = |from: u64| shared.keep(place(from, 0), place(from + 10, 10), &frames);
        keep(1);
        keep(11);
        assert!(shared.find(place(1, 0)).is_some() && shared.find(place(11, 0)).is_some());
        shared.forget(Seq::new(20));
        assert!(shared.find(place(1, 0)).is_none() && shared.find(place(11, 0)).is_none());
        // By a watch that had read it before.
        keep(11);
        keep(20);
        assert!(shared.find(place(11, 0)).is_none() && shared.find(place(20, 0)).is_none());
        keep(21);
        assert!(shared.find(place(21, 0)).is_some());
    }
}
