//! Reading blocks without opening the database: the same events, the same damage.

use std::fs;

use super::*;
use crate::storage::segment::direct::Places;
use crate::storage::segment::index::Index;

#[test]
fn the_same_events_are_read_without_opening() {
    let dir = tempfile::tempdir().unwrap();
    for (at, compression) in compressions().enumerate() {
        // Events of several parts, too.
        let log = Log::random(5, 700, at as u64);
        let spec = BuildSpec { compression, ..log.spec() };
        let parent = dir.path().join(at.to_string());
        let segment = Arc::new(build(&parent, &spec, &log).unwrap());
        let before = snapshot(segment.dir());
        let lease = segment.lease().unwrap();
        let cache = Cache::default();
        let all = read_all(&cache, &lease, log.first(), log.end(), &Filter::ALL).unwrap();
        assert!(all.iter().all(|chunk| chunk.complete));
        assert_eq!(join(&all), log.bytes());
        let status = cache.status();
        assert_eq!((status.opens, status.direct_reads), (0, all.len() as u64));
        // Opened, it gives the same.
        let opening = Cache::new(OPENING);
        let opened = read_all(&opening, &lease, log.first(), log.end(), &Filter::ALL).unwrap();
        assert_eq!((join(&opened), opening.status().opens), (log.bytes(), 1));
        for seq in [5, 6, 300, 704] {
            let time = cache.time_of(&lease, Seq::new(seq)).unwrap();
            assert_eq!(time, time_of(seq));
        }
        assert_eq!(snapshot(segment.dir()), before, "reading changed a byte");
    }
}

#[test]
fn a_few_events_of_many_are_picked_without_opening() {
    let dir = tempfile::tempdir().unwrap();
    let made = (1..=20_000).map(|seq| Made {
        topic: if seq % 2_500 == 7 { "rare.one" } else { "common" }.into(),
        id: None,
        body: format!("event number {seq} rare.one {}", "x".repeat(150)),
        data: Vec::new(),
    });
    let log = Log::new(1, made, 500);
    let segment = log.build(dir.path());
    let (cache, lease) = (Cache::default(), segment.lease().unwrap());
    for patterns in [&["rare.one"][..], &["rare.*"], &["*.one", "other"]] {
        let chunks = read_all(&cache, &lease, log.first(), log.end(), &filter(patterns)).unwrap();
        let joined = join(&chunks);
        let seqs: Vec<_> = Events::new(&joined)
            .map(|event| Event::seq_of(event.unwrap()).unwrap().get())
            .collect();
        assert_eq!(seqs, (0..8).map(|at| at * 2_500 + 7).collect::<Vec<_>>());
        // Blocks between are not chunks of their own.
        assert!(chunks.len() <= 2, "{}", chunks.len());
        let part = read_all(&cache, &lease, Seq::new(5_008), Seq::new(10_007), &filter(patterns));
        let joined = join(&part.unwrap());
        let seqs: Vec<_> = Events::new(&joined)
            .map(|event| Event::seq_of(event.unwrap()).unwrap().get())
            .collect();
        assert_eq!(seqs, [7_507]);
    }
    let status = cache.status();
    assert_eq!(status.opens, 0, "{status:?}");
    assert!(status.direct_reads > 0);
}

#[test]
fn tables_stay_within_their_bound_and_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let segments: Vec<_> =
        (0..5).map(|at| Log::small(1 + at * 2_000, 2_000).build(dir.path())).collect();
    let options = CacheOptions { max_table_bytes: 1, ..CacheOptions::default() };
    let cache = Cache::new(options);
    for _ in 0..3 {
        for segment in &segments {
            let lease = segment.lease().unwrap();
            let from = segment.first().plus(1_000);
            let chunk = cache.read(&lease, from, from.plus(1), &Filter::ALL).unwrap();
            assert_eq!((chunk.first, chunk.end), (from, from.plus(1)));
            assert!(cache.tables_kept() <= 1);
        }
    }
    let status = cache.status();
    assert_eq!((status.opens, status.direct_reads), (0, 15));
    let lease = segments[4].lease().unwrap();
    assert_eq!(cache.discard(&segments[4]).unwrap(), None);
    drop(lease);
    cache.discard(&segments[4]).unwrap().unwrap();
    assert_eq!(cache.tables_kept(), 0);
}

