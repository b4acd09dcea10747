//! One file: a tar archive of the same layout, so that other programs can look into it.
//!
//! It is written beside, under a name that says so, and has its own name when it is whole. Of a cut attempt
//! the segments that are whole are kept. What may move soonest, the tail, comes first and is to lie behind
//! the segments: until then it waits in a file without a name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::{FILE_EXTENSION, Listed, Making, Place, failed};
use crate::backup::Error;
use crate::backup::target::MARK;
use tailmark_log::storage::StoreError;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::piece_size::PieceSize;
use tailmark_log::storage::syncer::Growing;

const UNFINISHED: &str = ".unfinished";
/// Of what waits until the segments are there.
const LATER: &str = "backups/";
const SEGMENTS: &str = "segments/";
const BLOCK: u64 = 512;
const FILE_MODE: u32 = 0o600;
/// An archive ends with so many empty blocks; programs that pack one anew may write up to so many.
const END_BLOCKS: u64 = 2;
const MOST_END_BLOCKS: u64 = 20;

/// One file.
#[derive(Debug)]
pub(super) struct Archive {
    /// What it is called when it is whole.
    path: PathBuf,
    /// What it is called now.
    now: PathBuf,
    inner: Arc<Mutex<Inner>>,
    disk: Disk,
    size: Arc<PieceSize>,
}

#[derive(Debug)]
struct Inner {
    file: Arc<File>,
    index: Vec<Entry>,
    /// Where the next entry begins.
    end: u64,
    /// What waits.
    later: Vec<(String, Arc<File>, u64)>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    /// Where its bytes begin.
    at: u64,
    len: u64,
}

impl Archive {
    /// A whole one, for reading.
    pub(super) fn open(path: &Path) -> Result<Archive, Error> {
        let file = match Disk::real().open_read(path) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoBackups { path: path.to_owned() });
            }
            opened => opened.map_err(Error::Place)?,
        };
        let archive = Archive::of(path, path.to_owned(), file)?;
        if archive.is_ours() && !archive.has_end().map_err(failed("read", path))? {
            let what = "it was cut, or the head of an entry is not what was written";
            return Err(Error::Damaged { path: path.to_owned(), what });
        }
        Ok(archive)
    }

    /// Whether it is meant to be a backup, whatever became of it.
    fn is_ours(&self) -> bool {
        match self.inner.lock().index.first() {
            Some(first) => first.name == MARK,
            None => self.path.extension().is_some_and(|it| it == FILE_EXTENSION),
        }
    }

    /// Whether behind the last entry that can be read stands what an archive ends with. Without that more entries
    /// were there: nobody can tell what they were, nor that there were none.
    fn has_end(&self) -> io::Result<bool> {
        let inner = self.inner.lock();
        let left = inner.file.metadata()?.len().saturating_sub(inner.end);
        if !(END_BLOCKS * BLOCK..=MOST_END_BLOCKS * BLOCK).contains(&left) {
            return Ok(false);
        }
        let (mut end, mut bytes) =
            (Part { file: Arc::clone(&inner.file), at: inner.end, left }, Vec::new());
        end.read_to_end(&mut bytes)?;
        Ok(bytes.iter().all(|byte| *byte == 0))
    }

    /// Whether an attempt has left something, or is at work; a whole one is not begun either.
    pub(super) fn is_begun(path: &Path) -> bool {
        path.exists() || unfinished(path).exists()
    }

    /// A new one, or what a cut attempt has left of it.
    pub(super) fn begin(path: &Path) -> Result<Archive, Error> {
        if path.exists() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let (now, disk) = (unfinished(path), Disk::real());
        // As for a place that is a directory.
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.create_dir(parent).map_err(Error::Place)?;
            disk.sync_names(parent).map_err(Error::Place)?;
        }
        let file = loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
            let file = options.open(&now).map_err(failed("create", &now))?;
            if !disk.lock(&file, &now)? {
                return Err(Error::Place(StoreError::Locked { path: now, owner: None }));
            }
            // Another may just have finished it, and then this is the whole one.
            let held = file.metadata().map_err(failed("examine", &now))?;
            match std::fs::metadata(&now) {
                Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => break file,
                _ if path.exists() => return Err(Error::Exists { path: path.to_owned() }),
                _ => {}
            }
        };
        Ok(Archive::of(path, now, file)?)
    }

    fn of(path: &Path, now: PathBuf, file: File) -> Result<Archive, StoreError> {
        let (index, end) = index_of(&file).map_err(failed("read", &now))?;
        let inner = Inner { file: Arc::new(file), index, end, later: Vec::new() };
        let inner = Arc::new(Mutex::new(inner));
        Ok(Archive { path: path.to_owned(), now, inner, disk: Disk::real(), size: Arc::default() })
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

/// The entries that are whole, and where the last one ends.
fn index_of(file: &File) -> io::Result<(Vec<Entry>, u64)> {
    let len = file.metadata()?.len();
    let (mut index, mut end) = (Vec::new(), 0);
    let mut reader = file;
    let mut archive = tar::Archive::new(&mut reader);
    // Where it is cut, or something else stands, it is over.
    for entry in archive.entries_with_seek()? {
        let Ok(entry) = entry else { break };
        let (at, size) = (entry.raw_file_position(), entry.size());
        let Some(next) = at.checked_add(size.next_multiple_of(BLOCK)).filter(|it| *it <= len)
        else {
            break;
        };
        let Ok(name) = entry.path().map(|path| path.to_string_lossy().into_owned()) else { break };
        index.push(Entry { name, at, len: size });
        end = next;
    }
    Ok((index, end))
}

impl Inner {
    /// The newest of that name.
    fn find(&self, name: &str) -> Option<&Entry> {
        self.index.iter().rev().find(|entry| entry.name == name)
    }

    /// Writes what stands before an entry, once its length is known.
    fn head(&mut self, name: &str, len: u64) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_size(len);
        header.set_mode(FILE_MODE);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        header.set_mtime(now.map_or(0, |since| since.as_secs()));
        header.set_cksum();
        self.file.write_all_at(header.as_bytes(), self.end)?;
        let at = self.end + BLOCK;
        let padded = at + len.next_multiple_of(BLOCK);
        // Grown, it is padded with zeros.
        self.file.set_len(padded)?;
        self.index.push(Entry { name: name.to_owned(), at, len });
        self.end = padded;
        Ok(())
    }
}

