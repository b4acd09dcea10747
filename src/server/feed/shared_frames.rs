//! What watches without a filter send alike: the newest events, framed once for all of them.
//!
//! A watch that stands where another one stood takes the very bytes that one sent, instead of
//! copying its own. A cache and nothing more: who does not find his place in it frames for himself.
//! Invariant: what is found under a seq begins with that event and has every event up to its end.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::machine::{Machine, Place, Step};
use tailmark_record::Seq;

/// Bytes of it that are kept. What is older is in HTTP/2's hands, or is framed again.
const MAX_BYTES: usize = 2 << 20;
/// Pieces that are kept. Who is farther behind than so many commits meets few others there.
const MAX_PIECES: usize = 64;

/// The newest pieces.
#[derive(Debug, Default)]
pub(crate) struct SharedFrames(Mutex<Pieces>);

#[derive(Debug, Default)]
struct Pieces {
    bytes: usize,
    /// In the order of their making, which is nearly that of their seqs.
    pieces: VecDeque<Piece>,
}

/// Some events, framed.
#[derive(Clone, Debug)]
struct Piece {
    first: Seq,
    end: Seq,
    /// Bytes of their entries.
    entry_bytes: usize,
    frames: Bytes,
}

impl SharedFrames {
    /// The machine's next step, taken from what others have sent where it can be, and kept for
    /// others where they may come to the same place.
    pub(crate) fn step(&self, machine: &mut Machine, head: impl Fn() -> Seq) -> Step {
        let from = machine.shared_place();
        if let Some(from) = from.filter(|_| !machine.is_walked())
            && let Some((frames, to)) = self.find(from)
            && machine.pass_shared(to)
        {
            return Step::Event(frames);
        }
        let step = machine.step(head);
        if let (Some(from), Step::Event(frames), Some(to)) = (from, &step, machine.shared_place()) {
            self.keep(from, to, frames);
        }
        step
    }

    /// What others sent from a place on, and where it ends.
    fn find(&self, from: Place) -> Option<(Bytes, Place)> {
        let pieces = self.lock();
        let piece = pieces.pieces.iter().rev().find(|piece| piece.first == from.next)?;
        let to = Place { next: piece.end, walked: from.walked + piece.entry_bytes };
        Some((piece.frames.clone(), to))
    }

    /// Keeps what was framed from one place up to another.
    fn keep(&self, from: Place, to: Place, frames: &Bytes) {
        let (first, end) = (from.next, to.next);
        let entry_bytes = to.walked.saturating_sub(from.walked);
        let piece = Piece { first, end, entry_bytes, frames: frames.clone() };
        let mut dropped = Vec::new();
        let mut pieces = self.lock();
        pieces.bytes += piece.frames.len();
        pieces.pieces.push_back(piece);
        while (pieces.bytes > MAX_BYTES || pieces.pieces.len() > MAX_PIECES)
            && let Some(oldest) = pieces.pieces.pop_front()
        {
            pieces.bytes -= oldest.frames.len();
            dropped.push(oldest);
        }
        // Freed without the lock.
        drop(pieces);
    }

    fn lock(&self) -> MutexGuard<'_, Pieces> {
        // Nothing in here can panic half way but an allocation that fails.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(next: u64, walked: usize) -> Place {
        Place { next: Seq::new(next), walked }
    }

    #[test]
    fn the_newest_are_kept_and_found_by_where_they_begin() {
        let common = SharedFrames::default();
        let frames = Bytes::from(vec![7; 64 << 10]);
        let count = 3 * MAX_PIECES as u64;
        for at in 0..count {
            let from = place(1 + 10 * at, 100);
            assert!(common.find(from).is_none());
            common.keep(from, place(11 + 10 * at, 164), &frames);
            // Another watch may have walked more of a chunk that begins elsewhere.
            let (found, to) = common.find(place(1 + 10 * at, 500)).unwrap();
            assert_eq!((found, to), (frames.clone(), place(11 + 10 * at, 564)));
            assert!(common.find(place(2 + 10 * at, 100)).is_none());
        }
        let pieces = common.lock();
        assert_eq!(pieces.bytes, pieces.pieces.len() * frames.len());
        assert!(pieces.bytes <= MAX_BYTES && pieces.bytes > MAX_BYTES - frames.len());
        drop(pieces);
        let tiny = Bytes::from_static(b"tiny");
        for at in count..2 * count {
            common.keep(place(1 + 10 * at, 0), place(11 + 10 * at, 64), &tiny);
        }
        assert_eq!(common.lock().pieces.len(), MAX_PIECES);
    }
}
