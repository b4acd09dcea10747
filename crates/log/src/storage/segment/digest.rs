//! Hashes: of events, of the chain over them, of files.
//!
//! An event's digest covers its payload only through the payload's own hash, so that a payload can
//! be erased later and the chain still proves everything else.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use tailmark_record::Facts;

/// The only algorithm so far: XXH3 with 128 bits, seed 0, canonical (big-endian) bytes.
pub(super) const XXH3_128: u8 = 1;

/// A 128-bit hash in its canonical form.
pub(super) type Hash = [u8; 16];

pub(super) fn hash(bytes: &[u8]) -> Hash {
    xxh3_128(bytes).to_be_bytes()
}

/// A chain over the digests of events: `chain = H(chain before | digest)`.
pub(super) struct Chain {
    end: Hash,
    scratch: Vec<u8>,
    empty_payload: Hash,
}

impl Chain {
    /// A chain that goes on from `start`; all zeros in a segment of format 1.
    pub(super) fn new(start: Hash) -> Self {
        Chain { end: start, scratch: Vec::with_capacity(1024), empty_payload: hash(&[]) }
    }

    pub(super) fn end(&self) -> Hash {
        self.end
    }

    /// Adds one event: `digest = H(event without body and data | H(body and data))`.
    pub(super) fn push(&mut self, event: &[u8], facts: &Facts<'_>) {
        let [body, data] = &facts.payload;
        self.scratch.clear();
        let payload_hash = match (body.is_empty(), data.is_empty()) {
            (true, true) => {
                self.scratch.extend_from_slice(event);
                self.empty_payload
            }
            (false, false) => {
                // Not written by this program, but well defined all the same: in order of place.
                let (one, two) = if body.start < data.start { (body, data) } else { (data, body) };
                let mut hasher = Xxh3::new();
                hasher.update(&event[one.clone()]);
                hasher.update(&event[two.clone()]);
                self.scratch.extend_from_slice(&event[..one.start]);
                self.scratch.extend_from_slice(&event[one.end..two.start]);
                self.scratch.extend_from_slice(&event[two.end..]);
                hasher.digest128().to_be_bytes()
            }
            (no_body, _) => {
                let range = if no_body { data } else { body };
                self.scratch.extend_from_slice(&event[..range.start]);
                self.scratch.extend_from_slice(&event[range.end..]);
                hash(&event[range.clone()])
            }
        };
        self.scratch.extend_from_slice(&payload_hash);
        let mut link = [0; 32];
        link[..16].copy_from_slice(&self.end);
        link[16..].copy_from_slice(&hash(&self.scratch));
        self.end = hash(&link);
    }
}

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