impl Place for Archive {
    fn shown(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.path.clone() } else { self.now.join(name) }
    }

    fn is_blank(&self) -> Result<bool, StoreError> {
        let inner = self.inner.lock();
        let facts = inner.file.metadata().map_err(failed("examine", &self.now))?;
        // Nothing whole in a file that another attempt began.
        Ok(facts.len() == 0 || self.now != self.path && inner.index.is_empty())
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let inner = self.inner.lock();
        let is_below = |entry: &&Entry| {
            entry.name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        };
        let listed =
            |entry: &Entry| Listed { name: entry.name.clone(), len: entry.len, written_at: None };
        Ok(inner.index.iter().filter(is_below).map(listed).collect())
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        let inner = self.inner.lock();
        let found = inner.find(name).ok_or(io::ErrorKind::NotFound.into());
        let Entry { at, len, .. } = found.map_err(failed("open", &self.shown(name)))?.clone();
        Ok(Box::new(Part { file: Arc::clone(&inner.file), at, left: len }))
    }

    fn create(&self, name: &str) -> Result<Box<dyn Making>, StoreError> {
        let waits = name.starts_with(LATER);
        // What waits is not needed after a power cut.
        let target = if waits {
            At { file: Arc::new(self.nameless()?), at: 0, growing: None }
        } else {
            self.end_of(&self.inner.lock())
        };
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        let shown = self.shown(&name);
        Ok(Box::new(EntryMade { inner, target, name, shown, len: 0, waits }))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let mut inner = self.inner.lock();
        if inner.find(name).is_some() {
            return Ok(false);
        }
        let shown = self.shown(name);
        if name.starts_with(LATER) {
            // The last file is put: what waits stands before it.
            for (name, file, len) in std::mem::take(&mut inner.later) {
                let mut source = Part { file, at: 0, left: len };
                let mut target = self.end_of(&inner);
                io::copy(&mut source, &mut target).map_err(failed("write", &shown))?;
                target.finish()?;
                inner.head(&name, len).map_err(failed("write", &shown))?;
            }
        }
        let at = inner.end + BLOCK;
        let written = inner.file.write_all_at(bytes, at);
        written
            .and_then(|()| inner.head(name, bytes.len() as u64))
            .map_err(failed("write", &shown))?;
        Ok(true)
    }

    fn remove(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    fn keep(&self, wanted: &dyn Fn(&str) -> bool) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        let is_kept = |entry: &Entry| match entry.name.strip_prefix(SEGMENTS) {
            Some(rest) => rest.split('/').next().is_some_and(wanted),
            None => !entry.name.contains('/'),
        };
        let count = inner.index.iter().take_while(|entry| is_kept(entry)).count();
        inner.index.truncate(count);
        inner.end = inner.index.last().map_or(0, |it| it.at + it.len.next_multiple_of(BLOCK));
        inner.later.clear();
        inner.file.set_len(inner.end).map_err(failed("write", &self.now))
    }

    fn finish(&self) -> Result<(), StoreError> {
        let inner = self.inner.lock();
        inner.file.set_len(inner.end + END_BLOCKS * BLOCK).map_err(failed("write", &self.now))?;
        self.disk.sync_data(&inner.file, &self.now)?;
        if self.path.exists() {
            let path = self.path.clone();
            let source = io::ErrorKind::AlreadyExists.into();
            return Err(StoreError::Io { action: "rename", path, source });
        }
        self.disk.rename(&self.now, &self.path)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        self.disk.sync_dir(parent.unwrap_or(Path::new(".")))
    }

    fn holds_one(&self) -> bool {
        true
    }
}

