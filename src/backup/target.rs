//! Where the backups of a log lie, and what of them is there.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use super::place::{self, Listed, Place, Use};
use super::{Error, Hash, Manifest, SegmentRow};
use crate::export;
use crate::inspect::Scratch;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::meta::META_FILE;
use tailmark_log::storage::segment::{self, Segment};
use tailmark_log::storage::{Damage, StoreError};

pub(super) const MARK: &str = "tailmark-backup";
pub(super) const SEGMENTS: &str = "segments";
pub(super) const FOOTER: &str = "footer";
pub(super) const TRIMMED: &str = "trimmed";
pub(super) const BACKUPS: &str = "backups";
const MANIFEST: &str = "backup";
const TAIL: &str = "tail";
/// What lies in a cloud and belongs to nothing may be another's who is not through.
const OTHERS: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const READ_BYTES: usize = 256 << 10;

/// Hears that a file of a segment is missing or not what was sealed, and ends it, or lets it be.
pub(super) type Damaged<'a> = &'a mut dyn FnMut(Damage) -> Result<(), StoreError>;

/// What became of the file that says whose backups a place has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It says it, and so do the backups.
    Whole,
    /// It is not there.
    Missing,
    /// It says something else than the backups.
    Damaged,
}

impl Mark {
    /// What is wrong with it.
    fn problem(self) -> Option<&'static str> {
        match self {
            Mark::Whole => None,
            Mark::Missing => Some("is missing"),
            Mark::Damaged => Some("is not what was written"),
        }
    }
}

/// Where the backups of a log lie.
#[derive(Debug)]
pub struct Target {
    pub(super) place: Box<dyn Place>,
    /// Whose backups.
    log: String,
    mark: Mark,
    /// Footers of segments that lie elsewhere than on this machine.
    scratch: Mutex<Scratch>,
}

impl Target {
    /// Opens it for reading: a directory, a file, or a folder of a cloud by its URL. One whose mark is lost or damaged is
    /// known by its backups ([`Target::mark`]).
    ///
    /// # Errors
    /// [`Error::NoBackups`], I/O.
    pub fn open(path: &Path) -> Result<Target, Error> {
        Target::of(place::at(path, Use::Read)?)
    }

    pub(super) fn of(place: Box<dyn Place>) -> Result<Target, Error> {
        let found = whose(&*place)?;
        let (log, mark) = found.ok_or_else(|| Error::NoBackups { path: place.shown("") })?;
        Ok(Target { place, log, mark, scratch: Mutex::new(Scratch::new()) })
    }

    /// Opens it for another backup of this log; what is empty or missing becomes one. A mark that is lost is written anew,
    /// if all backups that are there are of this log.
    pub(super) fn for_log(path: &Path, log: &str) -> Result<Target, Error> {
        refuse_within(path, &[META_FILE])?;
        let place = place::at(path, Use::Write)?;
        if whose(&*place)?.is_none() {
            if !place.is_blank().map_err(Error::Place)? {
                return Err(Error::Foreign { path: path.to_owned() });
            }
            // Where another was first, his is read.
            place.put_new(MARK, mark_of(log).as_bytes()).map_err(Error::Place)?;
        }
        let mut target = Target::of(place)?;
        if target.log != log {
            return Err(Error::OtherLog { path: path.to_owned(), log: target.log });
        }
        if target.mark != Mark::Missing {
            target.claim()?;
        }
        if target.mark != Mark::Whole {
            target.mend(path)?;
        }
        Ok(target)
    }

