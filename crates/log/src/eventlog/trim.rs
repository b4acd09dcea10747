//! What a trim removes: events, and not what had been taken out before.

use std::ops::Range;

use crate::storage::{Sealed, Store, StoreError};
use tailmark_record::Seq;
use tailmark_record::topic::Filter;

/// How many seqs of a range have no events any more. Of what is sealed the engine knows it; what lies in the range in part
/// is read.
///
/// # Errors
/// As [`Store::read`].
pub(super) fn removed_in(store: &dyn Store, range: Range<Seq>) -> Result<u64, StoreError> {
    let (mut at, mut removed) = (range.start, 0);
    for one in store.sealed() {
        let Sealed { first, end, .. } = one;
        if end <= at || first >= range.end {
            continue;
        }
        // Between what is sealed lies nothing else.
        removed += at.distance_to(first.max(at));
        let part = first.max(at)..end.min(range.end);
        removed += match part.start == first && part.end == end {
            true => one.removed,
            false if one.removed == 0 => 0,
            false => read_through(store, part.clone())?,
        };
        at = part.end;
    }
    // What is not sealed has no such ranges within.
    if at < range.end
        && let Err(StoreError::Removed(gone)) = store.read(at, at.next(), &Filter::ALL)
    {
        removed += at.distance_to(gone.end.min(range.end));
    }
    Ok(removed)
}

fn read_through(store: &dyn Store, range: Range<Seq>) -> Result<u64, StoreError> {
    let (mut at, mut removed) = (range.start, 0);
    while at < range.end {
        match store.read(at, range.end, &Filter::ALL) {
            Ok(chunk) => at = chunk.end,
            Err(StoreError::Removed(gone)) => {
                let end = gone.end.min(range.end);
                removed += at.distance_to(end);
                at = end;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}
