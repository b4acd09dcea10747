//! What goes in comes out: whole, in slices, by topic, by time.

use super::*;

#[test]
fn random_events_come_back_in_every_compression() {
    let dir = tempfile::tempdir().unwrap();
    for (at, compression) in compressions().enumerate() {
        let log = Log::random(5, 700, at as u64);
        let parent = dir.path().join(at.to_string());
        let spec = BuildSpec { compression, ..log.spec() };
        let segment = Arc::new(build(&parent, &spec, &log).unwrap());
        assert!(spec.progress.beats() > 10);
        assert_eq!(
            (segment.first(), segment.end(), segment.revision()),
            (log.first(), log.end(), 1)
        );
        assert_eq!(segment.raw_bytes() as usize, log.bytes().len());
        assert_eq!(segment.generations(), &generations());
        assert_eq!(std::fs::read_dir(segment.dir().join("db/blobs")).unwrap().count(), 0);
        let cache = Cache::default();
        let lease = segment.lease().unwrap();
        let all = read_all(&cache, &lease, log.first(), log.end(), &Filter::ALL).unwrap();
        assert!(all.iter().all(|chunk| chunk.complete));
        assert_eq!(join(&all), log.bytes());
        // Largest first chunk: one block, or several up to the joined size.
        assert!(all.iter().any(|chunk| chunk.events.len() > 1 << 20));
        let verified = verify(segment.dir(), dir.path(), Some(&KEY), &spec.progress).unwrap();
        assert_eq!(verified, []);
    }
}

#[test]
fn the_chain_depends_on_the_events_and_not_on_how_they_are_blocked() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::small(1, 2_000);
    let one = log.build(&dir.path().join("one"));
    let spec = BuildSpec { block_bytes: 5_000, compression: Compression::None, ..log.spec() };
    let two = build(&dir.path().join("two"), &spec, &log).unwrap();
    assert_eq!((one.link_before(), one.link()), (LINK_BEFORE, log.link));
    assert_eq!((two.link_before(), two.link()), (LINK_BEFORE, log.link));
    let mut made = Log::small(1, 2_000);
    let last = made.chunks.last_mut().unwrap();
    // One letter of the last body.
    let mut bytes = last.events.to_vec();
    let at = bytes.iter().rposition(|&byte| byte == b'x').unwrap();
    bytes[at] = b'y';
    last.events = bytes.into();
    // Nobody knows the chain: it is what it is.
    let unknown = BuildSpec { link: None, ..made.spec() };
    let three = build(&dir.path().join("three"), &unknown, &made).unwrap();
    assert_ne!(three.link(), one.link());
    // Whoever knows it hears that these are not the events.
    let refused = build(&dir.path().join("four"), &made.spec(), &made).unwrap_err();
    assert!(matches!(&refused, StoreError::Damaged(_)), "{refused}");
    assert!(refused.to_string().contains("chain"), "{refused}");
}

#[test]
fn every_slice_is_exact() {
    let dir = tempfile::tempdir().unwrap();
    for (compression, block_bytes) in [(Compression::None, 900), (Compression::Lz4, 1_500)] {
        let log = Log::small(1_000, 60);
        let spec = BuildSpec { compression, block_bytes, ..log.spec() };
        let segment =
            Arc::new(build(&dir.path().join(block_bytes.to_string()), &spec, &log).unwrap());
        let (cache, lease, events) = (Cache::default(), segment.lease().unwrap(), log.events());
        for from in 0..60 {
            for end in from + 1..=60 {
                let (first, last) = (Seq::new(1_000 + from as u64), Seq::new(1_000 + end as u64));
                let chunks = read_all(&cache, &lease, first, last, &Filter::ALL).unwrap();
                assert_eq!(join(&chunks), bytes_of(from..end, &events), "{from}..{end}");
            }
        }
        for (from, end) in [(999, 1_010), (1_060, 1_061), (1_010, 1_010)] {
            let read = cache.read(&lease, Seq::new(from), Seq::new(end), &Filter::ALL);
            assert!(matches!(read, Err(StoreError::Invalid(_))), "{from}..{end}");
        }
        let beyond = cache.read(&lease, Seq::new(1_059), Seq::MAX, &Filter::ALL).unwrap();
        assert_eq!(beyond.end, Seq::new(1_060));
    }
}

#[test]
fn a_filter_leaves_out_blocks_and_no_event_that_matches() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::random(1, 3_000, 77);
    let segment = log.build(dir.path());
    let (cache, lease) = (Cache::default(), segment.lease().unwrap());
    let events = log.events();
    let mut skipped = 0;
    for patterns in [&["r.17.*"][..], &["r.3.>", "r.4.1"], &["r.*.2"], &["nothing"], &["r.199.0"]] {
        let filter = filter(patterns);
        let chunks = read_all(&cache, &lease, log.first(), log.end(), &filter).unwrap();
        let joined = join(&chunks);
        let matching = |events: &mut dyn Iterator<Item = Vec<u8>>| -> Vec<Vec<u8>> {
            events.filter(|event| filter.matches(Event::topic_of(event).unwrap())).collect()
        };
        let got = matching(&mut Events::new(&joined).map(|event| event.unwrap().to_vec()));
        assert_eq!(got, matching(&mut events.iter().cloned()), "{patterns:?}");
        skipped += chunks.iter().filter(|chunk| !chunk.complete && chunk.events == empty()).count();
        // From the middle too.
        let middle = Seq::new(1_500);
        let chunks = read_all(&cache, &lease, middle, log.end(), &filter).unwrap();
        let joined = join(&chunks);
        let got = matching(&mut Events::new(&joined).map(|event| event.unwrap().to_vec()));
        assert_eq!(got, matching(&mut events[1_499..].iter().cloned()), "{patterns:?}");
    }
    assert!(skipped > 5, "{skipped}");
}

