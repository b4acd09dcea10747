//! What the service manager is told, over the socket in `NOTIFY_SOCKET` (sd_notify(3)): when the daemon is
//! ready, reloads, stops, how it is, and that it lives.
//!
//! Owns one thread: the socket of a manager that does not read takes nothing, and waits. Without the variable
//! there is no thread, and nothing happens here.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;

use super::live::Live;
use crate::escape;

/// News that may wait for the manager; what finds no room is old when it would be read.
const WAITING: usize = 64;
/// For the last news to be taken.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a long opening is reported, and how long each report lasts: three may be late.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
const REPORT_LASTS: Duration = Duration::from_secs(40);

/// Tells the service manager. Clones tell the same one.
#[derive(Clone, Debug)]
pub(super) struct Notifier(Option<SyncSender<News>>);

#[derive(Debug)]
enum News {
    Opening(Duration),
    Ready(String),
    Reloading,
    Status(String),
    Alive,
    Stopping(Duration),
    /// All before it is told.
    Told(SyncSender<()>),
}

impl Notifier {
    /// The manager that this process was started by, if there is one that wants to know.
    pub(super) fn of_process() -> Notifier {
        if std::env::var_os("NOTIFY_SOCKET").is_none_or(|path| path.is_empty()) {
            return Notifier(None);
        }
        let (sender, news) = sync_channel(WAITING);
        match std::thread::Builder::new().name("notify".into()).spawn(move || tell(&news)) {
            Ok(_) => Notifier(Some(sender)),
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be told anything");
                Notifier(None)
            }
        }
    }

    fn say(&self, news: News) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(news);
        }
    }

    /// It can be used.
    pub(super) fn ready(&self, status: &str) {
        self.say(News::Ready(status.to_owned()));
    }

    /// The settings are read again; [`Notifier::ready`] follows.
    pub(super) fn reloading(&self) {
        self.say(News::Reloading);
    }

    /// How it is, in words.
    pub(super) fn status(&self, status: &str) {
        self.say(News::Status(status.to_owned()));
    }

    /// It stops, which may take so long.
    pub(super) fn stopping(&self, at_most: Duration) {
        self.say(News::Stopping(at_most));
    }

    /// Waits until all is told, if the manager takes it at all.
    pub(super) fn finish(&self) {
        let (told, done) = sync_channel(1);
        self.say(News::Told(told));
        let _ = done.recv_timeout(PATIENCE);
    }

    /// Asks for more time while the log is being opened, for as long as `work_done` grows: one that hangs
    /// is not kept alive.
    pub(super) async fn opening(&self, work_done: impl Fn() -> u64) {
        let mut due = tokio::time::interval(REPORT_INTERVAL);
        let mut before = None;
        loop {
            due.tick().await;
            let now = work_done();
            if before != Some(now) {
                self.say(News::Opening(REPORT_LASTS));
            }
            before = Some(now);
        }
    }

    /// Says at half the time that the manager allows that the daemon lives, each time that it has been
    /// seen to. Never ends.
    pub(super) async fn watch_over(&self, live: &Live) {
        let allowed = sd_notify::watchdog_enabled().filter(|allowed| !allowed.is_zero());
        let (Some(allowed), Some(_)) = (allowed, &self.0) else {
            return std::future::pending().await;
        };
        let mut due = tokio::time::interval(allowed / 2);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut trouble = None;
        loop {
            due.tick().await;
            prove_life(live).await;
            self.say(News::Alive);
            let now = live.trouble();
            if now != trouble {
                self.status(now.as_deref().unwrap_or("serving"));
                trouble = now;
            }
        }
    }
}

/// Returns when the writer and the runtime have answered, and never while one of them does not.
async fn prove_life(live: &Live) {
    live.writer_answers().await;
    // On whichever thread is free, not on the one that asks; an end of the runtime ends the question.
    let _ = tokio::spawn(async {}).await;
}

/// What this process has worked so far: time on a processor, bytes from and to the disk.
pub(super) fn work_done() -> u64 {
    let Ok(own) = procfs::process::Process::myself() else { return 0 };
    let disk = own.io().map_or(0, |io| io.read_bytes.wrapping_add(io.write_bytes));
    // In tenths of a second: looking takes time too.
    let processor = own.stat().map_or(0, |stat| (stat.utime + stat.stime) / 10);
    disk.wrapping_add(processor)
}

fn tell(news: &Receiver<News>) {
    let mut has_failed = false;
    for item in news {
        let told = match &item {
            News::Opening(lasts) => notify(&[
                NotifyState::ExtendTimeoutUsec(micros(*lasts)),
                NotifyState::Status("opening the log"),
            ]),
            News::Ready(status) => {
                notify(&[NotifyState::Ready, NotifyState::Status(&escape::line(status))])
            }
            News::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => notify(&[NotifyState::Reloading, now]),
                // Without the time the manager would think that the reload failed.
                Err(error) => Err(error),
            },
            News::Status(status) => notify(&[NotifyState::Status(&escape::line(status))]),
            News::Alive => notify(&[NotifyState::Watchdog]),
            News::Stopping(at_most) => notify(&[
                NotifyState::Stopping,
                NotifyState::ExtendTimeoutUsec(micros(*at_most)),
                NotifyState::Status("stopping"),
            ]),
            News::Told(done) => {
                let _ = done.send(());
                Ok(())
            }
        };
        if let Err(error) = told
            && !std::mem::replace(&mut has_failed, true)
        {
            tracing::warn!(%error, "the service manager cannot be told anything");
        }
    }
}

fn notify(states: &[NotifyState<'_>]) -> std::io::Result<()> {
    sd_notify::notify(states)
}

/// As the protocol has it; more than an hour is an hour.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(3_600_000_000)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc::TryRecvError;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_opening_that_goes_on_gets_more_time_and_one_that_hangs_does_not() {
        let (sender, news) = sync_channel(WAITING);
        let notifier = Notifier(Some(sender));
        let (work, is_hanging) = (Cell::new(0), Cell::new(false));
        let opening = notifier.opening(|| {
            work.set(work.get() + u64::from(!is_hanging.get()));
            work.get()
        });
        let asked = || {
            let asked = std::iter::from_fn(|| news.try_recv().ok()).count();
            assert_eq!(news.try_recv().unwrap_err(), TryRecvError::Empty);
            asked
        };
        tokio::pin!(opening);
        let minute = Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, &mut opening).await.is_err());
        assert!(asked() >= 6, "every ten seconds");
        is_hanging.set(true);
        assert!(tokio::time::timeout(minute, &mut opening).await.is_err());
        assert_eq!(asked(), 0);
    }

    #[test]
    fn news_that_a_manager_does_not_take_are_dropped_and_nobody_waits() {
        let (sender, news) = sync_channel(WAITING);
        let notifier = Notifier(Some(sender));
        for _ in 0..10 * WAITING {
            notifier.status("serving");
        }
        assert_eq!(news.try_iter().count(), WAITING);
    }

    #[test]
    fn what_this_process_works_is_seen() {
        let before = work_done();
        let begun = std::time::Instant::now();
        // Two steps of what is counted.
        while work_done() == before {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is seen");
        }
    }
}
