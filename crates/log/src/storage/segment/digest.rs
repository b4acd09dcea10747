//! Hashes of files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::chain::Hash;

/// The only algorithm so far: XXH3 with 128 bits, seed 0, canonical (big-endian) bytes.
pub(super) const XXH3_128: u8 = 1;

/// Length and hash of a file.
pub(super) fn hash_file(path: &Path) -> io::Result<(u64, Hash)> {
    hash_windows(path, 0, |_, _| {})
}

/// The same; shows all of the file on the way, in windows of which each begins with the last
/// `overlap` bytes of the one before, and says where each begins.
pub(super) fn hash_windows(
    path: &Path,
    overlap: usize,
    mut see: impl FnMut(u64, &[u8]),
) -> io::Result<(u64, Hash)> {
    let mut file = File::open(path)?;
    let (mut hasher, mut len) = (Xxh3::new(), 0);
    let mut buffer = vec![0; overlap + (256 << 10)];
    let mut kept = 0;
    loop {
        let n = match file.read(&mut buffer[kept..]) {
            Ok(0) => return Ok((len, hasher.digest128().to_be_bytes())),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let filled = kept + n;
        hasher.update(&buffer[kept..filled]);
        see(len - kept as u64, &buffer[..filled]);
        len += n as u64;
        let start = filled.saturating_sub(overlap);
        buffer.copy_within(start..filled, 0);
        kept = filled - start;
    }
}