/// Where a section's payload lies in the footer.
pub(super) fn payload_of(segment: &Segment, kind: u16) -> std::ops::Range<usize> {
    let found = segment.sections.iter().find(|(_, section)| section.kind == kind);
    let (at, section) = found.unwrap();
    *at as usize..(*at + section.len) as usize
}

#[test]
fn what_the_footer_says_of_places_is_where_the_blocks_lie() {
    let dir = tempfile::tempdir().unwrap();
    for (at, compression) in compressions().enumerate() {
        // Events of several parts, too.
        let log = Log::random(5, 700, at as u64);
        let spec = BuildSpec { compression, ..log.spec() };
        let segment = Arc::new(build(&dir.path().join(at.to_string()), &spec, &log).unwrap());
        let index = Index::load(Arc::clone(&segment)).unwrap();
        let noted = Places::noted(&index).unwrap();
        assert_eq!(noted.offsets(), files::locate(&index).unwrap().unwrap().offsets());
        assert_eq!(noted.offsets().len(), index.rows.iter().map(|row| row.parts()).sum::<usize>());
        assert!(noted.offsets().len() > index.rows.len(), "no block has several parts");
        assert_eq!(verify(segment.dir(), dir.path(), None, &Progress::default()).unwrap(), []);
    }
}

#[test]
fn a_footer_that_is_wrong_about_places_costs_nothing_but_time() {
    let log = Log::small(50, 10_000);
    // Damaged; whole, but of another place; not there.
    for wrong in ["damaged", "moved", "missing"] {
        let dir = tempfile::tempdir().unwrap();
        let segment = log.build(dir.path());
        let path = segment.dir().join(FOOTER);
        let mut footer = fs::read(&path).unwrap();
        let payload = payload_of(&segment, footer::kind::PLACES);
        let header = payload.start - footer::SECTION_HEADER_BYTES;
        match wrong {
            "damaged" => footer[payload.start] ^= 1,
            "moved" => {
                footer[payload.start] ^= 1;
                let crc = crc32c::crc32c(&footer[payload]);
                footer[header + 16..header + 20].copy_from_slice(&crc.to_le_bytes());
                let crc = crc32c::crc32c(&footer[header..header + 20]);
                footer[header + 20..header + 24].copy_from_slice(&crc.to_le_bytes());
            }
            // A kind that this program does not know, as a later one may write it.
            _ => {
                footer[header] = 99;
                let crc = crc32c::crc32c(&footer[header..header + 20]);
                footer[header + 20..header + 24].copy_from_slice(&crc.to_le_bytes());
            }
        }
        fs::write(&path, &footer).unwrap();
        let segment = Arc::new(Segment::load(segment.dir(), &Disk::real()).unwrap());
        let (cache, lease) = (Cache::default(), segment.lease().unwrap());
        for seq in [50, 51, 5_000, 10_049] {
            let (from, end) = (Seq::new(seq), Seq::new(seq + 1));
            let chunk = cache.read(&lease, from, end, &Filter::ALL).unwrap();
            assert_eq!((chunk.first, chunk.end), (from, end), "{wrong}");
        }
        assert_eq!(cache.damages(), [], "{wrong}");
        let all = read_all(&cache, &lease, log.first(), log.end(), &Filter::ALL).unwrap();
        assert_eq!(join(&all), log.bytes());
        let found = verify(segment.dir(), dir.path(), None, &Progress::default()).unwrap();
        assert_eq!(found.len(), usize::from(wrong != "missing"), "{wrong} {found:?}");
    }
}

