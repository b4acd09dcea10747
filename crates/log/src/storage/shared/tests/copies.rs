//! Copies on a disk: what they keep, whom they let in, and what a kill at any moment leaves of them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::*;
use crate::storage::disk::{Disk, Faults};
use crate::storage::local::{self, LocalEngine};
use crate::storage::meta::Meta;
use crate::storage::{Commit, Engine, FORMAT_VERSION, Recovered};
use crate::testing::{self, append, copy_dir};
use tailmark_record::Seq;
use tailmark_record::topic::Filter;

const SLOT: u64 = 256 << 10;
/// Of a commit: twice of it must go into a fourth of a slot.
const LARGEST: usize = 32 << 10;

pub(super) fn small() -> Identity {
    Identity { max_commit_bytes: LARGEST, ..identity() }
}

fn options(disk: Disk) -> local::Options {
    local::Options { slot_bytes: SLOT, min_free_bytes: 0, disk, ..local::Options::default() }
}

fn open(dir: &Path, stream: &Arc<Stream>, disk: &Disk) -> Result<Arc<LocalEngine>, StoreError> {
    let begun = Instant::now();
    loop {
        // Threads of the one before let go of it in a moment.
        match open_copy(dir, options(disk.clone()), &*stream.connect()) {
            Err(StoreError::Locked { .. }) if begun.elapsed() < Duration::from_secs(60) => {
                std::thread::yield_now();
            }
            opened => return opened,
        }
    }
}

/// The state is all deltas that there were, so that none is lost or told twice.
pub(super) fn state_of() -> StateOf {
    Box::new(|recovered| Ok(deltas_of(recovered).concat().into()))
}

pub(super) fn deltas_of(recovered: &Recovered) -> Vec<Vec<u8>> {
    let state = recovered.state.chunks(8).map(<[u8]>::to_vec);
    state.chain(recovered.deltas.iter().map(|(.., delta)| delta.to_vec())).collect()
}

pub(super) fn replica_in(
    name: u64,
    stream: &Arc<Stream>,
    copy: Arc<dyn CopyStore>,
) -> Result<Replica, StoreError> {
    Replica::new((name, rand::random()), stream.connect(), copy, state_of(), &[])
}

pub(super) fn in_memory(name: u64, stream: &Arc<Stream>) -> Replica {
    let options = Options { state_every_bytes: 40_000, ..Options::default() };
    replica_in(name, stream, copy_in_memory(options, &*stream.connect()).unwrap()).unwrap()
}

pub(super) fn on_disk(name: u64, stream: &Arc<Stream>, dir: &Path) -> Replica {
    replica_in(name, stream, open(dir, stream, &Disk::real()).unwrap()).unwrap()
}

/// Some commit of so many events behind what the writer has, with a delta of eight bytes.
pub(super) fn publish(writer: &Replica, count: u32, filler: usize) {
    let commit =
        testing::commit(writer, count, |seq| format!("event {seq} {}", "x".repeat(filler)));
    let delta = Bytes::copy_from_slice(&commit.first.get().to_le_bytes());
    append(writer, Commit { delta, ..commit }).unwrap();
}

/// A journal with takeovers, commits of all sizes, trims and others' messages. Its last writer.
pub(super) fn journal(commits: u64, filler: usize) -> (Arc<Stream>, Replica) {
    let stream = Stream::new(small(), true);
    let writers = [in_memory(1, &stream), in_memory(2, &stream)];
    let mut at = 0;
    writers[at].take_over(Timestamp::EPOCH).unwrap();
    for nth in 1..=commits {
        match nth % 11 {
            3 => stream.put_foreign(),
            5 => writers[at].confirm().unwrap(),
            7 if nth.is_multiple_of(3) => {
                at = 1 - at;
                writers[at].take_over(Timestamp::EPOCH).unwrap();
            }
            9 => {
                let commit = testing::commit(&writers[at], 0, |_| String::new());
                let (oldest, oldest_tag) = (commit.oldest.next(), None);
                append(&writers[at], Commit { oldest, oldest_tag, ..commit }).unwrap();
            }
            _ => publish(&writers[at], (nth % 4) as u32 + 1, filler),
        }
    }
    let [one, other] = writers;
    (stream, if at == 0 { one } else { other })
}

