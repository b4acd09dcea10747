//! Answers of reader threads that nobody has fetched yet, bounded in bytes.
//!
//! Threads may read faster than thousands of readers come to look, and a reader whose client has gone
//! still may not look for hours. So a thread waits with its answer while too much is unfetched; what
//! nobody has fetched in a second makes room, and is read again when it is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::storage::Chunk;

/// Bytes of all that is unfetched; one answer more may come.
const LIMIT_BYTES: usize = 32 << 20;
/// How long an answer is kept while others wait.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Unfetched {
    limit: usize,
    state: Mutex<State>,
    fetched: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    next: u64,
    /// Those who wait for an answer, with it from when it came.
    claims: BTreeMap<u64, Option<(Instant, Chunk)>>,
}

/// The right to an answer.
#[derive(Debug)]
pub(super) struct Claim {
    unfetched: Arc<Unfetched>,
    number: u64,
}

impl State {
    fn take(&mut self, number: u64) -> Option<Chunk> {
        let (_, chunk) = self.claims.remove(&number)??;
        self.bytes -= chunk.events.len();
        Some(chunk)
    }

    /// The answer that has waited longest: whose it is, and since when.
    fn oldest(&self) -> Option<(u64, Instant)> {
        let answers = self.claims.iter();
        let answers = answers.filter_map(|(number, it)| Some((*number, it.as_ref()?.0)));
        answers.min_by_key(|(_, since)| *since)
    }
}

impl Unfetched {
    pub(super) fn new() -> Arc<Unfetched> {
        Unfetched::with(LIMIT_BYTES)
    }

    fn with(limit: usize) -> Arc<Unfetched> {
        let (state, fetched) = (Mutex::default(), Condvar::new());
        Arc::new(Unfetched { limit, state, fetched })
    }

    /// Bytes of all answers that nobody has fetched.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    pub(super) fn claim(self: &Arc<Self>) -> Claim {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.claims.insert(number, None);
        Claim { unfetched: Arc::clone(self), number }
    }

    /// Leaves an answer for who has the claim, if he is still there. Waits until there is room for it.
    pub(super) fn leave(&self, number: u64, chunk: Chunk) {
        let bytes = chunk.events.len();
        let mut state = self.state.lock();
        let mut given_up = Vec::new();
        while state.bytes > 0 && state.bytes + bytes > self.limit {
            let Some((oldest, since)) = state.oldest() else { break };
            let until = since + PATIENCE;
            if until <= Instant::now() {
                given_up.extend(state.take(oldest));
            } else {
                self.fetched.wait_until(&mut state, until);
            }
        }
        let State { bytes: held, claims, .. } = &mut *state;
        let left = match claims.get_mut(&number) {
            Some(answer) => {
                *held += bytes;
                answer.replace((Instant::now(), chunk)).map(|(_, chunk)| chunk)
            }
            None => Some(chunk),
        };
        drop(state);
        // Freed without the lock.
        drop((given_up, left));
    }
}

impl Claim {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The answer that was left; `None` if it had to make room.
    pub(super) fn fetch(self) -> Option<Chunk> {
        let mut state = self.unfetched.state.lock();
        let chunk = state.take(self.number);
        drop(state);
        self.unfetched.fetched.notify_all();
        chunk
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.unfetched.state.lock();
        let chunk = state.take(self.number);
        drop(state);
        if chunk.is_some() {
            self.unfetched.fetched.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::Seq;

    fn chunk(bytes: usize) -> Chunk {
        let (first, end) = (Seq::FIRST, Seq::new(2));
        Chunk { first, end, events: vec![0; bytes].into(), complete: true }
    }

    #[test]
    fn a_thread_waits_with_its_answer_until_others_are_fetched() {
        let unfetched = Unfetched::with(100);
        let [first, second] = [unfetched.claim(), unfetched.claim()];
        unfetched.leave(first.number(), chunk(60));
        std::thread::scope(|scope| {
            let leaves = scope.spawn(|| unfetched.leave(second.number(), chunk(60)));
            std::thread::sleep(PATIENCE / 10);
            assert!(!leaves.is_finished() && unfetched.bytes() == 60);
            assert_eq!(first.fetch().map(|chunk| chunk.events.len()), Some(60));
        });
        assert_eq!(unfetched.bytes(), 60);
        drop(second);
        assert_eq!(unfetched.bytes(), 0);
    }

    #[test]
    fn what_nobody_fetches_makes_room() {
        let unfetched = Unfetched::with(100);
        let claims: Vec<_> = (0..3).map(|_| unfetched.claim()).collect();
        let begun = Instant::now();
        for claim in &claims {
            unfetched.leave(claim.number(), chunk(40));
            assert!(unfetched.bytes() <= 100);
        }
        assert!(begun.elapsed() >= PATIENCE);
        let fetched: Vec<_> = claims.into_iter().map(|claim| claim.fetch().is_some()).collect();
        assert_eq!(fetched, [false, true, true]);
        // One that is larger than all goes alone; one whose reader has gone is not kept.
        let large = unfetched.claim();
        unfetched.leave(large.number(), chunk(500));
        assert!(large.fetch().is_some());
        let gone = unfetched.claim();
        let number = gone.number();
        drop(gone);
        unfetched.leave(number, chunk(1));
        assert_eq!(unfetched.bytes(), 0);
    }
}
