use super::*;
use tailmark_record::{GenerationTable, Timestamp};
use uuid::Uuid;

const ONE: Generation = Generation { counter: 1, nonce: 0xa };
const TWO: Generation = Generation { counter: 2, nonce: 0xb };

fn id() -> LogId {
    LogId::new(Uuid::from_u128(7))
}

/// Generation 1 has 1 to 10, generation 2 goes on from 11.
fn bounds(oldest: u64, head: u64) -> Bounds {
    let generations = GenerationTable::created(ONE.nonce, Timestamp::EPOCH)
        .with_next(TWO.nonce, Seq::new(11), Timestamp::EPOCH, "restored")
        .unwrap();
    Bounds { oldest: Seq::new(oldest), head: Seq::new(head), generations }
}

fn token(log: u32, generation: Generation, seq: u64) -> Cursor {
    Cursor::Token { log, generation, seq: Seq::new(seq), tag: None }
}

fn ours(generation: Generation, seq: u64) -> Cursor {
    token(id().short(), generation, seq)
}

fn bare(seq: u64) -> Cursor {
    Cursor::Bare(Seq::new(seq))
}

fn diverged(last_common: u64) -> Result<Seq, CursorError> {
    let last_common = Seq::new(last_common);
    Err(CursorError::LogDiverged { last_common, at_most: last_common })
}

fn ahead(head: u64) -> Result<Seq, CursorError> {
    Err(CursorError::Ahead { head: Seq::new(head) })
}

fn trimmed(oldest: u64, missed: u64) -> Result<Seq, CursorError> {
    Err(CursorError::Trimmed { oldest: Seq::new(oldest), missed })
}

#[test]
fn another_log_comes_before_everything_else() {
    let foreign = id().short() ^ 1;
    for cursor in [token(foreign, ONE, 5), token(foreign, Generation { counter: 9, nonce: 9 }, 99)]
    {
        assert_eq!(resolve(cursor, id(), &bounds(8, 20)), Err(CursorError::LogChanged));
    }
}

#[test]
fn a_history_that_ended_differently_is_told_with_its_last_common_seq() {
    let b = bounds(1, 20);
    let other = |counter| Generation { counter, nonce: 0xffff };
    // Beyond the end of a generation that is known here.
    assert_eq!(resolve(ours(ONE, 11), id(), &b), diverged(10));
    assert_eq!(resolve(ours(ONE, u64::MAX), id(), &b), diverged(10));
    // Unknown: begun after one that is older here, and before its event.
    let between = |at_most| {
        let (last_common, at_most) = (Seq::ZERO, Seq::new(at_most));
        Err(CursorError::LogDiverged { last_common, at_most })
    };
    assert_eq!(resolve(ours(other(1), 5), id(), &b), diverged(0));
    assert_eq!(resolve(ours(other(2), 5), id(), &b), between(4));
    assert_eq!(resolve(ours(other(2), 11), id(), &b), between(10));
    assert_eq!(resolve(ours(other(3), 5), id(), &b), between(4));
    assert_eq!(resolve(ours(other(3), 99), id(), &b), between(20));
    // Comes before "ahead" and "trimmed".
    assert_eq!(resolve(ours(other(2), 99), id(), &b), between(10));
    assert_eq!(resolve(ours(other(2), 1), id(), &bounds(15, 20)), between(0));
    assert_eq!(resolve(ours(ONE, 11), id(), &bounds(15, 20)), diverged(10));
}

#[test]
fn a_cursor_beyond_the_head_is_ahead() {
    assert_eq!(resolve(ours(TWO, 21), id(), &bounds(1, 20)), ahead(20));
    assert_eq!(resolve(ours(TWO, u64::MAX), id(), &bounds(21, 20)), ahead(20));
    assert_eq!(resolve(bare(21), id(), &bounds(1, 20)), ahead(20));
    assert_eq!(resolve(bare(u64::MAX), id(), &bounds(1, 20)), ahead(20));
    assert_eq!(resolve(bare(1), id(), &bounds(1, 0)), ahead(0));
}

#[test]
fn a_trimmed_cursor_says_how_many_are_gone() {
    let b = bounds(15, 20);
    assert_eq!(resolve(ours(TWO, 13), id(), &b), trimmed(15, 1));
    assert_eq!(resolve(ours(ONE, 10), id(), &b), trimmed(15, 4));
    assert_eq!(resolve(bare(0), id(), &b), trimmed(15, 14));
    // Nothing readable: oldest = head + 1.
    assert_eq!(resolve(bare(19), id(), &bounds(21, 20)), trimmed(21, 1));
    assert_eq!(resolve(ours(ONE, 0), id(), &bounds(21, 20)), trimmed(21, 20));
}

#[test]
fn else_exactly_after_it() {
    let next = |seq| Ok(Seq::new(seq));
    assert_eq!(resolve(ours(ONE, 0), id(), &bounds(1, 20)), next(1));
    assert_eq!(resolve(ours(ONE, 9), id(), &bounds(1, 20)), next(10));
    // The last of a generation goes on in the next one.
    assert_eq!(resolve(ours(ONE, 10), id(), &bounds(1, 20)), next(11));
    assert_eq!(resolve(ours(TWO, 20), id(), &bounds(1, 20)), next(21));
    // The boundary of a trim, and a log with nothing readable.
    assert_eq!(resolve(ours(TWO, 14), id(), &bounds(15, 20)), next(15));
    assert_eq!(resolve(ours(TWO, 20), id(), &bounds(21, 20)), next(21));
    // An empty log.
    assert_eq!(resolve(bare(0), id(), &bounds(1, 0)), next(1));
    assert_eq!(resolve(ours(ONE, 0), id(), &bounds(1, 0)), next(1));
    assert_eq!(resolve(bare(10), id(), &bounds(1, 20)), next(11));
}
