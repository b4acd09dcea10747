//! Taking a backup of the log in a directory.

use std::io;
use std::path::Path;

use super::filling::{Filling, Progress, Taken};
use super::{Error, source};

/// Adds a backup of the log in `dir` to those in `to`: a directory, a file, or a folder of a cloud by its
/// URL. A file holds one. `watch` hears how far it is and ends it with an error of its own.
///
/// # Errors
/// No log; damage where it is read: no backup is taken of a log that is not whole. A place that holds
/// something else, or backups of another log. I/O.
pub fn take(
    dir: &Path,
    to: &Path,
    mut watch: impl FnMut(Progress) -> io::Result<()>,
) -> Result<Taken, Error> {
    let mut filling = Filling::new(to, &mut watch);
    source::read(dir, &mut filling)?;
    filling.taken().ok_or(Error::Senseless { what: "it has no end" })
}
