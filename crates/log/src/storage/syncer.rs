//! Making files durable in a thread of its own, while others are read and written.
//!
//! What is on disk leaves the system's cache: a copy larger than memory would else push out all that others read, and
//! takes more than twice as long where each page of it is memory that was not used before.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use super::StoreError;
use super::disk::Disk;
use super::piece_size::PieceSize;

/// Files that wait while another is synced, beside the one that is being written: bounds what is written and not on disk.
const WAITING: usize = 0;

/// With how much was written since it came last.
type Waiting = (Arc<File>, PathBuf, usize);

/// Syncs files in the order in which they come. The first error ends it, and is told to whoever brings the next
/// one, or at the end.
#[derive(Debug)]
pub struct Syncer {
    files: Option<SyncSender<Waiting>>,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Syncer {
    /// Begins, with nothing to do. `size` learns what syncs take, where anybody asks it.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(disk: &Disk, size: Option<&Arc<PieceSize>>) -> io::Result<Syncer> {
        let (files, waiting) = sync_channel(WAITING);
        let (disk, size) = (disk.clone(), size.cloned());
        let thread = std::thread::Builder::new().name("sync".to_owned());
        let thread = thread.spawn(move || run(&disk, &waiting, size.as_deref()))?;
        Ok(Syncer { files: Some(files), thread: Some(thread) })
    }

    /// Syncs what is written to a file by now, soon: so many bytes since it was synced last.
    ///
    /// # Errors
    /// Of a file that came before.
    pub fn sync(&mut self, file: &Arc<File>, path: &Path, bytes: usize) -> Result<(), StoreError> {
        let waiting = (Arc::clone(file), path.to_owned(), bytes);
        match self.files.as_ref().map(|files| files.send(waiting)) {
            Some(Ok(())) => Ok(()),
            // It has ended, which only an error makes it do.
            _ => Err(self.end().err().unwrap_or(FAILED)),
        }
    }

    /// Waits until all that came is durable.
    ///
    /// # Errors
    /// Of a file that came before.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), StoreError> {
        self.files = None;
        // Without one the error was told already, and all the same nothing is durable.
        let thread = self.thread.take().ok_or(FAILED)?;
        thread.join().unwrap_or(Err(StoreError::Invalid("a sync panicked")))
    }
}

const FAILED: StoreError = StoreError::Invalid("a sync failed before");

impl Drop for Syncer {
    fn drop(&mut self) {
        // What it says concerns nobody who did not ask.
        let _ = self.end();
    }
}

/// A file that is made durable while it grows, piece by piece.
#[derive(Debug)]
pub struct Growing {
    file: Arc<File>,
    path: PathBuf,
    disk: Disk,
    size: Arc<PieceSize>,
    /// Written since the syncer had it.
    unsynced_bytes: usize,
    /// When it gets it again.
    piece_bytes: usize,
    /// Of a file that is large enough.
    syncer: Option<Syncer>,
}

