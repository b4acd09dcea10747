//! The cursor table: where a watch after a cursor begins, or why it cannot.
//!
//! A pure function, its rows in the contract's order. Malformed cursors never get here.

use super::CursorError;
use tailmark_record::{Bounds, Cursor, Generation, LogId, Seq};

/// The seq after `cursor`, in a log `id` with these `bounds`. A bare number is taken at its word:
/// the rows about identity are for tokens only.
///
/// # Errors
/// The first row of the table that applies.
pub fn resolve(cursor: Cursor, id: LogId, bounds: &Bounds) -> Result<Seq, CursorError> {
    if let Cursor::Token { log, generation, seq } = cursor {
        if log != id.short() {
            return Err(CursorError::LogChanged);
        }
        if bounds.generations.end_of(generation).is_none_or(|end| seq > end) {
            let last_common = last_common(generation, bounds);
            return Err(CursorError::LogDiverged { last_common });
        }
    }
    let (seq, oldest) = (cursor.seq(), bounds.oldest);
    if seq > bounds.head {
        return Err(CursorError::Ahead { head: bounds.head });
    }
    if seq.next() < oldest {
        return Err(CursorError::Trimmed { oldest, missed: seq.next().distance_to(oldest) });
    }
    Ok(seq.next())
}

/// The end of the newest generation that this log shares with the history of `generation`: itself
/// if it is known here, else the newest before it.
fn last_common(generation: Generation, bounds: &Bounds) -> Seq {
    let table = &bounds.generations;
    let shared = table.entries().iter().rev().find(|entry| {
        entry.generation == generation || entry.generation.counter < generation.counter
    });
    shared
        .and_then(|entry| table.end_of(entry.generation))
        .map_or(Seq::ZERO, |end| end.min(bounds.head))
}

#[cfg(test)]
mod tests;