pub(super) fn all(engine: &dyn Engine) -> Vec<Bytes> {
    let bounds = engine.bounds();
    let (mut at, mut chunks) = (bounds.oldest, Vec::new());
    while at <= bounds.head {
        let chunk = engine.read(at, bounds.next(), &Filter::ALL).unwrap();
        at = chunk.end;
        chunks.push(chunk.events);
    }
    vec![chunks.concat().into()]
}

/// Whether a copy is what another is.
fn is_same(copy: &Replica, other: &Replica) {
    assert_eq!(copy.bounds(), other.bounds());
    assert_eq!(copy.links(), other.links());
    assert!(all(copy) == all(other), "other events");
    let deltas = |it: &Replica| deltas_of(&it.recovered().unwrap());
    assert_eq!(deltas(copy), deltas(other));
    assert_eq!(copy.recovered().unwrap().last_at, other.recovered().unwrap().last_at);
}

/// Follows to the end, and is what the writer is.
fn catches_up(copy: &Replica, stream: &Stream, writer: &Replica) {
    let begun = Instant::now();
    // A slot may have to be sealed first.
    while copy.place().slot < writer.place().slot {
        match copy.follow() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the journal ends before its end"),
            Err(StoreError::Busy { .. }) if begun.elapsed() < Duration::from_secs(60) => {}
            Err(error) => panic!("{error}"),
        }
    }
    while copy.follow().unwrap().is_some() {}
    assert!(stream.end() >= copy.place().slot);
    assert_eq!(copy.place(), writer.place());
    is_same(copy, writer);
}

/// Without a word of damage, and with what `log info` says.
fn looks_whole(dir: &Path, copy: Place) {
    let found = local::survey(dir, &Disk::real()).unwrap();
    assert_eq!(found.damage, []);
    let meta = found.meta.clone().unwrap();
    assert_eq!(meta.copy_of.as_deref(), Some("a journal in memory"));
    let scan = &found.slots.last().unwrap().scan;
    let state = scan.state.clone().unwrap_or_default();
    let deltas = state.deltas.iter().chain(&scan.deltas).map(|(.., delta)| &delta[..]);
    assert_eq!(Place::reached(&state.snapshot, deltas).unwrap(), copy);
}

#[test]
fn a_copy_on_a_disk_is_the_journal_and_finds_its_place_again() {
    let (stream, writer) = journal(400, 700);
    let dir = tempfile::tempdir().unwrap();
    for steps in [0, 1, 2, 7, 40, 120, usize::MAX] {
        let copy = on_disk(3, &stream, dir.path());
        let before = copy.place();
        let mut taken = 0;
        while taken < steps && copy.follow().unwrap().is_some() {
            taken += 1;
        }
        let place = copy.place();
        assert!(place.slot >= before.slot);
        if taken.is_multiple_of(2) {
            copy.close().unwrap();
        }
        drop(copy);
        // What is passed over is passed over again; what was taken is not.
        let again = on_disk(3, &stream, dir.path());
        assert!(place.slot - again.place().slot <= 3, "{place:?} {:?}", again.place());
    }
    let copy = on_disk(3, &stream, dir.path());
    catches_up(&copy, &stream, &writer);
    assert!(copy.status().segments >= 2, "{:?}", copy.status());
    assert_eq!((copy.term(), copy.writer()), (writer.term(), writer.writer()));
    let place = copy.place();
    copy.close().unwrap();
    drop(copy);
    looks_whole(dir.path(), place);
    // It goes on as a writer.
    let copy = on_disk(3, &stream, dir.path());
    copy.take_over(Timestamp::EPOCH).unwrap();
    publish(&copy, 3, 10);
    while writer.follow().unwrap().is_some() {}
    is_same(&copy, &writer);
}