impl Growing {
    /// Of a file that is to be written to; `size` is for all that are written to the same disk.
    pub fn new(file: Arc<File>, path: PathBuf, disk: &Disk, size: &Arc<PieceSize>) -> Growing {
        let (disk, size, piece_bytes) = (disk.clone(), Arc::clone(size), size.next());
        Growing { file, path, disk, size, unsynced_bytes: 0, piece_bytes, syncer: None }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Has heard that so many bytes more were written. Waits while the disk is behind.
    ///
    /// # Errors
    /// Of what was synced before; then it is never durable.
    pub fn wrote(&mut self, bytes: usize) -> io::Result<()> {
        self.unsynced_bytes += bytes;
        if self.unsynced_bytes < self.piece_bytes {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.unsynced_bytes);
        self.piece_bytes = self.size.next();
        let syncer = match &mut self.syncer {
            Some(syncer) => syncer,
            none => none.insert(Syncer::start(&self.disk, Some(&self.size))?),
        };
        syncer.sync(&self.file, &self.path, bytes).map_err(|error| match error {
            StoreError::Io { source, .. } => source,
            other => io::Error::other(other),
        })
    }

    /// Waits until all that was written is durable.
    ///
    /// # Errors
    /// I/O, also of what was synced before.
    pub fn finish(self) -> Result<(), StoreError> {
        if let Some(syncer) = self.syncer {
            syncer.finish()?;
        }
        self.disk.sync_data(&self.file, &self.path)?;
        self.disk.forget_cached(&self.file);
        Ok(())
    }
}

fn run(
    disk: &Disk,
    waiting: &Receiver<Waiting>,
    size: Option<&PieceSize>,
) -> Result<(), StoreError> {
    for (file, path, bytes) in waiting {
        let begun = Instant::now();
        disk.sync_data(&file, &path)?;
        if let Some(size) = size {
            size.learn(bytes, begun.elapsed());
        }
        disk.forget_cached(&file);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::super::disk::Faults;
    use super::*;

    fn file(dir: &Path, at: usize) -> (Arc<File>, PathBuf) {
        let path = dir.join(at.to_string());
        (Arc::new(File::create(&path).unwrap()), path)
    }

    /// A disk that takes its time, and what it has synced.
    fn slow() -> (Disk, Arc<Mutex<Vec<PathBuf>>>) {
        let synced = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&synced);
        let watcher = move |action: &'static str, path: &Path| {
            assert_eq!(action, "sync");
            std::thread::sleep(Duration::from_millis(20));
            seen.lock().push(path.to_owned());
        };
        (Disk::watched(Arc::new(watcher)), synced)
    }

    #[test]
    fn all_that_came_is_synced_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, synced) = slow();
        let mut syncer = Syncer::start(&disk, None).unwrap();
        let files: Vec<_> = (0..10).map(|at| file(dir.path(), at)).collect();
        for (came, (file, path)) in files.iter().enumerate() {
            syncer.sync(file, path, 1).unwrap();
            // One is being synced; nobody runs ahead of the disk.
            assert!(synced.lock().len() + WAITING + 2 > came, "{came}");
        }
        syncer.finish().unwrap();
        let wanted: Vec<_> = files.into_iter().map(|(_, path)| path).collect();
        assert_eq!(*synced.lock(), wanted);
    }

    #[test]
    fn an_error_of_any_file_is_told_and_nothing_is_durable_after_it() {
        let dir = tempfile::tempdir().unwrap();
        for nth in 1..=6 {
            let faults = Faults::nth(nth, ErrorKind::StorageFull, false);
            let mut syncer = Syncer::start(&Disk::with_faults(Arc::clone(&faults)), None).unwrap();
            let mut told = None;
            for at in 0..6 {
                let (file, path) = file(dir.path(), at);
                if let Err(error) = syncer.sync(&file, &path, 1) {
                    // Once with its cause, and never again as if all were well.
                    assert!(syncer.sync(&file, &path, 1).is_err());
                    told = Some(error);
                    break;
                }
            }
            let at_the_end = syncer.finish();
            assert!(at_the_end.is_err(), "{nth}");
            let error = told.or(at_the_end.err()).unwrap();
            let is_it = matches!(&error, StoreError::Io { action: "sync", source, .. }
                if source.kind() == ErrorKind::StorageFull);
            assert!(is_it && faults.has_struck(), "{nth}: {error}");
        }
    }

    #[test]
    fn what_is_given_up_leaves_no_thread_at_work() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, synced) = slow();
        let mut syncer = Syncer::start(&disk, None).unwrap();
        for at in 0..3 {
            let (file, path) = file(dir.path(), at);
            syncer.sync(&file, &path, 1).unwrap();
        }
        drop(syncer);
        // Its thread has let go of the disk, and so of what the watcher holds.
        drop(disk);
        assert_eq!(Arc::strong_count(&synced), 1);
    }
}
