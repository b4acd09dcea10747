//! Whatever happens to the files: the right events or an error with a range that holds the place,
//! never a panic, never fewer or other events.

use std::fs;

use super::*;

/// A segment and what it should say.
struct Victim {
    dir: tempfile::TempDir,
    pristine: PathBuf,
    name: std::ffi::OsString,
    log: Log,
}

impl Victim {
    fn new(log: Log) -> Victim {
        let dir = tempfile::tempdir().unwrap();
        let pristine = log.build(&dir.path().join("pristine")).dir().to_owned();
        let name = pristine.file_name().unwrap().to_owned();
        Victim { dir, pristine, name, log }
    }

    /// A copy to be maltreated.
    fn copy(&self, label: &str) -> PathBuf {
        let target = self.dir.path().join(label).join(&self.name);
        copy_dir(&self.pristine, &target);
        target
    }

    /// Reads all of a maltreated copy, passing over damage. Answers the damage.
    fn check(&self, dir: &Path, what: &str) -> Vec<Damage> {
        let segment = match Segment::load(dir, &Disk::real()) {
            Ok(segment) => Arc::new(segment),
            Err(StoreError::Damaged(damage)) => {
                assert_eq!(damage.from, self.log.first(), "{what}");
                return vec![damage];
            }
            Err(StoreError::Format { .. }) => return vec![],
            Err(other) => panic!("{what}: {other}"),
        };
        let (cache, lease) = (Cache::default(), segment.lease().unwrap());
        let events = self.log.events();
        let (mut next, mut found) = (self.log.first(), Vec::new());
        // Another segment's footer may be right about itself: a hole, which whoever lists
        // segments finds.
        while next < self.log.end().min(segment.end()) {
            match cache.read(&lease, next, self.log.end(), &Filter::ALL) {
                Ok(chunk) => {
                    assert!(chunk.complete && chunk.first == next && chunk.end > next, "{what}");
                    let place = |seq: Seq| self.log.first().distance_to(seq) as usize;
                    let expected = bytes_of(place(next)..place(chunk.end), &events);
                    assert_eq!(chunk.events, expected, "{what}");
                    next = chunk.end;
                }
                Err(StoreError::Damaged(damage)) => {
                    assert!(damage.from <= next && damage.to >= next, "{what}: {damage}");
                    next = damage.to.next();
                    found.push(damage);
                }
                Err(other) => panic!("{what}: {other}"),
            }
        }
        // A filter goes by the table of topics, or does without.
        let some = filter(&["t.3", "t.5.>"]);
        let chunks = read_all(&cache, &lease, segment.first(), segment.end(), &some);
        match chunks.map(|chunks| join(&chunks)) {
            Ok(read) => {
                let matches = |event: &&[u8]| some.matches(Event::topic_of(event).unwrap());
                let read = Events::new(&read).map(Result::unwrap).filter(matches).count();
                let all = events.iter().take(segment.first().distance_to(segment.end()) as usize);
                assert_eq!(read, all.map(Vec::as_slice).filter(matches).count(), "{what}");
            }
            Err(StoreError::Damaged(_)) => assert!(!found.is_empty(), "{what}"),
            Err(other) => panic!("{what}: {other}"),
        }
        if found.is_empty() {
            // Every block was intact; the files are not, and that is told.
            cache.compare_next(std::time::Instant::now());
            found = cache.damages();
        }
        match all_topics(&segment) {
            Ok(topics) => {
                let is_whole = segment.end() == self.log.end();
                assert!(!is_whole || topics == self.log.topics(), "{what}: other topics");
            }
            Err(StoreError::Damaged(damage)) => {
                assert_eq!((damage.from, damage.to), (segment.first(), segment.end().prev()));
                found.push(damage);
            }
            Err(other) => panic!("{what}: {other}"),
        }
        let fingerprints = segment.fingerprints(Seq::ZERO, &mut |_, _| true);
        if let Err(StoreError::Damaged(damage)) = fingerprints {
            found.push(damage);
        }
        found
    }
}

