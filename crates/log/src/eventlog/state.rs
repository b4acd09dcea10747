//! What the log must know about itself after a restart, beside its events.
//!
//! Owns the bytes of `Commit.state` and `Commit.delta`: one version byte, bincode 1.3.3 of plain
//! numbers with fixed-size integers, then what producers make of theirs, if there is any
//! (`migrations/0002_history/FORMAT.md` freezes them). Read from a slice, with a limit.

use std::path::PathBuf;

use bincode::Options as _;
use serde::{Deserialize, Serialize};

use super::producers::Producers;
use crate::storage::{Damage, Recovered, StoreError};
use crate::width::to_usize;
use tailmark_record::{Seq, Timestamp};

/// What a delta has before its first change: version, clock, time.
pub(super) const DELTA_BYTES: usize = 1 + 8 + 10;

const VERSION: u8 = 1;
/// Plain numbers are far below.
const MAX_BYTES: u64 = 64 << 10;

/// The plain numbers of the whole state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogState {
    /// No entry of the window of repeats is below.
    pub window_start: u64,
    /// How many entries that window could hold.
    pub window_capacity: u64,
    /// How far the clock that events age by had come, in nanoseconds since 1970; 0 = not yet set.
    pub age_clock: i64,
}

/// What a commit changes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delta {
    /// As in [`LogState`].
    pub age_clock: i64,
}

impl LogState {
    pub(super) fn encode(&self, producers: &Producers) -> Result<Vec<u8>, StoreError> {
        let mut bytes = encode(self)?;
        producers.encode(&mut bytes);
        Ok(bytes)
    }

    /// The state after recovery, its producers into those given.
    pub(super) fn recover(
        recovered: &Recovered,
        producers: &mut Producers,
    ) -> Result<LogState, StoreError> {
        let mut state = LogState::default();
        if !recovered.state.is_empty() {
            let rest;
            (state, rest) = decode(&recovered.state, Seq::ZERO, Seq::ZERO)?;
            if !rest.is_empty() {
                let read = producers.decode(rest);
                read.ok_or_else(|| unreadable(Seq::ZERO, Seq::ZERO))?;
            }
        }
        for (first, end, bytes) in &recovered.deltas {
            let (delta, rest): (Delta, _) = decode(bytes, *first, end.prev())?;
            state.age_clock = state.age_clock.max(delta.age_clock);
            if !rest.is_empty() {
                let read = producers.replay(*first, rest);
                read.ok_or_else(|| unreadable(*first, end.prev()))?;
            }
        }
        producers.shrink();
        Ok(state)
    }

    /// The clock that events age by, if it was ever set.
    pub(super) fn age_clock(&self) -> Option<Timestamp> {
        (self.age_clock != 0).then(|| Timestamp::from_nanos(self.age_clock))
    }
}

impl Delta {
    /// All of the state as a change, so that it is what it is whatever was before: for commits that are made anew
    /// without their own. Where repeats are looked for is not in it, since each copy reads that back.
    #[cfg(any(test, feature = "shared"))]
    pub(super) fn restate(
        state: &LogState,
        producers: &Producers,
        at: Timestamp,
    ) -> Result<Vec<u8>, StoreError> {
        let mut bytes = encode(&Delta { age_clock: state.age_clock })?;
        producers.encode_restated(at, &mut bytes);
        Ok(bytes)
    }

    /// What a commit changes, with what it stages of producers.
    pub(super) fn encode(
        &self,
        producers: &Producers,
        at: Timestamp,
    ) -> Result<Vec<u8>, StoreError> {
        let mut bytes = encode(self)?;
        if !producers.staged_bytes().is_empty() {
            producers.encode_staged(at, &mut bytes);
        }
        Ok(bytes)
    }
}

fn format() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(MAX_BYTES)
        .allow_trailing_bytes()
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    format()
        .serialize_into(&mut bytes, value)
        .map_err(|_| StoreError::Invalid("the log's state is too large"))?;
    Ok(bytes)
}