/// Flips a bit of the events' own bytes, wherever they lie.
fn rot(segment: &Segment, text: &str) {
    let path = segment.dir().join(DB).join("db");
    let mut bytes = fs::read(&path).unwrap();
    let places: Vec<_> = (0..bytes.len() - text.len())
        .filter(|&at| bytes[at..].starts_with(text.as_bytes()))
        .collect();
    assert!(!places.is_empty());
    places.iter().for_each(|&at| bytes[at] ^= 4);
    fs::write(&path, &bytes).unwrap();
}

#[test]
fn rot_after_the_files_were_compared_is_found_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::small(50, 10_000);
    let spec = BuildSpec { compression: Compression::None, ..log.spec() };
    let segment = Arc::new(build(dir.path(), &spec, &log).unwrap());
    let (cache, lease) = (Cache::default(), segment.lease().unwrap());
    let read =
        |seq: u64, filter: &Filter| cache.read(&lease, Seq::new(seq), Seq::new(seq + 1), filter);
    read(3_000, &Filter::ALL).unwrap();
    assert_eq!(cache.status().opens, 0);
    rot(&segment, "event number 3000 ");
    // What is intact is still read.
    assert_eq!(read(9_000, &Filter::ALL).unwrap().first, Seq::new(9_000));
    assert_eq!(cache.damages(), []);
    let tenth = filter(&["t.0"]);
    for filter in [&Filter::ALL, &tenth] {
        let Err(StoreError::Damaged(damage)) = read(3_000, filter) else { panic!("rot was read") };
        assert!(damage.from <= Seq::new(3_000) && damage.to >= Seq::new(3_000), "{damage}");
        assert!(damage.from > Seq::new(2_000) && damage.to < Seq::new(4_000), "{damage}");
    }
    assert_eq!(cache.damages().len(), 1, "it is told of the file, too");
    assert_eq!(read(9_000, &Filter::ALL).unwrap().first, Seq::new(9_000));
    // Gone altogether.
    fs::remove_file(segment.dir().join(DB).join("db")).unwrap();
    cache.close_idle();
    let read = read(9_000, &Filter::ALL);
    assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
}

#[test]
fn a_sifted_read_stops_before_damage_and_the_next_one_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::small(50, 10_000);
    let spec = BuildSpec { compression: Compression::None, ..log.spec() };
    let segment = Arc::new(build(dir.path(), &spec, &log).unwrap());
    let (cache, lease, filter) = (Cache::default(), segment.lease().unwrap(), filter(&["t.4"]));
    // One knows from before where the blocks lie.
    cache.read(&lease, Seq::new(60), Seq::new(61), &Filter::ALL).unwrap();
    rot(&segment, "event number 3004 ");
    for cache in [cache, Cache::default(), Cache::new(OPENING)] {
        let (mut next, mut seqs, mut lost) = (log.first(), Vec::new(), Vec::new());
        while next < log.end() {
            match cache.read(&lease, next, log.end(), &filter) {
                Ok(chunk) => {
                    let events = Events::new(&chunk.events).map(Result::unwrap);
                    let events = events.filter(|event| Event::topic_of(event).unwrap() == "t.4");
                    seqs.extend(events.map(|event| Event::seq_of(event).unwrap().get()));
                    next = chunk.end;
                }
                Err(StoreError::Damaged(damage)) => {
                    assert!(damage.from <= next && damage.to >= next, "{damage}");
                    lost.extend(damage.from.get()..=damage.to.get());
                    next = damage.to.next();
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(lost.contains(&3_004) && lost.len() < 2_000, "{lost:?}");
        let expected: Vec<_> =
            (50..10_050).filter(|seq| seq % 10 == 4 && !lost.contains(seq)).collect();
        assert_eq!(seqs, expected);
    }
}