/// At file operations of its own it dies, and comes back: at one in eleven, and at each with `COPY_STRIDE=1`.
#[test]
fn a_copy_that_dies_at_any_file_operation_goes_on_where_it_was() {
    // Enough for a slot to fill.
    let (stream, writer) = journal(75, 2_500);
    let run = |dir: &Path, disk: &Disk| -> Result<(), StoreError> {
        let copy = replica_in(3, &stream, open(dir, &stream, disk)?)?;
        while copy.follow()?.is_some() {}
        copy.close()
    };
    let faults = Faults::none();
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &Disk::with_faults(faults.clone())).unwrap();
    let operations = faults.seen();
    assert!(operations > 250, "{operations}");
    let stride: u32 = std::env::var("COPY_STRIDE").map_or(11, |it| it.parse().unwrap());
    let mut struck = 0;
    let stride = i64::from(stride);
    for nth in (1..=operations).filter(|nth| nth % stride == operations % stride) {
        let dir = tempfile::tempdir().unwrap();
        let faults = Faults::nth(nth, std::io::ErrorKind::Other, true);
        struck += i64::from(run(dir.path(), &Disk::with_faults(faults)).is_err());
        let copy = on_disk(3, &stream, dir.path());
        catches_up(&copy, &stream, &writer);
        let place = copy.place();
        copy.close().unwrap();
        drop(copy);
        looks_whole(dir.path(), place);
    }
    assert!(struck * stride * 2 > operations, "{struck}");
}

/// What lies on the disk when a write is under way and not synced: with all of it, and with a part.
#[test]
fn a_copy_whose_last_write_is_torn_takes_it_again_from_the_journal() {
    // The last of them is a commit: what changes nothing is not kept.
    let (stream, writer) = journal(61, 900);
    let parent = tempfile::tempdir().unwrap();
    let (dir, images) = (parent.path().join("log"), Arc::new(Mutex::new(Vec::new())));
    let watcher = {
        let (parent, dir, images) = (parent.path().to_owned(), dir.clone(), images.clone());
        move |action: &'static str, path: &Path| {
            let is_slot =
                path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("slot-"));
            if action == "sync" && is_slot {
                let mut images = images.lock();
                let image = parent.join(format!("image-{}", images.len()));
                // What is sealed meanwhile may go while it is copied.
                if copy_dir(&dir, &image).is_ok() {
                    images.push(image);
                }
            }
        }
    };
    let disk = Disk::watched(Arc::new(watcher));
    let copy = replica_in(3, &stream, open(&dir, &stream, &disk).unwrap()).unwrap();
    while copy.follow().unwrap().is_some() {}
    copy.close().unwrap();
    drop(copy);
    let images = std::mem::take(&mut *images.lock());
    assert!(images.len() > 40, "{}", images.len());
    let (mut torn, mut unbegun) = (0, 0);
    for image in images.iter().step_by(3) {
        let found = local::survey(image, &Disk::real()).unwrap();
        assert_eq!(found.damage, []);
        let Some(slot) = found.slots.last() else { continue };
        if let Some(frame) = slot.scan.unproven.last() {
            let file = Disk::real().open(&slot.path).unwrap();
            let zeros = vec![0; usize::try_from(frame.bytes()).unwrap() / 2];
            let at = frame.offset + frame.bytes() - zeros.len() as u64;
            Disk::real().write_at(&file, &slot.path, &[&zeros], at).unwrap();
            torn += 1;
        }
        unbegun += u64::from(found.unbegun.is_some());
        drop(found);
        let copy = on_disk(3, &stream, image);
        catches_up(&copy, &stream, &writer);
        let place = copy.place();
        copy.close().unwrap();
        drop(copy);
        looks_whole(image, place);
    }
    println!("{torn} torn, {unbegun} unbegun");
    assert!(torn > 10, "{torn} of {}", images.len());
}

