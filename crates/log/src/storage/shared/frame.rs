//! What a shared journal holds.

use xxhash_rust::xxh3::Xxh3;

use crate::storage::Commit;
use tailmark_record::GenerationEntry;

/// The hash of all frames up to one; of none it is 0. It tells histories of a journal apart also where no
/// event was appended, which the chain over the events cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameChain(u128);

/// One commit or takeover: stored whole, or not at all.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The chain before it.
    pub previous: FrameChain,
    /// Goes up by one a takeover.
    pub term: u64,
    /// The daemon that wrote it.
    pub writer: u64,
    /// Tells it from all others: drawn at random.
    pub nonce: u64,
    /// What it carries.
    pub body: Body,
}

/// What a frame carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// A takeover: from here on its daemon writes, and events are of this generation.
    Term(GenerationEntry),
    /// A commit, without the state of whoever made it.
    Commit(Commit),
    /// Nothing: that it is stored proves where the journal ended.
    Empty,
}

impl Frame {
    /// The chain up to and with this frame.
    pub fn chain(&self) -> FrameChain {
        let mut hash = Xxh3::new();
        hash.update(&self.previous.0.to_le_bytes());
        for number in [self.term, self.writer, self.nonce] {
            hash.update(&number.to_le_bytes());
        }
        match &self.body {
            Body::Empty => hash.update(&[0]),
            Body::Term(row) => {
                hash.update(&[1]);
                let generation = row.generation;
                hash.update(&generation.counter.to_le_bytes());
                hash.update(&generation.nonce.to_le_bytes());
                hash.update(&row.first.get().to_le_bytes());
            }
            Body::Commit(commit) => {
                hash.update(&[2]);
                let numbers = [commit.first.get(), u64::from(commit.count), commit.oldest.get()];
                numbers.iter().for_each(|number| hash.update(&number.to_le_bytes()));
                hash.update(&commit.appended_at.as_nanos().to_le_bytes());
                hash.update(&(commit.events.len() as u64).to_le_bytes());
                hash.update(&commit.events);
                hash.update(&commit.delta);
            }
        }
        FrameChain(hash.digest128())
    }
}
