//! One small file, read and replaced as a whole, wherever its name leads.
//!
//! Invariant: under the name lies what was there before or what was written, whole, also after a crash of
//! the machine. So a symbolic link stays a link, and what it leads to is replaced.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Far more than a cursor and the patterns of one watch.
const MAX_BYTES: u64 = 1 << 20;
/// What such a sync is answered with.
const EBADF: i32 = 9;
const EINVAL: i32 = 22;
/// As many as Linux itself follows.
const MAX_LINKS: usize = 40;

/// Where the file rests: no part of it is a symbolic link at the end.
#[derive(Debug)]
pub(super) struct Place {
    target: PathBuf,
    temporary: PathBuf,
    directory: PathBuf,
}

impl Place {
    /// Follows `path` to its end, which need not exist.
    ///
    /// # Errors
    /// When it leads in a circle, or to what is no file: that cannot be replaced, or would be lost.
    pub(super) fn of(path: &Path) -> io::Result<Place> {
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => return Err(not_a_file(&found)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let target = follow(path)?;
        let Some(name) = target.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
        };
        let mut temporary = OsString::from(name);
        temporary.push(".tmp");
        let temporary = target.with_file_name(temporary);
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new(".")).to_owned();
        Ok(Place { target, temporary, directory })
    }

    /// What it holds; `None` when it is not there.
    ///
    /// # Errors
    /// When it cannot be read, or is far too large to be read at all.
    pub(super) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(&self.target) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            let problem = format!("it has more than {} MiB", MAX_BYTES >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
        }
        Ok(Some(bytes))
    }

    /// Writes a new file beside the old one, syncs it, gives it the old one's mode and owner, renames it,
    /// and syncs the directory.
    ///
    /// # Errors
    /// What went wrong; the old file is there still, unless the last sync alone failed.
    pub(super) fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let written = self.write_beside(bytes).and_then(|()| {
            fs::rename(&self.temporary, &self.target).map_err(|error| self.explain(error))
        });
        if written.is_err() {
            // Nothing more can be done for it.
            let _ = fs::remove_file(&self.temporary);
        }
        written?;
        match File::open(&self.directory)?.sync_all() {
            // Some file systems sync no directories: they keep names by themselves, or not at all.
            Err(error) if matches!(error.raw_os_error(), Some(EBADF | EINVAL)) => Ok(()),
            synced => synced,
        }
    }

    fn write_beside(&self, bytes: &[u8]) -> io::Result<()> {
        // What a crash left behind goes, and is not written through: it may be somebody's link.
        match fs::remove_file(&self.temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.explain(error));
            }
            _ => {}
        }
        // Topics and positions are their owner's business, whatever the umask.
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let created = options.open(&self.temporary);
        let mut file = created.map_err(|error| self.explain(error))?;
        file.write_all(bytes)?;
        if let Ok(old) = fs::metadata(&self.target) {
            keep_access(&file, &old);
        }
        file.sync_data()
    }

    /// Says what the system's few words leave out.
    fn explain(&self, error: io::Error) -> io::Error {
        let directory = self.directory.display();
        let problem = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => format!(
                "{error}: the directory {directory} must be writable too, since each new file is \
                 written beside the old one and takes its place"
            ),
            io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => format!(
                "{error}: the file is mounted on its own, so that no other can take its place; mount \
                 the directory {directory} instead"
            ),
            _ => return error,
        };
        io::Error::new(error.kind(), problem)
    }
}

/// Whoever may read and write the old one may do so with the new one, as far as we may say so: a user
/// cannot give files away.
fn keep_access(file: &File, old: &Metadata) {
    let Ok(new) = file.metadata() else { return };
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        let _ = std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()));
    }
    if new.mode() != old.mode() {
        let _ = file.set_permissions(old.permissions());
    }
}

/// The name at the end of the links that begin with `path`.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::symlink_metadata(&at) {
            Ok(found) if found.is_symlink() => {}
            Ok(_) => return Ok(at),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(at),
            Err(error) => return Err(error),
        }
        let next = fs::read_link(&at)?;
        // Relative to where the link lies; an absolute one replaces all of it.
        at = at.parent().unwrap_or(Path::new("")).join(next);
    }
    Err(io::Error::other(format!("more than {MAX_LINKS} symbolic links, one after the other")))
}

fn not_a_file(found: &Metadata) -> io::Error {
    let kind = found.file_type();
    let (error, what) = match () {
        () if kind.is_dir() => (io::ErrorKind::IsADirectory, "a directory"),
        () if kind.is_fifo() => (io::ErrorKind::InvalidInput, "a pipe"),
        () if kind.is_socket() => (io::ErrorKind::InvalidInput, "a socket"),
        () => (io::ErrorKind::InvalidInput, "a device"),
    };
    io::Error::new(error, format!("it is {what}; a cursor is kept in a file of its own"))
}

#[cfg(test)]
mod tests;
