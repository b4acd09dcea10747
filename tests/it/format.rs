//! The format on disk is frozen: what version 1 wrote is read for ever, and what is written now is
//! what version 1 wrote. A change that fails here needs a new folder in `migrations/`.

mod forward;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailmark::inspect::{self, Found, LastStop, Selection};
use tailmark_log::chain::Link;
use tailmark_log::eventlog::{self, AppendOptions, EventLog, Retention};
use tailmark_log::storage::journal::{
    FRAME_HEADER_BYTES, Frame, FrameKind, Previous, SlotHeader, StateFrame, body_crc,
};
use tailmark_log::storage::meta::{CleanStop, Meta};
use tailmark_log::storage::segment::Compression;
use tailmark_log::storage::{FORMAT_VERSION, Recovered, Store, local};
use tailmark_log::testing;
use tailmark_record::topic::Filter;
use tailmark_record::{
    ChainTag, CursorMint, Event, FingerprintKey, Generation, GenerationEntry, GenerationTable,
    LogId, Seq, Stamp, Timestamp, json, write_entry,
};
use xxhash_rust::xxh3::xxh3_128;

use crate::support::logdir;
use crate::support::server::PATIENCE;

/// The folders of formats, in order.
const FORMATS: [&str; 2] = ["0001_initial", "0002_history"];

/// A file that was shipped with a format.
fn shipped(format: &str, name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(format);
    std::fs::read(folder.join(name)).unwrap()
}

/// One file for a whole directory: a zstd frame over entries in the order of their paths, each a
/// byte (0 directory, 1 file), u16 length and path, u64 length and bytes, little-endian.
fn pack(dir: &Path) -> Vec<u8> {
    let mut entries = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in std::fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                pending.push(path);
                entries.insert(name, None);
            } else if name != "LOCK" {
                entries.insert(name, Some(std::fs::read(path).unwrap()));
            }
        }
    }
    let mut out = Vec::new();
    for (name, content) in entries {
        let bytes = content.as_deref().unwrap_or_default();
        out.push(u8::from(content.is_some()));
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    zstd::bulk::compress(&out, 19).unwrap()
}

fn unpack(packed: &[u8], dir: &Path) {
    let all = zstd::bulk::decompress(packed, 64 << 20).unwrap();
    let mut rest = &all[..];
    while !rest.is_empty() {
        let mut take = |len: usize| {
            let (taken, after) = rest.split_at(len);
            rest = after;
            taken
        };
        let kind = take(1)[0];
        let len = u16::from_le_bytes(take(2).try_into().unwrap());
        let path = dir.join(std::str::from_utf8(take(len.into())).unwrap());
        let len = u64::from_le_bytes(take(8).try_into().unwrap());
        let bytes = take(len as usize);
        match kind {
            0 => std::fs::create_dir_all(&path).unwrap(),
            _ => std::fs::write(&path, bytes).unwrap(),
        }
    }
}

/// The directory that was shipped with a format, in one that has nothing else.
fn fixture(format: &str) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    unpack(&shipped(format, "fixture.zst"), &dir);
    (parent, dir)
}

fn dump(dir: &Path) -> Vec<u8> {
    let mut lines = Vec::new();
    let done = inspect::dump(dir, &Selection::default(), |found| {
        let Found::Event(event) = found else { panic!("{found:?}") };
        json::write_event(&mut lines, event);
        lines.push(b'\n');
        Ok(())
    });
    assert_eq!(done.unwrap().damaged_ranges, 0);
    lines
}

/// Opens a log, reads all of it, and closes it; answers how many events it has.
fn goes_on(dir: &Path) -> u64 {
    let (engine, recovered) = logdir::open(dir);
    assert!(!recovered.deltas.is_empty() || !recovered.state.is_empty());
    let bounds = engine.bounds();
    let (mut at, mut read) = (bounds.oldest, 0);
    while at < bounds.next() {
        let chunk = engine.read(at, bounds.next(), &Filter::ALL).unwrap();
        read += chunk.first.distance_to(chunk.end);
        at = chunk.end;
    }
    drop((testing::all_topics(&*engine, 1_000).unwrap(), recovered));
    engine.close().unwrap();
    drop(engine);
    read
}

