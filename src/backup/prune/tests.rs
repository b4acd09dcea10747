//! The order of steps, and places without locks.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::super::notes::AT_WORK;
use super::super::place::Making;
use super::super::{Filling, Hash, Look, Manifest, Sink as _};
use super::*;
use tailmark_log::storage::StoreError;

/// Their bytes, and when they were written.
type Files = BTreeMap<String, (Vec<u8>, SystemTime)>;

/// A place in memory, as a cloud is one: without locks, and it says when a file was written.
#[derive(Clone, Debug, Default)]
struct Cloud {
    files: Arc<Mutex<Files>>,
    /// What was removed and settled, in order.
    steps: Arc<Mutex<Vec<String>>>,
}

struct Written(Cloud, String, Vec<u8>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.2.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Making for Written {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        self.0.put(&self.1, &self.2, Duration::ZERO);
        Ok(())
    }
}

impl Cloud {
    fn put(&self, name: &str, bytes: &[u8], age: Duration) {
        let at = SystemTime::now() - age;
        self.files.lock().unwrap().insert(name.to_owned(), (bytes.to_vec(), at));
    }

    fn names(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }

    /// A backup of one segment, with all its files.
    fn add(&self, name: &str, segment: &str, age: Duration) -> Manifest {
        let manifest = manifest_of(segment);
        self.put(&super::manifest(name), &manifest.encode().unwrap(), age);
        self.put(&tail(name), b"tail", age);
        self.add_segment(segment, age);
        manifest
    }

    fn add_segment(&self, segment: &str, age: Duration) {
        for part in ["db/db", "footer"] {
            self.put(&format!("{SEGMENTS}/{segment}/{part}"), b"it", age);
        }
    }

    fn files_of(&self, segment: &str) -> BTreeMap<String, u64> {
        let files = self.files.lock().unwrap();
        let of = files.iter().filter(|it| it.0.contains(&format!("/{segment}/")));
        of.map(|(name, (bytes, _))| (name.clone(), bytes.len() as u64)).collect()
    }

    fn target(&self) -> Target {
        Target::of(Box::new(self.clone())).unwrap()
    }
}

impl Place for Cloud {
    fn shown(&self, name: &str) -> PathBuf {
        PathBuf::from("cloud://").join(name)
    }

    fn has_locks(&self) -> bool {
        false
    }

    fn may_rot(&self) -> bool {
        false
    }

    fn is_blank(&self) -> Result<bool, StoreError> {
        Ok(self.files.lock().unwrap().is_empty())
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let files = self.files.lock().unwrap();
        let below = files.iter().filter(|it| it.0.starts_with(&format!("{folder}/")));
        let listed = |(name, (bytes, at)): (&String, &(Vec<u8>, SystemTime))| Listed {
            name: name.clone(),
            len: bytes.len() as u64,
            written_at: Some(*at),
        };
        Ok(below.map(listed).collect())
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        match self.files.lock().unwrap().get(name) {
            Some((bytes, _)) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            None => {
                let (path, source) = (self.shown(name), io::ErrorKind::NotFound.into());
                Err(StoreError::Io { action: "open", path, source })
            }
        }
    }

    fn create(&self, name: &str) -> Result<Box<dyn Making>, StoreError> {
        Ok(Box::new(Written(self.clone(), name.to_owned(), Vec::new())))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        if self.files.lock().unwrap().contains_key(name) {
            return Ok(false);
        }
        self.put(name, bytes, Duration::ZERO);
        Ok(true)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.steps.lock().unwrap().push(format!("remove {name}"));
        self.files.lock().unwrap().remove(name);
        Ok(())
    }

    fn settle(&self, folder: &str) -> Result<(), StoreError> {
        self.steps.lock().unwrap().push(format!("settle {folder}"));
        Ok(())
    }
}

fn manifest_of(segment: &str) -> Manifest {
    let row =
        super::super::SegmentRow { name: segment.to_owned(), first_seq: 1, last_seq: 1, bytes: 1 };
    Manifest {
        version: Manifest::VERSION,
        log_id: "l".to_owned(),
        oldest_seq: 1,
        oldest_tag: None,
        head_seq: 1,
        taken_at: 0,
        segments: vec![row],
        removed: Vec::new(),
        trimmed: Vec::new(),
        tail_bytes: 4,
        tail_hash: None,
    }
}

const OLD: Duration = Duration::from_secs(7 * 24 * 60 * 60);

fn carry_out(target: &Target, keep: Keep) {
    let plan = Plan::new(target, keep).unwrap();
    plan.carry_out(&*target.place, &mut |_| Ok(())).unwrap();
}