#[test]
fn a_flipped_bit_in_the_database_is_an_error() {
    let victim = Victim::new(Log::small(50, 3_000));
    let mut rng = StdRng::seed_from_u64(1);
    let dir = victim.copy("db");
    let files = super::super::dir::list_files(&dir.join(DB)).unwrap();
    for (name, path) in &files {
        let original = fs::read(path).unwrap();
        for _ in 0..40 {
            let at = rng.random_range(0..original.len());
            let mut bytes = original.clone();
            bytes[at] ^= 1 << rng.random_range(0..8);
            fs::write(path, &bytes).unwrap();
            let found = victim.check(&dir, &format!("{name} at {at}"));
            assert!(!found.is_empty(), "{name} at {at}");
            let scratch = victim.dir.path();
            let found = verify(&dir, scratch, Some(&KEY), &Progress::default()).unwrap();
            assert!(!found.is_empty(), "{name} at {at}");
        }
        fs::write(path, &original).unwrap();
    }
    assert_eq!(victim.check(&dir, "restored"), []);
}

#[test]
fn a_flipped_bit_in_the_footer_is_an_error() {
    let victim = Victim::new(Log::small(50, 1_500));
    let dir = victim.copy("footer");
    let path = dir.join(FOOTER);
    let original = fs::read(&path).unwrap();
    let mut rng = StdRng::seed_from_u64(2);
    let segment = Segment::load(&dir, &Disk::real()).unwrap();
    // What readers can do without.
    let spare = [footer::kind::PLACES, footer::kind::TOPIC_FILTER]
        .map(|kind| direct::payload_of(&segment, kind));
    let tables = [footer::kind::TOPICS, footer::kind::TOPIC_PAGES]
        .map(|kind| direct::payload_of(&segment, kind));
    // All of the headers and identity, and a sample of the rest.
    let places = (0..400).chain((0..200).map(|_| rng.random_range(400..original.len())));
    let ends = spare.iter().chain(&tables).flat_map(|part| [part.start, part.end - 1]);
    let places = places.chain(ends);
    for at in places.collect::<Vec<_>>() {
        let mut bytes = original.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let mut found = victim.check(&dir, &format!("footer at {at}"));
        if spare.iter().any(|part| part.contains(&at)) {
            // Of no use to any reader any more, and no reader needs it.
            assert_eq!(found, [], "at {at}");
            let scratch = victim.dir.path();
            found = verify(&dir, scratch, Some(&KEY), &Progress::default()).unwrap();
        }
        assert!(!found.is_empty(), "at {at}");
    }
    for len in (0..original.len()).step_by(original.len() / 90 + 1) {
        fs::write(&path, &original[..len]).unwrap();
        assert!(!victim.check(&dir, &format!("footer cut to {len}")).is_empty());
    }
    let longer = [&original[..], b"x"].concat();
    fs::write(&path, longer).unwrap();
    assert!(!victim.check(&dir, "longer footer").is_empty());
}

#[test]
fn missing_cut_added_and_swapped_files_are_errors() {
    let victim = Victim::new(Log::small(50, 1_500));
    let other = Victim::new(Log::small(50, 1_400));
    let files = super::super::dir::list_files(&victim.pristine.join(DB)).unwrap();
    assert_eq!(files.len(), 3, "{files:?}");
    for (name, _) in &files {
        let dir = victim.copy(&format!("missing-{name}"));
        fs::remove_file(dir.join(DB).join(name)).unwrap();
        assert_eq!(victim.check(&dir, name).len(), 1);
        let dir = victim.copy(&format!("cut-{name}"));
        let path = dir.join(DB).join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(victim.check(&dir, name).len(), 1);
        let dir = victim.copy(&format!("empty-{name}"));
        fs::write(dir.join(DB).join(name), b"").unwrap();
        assert_eq!(victim.check(&dir, name).len(), 1);
    }
    let dir = victim.copy("no-db");
    fs::remove_dir_all(dir.join(DB)).unwrap();
    assert_eq!(victim.check(&dir, "no db").len(), 1);
    assert!(!dir.join(DB).exists(), "nothing fresh was made");
    let dir = victim.copy("no-footer");
    fs::remove_file(dir.join(FOOTER)).unwrap();
    assert_eq!(victim.check(&dir, "no footer").len(), 1);
    let dir = victim.copy("added");
    fs::write(dir.join(DB).join("snap.FFFFFFFFFFFFFFFF"), b"x").unwrap();
    assert_eq!(victim.check(&dir, "added").len(), 1);
    let dir = victim.copy("swapped");
    fs::copy(other.pristine.join(FOOTER), dir.join(FOOTER)).unwrap();
    assert_eq!(victim.check(&dir, "swapped").len(), 1);
    // A footer under another name than its own.
    let dir = victim.copy("renamed");
    let renamed = dir.parent().unwrap().join("00000000000000000051-1");
    fs::rename(&dir, &renamed).unwrap();
    assert!(matches!(Segment::load(&renamed, &Disk::real()), Err(StoreError::Damaged(_))));
    // What a crash of sled itself leaves behind is no damage.
    let dir = victim.copy("half");
    fs::write(dir.join(DB).join("snap.FFFFFFFFFFFFFFFF.generating"), b"x").unwrap();
    assert_eq!(victim.check(&dir, "half a snapshot"), []);
}

