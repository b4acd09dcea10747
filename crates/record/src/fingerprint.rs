//! Telling repeats: a keyed 128-bit hash of what a sender said.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

/// Secret of one log, drawn when it is created: without it nobody can craft two events that are
/// taken for one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FingerprintKey([u8; 16]);

impl FingerprintKey {
    /// Wraps 16 random bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        FingerprintKey(bytes)
    }

    /// The raw bytes, to be stored.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// SipHash-2-4-128 (Aumasson and Bernstein, 2012) of an event's client part.
    pub fn fingerprint(&self, client_part: &[u8]) -> Fingerprint {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(client_part);
        Fingerprint(hasher.finish128().as_bytes())
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

/// Equal for equal events; different for different ones, but for one chance in 2^128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);