/// The control of the two above: a copy that keeps its place apart from what it takes would take something twice, or
/// pass over it, and it is seen.
#[test]
fn a_copy_with_a_place_that_is_not_its_own_is_told() {
    let (stream, _) = journal(40, 100);
    // Its place names a frame that is another.
    let dir = tempfile::tempdir().unwrap();
    let copy = on_disk(3, &stream, dir.path());
    for _ in 0..20 {
        copy.follow().unwrap();
    }
    let (place, mark) = (copy.place(), testing::commit(&copy, 0, |_| String::new()));
    let wrong = |place: Place| {
        let appended_at = copy.recovered().unwrap().last_at;
        let delta = place.before(&[]);
        copy.copy().take(Commit { delta, appended_at, ..mark.clone() }, None).unwrap();
    };
    wrong(Place { slot: place.slot - 4, ..place });
    drop(copy);
    let copy = on_disk(3, &stream, dir.path());
    assert!(matches!(follows(&copy), Err(StoreError::Diverged { .. })));
    drop(copy);
    // It has events that its place does not tell of.
    let engine = open(dir.path(), &stream, &Disk::real()).unwrap();
    let commit = testing::commit(&*engine, 2, |_| String::new());
    let commit = Commit { delta: Bytes::new(), ..commit };
    engine.copy(&commit, None).unwrap();
    let error = replica_in(3, &stream, engine).err().unwrap();
    assert!(error.to_string().contains("where it goes on is not known"), "{error}");
}

#[test]
fn a_directory_of_another_log_or_of_none_is_refused_and_left_as_it_is() {
    let (stream, _) = journal(10, 100);
    let dir = tempfile::tempdir().unwrap();
    let copy = on_disk(3, &stream, dir.path());
    while copy.follow().unwrap().is_some() {}
    let place = copy.place();
    copy.close().unwrap();
    drop(copy);
    let refused = |result: Result<Arc<LocalEngine>, StoreError>, why: &str| {
        let error = result.err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
    };
    let of = |identity: Identity, dir: &Path| {
        open_copy(dir, options(Disk::real()), &*Stream::new(identity, true).connect())
    };
    let (id, key) = (LogId::new(uuid::Uuid::from_u128(17)), FingerprintKey::new([8; 16]));
    refused(of(Identity { id, ..small() }, dir.path()), "it holds a copy of log 00000000");
    refused(of(Identity { key, ..small() }, dir.path()), "another key");
    let created_at = Timestamp { seconds: 1, nanos: 0 };
    refused(of(Identity { created_at, ..small() }, dir.path()), "its log began otherwise");
    // As a log of its own.
    let own = local::open(dir.path(), options(Disk::real())).map(|it| it.0);
    refused(own, "is a copy of the shared journal a journal in memory");
    looks_whole(dir.path(), place);
    // A log of its own, as a copy.
    let dir = tempfile::tempdir().unwrap();
    let (own, _) = local::open(dir.path(), options(Disk::real())).unwrap();
    own.close().unwrap();
    drop(own);
    let before = std::fs::read(dir.path().join("log.meta")).unwrap();
    refused(of(small(), dir.path()), "which is no copy");
    assert_eq!(std::fs::read(dir.path().join("log.meta")).unwrap(), before);
    assert_eq!(Meta::decode(&before, FORMAT_VERSION).unwrap().copy_of, None);
    // And none is made where that is not asked for.
    let nowhere = tempfile::tempdir().unwrap();
    let none = local::Options { create: false, ..options(Disk::real()) };
    let opened = open_copy(nowhere.path(), none, &*stream.connect());
    assert!(matches!(opened, Err(StoreError::Missing { .. })));
    // Slots that are too small for what the journal may bring.
    let large = Stream::new(identity(), true);
    let copy = open_copy(nowhere.path(), options(Disk::real()), &*large.connect()).unwrap();
    let error = replica_in(3, &large, copy).err().unwrap();
    assert!(error.to_string().contains("slot_bytes"), "{error}");
}

/// Carried elsewhere, or put back from a copy, it is the same copy, and begins nothing of its own.
#[test]
fn a_copy_that_is_carried_elsewhere_begins_no_generation() {
    let (stream, writer) = journal(60, 200);
    let parent = tempfile::tempdir().unwrap();
    let (one, two) = (parent.path().join("one"), parent.path().join("two"));
    let copy = on_disk(3, &stream, &one);
    for _ in 0..30 {
        copy.follow().unwrap();
    }
    copy.close().unwrap();
    drop(copy);
    copy_dir(&one, &two).unwrap();
    for dir in [one, two] {
        let copy = on_disk(3, &stream, &dir);
        catches_up(&copy, &stream, &writer);
    }
}