#[test]
fn what_this_version_wrote_is_whole_and_gives_what_it_gave() {
    let format = FORMATS[FORMATS.len() - 1];
    let (_parent, dir) = fixture(format);
    let before = logdir::snapshot(&dir);
    let report = inspect::verify(&dir, |_, _| Ok(())).unwrap();
    assert!(report.is_clean() && report.notes.is_empty(), "{report:?}");
    assert!(dump(&dir) == shipped(format, "expected.jsonl"));
    let info = inspect::info(&dir).unwrap();
    assert_eq!((info.last_stop, info.generations.len()), (LastStop::Clean, 2));
    assert_eq!((info.quarantine.len(), info.oldest.get()), (1, 11));
    assert!(info.segments.len() >= 2 && info.slots.iter().any(|slot| slot.seqs.is_some()));
    assert!(logdir::snapshot(&dir) == before);
    let lines = shipped(format, "expected.jsonl").iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(goes_on(&dir), lines as u64);
    // Unpacked somewhere: another directory than it was in.
    let generations = inspect::info(&dir).unwrap().generations;
    assert_eq!((generations.len(), &*generations[2].cause), (3, "copied"));
}

#[test]
fn the_shipped_files_are_as_they_were_shipped() {
    let names = ["FORMAT.md", "fixture.zst", "expected.jsonl"];
    let mut found = Vec::new();
    for format in FORMATS {
        found.extend(
            names.map(|name| format!("{format}/{name} {:032x}", xxh3_128(&shipped(format, name)))),
        );
    }
    assert_eq!(found, SHIPPED, "these files are frozen: a new format gets a new folder");
    assert_eq!(FORMAT_VERSION, 2, "a new format needs a folder in migrations/ and a step");
}

const SHIPPED: [&str; 6] = [
    "0001_initial/FORMAT.md f9218862a7bca2e544ca11f29988b444",
    "0001_initial/fixture.zst 84204aad6e8c5b2f79cd6d288d63f3ce",
    "0001_initial/expected.jsonl 88ea44a1574885793f0d888227d123fe",
    "0002_history/FORMAT.md 84fc06b21b3c7e22a71c7a425151bf87",
    "0002_history/fixture.zst afce843f427b258f51be27aa56311d8c",
    "0002_history/expected.jsonl 432bd2aab7e18ff835a34da477f57896",
];

fn meta() -> Meta {
    let generation = |counter, first, cause: &str| GenerationEntry {
        generation: Generation { counter, nonce: 0x0102_0304 + u32::from(counter) },
        first: Seq::new(first),
        since: Timestamp { seconds: 1_700_000_000, nanos: 5 },
        cause: cause.to_owned(),
    };
    Meta {
        log: LogId::new(uuid::Uuid::from_u128(0x0011_2233_4455_4677_8899_aabb_ccdd_eeff)),
        key: FingerprintKey::new([7; 16]),
        generations: GenerationTable::new(vec![
            generation(1, 1, "created"),
            generation(2, 90, "quarantined"),
        ])
        .unwrap(),
        created_at: Timestamp { seconds: 1_600_000_000, nanos: 1 },
        slot_bytes: 64 << 20,
        slot_files: 3,
        clean_stop: Some(CleanStop { slot: 4, end: 8_192, head: 99 }),
        whereabouts: [6; 16],
        copy_of: None,
    }
}

fn event_bytes() -> Vec<u8> {
    let mint = CursorMint::new(meta().log, meta().generations.current().generation);
    let mut out = Vec::new();
    for (seq, has_client_part) in [(99, true), (100, false)] {
        let mut client = Vec::new();
        let mut event = Event { topic: "a.b", data: &[0, 255], ..Event::default() };
        if has_client_part {
            event = Event {
                id: "i",
                topic: "größe",
                body: "text",
                at: Some(Timestamp { seconds: -1, nanos: 999_999_999 }),
                kind: "k",
                key: "y",
                headers: vec![("b", "2"), ("a", ""), ("b", "3")],
                ..Event::default()
            };
        }
        event.write_client_part(&mut client);
        let stamp = Stamp {
            seq: Seq::new(seq),
            mint: &mint,
            tag: ChainTag::new(0x0506_0708),
            appended_at: Timestamp { seconds: 1_700_000_000, nanos: 7 }.into(),
            fill_at: !has_client_part,
            fill_id: (!has_client_part).then_some("0197-given"),
        };
        write_entry(&mut out, &client, &stamp);
    }
    out
}

