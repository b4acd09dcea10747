//! Numbers between memory (`usize`), files (`u64`) and what is stored of lengths (`u32`).

/// A length or a place in memory, of a number that counts bytes of a file. What memory cannot hold
/// becomes a number that no memory has, never a smaller one; free where `usize` has 64 bits.
pub(crate) fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A length or a count as it is stored. Limits far below 32 bits hold for all that this is asked
/// of: of a commit (16 MiB), a block, a segment.
pub(crate) fn to_u32(len: impl TryInto<u32>) -> u32 {
    let len = len.try_into();
    debug_assert!(len.is_ok(), "a length beyond every limit");
    len.unwrap_or(u32::MAX)
}