/// A copy that takes nothing more stops who writes it, and nobody hears that what is stored is not.
#[test]
fn a_writer_whose_copy_fails_does_not_say_that_nothing_was_stored() {
    let stream = Stream::new(small(), true);
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let engine = open(dir.path(), &stream, &Disk::real()).unwrap();
    let copy = Arc::new(Fails { engine, fails: fails.clone() });
    let writer = replica_in(1, &stream, copy).unwrap();
    writer.take_over(Timestamp::EPOCH).unwrap();
    publish(&writer, 1, 10);
    fails.store(true, Ordering::SeqCst);
    let end = stream.end();
    let commit = testing::commit(&writer, 1, |_| "stored".to_owned());
    let error = append(&writer, commit).unwrap_err();
    assert!(matches!(error, StoreError::Stopped { .. }), "{error}");
    assert_eq!((stream.end(), writer.role()), (end + 1, Role::Following));
    let trouble = writer.status().trouble.unwrap();
    assert!(trouble.contains("does not take what the journal has"), "{trouble}");
    assert!(writer.follow().is_err() && writer.take_over(Timestamp::EPOCH).is_err());
    // Once it takes it again all is as it would have been.
    fails.store(false, Ordering::SeqCst);
    writer.take_over(Timestamp::EPOCH).unwrap();
    assert!(writer.status().trouble.is_none());
    let other = in_memory(2, &stream);
    follows(&other).unwrap();
    is_same(&writer, &other);
}

/// A copy whose commits fail when they are told to.
struct Fails {
    engine: Arc<LocalEngine>,
    fails: Arc<AtomicBool>,
}

impl crate::storage::Intercept for Fails {
    fn inner(&self) -> &dyn Engine {
        &*self.engine
    }
}

impl CopyStore for Fails {
    fn recovered(&self) -> Recovered {
        self.engine.recovered()
    }

    fn takes(&self) -> usize {
        CopyStore::takes(&*self.engine)
    }

    fn would_take(&self, commit: &Commit) -> Result<(), StoreError> {
        self.engine.would_take(commit)
    }

    fn take(
        &self,
        commit: Commit,
        generations: Option<&GenerationTable>,
    ) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::DiskFull { available_bytes: 0, needed_bytes: 1 });
        }
        self.engine.copy(&commit, generations)
    }
}

/// What FramesJoin is for: a journal whose end becomes another's while a connection lasts. A copy that takes what fits
/// by its seqs has events of two histories then.
#[test]
fn frames_of_another_history_are_not_taken_on_a_connection_that_lasts() {
    let run = |without: &[Rule]| {
        let stream = Stream::new(small(), true);
        let writer = in_memory(1, &stream);
        writer.take_over(Timestamp::EPOCH).unwrap();
        (0..5).for_each(|_| publish(&writer, 1, 10));
        let dir = tempfile::tempdir().unwrap();
        let copy = open(dir.path(), &stream, &Disk::real()).unwrap();
        let copy = Replica::new((3, 0), stream.connect(), copy, state_of(), without).unwrap();
        assert_eq!(follows(&copy).unwrap(), 6);
        // Slots 4 to 7 become others; slot 7 has the event that comes next in the copy.
        stream.roll_back_unnoticed(3);
        let other = in_memory(2, &stream);
        other.take_over(Timestamp::EPOCH).unwrap();
        publish(&other, 2, 11);
        publish(&other, 1, 12);
        publish(&other, 1, 13);
        let followed = follows(&copy);
        (followed, all(&copy) == all(&writer), copy.bounds().head.get())
    };
    let (followed, is_same, head) = run(&[]);
    assert!(matches!(followed, Err(StoreError::Diverged { .. })));
    assert!(is_same && head == 5);
    let (followed, _, head) = run(&[Rule::FramesJoin]);
    assert_eq!((followed.unwrap(), head), (1, 6), "two histories in one copy");
}