/// The numbers, and the bytes after them.
fn decode<T>(bytes: &[u8], from: Seq, to: Seq) -> Result<(T, &[u8]), StoreError>
where
    T: for<'a> Deserialize<'a> + Serialize,
{
    match bytes {
        [VERSION, rest @ ..] => {
            // Of fixed size: the same for every value.
            let value: T = format().deserialize(rest).map_err(|_| unreadable(from, to))?;
            let len = format().serialized_size(&value).map_err(|_| unreadable(from, to))?;
            Ok((value, rest.get(to_usize(len)..).unwrap_or_default()))
        }
        [found, ..] => Err(StoreError::Format {
            path: PathBuf::from(FILE),
            found: u32::from(*found),
            supported: u32::from(VERSION),
        }),
        [] => Err(unreadable(from, to)),
    }
}

/// What it is called in errors.
const FILE: &str = "state";

fn unreadable(from: Seq, to: Seq) -> StoreError {
    let detail = "the log's state cannot be read".to_owned();
    Damage { from, to, file: PathBuf::from(FILE), detail }.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn recovered(state: Vec<u8>, deltas: &[Vec<u8>]) -> Recovered {
        let at = |delta: &Vec<u8>| (Seq::new(5), Seq::new(5), delta.clone().into());
        Recovered {
            state: state.into(),
            deltas: deltas.iter().map(at).collect(),
            ..Recovered::default()
        }
    }

    fn producers() -> Producers {
        Producers::new(100, Duration::from_secs(1_000), 1 << 20, Timestamp::EPOCH)
    }

    fn recover(recovered: &Recovered) -> Result<LogState, StoreError> {
        LogState::recover(recovered, &mut producers())
    }

    #[test]
    fn state_and_deltas_survive_the_round_trip() {
        let state = LogState { window_start: 7, window_capacity: 100, age_clock: 5 };
        let bytes = state.encode(&producers()).unwrap();
        // Frozen: version, three little-endian numbers of 64 bits, the next epoch.
        assert_eq!(bytes[..10], [1, 7, 0, 0, 0, 0, 0, 0, 0, 100]);
        assert_eq!((bytes.len(), bytes[25]), (26, 1));
        assert_eq!(recover(&recovered(bytes.clone(), &[])).unwrap(), state);
        // As it was before there were producers.
        assert_eq!(recover(&recovered(bytes[..25].to_vec(), &[])).unwrap(), state);
        let delta = Delta { age_clock: 9 }.encode(&producers(), Timestamp::EPOCH).unwrap();
        assert_eq!(delta.len(), 9);
        let back = recover(&recovered(bytes, &[delta])).unwrap();
        assert_eq!(back, LogState { age_clock: 9, ..state });
        assert_eq!(recover(&Recovered::default()).unwrap(), LogState::default());
    }

    #[test]
    fn bytes_of_another_version_or_damaged_are_refused() {
        let good = LogState::default().encode(&producers()).unwrap();
        let mut newer = good.clone();
        newer[0] = 2;
        let error = recover(&recovered(newer, &[])).unwrap_err();
        assert!(matches!(error, StoreError::Format { found: 2, supported: 1, .. }), "{error}");
        let mut longer = good.clone();
        longer.push(0);
        for bad in [good[..1].to_vec(), good[..24].to_vec(), longer] {
            let error = recover(&recovered(bad, &[])).unwrap_err();
            assert!(matches!(error, StoreError::Damaged(_)), "{error}");
        }
        let delta = Delta { age_clock: 0 }.encode(&producers(), Timestamp::EPOCH).unwrap();
        let longer = [delta, vec![0, 77]].concat();
        for bad in [vec![], longer] {
            let error = recover(&recovered(good.clone(), &[bad])).unwrap_err();
            assert!(matches!(&error, StoreError::Damaged(d) if d.from == Seq::new(5)), "{error}");
        }
    }
}
