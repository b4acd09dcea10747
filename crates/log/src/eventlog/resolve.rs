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
    if let Cursor::Token { log, generation, seq, .. } = cursor {
        if log != id.short() {
            return Err(CursorError::LogChanged);
        }
        match bounds.generations.end_of(generation) {
            None => return Err(unknown(generation, seq, bounds)),
            Some(end) if seq > end => {
                let last_common = end.min(bounds.head);
                return Err(CursorError::LogDiverged { last_common, at_most: last_common });
            }
            Some(_) => {}
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

/// A generation of another continuation. It was begun somewhere after one that both share, which need not be
/// the newest here that has a lower counter: this log may have begun others of its own since.
fn unknown(generation: Generation, seq: Seq, bounds: &Bounds) -> CursorError {
    let table = &bounds.generations;
    let mut older = table.entries().iter().rev();
    let older = older.find(|entry| entry.generation.counter < generation.counter);
    let end = older.and_then(|entry| table.end_of(entry.generation)).unwrap_or(Seq::ZERO);
    let at_most = end.min(bounds.head).min(seq.prev());
    CursorError::LogDiverged { last_common: Seq::ZERO, at_most }
}

#[cfg(test)]
mod tests;