#[test]
fn backups_are_gone_for_good_before_anything_that_they_name() {
    let cloud = Cloud::default();
    cloud.put("tailmark-backup", b"l\n", OLD);
    for (name, segment) in [("1-1", "a"), ("2-2", "b"), ("3-3", "c")] {
        cloud.add(name, segment, OLD);
    }
    carry_out(&cloud.target(), Keep::Newest(1));
    let steps = cloud.steps.lock().unwrap().clone();
    let at = |step: &str| steps.iter().position(|it| it == step).unwrap();
    let settled = at("settle backups");
    for name in ["1-1", "2-2"] {
        assert!(at(&format!("remove backups/{name}.backup")) < settled, "{steps:?}");
        assert!(settled < at(&format!("remove backups/{name}.tail")), "{steps:?}");
    }
    for segment in ["a", "b"] {
        let footer = at(&format!("remove segments/{segment}/footer"));
        assert!(settled < footer, "{steps:?}");
        assert!(footer < at(&format!("remove segments/{segment}/db/db")), "{steps:?}");
    }
    let left = ["backups/3-3.backup", "backups/3-3.tail", "segments/c/db/db", "segments/c/footer"];
    assert_eq!(cloud.names(), [&left[..], &["tailmark-backup"]].concat());
}

#[test]
fn where_there_are_no_locks_nothing_goes_that_a_backup_may_just_be_bringing() {
    let cloud = Cloud::default();
    cloud.put("tailmark-backup", b"l\n", OLD);
    cloud.add("1-1", "a", Duration::ZERO);
    cloud.add("2-2", "b", Duration::ZERO);
    // Of one that was killed long ago, and of one that has begun.
    cloud.add_segment("left", OLD);
    cloud.add_segment("new", Duration::ZERO);
    carry_out(&cloud.target(), Keep::Newest(1));
    let left = cloud.names();
    let has = |segment: &str| left.iter().any(|name| name.contains(&format!("/{segment}/")));
    assert_eq!(["a", "b", "left", "new"].map(has), [false, true, false, true], "{left:?}");
    // What it has there, and no manifest, is seen.
    refuse_beside_a_backup(&cloud.target()).unwrap();
    cloud.put(&tail("3-3"), b"tail", Duration::ZERO);
    let refused = refuse_beside_a_backup(&cloud.target()).unwrap_err();
    assert!(matches!(refused, Error::Busy { .. }), "{refused}");
    cloud.put(&tail("3-3"), b"tail", OLD);
    refuse_beside_a_backup(&cloud.target()).unwrap();
}

#[test]
fn a_backup_that_ends_beside_one_who_prunes_is_none() {
    let cloud = Cloud::default();
    cloud.put("tailmark-backup", b"l\n", OLD);
    cloud.add("1-1", "a", Duration::ZERO);
    let target = cloud.target();
    let of_a = cloud.files_of("a");
    // The null control.
    withdraw_if_pruned(&target, "1-1", &of_a).unwrap();
    refuse_beside(&cloud, Work::Pruning).unwrap();
    let note = Note::leave(&cloud, Work::Pruning).unwrap();
    let refused = refuse_beside(&cloud, Work::Pruning).unwrap_err();
    assert!(matches!(refused, Error::Busy { .. }), "{refused}");
    assert!(withdraw_if_pruned(&target, "1-1", &of_a).is_err());
    assert!(target.names().unwrap().is_empty(), "it is withdrawn");
    note.remove(&cloud);
    refuse_beside(&cloud, Work::Pruning).unwrap();
    // He is through, and has taken what it counts on: the footer, or another file.
    for lost in ["segments/b/footer", "segments/b/db/db"] {
        cloud.add("2-2", "b", Duration::ZERO);
        let files = cloud.files_of("b");
        assert_eq!(files.len(), 2);
        cloud.remove(lost).unwrap();
        let refused = withdraw_if_pruned(&target, "2-2", &files);
        assert!(matches!(refused, Err(Error::Busy { .. })), "{lost}: {refused:?}");
        assert!(target.names().unwrap().is_empty());
    }
    // A note that is a day old is of one who was killed.
    cloud.put("pruning/1", b"", AT_WORK);
    refuse_beside(&cloud, Work::Pruning).unwrap();
    Note::leave(&cloud, Work::Pruning).unwrap().remove(&cloud);
    assert!(!cloud.names().contains(&"pruning/1".to_owned()));
}

fn look() -> Look {
    let (oldest, head) = (tailmark_record::Seq::new(1), tailmark_record::Seq::new(0));
    let (segments, removed) = (Vec::new(), Vec::new());
    Look { log_id: "l".to_owned(), oldest, oldest_tag: None, head, segments, removed }
}

fn hash(bytes: &[u8]) -> Hash {
    xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes()
}

/// A small file, as it comes.
fn bring(sink: &mut Filling<'_>, name: &str, bytes: &[u8]) -> Result<(), Error> {
    sink.file(name)?;
    sink.data(bytes)?;
    sink.close(bytes.len() as u64, hash(bytes))
}

/// A place with one backup, and what one that was killed long ago has left; with its name.
fn with_leftover() -> (Cloud, String) {
    let cloud = Cloud::default();
    cloud.put("tailmark-backup", b"l\n", OLD);
    cloud.add("1-1", "a", OLD);
    let left = format!("trimmed/1-2-{:032x}", u128::from_be_bytes(hash(b"it")));
    cloud.put(&left, b"it", OLD);
    (cloud, left)
}

