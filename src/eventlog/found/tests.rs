use super::*;
use crate::record::{CursorMint, Generation, Limits, LogId, Stamp, Timestamp, write_entry};
use crate::topic::Pattern;

fn s(seq: u64) -> Seq {
    Seq::new(seq)
}

fn filter(pattern: &str) -> Arc<Filter> {
    Arc::new(Filter::new(vec![Pattern::parse(pattern, &Limits::default()).unwrap()]))
}

/// A chunk with the events `seqs`.
fn chunk(first: u64, end: u64, seqs: &[u64]) -> Chunk {
    let mint =
        CursorMint::new(LogId::new(uuid::Uuid::from_u128(1)), Generation { counter: 1, nonce: 1 });
    let mut events = Vec::new();
    for &seq in seqs {
        let mut client = Vec::new();
        Event { id: "x", topic: "t", ..Event::default() }.write_client_part(&mut client);
        let appended_at = Timestamp::EPOCH.into();
        let stamp = Stamp { seq: s(seq), mint: &mint, appended_at, fill_at: true, fill_id: None };
        write_entry(&mut events, &client, &stamp);
    }
    Chunk { first: s(first), end: s(end), events: events.into(), complete: false }
}

fn seqs(chunk: &Chunk) -> Vec<u64> {
    Events::new(&chunk.events).map(|event| Event::seq_of(event.unwrap()).unwrap().get()).collect()
}

#[test]
fn what_was_found_is_found_again_from_every_place_in_it() {
    let found = Found::new(1 << 20);
    let t = filter("t");
    found.keep(&t, &chunk(1_000, 2_000, &[1_000, 1_500, 1_999]));
    found.keep(&t, &chunk(2_000, 3_000, &[]));
    for (from, end, expected_end, expected) in [
        (1_000, 9_999, 2_000, vec![1_000, 1_500, 1_999]),
        (1_001, 9_999, 2_000, vec![1_500, 1_999]),
        (1_500, 1_999, 1_999, vec![1_500]),
        (1_501, 1_999, 1_999, vec![]),
        (1_999, 2_000, 2_000, vec![1_999]),
        (2_000, 9_999, 3_000, vec![]),
        (2_999, 9_999, 3_000, vec![]),
    ] {
        let chunk = found.read(&t, s(from), s(end)).unwrap();
        assert_eq!((chunk.first, chunk.end), (s(from), s(expected_end)));
        assert_eq!(seqs(&chunk), expected, "{from}..{end}");
        assert!(!chunk.complete && found.has(&t, s(from)));
    }
    for (filter, from) in [(&t, 999), (&t, 3_000), (&filter("u"), 1_000)] {
        assert!(found.read(filter, s(from), s(9_999)).is_none());
        assert!(!found.has(filter, s(from)));
    }
}

#[test]
fn only_what_is_worth_it_is_kept_and_nothing_twice() {
    let found = Found::new(1 << 20);
    let t = filter("t");
    let complete = Chunk { complete: true, ..chunk(1, 1_000, &[5]) };
    let all: Vec<_> = (1..=2_000).collect();
    for (filter, chunk) in [
        (&t, &complete),
        (&t, &chunk(1, 200, &[5])),
        (&t, &chunk(1, 2_001, &all)),
        (&Arc::new(Filter::ALL), &chunk(1, 1_000, &[5])),
    ] {
        found.keep(filter, chunk);
        assert!(found.read(filter, s(5), s(9)).is_none());
    }
    found.keep(&t, &chunk(1_000, 2_000, &[1_500]));
    let bytes = found.lock().bytes;
    for overlapping in
        [chunk(1_000, 2_000, &[1_500]), chunk(500, 1_001, &[]), chunk(1_999, 3_000, &[])]
    {
        found.keep(&t, &overlapping);
        assert_eq!(found.lock().bytes, bytes);
    }
    found.keep(&t, &chunk(500, 1_000, &[]));
    assert!(found.has(&t, s(500)) && found.lock().bytes > bytes);
}

#[test]
fn what_was_not_asked_for_longest_makes_room() {
    let found = Found::new(3_000);
    let filters: Vec<_> = ["a", "b", "c", "d"].map(filter).into();
    for t in &filters {
        for n in 0..4 {
            found.keep(t, &chunk(1 + n * 500, 501 + n * 500, &[n * 500 + 7]));
            assert!(found.lock().bytes <= 3_000);
        }
        // The first one is asked for again and again.
        assert!(found.read(&filters[0], s(1), s(9)).is_some());
    }
    let kept: Vec<_> = filters.iter().map(|t| found.has(t, s(1))).collect();
    assert!(kept[0] && !kept[1] && kept[3], "{kept:?}");
    let state = found.lock();
    assert_eq!(state.bytes, state.filters.values().map(|it| it.bytes).sum::<usize>());
    drop(state);
    // One that never fits is not kept, and takes nothing else along.
    let tiny = Found::new(100);
    tiny.keep(&filters[0], &chunk(1, 1_000, &[]));
    let state = tiny.lock();
    assert_eq!((state.bytes, state.filters.len()), (0, 0));
}
