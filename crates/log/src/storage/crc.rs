//! CRC-32C (Castagnoli), by the processor's own instruction where it has one.

/// The checksum of `bytes`, going on from `seed` (0 to begin).
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}
