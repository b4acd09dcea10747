//! The chain of the journal at the slots that a copy has, as far as it is kept.

use std::collections::VecDeque;

use crate::storage::shared::{FrameChain, Place};
use crate::width::to_usize;

/// Slots of which the chain is known, at most: 1 MiB.
const KEPT: usize = 1 << 16;

/// The chain at the newest slots of a copy. Of what it had before it was opened only the last is known.
#[derive(Clone, Debug)]
pub(super) struct Chains {
    /// The slot that the first of them is at.
    first: u64,
    /// Never empty.
    known: VecDeque<FrameChain>,
}

impl Chains {
    pub(super) fn from(place: &Place) -> Chains {
        Chains { first: place.slot, known: VecDeque::from([place.chain]) }
    }

    /// The last slot of the copy.
    pub(super) fn slot(&self) -> u64 {
        self.first + self.known.len() as u64 - 1
    }

    pub(super) fn last(&self) -> FrameChain {
        self.known.back().copied().unwrap_or_default()
    }

    /// The chain up to a slot that the copy has; `None` where that is not known any more.
    pub(super) fn at(&self, slot: u64) -> Option<FrameChain> {
        if slot == 0 {
            return Some(FrameChain::default());
        }
        let at = to_usize(slot.checked_sub(self.first)?);
        self.known.get(at).copied()
    }

    pub(super) fn push(&mut self, chain: FrameChain) {
        self.known.push_back(chain);
        if self.known.len() > KEPT {
            self.known.pop_front();
            self.first += 1;
        }
    }

    /// As if nothing was behind a slot.
    pub(super) fn truncate(&mut self, slot: u64) {
        match self.at(slot) {
            Some(chain) if slot < self.first => {
                *self = Chains { first: slot, known: VecDeque::from([chain]) };
            }
            Some(_) => self.known.truncate(to_usize(slot - self.first) + 1),
            None => *self = Chains { first: slot, known: VecDeque::from([FrameChain::default()]) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::place;

    fn chain(n: u8) -> FrameChain {
        place::FrameChain([n; 16])
    }

    #[test]
    fn what_was_before_it_was_opened_is_not_known_and_the_beginning_is() {
        let place = Place { slot: 7, chain: chain(7), ..Place::default() };
        let mut chains = Chains::from(&place);
        assert_eq!((chains.slot(), chains.last()), (7, chain(7)));
        chains.push(chain(8));
        let known = [0, 6, 7, 8, 9].map(|slot| chains.at(slot));
        assert_eq!(known, [Some(chain(0)), None, Some(chain(7)), Some(chain(8)), None]);
        chains.truncate(7);
        assert_eq!((chains.slot(), chains.at(8)), (7, None));
        chains.truncate(0);
        assert_eq!((chains.slot(), chains.last()), (0, FrameChain::default()));
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut chains = Chains::from(&Place::default());
        for n in 1..=KEPT as u64 + 9 {
            chains.push(chain((n % 251) as u8));
        }
        let end = KEPT as u64 + 9;
        assert_eq!((chains.slot(), chains.known.len()), (end, KEPT));
        assert_eq!((chains.at(9), chains.at(10)), (None, Some(chain(10))));
        assert_eq!(chains.at(end), Some(chain((end % 251) as u8)));
    }
}