/// Flips a bit in the body of the event `seq`, where it lies in the database.
fn flip_event(dir: &Path, seq: u64) {
    let path = dir.join(DB).join("db");
    let mut bytes = fs::read(&path).unwrap();
    let text = format!("event number {seq} ");
    let places: Vec<_> = (0..bytes.len() - text.len())
        .filter(|&at| bytes[at..].starts_with(text.as_bytes()))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 3] ^= 4;
    }
    fs::write(&path, &bytes).unwrap();
}

#[test]
fn damage_is_told_to_the_block_and_the_rest_is_read() {
    let log = Log::small(50, 10_000);
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let spec = BuildSpec { compression: Compression::None, ..log.spec() };
    let segment = Arc::new(build(dir.path(), &spec, &log).unwrap());
    flip_event(segment.dir(), 3_000);
    flip_event(segment.dir(), 9_000);
    let before = snapshot(segment.dir());
    let holds = |damage: &Damage, seq: u64| damage.from.get() <= seq && seq <= damage.to.get();
    let is_exact = |found: &[Damage]| {
        // A leaf of sled's holds a few blocks, and is lost as a whole.
        let lost: u64 = found.iter().map(|d| d.from.distance_to(d.to.next())).sum();
        assert!(lost < 2_000, "{found:?}");
        assert!(found.iter().any(|damage| holds(damage, 3_000)), "{found:?}");
        assert!(found.iter().any(|damage| holds(damage, 9_000)), "{found:?}");
    };
    let found = verify(segment.dir(), scratch.path(), Some(&KEY), &Progress::default()).unwrap();
    is_exact(&found);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    let victim = Victim {
        pristine: PathBuf::new(),
        name: "".into(),
        log,
        dir: tempfile::tempdir().unwrap(),
    };
    is_exact(&victim.check(segment.dir(), "online"));
    assert_eq!(snapshot(segment.dir()), before, "the evidence was changed");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the copy is gone");
}

#[test]
fn damage_is_remembered_and_does_not_reach_other_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Log::small(1, 800), Log::small(801, 800));
    let (bad, good) = (one.build(dir.path()), two.build(dir.path()));
    fs::remove_file(bad.dir().join(DB).join("db")).unwrap();
    let cache = Cache::default();
    let lease = bad.lease().unwrap();
    for _ in 0..3 {
        let read = cache.read(&lease, Seq::new(1), Seq::new(20), &Filter::ALL);
        let Err(StoreError::Damaged(damage)) = read else { panic!("{read:?}") };
        assert_eq!((damage.from, damage.to), (Seq::new(1), Seq::new(800)));
    }
    assert_eq!(cache.status().opens, 1);
    assert_eq!(cache.damages().len(), 1);
    let lease = good.lease().unwrap();
    let all = read_all(&cache, &lease, good.first(), good.end(), &Filter::ALL).unwrap();
    assert_eq!(join(&all), two.bytes());
}

#[test]
fn an_error_while_files_are_compared_is_told_until_it_is_over_and_is_no_damage() {
    use crate::storage::disk::Faults;
    let dir = tempfile::tempdir().unwrap();
    let log = Log::small(50, 3_000);
    let built = log.build(dir.path());
    let read = |faults: &Arc<Faults>| {
        let disk = Disk::with_faults(faults.clone());
        let segment = Arc::new(Segment::load(built.dir(), &disk).unwrap());
        let (cache, lease) = (Cache::default(), segment.lease().unwrap());
        read_all(&cache, &lease, log.first(), log.end(), &Filter::ALL).unwrap();
        (cache, lease)
    };
    let counted = Faults::none();
    let (cache, lease) = read(&counted);
    let before = counted.seen();
    let now = std::time::Instant::now();
    cache.compare_next(now);
    assert!(counted.seen() > before, "the control: it is compared once all of it was read");
    assert_eq!((cache.uncompared(), cache.damages()), (None, vec![]));
    drop((cache, lease));

    let failing = Faults::nth(before + 1, std::io::ErrorKind::Other, false);
    let (cache, _lease) = read(&failing);
    cache.compare_next(now);
    assert!(failing.has_struck());
    assert!(cache.uncompared().unwrap().contains("injected"), "{:?}", cache.uncompared());
    assert_eq!(cache.damages(), []);
    cache.compare_next(now);
    assert!(cache.uncompared().is_some(), "not tried again at once");
    cache.compare_next(now + std::time::Duration::from_secs(61));
    assert_eq!((cache.uncompared(), cache.damages()), (None, vec![]));
}

