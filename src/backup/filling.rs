//! Putting what a backup is made of where it is kept.
//!
//! Little of what comes is believed: names are those of the look, every file is what its end says, a segment is
//! what its footer says, and that is what its name says. That the segments join, and hold what the look says,
//! is seen when a backup is verified.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::Xxh3;

use super::notes::{Note, Work, refuse_beside};
use super::place::{Listed, Making, Use, at};
use super::prune::{expect_files, withdraw_if_pruned};
use super::sink::{Hash, Look, Sink, TAIL};
use super::target::{
    FOOTER, SEGMENTS, TRIMMED, footer_of, hex, is_plain, name_of, of_place, segment_of, stamp_of,
    tail,
};
use super::{Error, Manifest, SegmentRow, Target, check, wire};
use crate::export;
use crate::inspect::Scratch;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::segment::{Part, Segment};
use tailmark_record::Seq;
use tailmark_wire::feed_v1 as pb;

/// How far a backup is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes written.
    pub done_bytes: u64,
    /// Bytes to write, as far as is known.
    pub total_bytes: u64,
}

/// What was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its name.
    pub name: String,
    /// What belongs to it.
    pub manifest: Manifest,
    /// Bytes that were written for it.
    pub written_bytes: u64,
    /// Segments that were there already.
    pub reused_segments: u64,
}

/// Hears how far a backup is, and ends it with an error of its own.
pub(super) type Watch<'a> = &'a mut dyn FnMut(Progress) -> io::Result<()>;

/// A backup in the making.
pub struct Filling<'a> {
    to: PathBuf,
    watch: Watch<'a>,
    target: Option<Target>,
    look: Option<Look>,
    /// What it is called, and when it was taken.
    name: (String, i64),
    /// Segments that belong to it, and those that are there.
    wanted: HashSet<String>,
    whole: HashSet<String>,
    open: Option<Open>,
    /// Files of a segment that has no footer yet, and its name.
    parts: (String, Vec<Part>),
    /// Length and hash of what was not sealed, once it is there.
    tail: Option<(u64, Hash)>,
    trimmed: Vec<String>,
    progress: Progress,
    reused: u64,
    scratch: Scratch,
    /// Files that it counts on, and how long they are.
    files: BTreeMap<String, u64>,
    /// Where there are no locks.
    note: Option<Note>,
    taken: Option<Taken>,
}

/// A file that is being written.
struct Open {
    name: String,
    out: Out,
    shown: PathBuf,
    hash: Xxh3,
    len: u64,
}

enum Out {
    Kept(Box<dyn Making>),
    /// Of a segment that is put together when it was read.
    Footer {
        dir: PathBuf,
        file: File,
    },
    /// Of a segment that is there.
    Nothing,
}