#[test]
fn what_is_written_now_is_what_version_2_wrote() {
    let header = SlotHeader {
        format: FORMAT_VERSION,
        slot_bytes: 64 << 20,
        log: meta().log,
        number: 5,
        nonce: 0x1122_3344_5566_7788,
        first: Seq::new(99),
        created_at: Timestamp { seconds: 1_700_000_000, nanos: 9 },
        generation: meta().generations.current().generation,
        previous: Previous { number: 4, nonce: 42, end: 8_192 },
    };
    let state = StateFrame {
        meta: meta().encode().unwrap(),
        snapshot: b"snapshot".to_vec(),
        deltas: vec![(Seq::new(3), Seq::new(5), b"delta".to_vec())],
    };
    let events = event_bytes();
    let mut frame = Frame {
        header_bytes: FRAME_HEADER_BYTES,
        kind: FrameKind::Commit,
        delta_len: 5,
        events_len: events.len() as u32,
        count: 2,
        first: Seq::new(99),
        oldest: Seq::new(2),
        oldest_tag: Some(ChainTag::new(0x0102_0304)),
        link_before: Link::new([3; 16]),
        link: Link::new([4; 16]),
        appended_at: Timestamp { seconds: 1_700_000_000, nanos: 7 },
        durable_upto: 8_192,
        previous_crc: 0xdead_beef,
        offset: 8_392,
        body_crc: body_crc(header.nonce, b"delta", &events),
        crc: 0,
    };
    let mint = CursorMint::new(header.log, header.generation);
    let found = [
        ("log.meta", meta().encode().unwrap()),
        ("slot header", header.encode()),
        ("state", state.encode()),
        ("frame", frame.encode(header.nonce).to_vec()),
        ("events", events),
        ("cursor", mint.mint(Seq::new(99), ChainTag::new(0x0506_0708)).to_vec()),
    ]
    .map(|(what, bytes)| format!("{what} {:032x}", xxh3_128(&bytes)));
    assert_eq!(found, GOLDEN, "the bytes that are written have changed");
}

const GOLDEN: [&str; 6] = [
    "log.meta 96cd2604c4899c25b9eb498f175e8936",
    "slot header 75b4c14863a39f93d533280c7c2e5575",
    "state 408a24c9b67de2fdf728e9c87dcc308b",
    "frame faac28b7c50295e85d423acebe3040bf",
    "events 890e1de8ade53793624fe89b18d92d97",
    "cursor 4a2aa6af25c26044115e081f454447c4",
];

/// Events as they are printed, without what differs from log to log.
fn told(lines: &[u8]) -> Vec<serde_json::Value> {
    let lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let event = |line| {
        let mut event: serde_json::Value = serde_json::from_slice(line).unwrap();
        let fields = event.as_object_mut().unwrap();
        fields.remove("cursor");
        let appended_at = fields.remove("appended_at").unwrap();
        if fields["at"] == appended_at {
            fields.remove("at");
        }
        if !fields["id"].as_str().unwrap().starts_with("id-") {
            fields.remove("id");
        }
        event
    };
    lines.map(event).collect()
}