impl Archive {
    /// Where the bytes of the next entry stand.
    fn end_of(&self, inner: &Inner) -> At {
        let file = Arc::clone(&inner.file);
        let growing = Growing::new(Arc::clone(&file), self.now.clone(), &self.disk, &self.size);
        At { file, at: inner.end + BLOCK, growing: Some(growing) }
    }

    /// A file beside it that goes with the process.
    fn nameless(&self) -> Result<File, StoreError> {
        let mut path = self.now.as_os_str().to_owned();
        path.push(".tail");
        let path = PathBuf::from(path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        let file = options.open(&path).map_err(failed("create", &path))?;
        self.disk.remove_file(&path)?;
        Ok(file)
    }
}

/// Bytes of a file from one place on.
struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let n = self.file.read_at(buffer, self.at)?;
        if n == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Writes from one place on.
struct At {
    file: Arc<File>,
    at: u64,
    /// Of what is to be durable.
    growing: Option<Growing>,
}

impl At {
    fn finish(self) -> Result<(), StoreError> {
        self.growing.map_or(Ok(()), Growing::finish)
    }
}

impl Write for At {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write_at(bytes, self.at)?;
        self.at += n as u64;
        if let Some(growing) = &mut self.growing {
            growing.wrote(n)?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct EntryMade {
    inner: Arc<Mutex<Inner>>,
    target: At,
    name: String,
    shown: PathBuf,
    len: u64,
    /// It is written elsewhere, and put in when all else is there.
    waits: bool,
}

impl Write for EntryMade {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.target.write(bytes)?;
        self.len += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Making for EntryMade {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        let EntryMade { inner, target, name, shown, len, waits } = *self;
        let mut inner = inner.lock();
        if waits {
            inner.later.retain(|(other, ..)| *other != name);
            inner.later.push((name, target.file, len));
            return Ok(());
        }
        target.finish()?;
        inner.head(&name, len).map_err(failed("write", &shown))
    }
}

#[cfg(test)]
mod tests {
    use tailmark_log::storage::disk::Faults;
    use tailmark_log::storage::piece_size::LEAST_BYTES;

    use super::*;

    const PIECES: u8 = 12;

    fn make(path: &Path, disk: &Disk, folder: &str) -> Result<(), StoreError> {
        let mut archive = Archive::begin(path).unwrap();
        archive.disk = disk.clone();
        let name = format!("{folder}a/db");
        let mut made = archive.create(&name)?;
        for piece in 0..PIECES {
            made.write_all(&vec![piece; LEAST_BYTES]).map_err(failed("write", path))?;
        }
        made.finish()?;
        archive.put_new(&format!("{LATER}manifest"), b"manifest")?;
        archive.finish()
    }

    /// One sync at the end of all holds up every commit of a daemon beside it for as long as it takes.
    #[test]
    fn it_is_synced_as_it_grows_also_what_has_waited() {
        for folder in [SEGMENTS, LATER] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.tailmark");
            let seen = Arc::new(Mutex::new(Vec::new()));
            let sees = Arc::clone(&seen);
            let watcher = move |action, path: &Path| {
                let len = std::fs::metadata(path).map_or(0, |it| it.len());
                sees.lock().push((action, len));
            };
            make(&path, &Disk::watched(Arc::new(watcher)), folder).unwrap();
            let seen = seen.lock();
            let lens: Vec<_> =
                seen.iter().filter(|(action, _)| *action == "sync").map(|(_, len)| *len).collect();
            assert!(lens.len() > usize::from(PIECES) / 2, "{folder}: {seen:?}");
            // No more than what is being synced, what waits and what is being written lies in memory.
            let most = lens.windows(2).map(|two| two[1].saturating_sub(two[0])).max().unwrap();
            assert!(most <= 4 * LEAST_BYTES as u64, "{folder}: {lens:?}");
        }
    }

    #[test]
    fn what_could_not_be_synced_has_not_its_name() {
        for nth in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.tailmark");
            let faults = Faults::nth(nth, io::ErrorKind::StorageFull, false);
            let made = make(&path, &Disk::with_faults(Arc::clone(&faults)), SEGMENTS);
            if !faults.has_struck() {
                made.unwrap();
                assert!(nth > i64::from(PIECES) / 2);
                break;
            }
            assert!(made.is_err(), "{nth}");
            // The directory's own sync comes after the name.
            assert!(!path.exists() || nth > i64::from(PIECES) / 2, "{nth}");
        }
    }
}