impl<'a> Filling<'a> {
    /// Begins one in `to`: a directory, a file, or a folder of a cloud by its URL.
    pub fn new(to: &Path, watch: Watch<'a>) -> Filling<'a> {
        Filling {
            to: to.to_owned(),
            watch,
            target: None,
            look: None,
            name: Default::default(),
            wanted: HashSet::new(),
            whole: HashSet::new(),
            open: None,
            parts: Default::default(),
            tail: None,
            trimmed: Vec::new(),
            progress: Progress::default(),
            reused: 0,
            scratch: Scratch::new(),
            files: BTreeMap::new(),
            note: None,
            taken: None,
        }
    }

    /// What asks a server for it: of whatever log, which segments are there.
    ///
    /// # Errors
    /// I/O.
    pub fn request(&self) -> Result<pb::BackupRequest, Error> {
        let there = match &self.target {
            Some(target) => target.whole_segments(|_| true)?,
            // Opened and left: whoever begins locks it, and looks again.
            None => match Target::of(at(&self.to, Use::Resume)?) {
                Ok(target) => target.whole_segments(|_| true)?,
                Err(Error::NoBackups { .. }) => HashSet::new(),
                Err(error) => return Err(error),
            },
        };
        Ok(wire::request(there.iter().map(String::as_str).collect()))
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// What was taken, once it is whole.
    pub fn taken(mut self) -> Option<Taken> {
        self.taken.take()
    }

    /// Begins one in a place that is open.
    #[cfg(test)]
    pub(super) fn of(target: Target, watch: Watch<'a>) -> Filling<'a> {
        let mut filling = Filling::new(Path::new(""), watch);
        filling.target = Some(target);
        filling
    }

    fn copied(&mut self, bytes: u64) -> Result<(), Error> {
        self.progress.done_bytes += bytes;
        self.progress.total_bytes = self.progress.total_bytes.max(self.progress.done_bytes);
        if let (Some(note), Some(target)) = (&mut self.note, &self.target) {
            note.keep(&*target.place)?;
        }
        (self.watch)(self.progress).map_err(|error| export::Error::Output(error).into())
    }

    fn target(&self) -> Result<&Target, Error> {
        self.target.as_ref().ok_or(SENSELESS)
    }

    /// A segment is there but for its footer, which was read.
    fn segment(&mut self, dir: &Path, footer: Part) -> Result<(), Error> {
        let (name, mut parts) = std::mem::take(&mut self.parts);
        let segment = Segment::load(dir, &Disk::real())?;
        let log = &self.look.as_ref().ok_or(SENSELESS)?.log_id;
        if name_of(&segment, &footer) != name || segment.log_id().to_string() != *log {
            return Err(Error::Senseless { what: "a segment is another than its name says" });
        }
        let footer_len = footer.len;
        parts.push(footer);
        let mut wanted = segment.parts()?;
        parts.sort_by(|one, other| one.name.cmp(&other.name));
        wanted.sort_by(|one, other| one.name.cmp(&other.name));
        if parts != wanted {
            return Err(Error::Senseless { what: "a segment has not the files of its footer" });
        }
        let place = &self.target()?.place;
        let mut made = place.create(&footer_of(&name)).map_err(Error::Place)?;
        let from = dir.join(FOOTER);
        let mut source = Disk::real().open_read(&from)?;
        let shown = place.shown(&footer_of(&name));
        io::copy(&mut source, &mut made).map_err(of_place("write", &shown))?;
        made.finish().map_err(Error::Place)?;
        Disk::real().remove_tree(dir)?;
        self.files.insert(footer_of(&name), footer_len);
        self.whole.insert(name);
        Ok(())
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        if let (Some(note), Some(target)) = (&self.note, &self.target) {
            note.remove(&*target.place);
        }
    }
}

const SENSELESS: Error = Error::Senseless { what: "its parts are not in their order" };

impl Sink for Filling<'_> {
    fn begin(&mut self, look: Look) -> Result<(), Error> {
        self.open = None;
        self.parts = Default::default();
        (self.tail, self.trimmed) = (None, Vec::new());
        let target = match self.target.take() {
            Some(target) if target.log() == look.log_id => target,
            _ => Target::for_log(&self.to, &look.log_id)?,
        };
        let target = self.target.insert(target);
        if !target.place.has_locks() && self.note.is_none() {
            self.note = Some(Note::leave(&*target.place, Work::Taking)?);
        }
        refuse_beside(&*target.place, Work::Pruning)?;
        if !self.name.0.is_empty() {
            // Of an earlier look.
            target.place.remove(&tail(&self.name.0)).map_err(Error::Place)?;
        }
        let wanted: HashSet<_> = look.segments.iter().map(|row| row.name.clone()).collect();
        self.whole = target.whole_segments(|name| wanted.contains(name))?;
        target.tidy(|name| wanted.contains(name))?;
        if target.place.holds_one() {
            target.place.keep(&|name| self.whole.contains(name)).map_err(Error::Place)?;
            // What stood behind one that is not kept is gone, too.
            self.whole = target.whole_segments(|name| wanted.contains(name))?;
        }
        // What is there of them may be of one that was cut, and is no other's.
        let listed = target.place.list(SEGMENTS).map_err(Error::Place)?;
        let counts =
            |file: &Listed| segment_of(&file.name).is_some_and(|it| self.whole.contains(it));
        self.files = listed.into_iter().filter(counts).map(|file| (file.name, file.len)).collect();
        self.name = name(target, look.head)?;
        self.reused = self.whole.len() as u64;
        let missing = look.segments.iter().filter(|row| !self.whole.contains(&row.name));
        self.progress.total_bytes =
            self.progress.done_bytes + missing.map(|row| row.bytes).sum::<u64>();
        (self.look, self.wanted) = (Some(look), wanted);
        Ok(())
    }

    fn has(&self, segment: &SegmentRow) -> bool {
        self.whole.contains(&segment.name)
    }

    fn file(&mut self, name: &str) -> Result<(), Error> {
        if self.open.is_some() {
            return Err(SENSELESS);
        }
        let place = &self.target.as_ref().ok_or(SENSELESS)?.place;
        let kept_as = match part(name).ok_or(SENSELESS)? {
            Of::Tail => tail(&self.name.0),
            Of::Trimmed => name.to_owned(),
            Of::Segment { segment, part } => {
                if !self.wanted.contains(segment) {
                    return Err(SENSELESS);
                }
                if self.whole.contains(segment) {
                    let (out, shown) = (Out::Nothing, PathBuf::new());
                    let name = name.to_owned();
                    self.open = Some(Open { name, out, shown, hash: Xxh3::new(), len: 0 });
                    return Ok(());
                }
                if self.parts.0 != segment {
                    if place.may_rot() {
                        // What is there of it does not count while it is written.
                        place.remove(&footer_of(segment)).map_err(Error::Place)?;
                    }
                    self.parts = (segment.to_owned(), Vec::new());
                }
                if part == FOOTER {
                    let dir = self.scratch.dir()?.join(segment);
                    let disk = Disk::real();
                    disk.create_dir(&dir)?;
                    let shown = dir.join(FOOTER);
                    disk.write_new(&shown, &[])?;
                    let out = Out::Footer { file: disk.open(&shown)?, dir };
                    let name = name.to_owned();
                    self.open = Some(Open { name, out, shown, hash: Xxh3::new(), len: 0 });
                    return Ok(());
                }
                name.to_owned()
            }
        };
        let shown = place.shown(&kept_as);
        let out = Out::Kept(place.create(&kept_as).map_err(Error::Place)?);
        self.open = Some(Open { name: name.to_owned(), out, shown, hash: Xxh3::new(), len: 0 });
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let open = self.open.as_mut().ok_or(SENSELESS)?;
        open.hash.update(bytes);
        open.len += bytes.len() as u64;
        let written = match &mut open.out {
            Out::Kept(file) => file.write_all(bytes),
            Out::Footer { file, .. } => file.write_all(bytes),
            Out::Nothing => Ok(()),
        };
        written.map_err(of_place("write", &open.shown))?;
        self.copied(bytes.len() as u64)
    }

    fn close(&mut self, len: u64, hash: Hash) -> Result<(), Error> {
        let open = self.open.take().ok_or(SENSELESS)?;
        let found = open.hash.digest128().to_be_bytes();
        if (open.len, found) != (len, hash) {
            return Err(Error::Senseless { what: "a file came otherwise than it was read" });
        }
        let of = part(&open.name).ok_or(SENSELESS)?;
        // Before it has its name: what has that may belong to older backups.
        if matches!(of, Of::Trimmed) && !open.name.ends_with(&format!("-{}", hex(hash))) {
            return Err(Error::Senseless { what: "a file has another hash than its name" });
        }
        match open.out {
            Out::Kept(file) => {
                file.finish().map_err(Error::Place)?;
                let name = match of {
                    Of::Tail => tail(&self.name.0),
                    Of::Segment { .. } | Of::Trimmed => open.name.clone(),
                };
                self.files.insert(name, len);
            }
            Out::Nothing => return Ok(()),
            Out::Footer { dir, file } => {
                drop(file);
                return self.segment(&dir, Part { name: FOOTER.to_owned(), len, hash });
            }
        }
        match of {
            Of::Tail => self.tail = Some((len, hash)),
            Of::Segment { part, .. } => {
                let name = part.to_owned();
                self.parts.1.push(Part { name, len, hash });
            }
            Of::Trimmed => {
                let name = open.name.split_once('/').map(|(_, name)| name).unwrap_or_default();
                self.trimmed.push(name.to_owned());
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        let look = self.look.as_ref().filter(|_| self.open.is_none()).ok_or(SENSELESS)?;
        if look.segments.iter().any(|row| !self.whole.contains(&row.name)) {
            return Err(Error::Senseless { what: "a segment is missing" });
        }
        let tail = self.tail.ok_or(Error::Senseless { what: "the tail is missing" })?;
        let (name, taken_at) = self.name.clone();
        // Whoever was at work since may have taken what lay there for left over.
        if self.target.as_mut().ok_or(SENSELESS)?.claim_again()? {
            expect_files(&*self.target()?.place, &self.files)?;
        }
        let target = self.target.as_ref().ok_or(SENSELESS)?;
        let manifest = Manifest {
            version: Manifest::VERSION,
            log_id: look.log_id.clone(),
            oldest_seq: look.oldest.get(),
            oldest_tag: look.oldest_tag.map(|tag| tag.get()),
            head_seq: look.head.get(),
            taken_at,
            segments: look.segments.clone(),
            removed: look.removed.clone(),
            trimmed: std::mem::take(&mut self.trimmed),
            tail_bytes: tail.0,
            tail_hash: Some(hex(tail.1)),
        };
        let (file, bytes) = (super::target::manifest(&name), manifest.encode()?);
        let is_new = target.place.put_new(&file, &bytes).map_err(Error::Place)?;
        // An answer may be lost, and what it was about there.
        if !is_new && target.read(&file)?.as_ref() != Some(&bytes) {
            return Err(Error::Exists { path: target.place.shown(&file) });
        }
        if target.place.holds_one() {
            let watch = &mut self.watch;
            let progress = self.progress;
            let checked = check(target, &name, &manifest, |_| watch(progress));
            if let Err(error) = checked {
                let is_interrupted = matches!(error, Error::Tail(export::Error::Output(_)));
                if !is_interrupted {
                    // Nothing of it is gone on with.
                    target.place.keep(&|_| false).map_err(Error::Place)?;
                }
                return Err(error);
            }
        }
        withdraw_if_pruned(target, &name, &self.files)?;
        target.place.finish().map_err(Error::Place)?;
        let (written_bytes, reused_segments) = (self.progress.done_bytes, self.reused);
        self.taken = Some(Taken { name, manifest, written_bytes, reused_segments });
        Ok(())
    }
}

/// A name for a backup and when it was taken: what is there is never written again. Where there are no locks
/// another may begin one of the same head in the same second: the last part is random. The newest one is told by the
/// name, so that it comes after all that are there, also where a clock was ahead once.
fn name(target: &Target, head: Seq) -> Result<(String, i64), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |since| since.as_secs());
    let newest = target.names()?.iter().filter_map(|name| stamp_of(name)).max();
    let stamp = newest.map_or(seconds, |newest| seconds.max(newest.saturating_add(1)));
    let name = format!("{:020}-{stamp}-{:016x}", head.get(), rand::random::<u64>());
    Ok((name, seconds.cast_signed()))
}

/// What a file is of.
enum Of<'a> {
    Tail,
    Segment { segment: &'a str, part: &'a str },
    Trimmed,
}

/// What a name means; `None` where it may lead anywhere.
fn part(name: &str) -> Option<Of<'_>> {
    let parts: Vec<&str> = name.split('/').collect();
    if !parts.iter().all(|part| is_plain(part)) {
        return None;
    }
    match parts.as_slice() {
        [TAIL] => Some(Of::Tail),
        [TRIMMED, _] => Some(Of::Trimmed),
        [SEGMENTS, segment, FOOTER] => Some(Of::Segment { segment, part: FOOTER }),
        [SEGMENTS, segment, "db", file] if !file.ends_with(".new") => {
            let at = name.len() - file.len() - "db/".len();
            Some(Of::Segment { segment, part: name.get(at..)? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::manifest;
    use super::*;

    #[test]
    fn a_name_leads_nowhere_but_where_it_belongs() {
        for name in
            ["tail", "trimmed/1-2-ab", "segments/1-1-ab/footer", "segments/1-1-ab/db/snap.0A"]
        {
            assert!(part(name).is_some(), "{name}");
        }
        for name in [
            "",
            "backups/1.backup",
            "tailmark-backup",
            "trimmed",
            "trimmed/a/b",
            "trimmed/..",
            "/tail",
            "segments/../../footer",
            "segments/1-1-ab",
            "segments/1-1-ab/db",
            "segments/1-1-ab/db/a/b",
            "segments/1-1-ab/db/.hidden",
            "segments/1-1-ab/db/db.new",
            "segments/1-1-ab/db/a\0",
            "segments//footer",
            "segments/1-1-ab/other",
        ] {
            assert!(part(name).is_none(), "{name}");
        }
    }

    #[test]
    fn two_of_one_head_in_one_second_have_two_names() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::for_log(dir.path(), "l").unwrap();
        // Neither knows of the other, as in a cloud.
        let two = || (name(&target, Seq::new(5)).unwrap(), name(&target, Seq::new(5)).unwrap());
        let same = |(one, other): &((String, i64), (String, i64))| one.1 == other.1;
        let (one, other) = std::iter::repeat_with(two).find(same).unwrap();
        assert_ne!(one.0, other.0);
        // One that is there has its second for itself, so that they stay in order.
        target.place.put_new(&manifest(&one.0), b"").unwrap();
        assert!(stamp_of(&name(&target, Seq::new(5)).unwrap().0) > stamp_of(&one.0));
    }

    /// The newest is what a restore takes.
    #[test]
    fn one_that_is_taken_later_is_newer_also_where_the_clock_was_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::for_log(dir.path(), "l").unwrap();
        // Of a clock that was wrong by centuries, with more events than there are now.
        let ahead = "00000000000000000009-9999999999-0000000000000001";
        target.place.put_new(&manifest(ahead), b"").unwrap();
        for _ in 0..3 {
            let (next, taken_at) = name(&target, Seq::new(5)).unwrap();
            // When it was taken is said as it is known.
            assert!(taken_at < 9_999_999_999);
            target.place.put_new(&manifest(&next), b"").unwrap();
            assert_eq!(target.names().unwrap().last(), Some(&next));
        }
    }

    /// Other backups share it.
    #[test]
    fn what_is_not_what_its_name_says_takes_the_place_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = |bytes: &[u8]| hex(xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes());
        let file = format!("{TRIMMED}/1-2-{}", bytes(b"right"));
        let target = Target::for_log(dir.path(), "l").unwrap();
        target.place.put_new(&file, b"right").unwrap();
        drop(target);
        let put = |content: &[u8]| {
            let mut watch = |_| Ok(());
            let mut sink = Filling::new(dir.path(), &mut watch);
            let (log_id, oldest, head) = ("l".to_owned(), Seq::new(1), Seq::new(0));
            sink.begin(Look {
                log_id,
                oldest,
                oldest_tag: None,
                head,
                segments: Vec::new(),
                removed: Vec::new(),
            })?;
            sink.file(&file)?;
            sink.data(content)?;
            sink.close(content.len() as u64, xxhash_rust::xxh3::xxh3_128(content).to_be_bytes())
        };
        assert!(matches!(put(b"wrong"), Err(Error::Senseless { .. })));
        assert_eq!(std::fs::read(dir.path().join(&file)).unwrap(), b"right");
        // The null control.
        put(b"right").unwrap();
    }

    /// A look of no segments, and what follows it in another order than it must.
    #[test]
    fn what_is_out_of_order_is_refused_and_leaves_no_backup() {
        let dir = tempfile::tempdir().unwrap();
        let look = || Look {
            log_id: "l".to_owned(),
            oldest: Seq::new(1),
            oldest_tag: None,
            head: Seq::new(0),
            segments: Vec::new(),
            removed: Vec::new(),
        };
        let hash = |bytes: &[u8]| xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes();
        type Steps = fn(&mut Filling<'_>, &dyn Fn(&[u8]) -> Hash) -> Result<(), Error>;
        let refused: [Steps; 7] = [
            |sink, _| sink.file("tail"),
            |sink, _| sink.data(b"a"),
            |sink, hash| sink.close(0, hash(b"")),
            |sink, _| sink.end(),
            |sink, _| sink.file("segments/1-1-ab/footer"),
            |sink, hash| {
                sink.file("tail")?;
                sink.data(b"ab")?;
                sink.close(2, hash(b"ac"))
            },
            |sink, hash| {
                sink.file("trimmed/1-2-00")?;
                sink.close(0, hash(b""))
            },
        ];
        for (at, steps) in refused.into_iter().enumerate() {
            let to = dir.path().join(at.to_string());
            let mut watch = |_| Ok(());
            let mut sink = Filling::new(&to, &mut watch);
            if at > 0 {
                sink.begin(look()).unwrap();
            }
            let error = steps(&mut sink, &hash).unwrap_err();
            assert!(matches!(error, Error::Senseless { .. }), "{at}: {error}");
            assert!(sink.taken().is_none());
        }
        // The null control.
        let (to, mut watch) = (dir.path().join("to"), |_| Ok(()));
        let mut sink = Filling::new(&to, &mut watch);
        sink.begin(look()).unwrap();
        sink.file("tail").unwrap();
        sink.close(0, hash(b"")).unwrap();
        sink.end().unwrap();
        let taken = sink.taken().unwrap();
        assert_eq!(Target::open(&to).unwrap().names().unwrap(), [taken.name]);
    }
}
