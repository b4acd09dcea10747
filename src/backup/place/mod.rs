//! Places that keep files by their names: a directory, one file, the store of a cloud.
//!
//! A file is there whole and durable, or it is not there. Names are those of the layout
//! (`backups/5-1.tail`), with `/` between their parts.

mod archive;
#[cfg(feature = "cloud")]
mod cloud;
mod directory;

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Error;
use archive::Archive;
use directory::Directory;
use tailmark_log::storage::StoreError;

/// A name that ends so is one file, where nothing is there yet.
const FILE_EXTENSION: &str = "tailmark";
/// No whole small file is longer.
const MAX_SMALL_BYTES: u64 = 256 << 20;

/// A place that keeps files.
pub(super) trait Place: fmt::Debug + Send + Sync {
    /// A file, as people know it; the place itself without a name.
    fn shown(&self, name: &str) -> PathBuf;

    /// Where what has that name lies on this machine, if it does.
    fn local(&self, _name: &str) -> Option<PathBuf> {
        None
    }

    /// Whether what was taken may have changed since: then it is looked at before it counts.
    fn may_rot(&self) -> bool {
        true
    }

    /// Whether [`Place::claim`] keeps others away.
    fn has_locks(&self) -> bool {
        true
    }

    /// Whether nothing is there, of anybody.
    fn is_blank(&self) -> Result<bool, StoreError>;

    /// Keeps others away that write here, by a file that is there. A cloud has no locks: there nothing is
    /// written over that another may write.
    fn claim(&mut self, _mark: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether [`Place::claim`] keeps others away still: the file may have been removed since, or replaced.
    fn is_claimed(&self, _mark: &str) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// The files below a folder.
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError>;

    /// Reads a file; an error of the kind `NotFound` where there is none.
    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError>;

    /// Begins a file. It is there, in place of one of the same name, when it is finished.
    fn create(&self, name: &str) -> Result<Box<dyn Making>, StoreError>;

    /// Puts a small file, unless there is one of that name; then it answers false.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError>;

    /// Takes away what is no part of anything. That it is gone already is no error.
    fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// The same of a folder with all in it.
    fn remove_folder(&self, _folder: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// What was removed from a folder stays so after a power cut.
    fn settle(&self, _folder: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Keeps of the segments that a cut attempt has brought those that `wanted` has; what cannot be kept
    /// alone goes with the others.
    fn keep(&self, _wanted: &dyn Fn(&str) -> bool) -> Result<(), StoreError> {
        Ok(())
    }

    /// A backup is whole here: what the place holds has its name from now on.
    fn finish(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether it holds one backup alone, which is proved before it is finished.
    fn holds_one(&self) -> bool {
        false
    }
}

/// A file that is being written.
pub(super) trait Making: Write + Send {
    /// All is written.
    fn finish(self: Box<Self>) -> Result<(), StoreError>;
}

/// A file of a place.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) len: u64,
    /// Where the place says so of what others may be writing just now.
    pub(super) written_at: Option<SystemTime>,
}

/// What a place is to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    /// What a cut attempt has left is read; nothing is made.
    Resume,
    /// Made if it is not there; nobody else writes to it meanwhile where locks are.
    Write,
}

/// The place that a text names: `s3://`, `gs://` and `az://` are stores of clouds; what is there is what it
/// is; what is not there yet is one file if its name ends in `.tailmark`, else a directory.
pub(super) fn at(path: &Path, to: Use) -> Result<Box<dyn Place>, Error> {
    if let Some((scheme, _)) = path.to_str().and_then(|text| text.split_once("://")) {
        return in_cloud(path, scheme);
    }
    let is_dir_by_name = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let is_file_by_name = path.extension().is_some_and(|it| it == FILE_EXTENSION);
    if path.is_file() || !path.exists() && is_file_by_name && !is_dir_by_name {
        return match to {
            Use::Read => Ok(Box::new(Archive::open(path)?)),
            Use::Resume if !Archive::is_begun(path) => Ok(Box::new(Directory::open(path))),
            Use::Resume | Use::Write => Ok(Box::new(Archive::begin(path)?)),
        };
    }
    match to {
        Use::Read | Use::Resume => Ok(Box::new(Directory::open(path))),
        Use::Write => Ok(Box::new(Directory::for_writing(path)?)),
    }
}

#[cfg(feature = "cloud")]
fn in_cloud(url: &Path, _: &str) -> Result<Box<dyn Place>, Error> {
    Ok(Box::new(cloud::Cloud::at(url)?))
}

#[cfg(not(feature = "cloud"))]
fn in_cloud(url: &Path, scheme: &str) -> Result<Box<dyn Place>, Error> {
    let path = url.to_owned();
    match scheme {
        "s3" | "gs" | "az" => Err(Error::NoCloud { path }),
        _ => Err(Error::Address { path, what: UNKNOWN_SCHEME.to_owned() }),
    }
}

const UNKNOWN_SCHEME: &str = "it is none of s3://, gs:// and az://";

/// A whole small file; `None` where there is none.
pub(super) fn read(place: &dyn Place, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut file = match place.open(name) {
        Ok(file) => file.take(MAX_SMALL_BYTES),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed("read", &place.shown(name)))?;
    Ok(Some(bytes))
}

/// Wraps an I/O error, for `map_err`.
pub(super) fn failed(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}
