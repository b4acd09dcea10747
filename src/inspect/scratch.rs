//! Where copies of sealed databases are made: opening one writes to it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::Error;
use tailmark_log::storage::StoreError;
use tailmark_log::storage::disk::Disk;
use tailmark_log::storage::segment::{OfflineReader, Segment};

/// Left to others in the scratch directory, beside what sled itself writes when it opens a copy.
const MARGIN_BYTES: u64 = 16 << 20;

/// A directory that only its owner can read, made when it is first needed, deleted with this.
#[derive(Debug)]
pub(crate) struct Scratch {
    parent: PathBuf,
    made: Option<PathBuf>,
}

impl Scratch {
    /// In `TMPDIR`, else in `/tmp`.
    pub(crate) fn new() -> Scratch {
        Scratch { parent: std::env::temp_dir(), made: None }
    }

    /// A directory with room for a copy of `segment`.
    pub(crate) fn for_copy_of(&mut self, segment: &Segment) -> Result<&Path, Error> {
        let available_bytes = Disk::real().available(&self.parent)?;
        let needed_bytes = segment.disk_bytes() + MARGIN_BYTES;
        if available_bytes < needed_bytes {
            let dir = self.parent.clone();
            return Err(Error::NoScratch { dir, available_bytes, needed_bytes });
        }
        self.dir()
    }

    /// The directory, for what takes little room.
    pub(crate) fn dir(&mut self) -> Result<&Path, Error> {
        if self.made.is_none() {
            let name = format!("tailmark-{}-{:08x}", std::process::id(), rand::random::<u32>());
            let dir = self.parent.join(name);
            let made = DirBuilder::new().mode(0o700).create(&dir);
            made.map_err(|source| StoreError::Io { action: "create", path: dir.clone(), source })?;
            self.made = Some(dir);
        }
        Ok(self.made.as_deref().unwrap_or(&self.parent))
    }

    /// Opens a copy of `segment`.
    pub(crate) fn open(&mut self, segment: &Segment) -> Result<OfflineReader, Error> {
        let scratch = self.for_copy_of(segment)?;
        Ok(OfflineReader::open(segment.dir(), scratch)?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(dir) = &self.made {
            // Nothing but copies; what stays behind is the temporary directory's business.
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}