#[test]
fn a_filter_that_matches_no_topic_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let segment = Log::small(1, 100).build(dir.path());
    let (cache, lease) = (Cache::default(), segment.lease().unwrap());
    let chunk = cache.read(&lease, Seq::new(7), Seq::new(50), &filter(&["other.>"])).unwrap();
    assert_eq!((chunk.end, chunk.events, chunk.complete), (Seq::new(50), empty(), false));
    assert_eq!(cache.status().opens, 0);
}

#[test]
fn times_are_found_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::small(100, 1_000);
    let spec = BuildSpec { block_bytes: 4_000, ..log.spec() };
    let segment = Arc::new(build(dir.path(), &spec, &log).unwrap());
    let (cache, lease) = (Cache::default(), segment.lease().unwrap());
    for seq in 100..1_100 {
        assert_eq!(cache.time_of(&lease, Seq::new(seq)).unwrap(), time_of(seq));
        let first_of_second = (seq / 7 * 7).max(100);
        let found = cache.seek_time(&lease, time_of(seq)).unwrap();
        assert_eq!(found, Seq::new(first_of_second));
        // A nanosecond later it is the next second's first.
        let later = Timestamp { nanos: 6, ..time_of(seq) };
        let next = (seq / 7 * 7 + 7).min(1_100);
        assert_eq!(cache.seek_time(&lease, later).unwrap(), Seq::new(next));
    }
    assert_eq!(cache.seek_time(&lease, Timestamp::EPOCH).unwrap(), Seq::new(100));
    assert!(cache.time_of(&lease, Seq::new(1_100)).is_err());
}

#[test]
fn topics_of_any_part_are_counted_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::random(1, 900, 3);
    let segment = log.build(dir.path());
    let (cache, lease) = (Cache::default(), segment.lease().unwrap());
    let events = log.events();
    let topic_of = |seq: u64| Event::topic_of(&events[seq as usize - 1]).unwrap();
    for (from, end) in [(1, 2), (1, 901), (13, 300), (449, 450), (600, 899), (900, 901)] {
        for max_bytes in [1, 20_000, usize::MAX] {
            let (mut counts, mut next) = (TopicCounts::default(), Seq::new(from));
            while next < Seq::new(end) {
                let range = next..Seq::new(end);
                let (more, upto) = cache.count_topics(&lease, range, max_bytes).unwrap();
                assert!(upto > next);
                counts.add(&more);
                next = upto;
            }
            for topic in (1..901).map(topic_of) {
                let expected = (from..end).filter(|&seq| topic_of(seq) == topic).count();
                assert_eq!(counts.of(topic), expected as u64, "{from}..{end} {topic}");
            }
        }
    }
}

#[test]
fn topics_are_found_and_listed_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::random(1, 900, 3);
    let segment = log.build(dir.path());
    let expected = log.topics();
    assert_eq!(segment.topics(), expected.len() as u64);
    assert_eq!(all_topics(&segment).unwrap(), expected);
    for (name, stats) in &expected {
        assert_eq!(segment.topic(name).unwrap(), Some(*stats));
        assert_eq!(segment.topic(&format!("{name}x")).unwrap(), None);
    }
}

#[test]
fn fingerprints_come_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::small(10, 500);
    let segment = log.build(dir.path());
    let expected: Vec<_> = log
        .events()
        .iter()
        .enumerate()
        .map(|(at, event)| (Seq::new(at as u64 + 10), event))
        .filter(|(seq, _)| seq.get() % 3 == 0)
        .map(|(seq, event)| (seq, KEY.fingerprint(Event::client_part(event).unwrap())))
        .rev()
        .collect();
    let collect = |from: u64, limit: usize| {
        let mut got = Vec::new();
        let went_on = segment
            .fingerprints(Seq::new(from), &mut |seq, fingerprint| {
                got.push((seq, fingerprint));
                got.len() < limit
            })
            .unwrap();
        (got, went_on)
    };
    assert_eq!(collect(0, usize::MAX), (expected.clone(), true));
    assert_eq!(collect(0, 5), (expected[..5].to_vec(), false));
    let late: Vec<_> = expected.iter().copied().filter(|(seq, _)| seq.get() >= 200).collect();
    assert_eq!(collect(200, usize::MAX), (late, true));
}

#[test]
fn looking_back_for_as_many_as_there_are_tells_where_the_first_of_them_lies() {
    let dir = tempfile::tempdir().unwrap();
    // Topics go round: `t.4` has seqs 4, 14, 24, 34, 44.
    let segment = Log::small(1, 45).build(dir.path());
    let (cache, lease) = (Cache::default(), segment.lease().unwrap());
    for (count, from, events) in [(1, 44, 1), (3, 24, 3), (5, 4, 5), (6, 1, 5)] {
        let range = segment.first()..segment.end();
        let found = cache.look_back(&lease, range, &filter(&["t.4"]), count).unwrap();
        assert_eq!((found.from.get(), found.events), (from, events), "{count}");
    }
}
