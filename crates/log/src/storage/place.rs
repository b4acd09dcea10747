//! Where a copy of a shared journal is in that journal: kept with what the copy was given last, so that the
//! two are on disk together or not at all.
//!
//! A directory that is a copy says so in `log.meta` ([`super::meta::Meta::copy_of`]). There each state and each delta
//! that the log keeps about itself begins with a place; no commit of a copy is without one. Bytes, little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0 | `0x4a`: no version of a state or delta of the log, so that neither is taken for the other |
//! | 1-8 | slot |
//! | 9-24 | chain |
//! | 25-32 | term |
//! | 33-40 | writer |

use bytes::{BufMut as _, Bytes, BytesMut};

#[cfg(any(test, feature = "shared"))]
use super::Recovered;
use super::{Damage, StoreError};
use tailmark_record::Seq;

const MARK: u8 = 0x4a;
/// Of a place before a state or a delta.
const LEN: usize = 41;

/// The hash of all frames of a shared journal up to one; of none it is 0. It tells histories of a journal apart also
/// where no event was appended, which the chain over the events cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameChain(pub(super) [u8; 16]);

impl std::fmt::Display for FrameChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How far a copy has come in its journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The last slot that is in the copy, counted from 1; 0 = none is.
    pub slot: u64,
    /// The chain of the journal's frames up to and with that slot.
    pub chain: FrameChain,
    /// The newest term up to there; 0 = none has begun.
    pub term: u64,
    /// Whose it is.
    pub writer: u64,
}

impl Place {
    /// What a state or a delta is in a copy that is here.
    pub fn before(&self, bytes: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(LEN + bytes.len());
        out.put_u8(MARK);
        out.put_u64_le(self.slot);
        out.put_slice(&self.chain.0);
        out.put_u64_le(self.term);
        out.put_u64_le(self.writer);
        out.put_slice(bytes);
        out.freeze()
    }

    /// The place before a state or a delta of a copy, and what is behind it.
    ///
    /// # Errors
    /// Damage where there is none.
    pub fn split(bytes: &[u8]) -> Result<(Place, &[u8]), StoreError> {
        let (place, rest) = bytes.split_at_checked(LEN).ok_or_else(no_place)?;
        if place[0] != MARK {
            return Err(no_place());
        }
        let u64_at = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&place[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let mut chain = [0; 16];
        chain.copy_from_slice(&place[9..25]);
        let (slot, term, writer) = (u64_at(1), u64_at(25), u64_at(33));
        Ok((Place { slot, chain: FrameChain(chain), term, writer }, rest))
    }

    /// The place that a copy has reached, by the newest state and the deltas after it.
    ///
    /// # Errors
    /// As [`Place::split`].
    pub fn reached<'a>(
        state: &'a [u8],
        deltas: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Result<Place, StoreError> {
        match deltas.last() {
            Some(delta) => Ok(Place::split(delta)?.0),
            // A copy that was given nothing yet.
            None if state.is_empty() => Ok(Place::default()),
            None => Ok(Place::split(state)?.0),
        }
    }

    /// The same of what a copy recovered, and the seq behind the last event that the place has; `None` where only
    /// the state tells the place.
    #[cfg(any(test, feature = "shared"))]
    pub(crate) fn of(recovered: &Recovered) -> Result<(Place, Option<Seq>), StoreError> {
        let deltas = recovered.deltas.iter().map(|(.., delta)| &delta[..]);
        let end = recovered.deltas.last().map(|(_, end, _)| *end);
        Ok((Place::reached(&recovered.state, deltas)?, end))
    }
}

fn no_place() -> StoreError {
    let (from, to, file) = (Seq::ZERO, Seq::ZERO, "state".into());
    let detail = "the copy does not say where it is in its journal".to_owned();
    Damage { from, to, file, detail }.into()
}

/// What commits changed of a state: first seq, end, delta.
pub type Deltas = Vec<(Seq, Seq, Vec<u8>)>;

/// What a copy keeps beside its events, as a log of its own keeps it: without the places.
///
/// # Errors
/// Damage where there is no place.
pub fn without_places(state: &[u8], deltas: Deltas) -> Result<(Vec<u8>, Deltas), StoreError> {
    let state = if state.is_empty() { &[] } else { Place::split(state)?.1 };
    let mut bare = Vec::with_capacity(deltas.len());
    for (first, end, delta) in deltas {
        let (_, rest) = Place::split(&delta)?;
        if !rest.is_empty() {
            bare.push((first, end, rest.to_vec()));
        }
    }
    Ok((state.to_vec(), bare))
}

#[cfg(any(test, feature = "shared"))]
impl Recovered {
    /// What the log keeps about itself, of what a copy recovered.
    ///
    /// # Errors
    /// Damage where it is no copy's.
    pub fn of_the_log(self) -> Result<Recovered, StoreError> {
        self.without_places()
    }

    /// What a copy recovered, without the places.
    ///
    /// # Errors
    /// Damage where there is no place.
    pub(crate) fn without_places(self) -> Result<Recovered, StoreError> {
        let rest = |bytes: &Bytes| Ok::<_, StoreError>(bytes.slice_ref(Place::split(bytes)?.1));
        let state = if self.state.is_empty() { self.state } else { rest(&self.state)? };
        let mut deltas = Vec::with_capacity(self.deltas.len());
        for (first, end, delta) in self.deltas {
            let delta = rest(&delta)?;
            if !delta.is_empty() {
                deltas.push((first, end, delta));
            }
        }
        Ok(Recovered { state, deltas, last_at: self.last_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailmark_record::Timestamp;

    fn place(slot: u64) -> Place {
        Place { slot, chain: FrameChain([slot as u8; 16]), term: 3, writer: u64::MAX }
    }

    /// Frozen: a copy outlives the program that made it.
    #[test]
    fn a_place_is_the_bytes_that_it_was() {
        let bytes = place(7).before(b"rest");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = ["4a", "0700000000000000", &"07".repeat(16), "0300000000000000"];
        assert_eq!(hex, [&parts.concat(), &"ff".repeat(8), "72657374"].concat());
        assert_eq!(Place::split(&bytes).unwrap(), (place(7), &b"rest"[..]));
    }

    #[test]
    fn the_last_place_counts_and_what_is_behind_each_is_the_logs() {
        let seq = Seq::new;
        let deltas = vec![
            (seq(1), seq(4), place(2).before(b"one")),
            (seq(4), seq(4), place(3).before(b"")),
            (seq(4), seq(9), place(5).before(b"two")),
        ];
        let recovered =
            Recovered { state: place(1).before(b"state"), deltas, last_at: Timestamp::EPOCH };
        assert_eq!(Place::of(&recovered).unwrap(), (place(5), Some(seq(9))));
        let bare = recovered.without_places().unwrap();
        assert_eq!(bare.state, &b"state"[..]);
        let bare: Vec<_> = bare.deltas.iter().map(|it| (it.0.get(), &it.2[..])).collect();
        assert_eq!(bare, [(1, &b"one"[..]), (4, &b"two"[..])]);
        assert_eq!(Place::reached(&[], [].into_iter()).unwrap(), Place::default());
    }

    #[test]
    fn a_state_of_a_log_of_its_own_is_no_place() {
        for bytes in [&[1; 60][..], &[], &[MARK; 40]] {
            assert!(matches!(Place::split(bytes), Err(StoreError::Damaged(_))));
        }
        assert!(without_places(&[1, 2, 3], Vec::new()).is_err());
    }
}