/// How the fixture was made. Its files go to the folder that `WRITE_FIXTURE` names, for a format to
/// come; what is shipped is frozen.
#[test]
fn a_log_with_the_history_of_the_fixture_has_its_events() {
    let dir = tempfile::tempdir().unwrap();
    // Three events fill half a slot, so that what comes after makes a segment of its own.
    session(dir.path(), Compression::Lz4, |run| {
        run.append(0..40, &|n| sample(n));
        run.append(40..43, &|n| large(n));
        run.wait_for_segments(1);
    });
    session(dir.path(), Compression::Zstd(3), |run| {
        run.append(43..60, &|n| sample(n));
        run.wait_for_segments(2);
        run.append(60..80, &|n| sample(n));
        run.wait_for_segments(2);
    });
    let torn = {
        let options = local::Options { seal_after: Duration::from_secs(3600), ..logdir::options() };
        let (engine, recovered) = local::open(dir.path(), options).unwrap();
        let run = Run::new(Arc::clone(&engine), recovered, Retention::default());
        run.append(80..90, &|n| sample(n));
        run.append(91..92, &|n| sample(n));
        drop(run);
        logdir::kill(dir.path(), engine);
        // A slot whose events are sealed may still be there beside it.
        let slots = std::fs::read_dir(dir.path().join("journal")).unwrap();
        let mut slots = slots.map(|entry| entry.unwrap().path());
        slots.find(|slot| logdir::find(slot, b"number 91").is_some()).unwrap()
    };
    // As a power loss leaves it.
    std::fs::remove_file(torn.with_file_name("tip")).unwrap();
    let at = logdir::find(&torn, b"number 91").unwrap();
    logdir::overwrite(&torn, at, &[0; 48]);
    let options = local::Options { seal_after: Duration::from_secs(3600), ..logdir::options() };
    let (engine, recovered) = local::open(dir.path(), options).unwrap();
    let run = Run::new(
        Arc::clone(&engine),
        recovered,
        Retention { max_events: Some(95), ..Retention::default() },
    );
    run.append(90..100, &|n| sample(n));
    run.append(100..105, &|n| sample(n));
    // Retention leaves its clock in the state of the log.
    let begun = Instant::now();
    while run.log.bounds().oldest < Seq::new(11) {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    run.runtime.block_on(run.log.close()).unwrap();
    drop(run);
    logdir::kill(dir.path(), engine);
    let report = inspect::verify(dir.path(), |_, _| Ok(())).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let (lines, packed) = (dump(dir.path()), pack(dir.path()));
    assert_eq!(told(&lines), told(&shipped("0001_initial", "expected.jsonl")));
    let copy = tempfile::tempdir().unwrap();
    unpack(&packed, copy.path());
    assert!(dump(copy.path()) == lines);
    if let Some(folder) = std::env::var_os("WRITE_FIXTURE").map(PathBuf::from) {
        std::fs::write(folder.join("expected.jsonl"), lines).unwrap();
        std::fs::write(folder.join("fixture.zst"), packed).unwrap();
    }
}

/// A log that is being written.
struct Run {
    engine: Arc<local::LocalEngine>,
    log: EventLog,
    runtime: tokio::runtime::Runtime,
}

fn session(dir: &Path, compression: Compression, write: impl FnOnce(&Run)) {
    let options = local::Options { compression, seal_after: Duration::ZERO, ..logdir::options() };
    let (engine, recovered) = local::open(dir, options).unwrap();
    let run = Run::new(Arc::clone(&engine), recovered, Retention::default());
    write(&run);
    run.runtime.block_on(run.log.close()).unwrap();
    drop(run);
    logdir::kill(dir, engine);
}

impl Run {
    fn new(engine: Arc<local::LocalEngine>, recovered: Recovered, retention: Retention) -> Run {
        let options = eventlog::Options { retention, ..eventlog::Options::default() };
        let log = EventLog::open(engine.clone(), recovered, options).unwrap();
        Run { engine, log, runtime: tokio::runtime::Runtime::new().unwrap() }
    }

    fn append(&self, numbers: std::ops::Range<u64>, sample: &dyn Fn(u64) -> Sample) {
        let mut batch = self.log.batch();
        for n in numbers {
            let sample = sample(n);
            let headers = sample.headers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            let event = Event {
                id: &sample.id,
                topic: &sample.topic,
                body: &sample.body,
                data: &sample.data,
                at: sample.at,
                kind: sample.kind,
                key: &sample.key,
                headers,
                ..Event::default()
            };
            batch.push(&event).unwrap();
        }
        self.runtime.block_on(self.log.append(batch, AppendOptions::default())).unwrap();
    }

    fn wait_for_segments(&self, count: u64) {
        let begun = Instant::now();
        let is_done = |status: tailmark_log::storage::StoreStatus| {
            let all = self.engine.bounds().next();
            // It may be sealing just now.
            let Ok(info) = inspect::info(self.engine.dir()) else { return false };
            let sealed = info.segments.last().map_or(Seq::FIRST, |last| last.last.next());
            status.segments == count && sealed == all
        };
        while !is_done(self.engine.status()) {
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.engine.status());
            std::thread::yield_now();
        }
    }
}

#[derive(Default)]
struct Sample {
    id: String,
    topic: String,
    body: String,
    data: Vec<u8>,
    at: Option<Timestamp>,
    kind: &'static str,
    key: String,
    headers: Vec<(String, String)>,
}

/// An event of each kind, by turns.
fn sample(n: u64) -> Sample {
    let topic = ["orders.eu.created", "orders.us", "größe.日本", "chat.general"][n as usize % 4];
    let mut sample = Sample { topic: topic.to_owned(), ..Sample::default() };
    if !n.is_multiple_of(3) {
        sample.id = format!("id-{n}");
    }
    match n % 5 {
        0 => sample.data = (0..n as u8).collect(),
        4 => {}
        _ => sample.body = format!("number {n}: größe, 日本, \u{1f600}, \"quoted\"\n"),
    }
    if n.is_multiple_of(2) {
        sample.at = Some(Timestamp { seconds: 1_360_000_000 + n as i64, nanos: n as i32 * 1_000 });
    }
    if n.is_multiple_of(7) {
        sample.kind = "order.created";
        sample.key = format!("key-{}", n % 3);
        sample.headers = vec![("z".into(), "1".into()), ("a".into(), n.to_string())];
    }
    sample
}

/// One that nearly fills a commit.
fn large(n: u64) -> Sample {
    Sample { topic: "large".into(), body: format!("large {n} ").repeat(5_300), ..Sample::default() }
}
