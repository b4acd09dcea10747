//! The limit of the disk: sequential writes of the bytes that Tailmark stores, each commit followed
//! by fdatasync, into a file that was allocated and written before and is written over again.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;

use crate::peers::{Peer, Setup};
use crate::process::Server;
use crate::sample::{self, Load};

/// As four slots of the journal.
const FILE_BYTES: u64 = 256 << 20;
/// Of the tag and the length before each event.
const ENTRY_BYTES: usize = 3;

/// A file of its own.
pub(crate) struct File {
    file: Arc<std::fs::File>,
    commit: Arc<Vec<u8>>,
    _dir: tempfile::TempDir,
}

impl File {
    pub(crate) fn create(setup: &Setup) -> Result<File> {
        let dir = setup.new_dir("file")?;
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.path().join("recycled"))?;
        let mut commit = Vec::with_capacity(setup.commit_bytes);
        while commit.len() < setup.commit_bytes {
            let event: &bytes::Bytes = sample::pick(&sample::STORED, commit.len() as u64);
            commit.extend_from_slice(event);
        }
        commit.truncate(setup.commit_bytes);
        let chunk = vec![1u8; 1 << 20];
        for at in (0..FILE_BYTES).step_by(chunk.len()) {
            file.write_all_at(&chunk, at)?;
        }
        file.sync_all()?;
        Ok(File { file: Arc::new(file), commit: Arc::new(commit), _dir: dir })
    }

    /// So many bytes in commits of the given size.
    async fn write(&self, bytes: u64) -> Result<Duration> {
        let (file, commit) = (Arc::clone(&self.file), Arc::clone(&self.commit));
        let work = move || {
            let begun = Instant::now();
            let (mut written, mut at) = (0, 0);
            while written < bytes {
                let len = commit.len().min(usize::try_from(bytes - written)?);
                if at + len as u64 > FILE_BYTES {
                    at = 0;
                }
                file.write_all_at(&commit[..len], at)?;
                file.sync_data()?;
                written += len as u64;
                at += len as u64;
            }
            anyhow::Ok(begun.elapsed())
        };
        tokio::task::spawn_blocking(work).await?
    }
}

/// Bytes of so many stored events.
pub(crate) fn stored_bytes(events: u64) -> u64 {
    let all: usize = sample::STORED.iter().map(|event| event.len() + ENTRY_BYTES).sum();
    events * all as u64 / sample::STORED.len() as u64
}

#[async_trait]
impl Peer for File {
    fn server(&self) -> Option<&Server> {
        None
    }

    async fn append(&self, load: Load) -> Result<Option<Duration>> {
        Ok(Some(self.write(stored_bytes(load.events)).await?))
    }

    async fn append_batches(&self, load: Load, _batch: usize) -> Result<Option<Duration>> {
        self.append(load).await
    }

    async fn fill(&self, _: Load) -> Result<()> {
        Ok(())
    }

    async fn publish(&self, events: usize) -> Result<Option<Vec<Duration>>> {
        let file = Arc::clone(&self.file);
        let work = move || {
            let mut samples = Vec::with_capacity(events);
            // A page each, one after the other, as frames of single events lie in the journal.
            let page = [2u8; 4_096];
            for at in 0..events as u64 {
                let begun = Instant::now();
                file.write_all_at(&page, at * 4_096 % FILE_BYTES)?;
                file.sync_data()?;
                samples.push(begun.elapsed());
            }
            anyhow::Ok(samples)
        };
        Ok(Some(tokio::task::spawn_blocking(work).await??))
    }
}