/// What a backup that was killed has left is what the next one brings, too: whoever prunes sees the old, and is not to
/// take the new away.
#[test]
fn what_a_backup_brings_anew_is_not_removed_as_what_was_left_there() {
    let (cloud, left) = with_leftover();
    let prune = |cloud: &Cloud| prune_in(cloud.target(), Keep::Newest(9), false, &mut |_| Ok(()));
    let has_notes = |cloud: &Cloud| cloud.names().iter().any(|name| name.starts_with("taking/"));
    // It has begun and brought nothing yet: whoever prunes is told so.
    let mut watch = |_| Ok(());
    let mut backup = Filling::of(cloud.target(), &mut watch);
    backup.begin(look()).unwrap();
    let refused = prune(&cloud);
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    assert!(cloud.names().contains(&left));
    bring(&mut backup, "tail", b"t").unwrap();
    bring(&mut backup, &left, b"it").unwrap();
    backup.end().unwrap();
    let taken = backup.taken().unwrap();
    assert!(!has_notes(&cloud), "it is through");
    prune(&cloud).unwrap();
    assert!(cloud.names().contains(&left) && taken.manifest.trimmed.len() == 1);

    // The other way round: somebody has looked for what is left, and is not through.
    let note = Note::leave(&cloud, Work::Pruning).unwrap();
    let mut watch = |_| Ok(());
    let mut backup = Filling::of(cloud.target(), &mut watch);
    assert!(matches!(backup.begin(look()), Err(Error::Busy { .. })));
    drop(backup);
    note.remove(&cloud);
    assert!(!has_notes(&cloud), "nothing is left of it");
    prune(&cloud).unwrap();
}

/// Where neither sees the note of the other, as by clocks that are a day apart: what has lost a part is no backup.
#[test]
fn a_backup_that_has_lost_what_it_brought_is_none() {
    let (cloud, left) = with_leftover();
    let looked = Plan::new(&cloud.target(), Keep::Newest(9)).unwrap();
    let mut watch = |_| Ok(());
    let mut backup = Filling::of(cloud.target(), &mut watch);
    backup.begin(look()).unwrap();
    bring(&mut backup, "tail", b"t").unwrap();
    bring(&mut backup, &left, b"it").unwrap();
    looked.carry_out(&cloud, &mut |_| Ok(())).unwrap();
    assert!(!cloud.names().contains(&left), "the test does not reach it");
    let refused = backup.end();
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    assert_eq!(cloud.target().names().unwrap(), ["1-1"]);
}

#[test]
fn a_clock_that_was_behind_makes_no_backup_old() {
    let dir = tempfile::tempdir().unwrap();
    let since = |seconds| Keep::Since(Timestamp { seconds, nanos: 0 });
    std::fs::create_dir(dir.path().join(BACKUPS)).unwrap();
    for (name, taken_at) in [
        ("1-800000-a", 800_000),
        ("2-1000000-b", 1_000_000),
        ("3-1000001-c", 12),
        ("4-1000009-d", 1_000_009),
        ("5-1000010-e", 13),
    ] {
        let it = Manifest { taken_at, ..manifest_of("a") };
        std::fs::write(dir.path().join(super::manifest(name)), it.encode().unwrap()).unwrap();
    }
    let target = Target::open(dir.path()).unwrap();
    let found = split(&target, target.names().unwrap(), since(900_000)).unwrap();
    assert_eq!((&found.removed[..], found.kept.len()), (&["1-800000-a".to_owned()][..], 4));
    assert_eq!(found.doubtful, ["3-1000001-c"], "the newest stays in any case");
    // The store of a cloud has a clock of its own.
    let cloud = Cloud::default();
    for (name, age) in [("1-12-a", OLD), ("1-13-b", Duration::ZERO), ("1-14-c", Duration::ZERO)] {
        cloud.add(name, "a", age);
    }
    let target = cloud.target();
    let hour_ago = since(Timestamp::now().seconds - 60 * 60);
    let found = split(&target, target.names().unwrap(), hour_ago).unwrap();
    assert_eq!(
        (&found.removed[..], &found.doubtful[..]),
        (&["1-12-a".to_owned()][..], &["1-13-b".to_owned()][..])
    );
}

#[test]
fn nothing_goes_while_what_stays_has_no_footer_or_no_tail() {
    for lost in ["segments/b/footer", "backups/2-2.tail"] {
        let cloud = Cloud::default();
        cloud.put("tailmark-backup", b"l\n", OLD);
        cloud.add("1-1", "a", OLD);
        cloud.add("2-2", "b", OLD);
        cloud.files.lock().unwrap().remove(lost);
        let refused = Plan::new(&cloud.target(), Keep::Newest(1)).err();
        assert!(matches!(refused, Some(Error::Damaged { .. })), "{lost}: {refused:?}");
        // Where nothing goes nobody asks.
        Plan::new(&cloud.target(), Keep::Newest(2)).unwrap();
    }
}
