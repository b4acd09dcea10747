//! A few bits a name, which tell most names that are not there.
//!
//! A split block Bloom filter as Parquet has it, over XXH3-64: 32 bytes a block, one bit in each of
//! its eight words. <https://parquet.apache.org/docs/file-format/bloomfilter/>

use xxhash_rust::xxh3::xxh3_64;

use crate::storage::segment::problem::{Problem, Result};
use crate::width::to_usize;

/// Of 100 names that are not there, about one seems to be.
const BITS_A_NAME: u64 = 12;
const BLOCK_BYTES: usize = 32;
const SALT: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage::segment) struct Bloom(Box<[u8]>);

impl Bloom {
    /// The hash of a name.
    pub(in crate::storage::segment) fn hash(name: &[u8]) -> u64 {
        xxh3_64(name)
    }

    /// One for names with these hashes.
    pub(super) fn of(hashes: impl ExactSizeIterator<Item = u64>) -> Bloom {
        let bits = hashes.len() as u64 * BITS_A_NAME;
        let blocks = to_usize(bits.div_ceil(8 * BLOCK_BYTES as u64).max(1));
        let mut bytes = vec![0; blocks * BLOCK_BYTES];
        for hash in hashes {
            let at = block_of(hash, blocks) * BLOCK_BYTES;
            for (byte, bit) in bits_of(hash) {
                bytes[at + byte] |= bit;
            }
        }
        Bloom(bytes.into())
    }

    /// Its bytes.
    pub(in crate::storage::segment) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// That of these bytes.
    pub(in crate::storage::segment) fn decode(bytes: Vec<u8>) -> Result<Bloom> {
        let is_sound = !bytes.is_empty() && bytes.len().is_multiple_of(BLOCK_BYTES);
        is_sound
            .then(|| Bloom(bytes.into()))
            .ok_or(Problem::Damaged("its filter of topics makes no sense"))
    }

    /// Whether a name with this hash may be there.
    pub(in crate::storage::segment) fn may_have(&self, hash: u64) -> bool {
        let at = block_of(hash, self.0.len() / BLOCK_BYTES) * BLOCK_BYTES;
        let block = self.0.get(at..at + BLOCK_BYTES).unwrap_or_default();
        bits_of(hash).all(|(byte, bit)| block.get(byte).is_some_and(|have| have & bit != 0))
    }
}

/// The block is chosen by the upper half of the hash.
fn block_of(hash: u64, blocks: usize) -> usize {
    to_usize(((hash >> 32) * blocks as u64) >> 32)
}

/// The bits, by the lower half: which byte of the block, and which bit in it.
fn bits_of(hash: u64) -> impl Iterator<Item = (usize, u8)> {
    let low = hash & u64::from(u32::MAX);
    (0..).zip(SALT).map(move |(word, salt): (usize, u32)| {
        // Five bits of the product's lower half, from its top.
        let bit = to_usize((low * u64::from(salt)) >> 27 & 31);
        (word * 4 + bit / 8, 1 << (bit % 8))
    })
}
