//! What is whole of a damaged segment is what it had, whatever somebody published.

use super::super::block::{HEADER_BYTES, Row};
use super::super::remains::{Remains, remains};
use super::*;

const COUNT: u64 = 2_000;
/// Which event has the planted block.
const PLACE: u64 = 900;

/// A block of made-up events, as it would stand in a database.
fn planted(first: u64, count: u64) -> Vec<u8> {
    let events = Log::small(first, count).bytes();
    let crc = crc32c::crc32c(&events);
    let row = Row {
        first: Seq::new(first),
        count: count as u32,
        raw_len: events.len() as u32,
        stored_len: events.len() as u32,
        crc_stored: crc,
        crc_raw: crc,
        ..Row::default()
    };
    assert_eq!(row.parts(), 1);
    [&row.header(0)[..], &events].concat()
}

/// A segment of which one event has such a block for its data.
fn segment_with(plant: &[u8], parent: &Path) -> (Log, PathBuf) {
    let made = (1..=COUNT).map(|seq| Made {
        topic: format!("t.{}", seq % 10),
        id: None,
        body: if seq == PLACE { String::new() } else { "y".repeat(200) },
        data: if seq == PLACE { plant.to_vec() } else { Vec::new() },
    });
    let log = Log::new(1, made, 1_000);
    let spec = BuildSpec { compression: Compression::None, ..log.spec() };
    let dir = build(parent, &spec, &log).unwrap().dir().to_owned();
    (log, dir)
}

/// Where the header of the block stands that has the planted one.
fn outer(dir: &Path, plant: &[u8]) -> usize {
    let bytes = std::fs::read(dir.join("db/db")).unwrap();
    let plant =
        memchr::memmem::find(&bytes, plant).expect("the planted block stands there as it is");
    let is_header = |at: &usize| {
        let crc = u32::from_le_bytes(bytes[at + 44..at + HEADER_BYTES].try_into().unwrap());
        bytes[*at] == 1 && crc32c::crc32c(&bytes[*at..at + 44]) == crc
    };
    (0..plant).rev().find(is_header).unwrap()
}

/// Everything that is answered is what the log had; answers how much.
fn expect_own(found: &Remains, log: &Log, what: &str) -> u64 {
    let events = log.events();
    let mut seen = std::collections::BTreeSet::new();
    for unit in &found.units {
        let range = unit.first().get() as usize - 1..unit.end().get() as usize - 1;
        assert!(range.end <= events.len(), "{what}: up to {}", unit.end());
        for seq in range.clone() {
            assert!(seen.insert(seq), "{what}: event {} twice", seq + 1);
        }
        let wanted = bytes_of(range, &events);
        assert!(unit.read(&Disk::real()).unwrap() == wanted, "{what}: at {}", unit.first());
    }
    seen.len() as u64
}

#[test]
fn a_block_that_was_published_is_no_block_of_the_log() {
    let places = [("beyond the end", COUNT + 1), ("on others", 50), ("on its own", PLACE - 20)];
    for (name, first) in places {
        let parent = tempfile::tempdir().unwrap();
        let plant = planted(first, 40);
        let (log, dir) = segment_with(&plant, parent.path());
        let end = Some(Seq::new(COUNT + 1));
        let look = |upto| remains(&dir, Some(log_id()), upto, &Disk::real()).unwrap();
        let footer = std::fs::read(dir.join("footer")).unwrap();
        // All values are whole, and the footer is not there.
        std::fs::remove_file(dir.join("footer")).unwrap();
        assert_eq!(expect_own(&look(None), &log, name), COUNT, "{name}");
        // Nor is the block whole that has it.
        let (path, at) = (dir.join("db/db"), outer(&dir, &plant));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at + HEADER_BYTES + 20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let whole = expect_own(&look(end), &log, name);
        assert!((COUNT - 250..COUNT).contains(&whole), "{name}: {whole}");
        std::fs::write(dir.join("footer"), footer).unwrap();
        let whole = expect_own(&look(end), &log, name);
        assert!((COUNT - 250..COUNT).contains(&whole), "{name}: {whole}");
    }
}

#[test]
fn a_range_of_another_log_is_damage() {
    let parent = tempfile::tempdir().unwrap();
    let (first, end) = (Seq::new(5), Seq::new(9));
    let (link_before, link) = (Link::START, Link::UNKNOWN);
    let reason = crate::storage::RemovedReason::Damaged;
    let range = crate::storage::Removed { first, end, reason, link_before, link };
    let disk = Disk::real();
    let stored = RemovedRange::store(parent.path(), log_id(), 1, range, &disk).unwrap();
    let ours = remains(&stored.dir, Some(log_id()), None, &disk).unwrap();
    assert!(ours.removed.is_some() && ours.damage.is_empty());
    let other = LogId::new(Uuid::from_u128(7));
    let found = remains(&stored.dir, Some(other), None, &disk).unwrap();
    assert!(found.removed.is_none());
    assert_eq!(found.damage[0].detail, "it belongs to another log");
}
