//! Lines of the log on their way to standard error, which may take nothing for as long as it likes: a pipe
//! whose reader sleeps, a terminal that was stopped, a full disk behind the journal.
//!
//! Owns one thread, the only one that ever writes them. Invariants: whoever logs never waits for it; what
//! waits is bounded in bytes; what finds no room is counted and told, in the log once that flows again, and
//! in the daemon's figures.
//!
//! Of its own, beside a crate that does the like: `tracing-appender` 0.2.5 bounds lines and not their bytes,
//! does not count what a failed write loses, and says that it could not end by a write that may wait for ever.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that may wait.
const MAX_BYTES: usize = 1 << 20;
/// How often something is looked after while nothing comes, and the dropped are told at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Before a write is tried again that would have to wait, where the other side made it so.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// What is done beside writing, on the thread that writes.
pub(super) trait Upkeep: Send + 'static {
    /// So many lines were dropped since the last time, and now they flow again.
    fn dropped(&mut self, lines: u64);
    /// A moment has passed.
    fn look(&mut self) {}
}

/// Takes lines, never waits. Clones feed the same thread.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// For good, by whoever wants to know.
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<u8>,
    /// The thread has taken some and is not through with them.
    is_writing: bool,
}

impl Lines {
    /// Begins to write to `out`.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        upkeep: impl Upkeep,
    ) -> io::Result<Lines> {
        let lines = Lines(Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            dropped: Arc::default(),
        }));
        let thread = Thread { shared: lines.0.clone(), out, upkeep, told: 0, told_at: None };
        std::thread::Builder::new().name("log lines".into()).spawn(move || thread.run())?;
        Ok(lines)
    }

    /// Counts the lines that found no room.
    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        self.0.dropped.clone()
    }

    /// Waits until all that came is written, but not longer than this.
    pub(super) fn flush(&self, patience: Duration) {
        let mut queue = self.0.queue.lock();
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.waiting.is_empty();
        // What is left then is lost with the process; nobody took it.
        let _ = self.0.changed.wait_while_for(&mut queue, is_busy, patience);
    }
}

impl Shared {
    fn push(&self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.waiting.len() + line.len() > MAX_BYTES {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.waiting.extend_from_slice(line);
        drop(queue);
        self.changed.notify_all();
    }
}

/// One line a call, as `tracing_subscriber` writes them.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

struct Thread<W, U> {
    shared: Arc<Shared>,
    out: W,
    upkeep: U,
    /// Of the dropped.
    told: u64,
    told_at: Option<Instant>,
}

impl<W: Write, U: Upkeep> Thread<W, U> {
    fn run(mut self) {
        let mut taken = Vec::new();
        loop {
            self.take(&mut taken);
            if !taken.is_empty() {
                self.write(&taken);
                taken.clear();
                self.shared.queue.lock().is_writing = false;
                self.shared.changed.notify_all();
            }
            self.look_after();
        }
    }

    /// All that waits; nothing when nothing has come for a while.
    fn take(&self, taken: &mut Vec<u8>) {
        let mut queue = self.shared.queue.lock();
        let is_empty = |queue: &mut Queue| queue.waiting.is_empty();
        let _ = self.shared.changed.wait_while_for(&mut queue, is_empty, LOOK_INTERVAL);
        // The two buffers change places, so that there are never more.
        std::mem::swap(&mut queue.waiting, taken);
        queue.is_writing = !taken.is_empty();
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(written @ 1..) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody who shares the pipe has made it so.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(RETRY_DELAY);
                }
                // Nobody will ever read it, or there is no room now: the next one may be luckier.
                Ok(_) | Err(_) => {
                    let lost = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
                    self.shared.dropped.fetch_add(lost, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    fn look_after(&mut self) {
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        let is_due = self.told_at.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL);
        if dropped > self.told && is_due {
            self.upkeep.dropped(dropped - self.told);
            (self.told, self.told_at) = (dropped, Some(Instant::now()));
        }
        self.upkeep.look();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;

    use super::*;

    struct Told(mpsc::Sender<u64>);

    impl Upkeep for Told {
        fn dropped(&mut self, lines: u64) {
            let _ = self.0.send(lines);
        }
    }

    const LINE: &[u8] = &[b'x'; 1_000];

    fn push(lines: &Lines, count: usize) {
        for _ in 0..count {
            let mut line = LINE.to_vec();
            line.push(b'\n');
            (&mut &*lines).write_all(&line).unwrap();
        }
    }

    #[test]
    fn who_logs_never_waits_and_what_found_no_room_is_told_once_it_flows_again() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (sender, told) = mpsc::channel();
        let lines = Lines::start(writer, Told(sender)).unwrap();
        // Far more than the queue and the pipe hold; nobody reads, and this ends.
        push(&lines, 10_000);
        let dropped = lines.dropped().load(Ordering::Relaxed);
        assert!(dropped > 10_000 - 2 * (MAX_BYTES as u64 / 1_000) - 200, "{dropped}");
        assert!(told.try_recv().is_err(), "told while nothing flows");
        // So does this.
        lines.flush(Duration::from_millis(10));
        let reading = std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(1..) = reader.read(&mut bytes) {}
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), dropped);
        // The null control: where somebody reads, nothing is dropped.
        lines.flush(Duration::from_secs(60));
        push(&lines, 500);
        lines.flush(Duration::from_secs(60));
        assert_eq!(lines.dropped().load(Ordering::Relaxed), dropped);
        drop((lines, reading));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (sender, told) = mpsc::channel();
        let lines = Lines::start(writer, Told(sender)).unwrap();
        push(&lines, 3);
        lines.flush(Duration::from_secs(60));
        assert_eq!(lines.dropped().load(Ordering::Relaxed), 3);
        assert!(told.recv_timeout(Duration::from_secs(60)).unwrap() > 0);
    }
}