/// A journal of which the beginning was given back: who has nothing begins with the checkpoint there, and is what the
/// others are once all is trimmed that was before it.
#[test]
fn an_empty_daemon_begins_with_a_checkpoint() {
    let (stream, writer) = journal(100, 300);
    let late = in_memory(4, &stream);
    for _ in 0..50 {
        late.follow().unwrap();
    }
    let slot = writer.checkpoint().unwrap();
    assert_eq!((slot, writer.place().slot), (stream.end(), slot));
    let next = writer.bounds().next();
    // Nothing that can be read is forgotten.
    assert_eq!(writer.forget(next).unwrap(), None);
    (0..40).for_each(|nth| publish(&writer, nth % 3 + 1, 500));
    let dir = tempfile::tempdir().unwrap();
    let before = on_disk(5, &stream, dir.path());
    follows(&before).unwrap();
    let trim = testing::commit(&writer, 0, |_| String::new());
    append(&writer, Commit { oldest: next.plus(7), oldest_tag: None, ..trim }).unwrap();
    // What tells repeats is needed too.
    assert_eq!(writer.forget(next.prev()).unwrap(), None);
    assert_eq!(writer.forget(next).unwrap(), Some(slot));
    assert_eq!(stream.connect().first(), Some(slot));
    (0..10).for_each(|_| publish(&writer, 2, 500));

    let dir = tempfile::tempdir().unwrap();
    let copies = [in_memory(6, &stream), on_disk(7, &stream, dir.path())];
    for copy in copies {
        assert_eq!((copy.place().slot, copy.term()), (slot, writer.term()));
        assert_eq!((copy.bounds().oldest, copy.bounds().next()), (next, next));
        catches_up_with_state(&copy, &writer);
    }
    let copy = on_disk(7, &stream, dir.path());
    let place = copy.place();
    catches_up_with_state(&copy, &writer);
    copy.close().unwrap();
    drop(copy);
    looks_whole(dir.path(), place);
    // It goes on as a writer; who was there goes on; who was away for too long is told.
    let copy = on_disk(7, &stream, dir.path());
    copy.take_over(Timestamp::EPOCH).unwrap();
    publish(&copy, 1, 10);
    for other in [&writer, &before] {
        follows(other).unwrap();
        catches_up_with_state(other, &copy);
    }
    assert!(matches!(follows(&late), Err(StoreError::Diverged { .. })));
    // A follower forgets nothing.
    assert!(matches!(before.forget(next), Err(StoreError::Fenced { .. })));
    assert!(matches!(before.checkpoint(), Err(StoreError::Fenced { .. })));
}

fn catches_up_with_state(copy: &Replica, writer: &Replica) {
    follows(copy).unwrap();
    assert_eq!(copy.place(), writer.place());
    is_same(copy, writer);
}

#[test]
fn a_checkpoint_that_is_not_what_the_copy_is_is_another_history() {
    let (stream, writer) = journal(20, 100);
    let copy = in_memory(3, &stream);
    follows(&copy).unwrap();
    let (bounds, links) = (writer.bounds(), writer.links());
    let checkpoint = |next: Seq| {
        Body::Checkpoint(Arc::new(Checkpoint {
            next,
            link: links.head,
            oldest: bounds.oldest,
            oldest_tag: links.oldest_tag,
            last_at: Timestamp::EPOCH,
            generations: bounds.generations.clone(),
            state: Bytes::new(),
        }))
    };
    let (log, place) = (small().id, writer.place());
    let (previous, term, writer) = (place.chain, place.term, place.writer);
    let body = checkpoint(bounds.next().next());
    let frame = Frame::new(Content { log, previous, term, writer, nonce: 1, body });
    stream.put(frame.bytes().clone());
    assert!(matches!(follows(&copy), Err(StoreError::Diverged { .. })));
}

/// A beginning that nobody gave back is not begun with.
#[test]
fn nobody_begins_where_a_journal_was_purged_from_outside() {
    let (stream, writer) = journal(20, 100);
    stream.purge(9);
    let dir = tempfile::tempdir().unwrap();
    let error = open(dir.path(), &stream, &Disk::real()).err().unwrap();
    assert!(matches!(error, StoreError::Diverged { .. }), "{error}");
    assert!(!dir.path().join("log.meta").exists());
    let cut = stream.connect();
    cut.cut();
    let opened = open_copy(dir.path(), options(Disk::real()), &*cut);
    assert!(matches!(opened, Err(StoreError::Busy { .. })));
    assert!(writer.checkpoint().is_ok());
}
