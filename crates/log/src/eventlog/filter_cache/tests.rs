use super::*;
use tailmark_record::topic::Pattern;
use tailmark_record::{
    ChainTag, CursorMint, Generation, Limits, LogId, Stamp, Timestamp, write_entry,
};

fn s(seq: u64) -> Seq {
    Seq::new(seq)
}

fn filter(pattern: &str) -> Arc<Filter> {
    Arc::new(Filter::new(vec![Pattern::parse(pattern, &Limits::default()).unwrap()]))
}

/// Keeps it, if it is worth it.
fn keep(found: &FilterCache, filter: &Arc<Filter>, chunk: &Chunk) {
    found.keep(filter, chunk, || true);
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
        let stamp = Stamp {
            seq: s(seq),
            mint: &mint,
            tag: ChainTag::START,
            appended_at,
            fill_at: true,
            fill_id: None,
        };
        write_entry(&mut events, &client, &stamp);
    }
    Chunk { first: s(first), end: s(end), events: events.into(), complete: false }
}

fn seqs(chunk: &Chunk) -> Vec<u64> {
    Events::new(&chunk.events).map(|event| Event::seq_of(event.unwrap()).unwrap().get()).collect()
}

#[test]
fn what_was_found_is_found_again_from_every_place_in_it() {
    let found = FilterCache::new(1 << 20);
    let t = filter("t");
    keep(&found, &t, &chunk(1_000, 2_000, &[1_000, 1_500, 1_999]));
    keep(&found, &t, &chunk(2_000, 3_000, &[]));
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
    let found = FilterCache::new(1 << 20);
    let t = filter("t");
    let complete = Chunk { complete: true, ..chunk(1, 1_000, &[5]) };
    let all: Vec<_> = (1..=2_000).collect();
    for (filter, chunk) in [
        (&t, &complete),
        (&t, &chunk(1, 200, &[5])),
        (&t, &chunk(1, 2_001, &all)),
        (&Arc::new(Filter::ALL), &chunk(1, 1_000, &[5])),
    ] {
        keep(&found, filter, chunk);
        assert!(found.read(filter, s(5), s(9)).is_none());
    }
    keep(&found, &t, &chunk(1_000, 2_000, &[1_500]));
    let bytes = found.filters.lock().bytes();
    for overlapping in
        [chunk(1_000, 2_000, &[1_500]), chunk(500, 1_001, &[]), chunk(1_999, 3_000, &[])]
    {
        keep(&found, &t, &overlapping);
        assert_eq!(found.filters.lock().bytes(), bytes);
    }
    keep(&found, &t, &chunk(500, 1_000, &[]));
    assert!(found.has(&t, s(500)) && found.filters.lock().bytes() > bytes);
}

#[test]
fn what_was_not_asked_for_longest_makes_room() {
    const BYTES: usize = 64 << 10;
    let found = FilterCache::new(BYTES);
    let filters: Vec<_> = (0..200).map(|n| filter(&format!("t{n}"))).collect();
    for t in &filters {
        for n in 0..4 {
            keep(&found, t, &chunk(1 + n * 500, 501 + n * 500, &[n * 500 + 7]));
            assert!(found.filters.lock().bytes() <= BYTES);
        }
        // The first one is asked for again and again.
        assert!(found.read(&filters[0], s(1), s(9)).is_some());
    }
    let kept: Vec<_> = filters.iter().map(|t| found.has(t, s(1))).collect();
    let last = kept.iter().rposition(|kept| !kept).unwrap();
    assert!(kept[0] && last > 100 && last < 195, "{last}");
    assert!(kept[1..=last].iter().all(|kept| !kept));
    assert!(found.filters.lock().bytes() > BYTES / 2);
    // One that finds much keeps a part, and drives nobody out.
    let many = filter("many");
    let all: Vec<_> = (1..=100).collect();
    for n in 0..50 {
        keep(
            &found,
            &many,
            &Chunk { first: s(1 + n * 500), end: s(501 + n * 500), ..chunk(1, 501, &all) },
        );
    }
    assert!(found.has(&many, s(1)) && !found.has(&many, s(20_000)));
    assert!(found.has(&filters[199], s(1)));
    // One that never fits is not kept, and takes nothing else along.
    let tiny = FilterCache::new(100);
    keep(&tiny, &filters[0], &chunk(1, 1_000, &[]));
    let filters = tiny.filters.lock();
    assert_eq!((filters.bytes(), filters.len()), (0, 0));
}

#[test]
fn what_was_cleared_is_not_found_and_what_was_read_before_is_not_kept() {
    let (found, t) = (FilterCache::new(1 << 20), filter("t"));
    keep(&found, &t, &chunk(1_000, 2_000, &[1_500]));
    assert!(found.read(&t, s(1_000), s(2_000)).is_some());
    found.clear();
    assert!(found.read(&t, s(1_000), s(2_000)).is_none() && found.bytes() == 0);
    found.keep(&t, &chunk(1_000, 2_000, &[1_500]), || false);
    assert!(found.read(&t, s(1_000), s(2_000)).is_none());
}