#[test]
fn what_comparing_finds_is_noted_before_the_segment_can_go() {
    use crate::storage::segment::comparing::Comparisons;
    let dir = tempfile::tempdir().unwrap();
    let built = Log::small(50, 3_000).build(dir.path());
    let load = || Arc::new(Segment::load(built.dir(), &Disk::default()).unwrap());
    let (gone, segment) = (load(), load());
    let file = segment.dir().join("db/db");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let comparisons = Comparisons::default();
    comparisons.add(&Arc::default(), &gone);
    comparisons.add(&Arc::default(), &segment);
    assert!(gone.retire());
    let mut noted = 0;
    // Who is gone takes nobody's turn.
    comparisons.next(std::time::Instant::now(), |damage| {
        assert!(damage.file.starts_with(segment.dir()));
        assert!(!segment.retire(), "discarded now, it would be told for ever");
        noted += 1;
    });
    assert_eq!(noted, 1);
    assert!(segment.retire());
    comparisons.next(std::time::Instant::now(), |_| noted += 1);
    assert_eq!(noted, 1);
}

/// A footer with one more section, as a later version may write it.
fn with_section(footer: &[u8], kind: u16, flags: u16) -> Vec<u8> {
    let mut out = footer.to_vec();
    let payload = b"from the future";
    let mut header = [0; SECTION_HEADER_BYTES];
    header[..2].copy_from_slice(&kind.to_le_bytes());
    header[2..4].copy_from_slice(&flags.to_le_bytes());
    header[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    header[16..20].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let crc = crc32c::crc32c(&header[..20]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    let len = out.len() as u64;
    out[16..24].copy_from_slice(&len.to_le_bytes());
    out[24] += 1;
    reseal(&mut out);
    out
}

fn reseal(footer: &mut [u8]) {
    let crc = crc32c::crc32c(&footer[..60]);
    footer[60..64].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn later_versions_are_refused_unless_they_say_otherwise() {
    let victim = Victim::new(Log::small(50, 1_500));
    let dir = victim.copy("future");
    let path = dir.join(FOOTER);
    let original = fs::read(&path).unwrap();
    fs::write(&path, with_section(&original, 900, 1)).unwrap();
    assert_eq!(victim.check(&dir, "a section that may be ignored"), []);
    for (kind, flags) in [(900, 0), (900, 3), (900, 2)] {
        fs::write(&path, with_section(&original, kind, flags)).unwrap();
        let loaded = Segment::load(&dir, &Disk::real());
        assert!(matches!(loaded, Err(StoreError::Format { .. })), "{kind} {flags}: {loaded:?}");
    }
    fs::write(&path, with_section(&original, footer::kind::BLOCKS, 0)).unwrap();
    assert!(
        matches!(Segment::load(&dir, &Disk::real()), Err(StoreError::Damaged(_))),
        "a section twice"
    );
    // Version, kind of file, flags.
    for at in [8, 12, 15] {
        let mut bytes = original.clone();
        bytes[at] ^= 6;
        reseal(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let loaded = Segment::load(&dir, &Disk::real());
        assert!(matches!(loaded, Err(StoreError::Format { .. })), "at {at}: {loaded:?}");
    }
}

#[test]
fn half_a_snapshot_goes_when_its_database_is_opened_and_stays_while_it_is_only_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let log = Log::small(1, 100);
    let segment = log.build(dir.path());
    let half = segment.dir().join(DB).join("snap.00000000001FFFFF.generating");
    fs::write(&half, b"half").unwrap();
    let lease = segment.lease().unwrap();
    assert_eq!(verify(segment.dir(), scratch.path(), None, &Progress::default()).unwrap(), []);
    OfflineReader::open(segment.dir(), scratch.path()).unwrap();
    read_all(&Cache::default(), &lease, log.first(), log.end(), &Filter::ALL).unwrap();
    assert!(half.exists(), "a check deletes");
    let opens = CacheOptions { max_table_bytes: 0, ..CacheOptions::default() };
    read_all(&Cache::new(opens), &lease, log.first(), log.end(), &Filter::ALL).unwrap();
    assert!(!half.exists(), "sled would take it for the newest");
}