    /// Writes the mark anew.
    fn mend(&mut self, path: &Path) -> Result<(), Error> {
        for name in self.names()? {
            match self.backup(Some(&name)) {
                Ok((_, other)) if other.log_id != self.log => {
                    return Err(Error::OtherLog { path: path.to_owned(), log: other.log_id });
                }
                Ok(_) | Err(Error::Missing { .. } | Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if self.mark == Mark::Damaged {
            self.place.remove(MARK).map_err(Error::Place)?;
        }
        self.place.put_new(MARK, mark_of(&self.log).as_bytes()).map_err(Error::Place)?;
        self.mark = Mark::Whole;
        // The lock is that of a file, and this is another.
        self.claim()
    }

    /// Keeps others away that write here.
    pub(super) fn claim(&mut self) -> Result<(), Error> {
        self.place.claim(MARK).map_err(Error::Place)
    }

    /// The same once more where the file that is locked has been removed meanwhile, or was replaced; answers whether that was
    /// so. Others may have been at work since.
    pub(super) fn claim_again(&mut self) -> Result<bool, Error> {
        if self.place.is_claimed(MARK).map_err(Error::Place)? {
            return Ok(false);
        }
        self.place.put_new(MARK, mark_of(&self.log).as_bytes()).map_err(Error::Place)?;
        self.claim()?;
        Ok(true)
    }

    /// What became of the file that says whose backups these are.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Refuses a mark that does not say what the backups say.
    ///
    /// # Errors
    /// [`Error::Mark`].
    pub fn check_mark(&self) -> Result<(), Error> {
        match self.mark.problem() {
            Some(what) => Err(Error::Mark { path: self.place.shown(MARK), what }),
            None => Ok(()),
        }
    }

    /// Removes what backups that were cut have left, but for what there is of the segments that are `wanted`.
    pub(super) fn tidy(&self, wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
        let backups = self.place.list(BACKUPS).map_err(Error::Place)?;
        let names: HashSet<_> = backups.iter().filter_map(|file| named(file, MANIFEST)).collect();
        let is_alone = |file: &&Listed| named(file, TAIL).is_some_and(|it| !names.contains(it));
        let segments = self.place.list(SEGMENTS).map_err(Error::Place)?;
        let with_footer = segments.iter().filter(|file| file.name.ends_with(FOOTER));
        let with_footer: HashSet<_> =
            with_footer.filter_map(|file| segment_of(&file.name)).collect();
        let is_part = |file: &&Listed| {
            segment_of(&file.name).is_some_and(|it| !with_footer.contains(it) && !wanted(it))
        };
        let trimmed = self.place.list(TRIMMED).map_err(Error::Place)?;
        let left = backups.iter().filter(|file| is_alone(file) || is_unfinished(file));
        let left = left.chain(segments.iter().filter(|file| is_part(file) || is_unfinished(file)));
        let left = left.chain(trimmed.iter().filter(|file| is_unfinished(file)));
        let now = SystemTime::now();
        for file in left {
            let age = file.written_at.map(|at| now.duration_since(at).unwrap_or_default());
            if age.is_none_or(|age| age > OTHERS) {
                self.place.remove(&file.name).map_err(Error::Place)?;
            }
        }
        Ok(())
    }

    /// Of the segments that are `wanted`, those that are there as they were copied: with the footer that the
    /// name says, and files of the lengths that the footer says.
    pub(super) fn whole_segments(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<HashSet<String>, Error> {
        let listed = self.place.list(SEGMENTS).map_err(Error::Place)?;
        let there: HashMap<&str, u64> =
            listed.iter().map(|file| (file.name.as_str(), file.len)).collect();
        let has = |segment: &str, part: &segment::Part| {
            there.get(part_of(segment, &part.name).as_str()) == Some(&part.len)
        };
        let mut whole = HashSet::new();
        for file in &listed {
            let Some(name) = segment_of(&file.name).filter(|name| wanted(name)) else { continue };
            if file.name != footer_of(name) {
                continue;
            }
            let is_whole = !self.place.may_rot()
                || self.footer(name).is_ok_and(|segment| {
                    segment.parts().is_ok_and(|parts| {
                        let is_named =
                            parts.last().is_some_and(|footer| name_of(&segment, footer) == name);
                        is_named && parts.iter().all(|part| has(name, part))
                    })
                });
            if is_whole {
                whole.insert(name.to_owned());
            }
        }
        Ok(whole)
    }

    /// A segment as its footer here says; the rest of it lies elsewhere for [`Target::bring`].
    pub(super) fn footer(&self, name: &str) -> Result<Segment, Error> {
        let disk = Disk::real();
        if let Some(dir) = self.place.local(&format!("{SEGMENTS}/{name}")) {
            return Ok(Segment::load(&dir, &disk)?);
        }
        let dir = self.scratch.lock().dir()?.join(name);
        let path = dir.join(FOOTER);
        if !path.exists() {
            disk.create_dir(&dir)?;
            let from = footer_of(name);
            let shown = self.place.shown(&from);
            let mut source = self.place.open(&from).map_err(Error::Place)?;
            let beside = dir.join("new");
            segment::write_file(&mut source, &shown, &beside, &disk, &mut |_| Ok(()))?;
            disk.rename(&beside, &path)?;
        }
        Ok(Segment::load(&dir, &disk)?)
    }

    /// The segment of a row, which has the footer that the row names.
    pub(super) fn segment(&self, row: &SegmentRow, manifest: &Manifest) -> Result<Segment, Error> {
        let segment = self.footer(&row.name)?;
        let digest = segment.digest()?;
        let named = format!("{}-{}", segment.name(), hex(digest));
        let range = (segment.first().get(), segment.end().prev().get());
        if named != row.name
            || range != (row.first_seq, row.last_seq)
            || segment.log_id().to_string() != manifest.log_id
        {
            let path = self.place.shown(&format!("{SEGMENTS}/{}", row.name));
            return Err(Error::Damaged { path, what: "it is another segment than its name says" });
        }
        Ok(segment)
    }

    /// Brings a segment into a directory of this machine; `written` has it made durable, `damaged` says what becomes of it
    /// where a file is not what was sealed.
    pub(super) fn bring(
        &self,
        segment: &Segment,
        row: &SegmentRow,
        parent: &Path,
        disk: &Disk,
        (copied, written, damaged): (segment::Copied<'_>, segment::Written<'_>, Damaged<'_>),
    ) -> Result<Segment, StoreError> {
        let mut open = |part: &str| {
            let name = part_of(&row.name, part);
            let file = self.place.shown(&name);
            match self.place.open(&name) {
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    let (from, to) = (segment.first(), segment.end().prev());
                    Err(Damage { from, to, file, detail: "it is missing".to_owned() }.into())
                }
                opened => Ok((file, opened?)),
            }
        };
        let to = (&mut open as segment::Opened<'_>, parent, &*segment.name());
        segment.bring_noting(to, disk, copied, written, damaged)
    }

    /// The same where it is only read, in a directory that goes with the target.
    pub(super) fn fetch(
        &self,
        segment: &Segment,
        row: &SegmentRow,
        copied: segment::Copied<'_>,
    ) -> Result<Arc<Segment>, Error> {
        self.fetch_noting(segment, row, copied, &mut |damage: Damage| Err(damage.into()))
    }

    /// The same, also where a file is not what was sealed, if `damaged` lets it be.
    pub(super) fn fetch_noting(
        &self,
        segment: &Segment,
        row: &SegmentRow,
        copied: segment::Copied<'_>,
        damaged: Damaged<'_>,
    ) -> Result<Arc<Segment>, Error> {
        let parent = self.scratch.lock().for_copy_of(segment)?.to_owned();
        // It need not outlive this.
        let mut written = |_: &Arc<File>, _: &Path| Ok(());
        let disk = Disk::real();
        let how = (copied, &mut written as _, damaged);
        Ok(Arc::new(self.bring(segment, row, &parent, &disk, how)?))
    }

    /// Whose backups these are.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// Names of all whole backups, the oldest first.
    ///
    /// # Errors
    /// I/O.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        names(&*self.place)
    }

    /// One backup, the newest without a name.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Damaged`].
    pub fn backup(&self, name: Option<&str>) -> Result<(String, Manifest), Error> {
        let names = self.names()?;
        let found = match name {
            Some(name) => names.iter().find(|it| *it == name),
            None => names.last(),
        };
        let missing = || Error::Missing {
            path: self.place.shown(""),
            name: name.unwrap_or("at all").to_owned(),
        };
        let name = found.ok_or_else(missing)?;
        // Where it has gone since it was listed it is not there.
        let manifest = manifest_in(&*self.place, name)?.ok_or_else(missing)?;
        Ok((name.clone(), manifest))
    }

    /// Of a backup that was removed while it was read nothing else is told.
    pub(super) fn unless_removed<T>(&self, name: &str, done: Result<T, Error>) -> Result<T, Error> {
        match done {
            // Whoever asked has ended it.
            Err(Error::Tail(export::Error::Output(_))) | Ok(_) => done,
            Err(error) => match self.names() {
                Ok(names) if !names.iter().any(|it| it == name) => {
                    Err(Error::Removed { path: self.place.shown(""), name: name.to_owned() })
                }
                _ => Err(error),
            },
        }
    }

    pub(super) fn shown_manifest(&self, name: &str) -> PathBuf {
        self.place.shown(&manifest(name))
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        place::read(&*self.place, name).map_err(Error::Place)
    }

    /// Compares the file of what was not sealed with what the manifest says of it; older ones say no hash.
    pub(super) fn prove_tail(
        &self,
        name: &str,
        manifest: &Manifest,
        mut seen: impl FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let name = tail(name);
        let path = self.place.shown(&name);
        let mut file = self.place.open(&name).map_err(Error::Place)?;
        let found = hash_of(&mut file, &path, |_| seen())?;
        let is_same = manifest.tail_hash.as_ref().is_none_or(|hash| *hash == hex(found.1));
        if found.0 != manifest.tail_bytes || !is_same {
            return Err(Error::Damaged { path, what: "it is not what was written" });
        }
        Ok(())
    }

    /// What was not sealed.
    pub(super) fn open_tail(&self, name: &str) -> Result<BufReader<Box<dyn Read + Send>>, Error> {
        let file = self.place.open(&tail(name)).map_err(Error::Place)?;
        Ok(BufReader::with_capacity(READ_BYTES, file))
    }
}

fn mark_of(log: &str) -> String {
    format!("{log}\n")
}

/// Whose backups a place has, and whether its mark says so; `None` where none are, and nothing that says so. The backups
/// know it better: what they say has a hash.
fn whose(place: &dyn Place) -> Result<Option<(String, Mark)>, Error> {
    let mark = place::read(place, MARK).map_err(Error::Place)?;
    let has_mark = mark.is_some();
    let text = mark.and_then(|bytes| String::from_utf8(bytes).ok());
    let said = text.as_deref().and_then(|text| text.strip_suffix('\n'));
    let said = said.filter(|log| is_plain(log)).map(str::to_owned);
    let names = names(place)?;
    for name in names.iter().rev() {
        match manifest_in(place, name) {
            Ok(Some(Manifest { log_id, .. })) => {
                let mark = match said {
                    Some(said) if said == log_id => Mark::Whole,
                    _ if has_mark => Mark::Damaged,
                    _ => Mark::Missing,
                };
                return Ok(Some((log_id, mark)));
            }
            // It may be gone by now.
            Ok(None) | Err(Error::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let mark = if has_mark { Mark::Damaged } else { Mark::Missing };
    Ok(match said {
        Some(said) => Some((said, Mark::Whole)),
        // Nothing of it can be read; what is there is listed.
        None if !names.is_empty() => Some(("unknown".to_owned(), mark)),
        None => None,
    })
}

fn names(place: &dyn Place) -> Result<Vec<String>, Error> {
    let listed = place.list(BACKUPS).map_err(Error::Place)?;
    let names = listed.iter().filter_map(|file| named(file, MANIFEST));
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    // By when they were taken: a log that was put back has a lower head.
    names.sort_by_key(|name| (stamp_of(name), name.clone()));
    Ok(names)
}

fn manifest_in(place: &dyn Place, name: &str) -> Result<Option<Manifest>, Error> {
    let file = manifest(name);
    let path = place.shown(&file);
    let bytes = place::read(place, &file).map_err(Error::Place)?;
    bytes.map(|bytes| Manifest::decode(&path, &bytes)).transpose()
}

/// The second of a backup's name, which tells the order of backups.
pub(super) fn stamp_of(name: &str) -> Option<u64> {
    name.split('-').nth(1)?.parse().ok()
}

/// Refuses what is to lie below a directory that has one of these files.
fn refuse_within(path: &Path, marks: &[&str]) -> Result<(), Error> {
    // The store of a cloud is not on this machine.
    if path.to_str().is_some_and(|text| text.contains("://")) {
        return Ok(());
    }
    let failed = |error| Error::Place(place::failed("find", path)(error));
    let whole = std::path::absolute(path).map_err(failed)?;
    let there = whole.ancestors().find_map(|it| it.canonicalize().ok()).unwrap_or_default();
    let is_there = whole.exists();
    let is_marked = |it: &&Path| marks.iter().any(|mark| it.join(mark).exists());
    match there.ancestors().skip(usize::from(is_there)).find(is_marked) {
        None => Ok(()),
        Some(of) => Err(Error::Within { path: path.to_owned(), of: of.to_owned() }),
    }
}

/// Refuses a directory for a log that lies within another one, or among backups.
pub(super) fn refuse_log_within(dir: &Path) -> Result<(), Error> {
    refuse_within(dir, &[META_FILE, MARK])
}

/// The name of a backup's last file.
pub(super) fn manifest(name: &str) -> String {
    format!("{BACKUPS}/{name}.{MANIFEST}")
}

pub(super) fn tail(name: &str) -> String {
    format!("{BACKUPS}/{name}.{TAIL}")
}

/// A file of a segment.
pub(super) fn part_of(segment: &str, part: &str) -> String {
    format!("{SEGMENTS}/{segment}/{part}")
}

pub(super) fn footer_of(segment: &str) -> String {
    part_of(segment, FOOTER)
}

/// The backup of which a file is what was not sealed.
pub(super) fn named_tail(file: &Listed) -> Option<&str> {
    named(file, TAIL)
}

/// The segment that a file belongs to.
pub(super) fn segment_of(name: &str) -> Option<&str> {
    let (segment, _) = name.strip_prefix(SEGMENTS)?.strip_prefix('/')?.split_once('/')?;
    is_plain(segment).then_some(segment)
}

/// Whether it is one part of a path, which leads nowhere else: names come from others, and become paths.
pub(super) fn is_plain(part: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part.len() <= 128 && !part.starts_with('.') && part.chars().all(is_fine)
}

/// What the file of a backup is called without its extension.
fn named<'a>(file: &'a Listed, extension: &str) -> Option<&'a str> {
    let name = file.name.strip_prefix(BACKUPS)?.strip_prefix('/')?;
    name.strip_suffix(extension)?.strip_suffix('.').filter(|name| !name.contains('/'))
}

/// Length and hash of a file that is read to its end; `seen` hears of the bytes.
pub(super) fn hash_of(
    file: &mut dyn Read,
    path: &Path,
    mut seen: impl FnMut(u64) -> Result<(), Error>,
) -> Result<(u64, Hash), Error> {
    let mut buffer = vec![0; READ_BYTES];
    let (mut hash, mut len) = (Xxh3::new(), 0u64);
    loop {
        let n = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(of_place("read", path))?,
        };
        let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        len += n as u64;
        seen(n as u64)?;
    }
    Ok((len, hash.digest128().to_be_bytes()))
}

/// Whether a directory has it under the name that it has before it is whole.
pub(super) fn is_unfinished(file: &Listed) -> bool {
    file.name.ends_with(".new")
}

/// What a segment is called in a backup: two that have the same footer are the same.
pub(super) fn name_of(segment: &Segment, footer: &segment::Part) -> String {
    format!("{}-{}", segment.name(), hex(footer.hash))
}

/// Bytes as text, for names.
pub(super) fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// An error of what a place's file answered while it was written or read, for `map_err`.
pub(super) fn of_place(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> Error + use<> {
    let failed = place::failed(action, path);
    move |error| Error::Place(failed(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_names_no_segment_that_leads_elsewhere() {
        for name in ["segments/../footer", "segments//footer", "segments/./db/a", "segments/a b/x"]
        {
            assert_eq!(segment_of(name), None, "{name}");
        }
        // The null control.
        assert_eq!(segment_of("segments/1-1-ab/footer"), Some("1-1-ab"));
    }

    #[test]
    fn backups_are_in_the_order_in_which_they_were_taken_by_old_names_and_new() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::for_log(dir.path(), "l").unwrap();
        let names = ["00009-100", "00003-101-00ff", "00002-102", "00001-103-ab"];
        for name in names.iter().rev() {
            assert!(target.place.put_new(&manifest(name), b"").unwrap());
        }
        assert_eq!(target.names().unwrap(), names);
    }
}
