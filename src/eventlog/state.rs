//! What the log must know about itself after a restart, beside its events.
//!
//! Owns the bytes of `Commit.state` and `Commit.delta`: one version byte, then bincode 1.3.3 with
//! fixed-size integers (`migrations/0001_initial/FORMAT.md` freezes them). Read from a slice, with a
//! limit, without trailing bytes.

use std::path::PathBuf;

use bincode::Options as _;
use serde::{Deserialize, Serialize};

use crate::record::{Seq, Timestamp};
use crate::storage::{Damage, Recovered, StoreError};

const VERSION: u8 = 1;
/// Room for what later versions keep here.
const MAX_BYTES: usize = 16 << 20;

/// The whole state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
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
    /// As in [`State`].
    pub age_clock: i64,
}

impl State {
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode(self)
    }

    /// The state after recovery.
    pub fn recover(recovered: &Recovered) -> Result<State, StoreError> {
        let mut state = match &recovered.state[..] {
            [] => State::default(),
            bytes => decode(bytes, Seq::ZERO, Seq::ZERO)?,
        };
        for (first, end, bytes) in &recovered.deltas {
            let delta: Delta = decode(bytes, *first, end.prev())?;
            state.age_clock = state.age_clock.max(delta.age_clock);
        }
        Ok(state)
    }

    /// The clock that events age by, if it was ever set.
    pub fn age_clock(&self) -> Option<Timestamp> {
        (self.age_clock != 0).then(|| Timestamp::from_nanos(self.age_clock))
    }
}

impl Delta {
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode(self)
    }
}

fn format() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(MAX_BYTES as u64)
        .reject_trailing_bytes()
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    format()
        .serialize_into(&mut bytes, value)
        .map_err(|_| StoreError::Invalid("the log's state is too large"))?;
    Ok(bytes)
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8], from: Seq, to: Seq) -> Result<T, StoreError> {
    let path = || PathBuf::from("state");
    let damaged = |detail: String| StoreError::from(Damage { from, to, file: path(), detail });
    match bytes {
        [VERSION, rest @ ..] => format()
            .deserialize(rest)
            .map_err(|error| damaged(format!("the log's state cannot be read: {error}"))),
        [found, ..] => Err(StoreError::Format {
            path: path(),
            found: u32::from(*found),
            supported: u32::from(VERSION),
        }),
        [] => Err(damaged("the log's state is empty".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recovered(state: Vec<u8>, deltas: &[Vec<u8>]) -> Recovered {
        let at = |delta: &Vec<u8>| (Seq::new(5), Seq::new(5), delta.clone().into());
        Recovered {
            state: state.into(),
            deltas: deltas.iter().map(at).collect(),
            ..Recovered::default()
        }
    }

    #[test]
    fn state_and_deltas_survive_the_round_trip() {
        let state = State { window_start: 7, window_capacity: 100, age_clock: 5 };
        let bytes = state.encode().unwrap();
        // Frozen: version, three little-endian numbers of 64 bits.
        assert_eq!(bytes[..10], [1, 7, 0, 0, 0, 0, 0, 0, 0, 100]);
        assert_eq!(bytes.len(), 25);
        assert_eq!(State::recover(&recovered(bytes.clone(), &[])).unwrap(), state);
        let delta = Delta { age_clock: 9 }.encode().unwrap();
        let back = State::recover(&recovered(bytes, &[delta])).unwrap();
        assert_eq!(back, State { age_clock: 9, ..state });
        assert_eq!(State::recover(&Recovered::default()).unwrap(), State::default());
    }

    #[test]
    fn bytes_of_another_version_or_damaged_are_refused() {
        let good = State::default().encode().unwrap();
        let mut newer = good.clone();
        newer[0] = 2;
        let error = State::recover(&recovered(newer, &[])).unwrap_err();
        assert!(matches!(error, StoreError::Format { found: 2, supported: 1, .. }), "{error}");
        let mut longer = good.clone();
        longer.push(0);
        for bad in [good[..1].to_vec(), good[..good.len() - 1].to_vec(), longer] {
            let error = State::recover(&recovered(bad, &[])).unwrap_err();
            assert!(matches!(error, StoreError::Damaged(_)), "{error}");
        }
        let error = State::recover(&recovered(good, &[vec![]])).unwrap_err();
        assert!(matches!(&error, StoreError::Damaged(d) if d.from == Seq::new(5)), "{error}");
    }
}
