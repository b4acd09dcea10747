//! Signals. The first that asks to stop is told, so that what is under way ends in order; asking again ends
//! the process at once. What a daemon gets beside those never ends it in disorder: SIGHUP reloads, and what
//! means nothing to it is passed over with a word in the log.
//!
//! `docs/operations.md` has the table.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::Exit;
use crate::telemetry;

/// Linux's numbers of those that have no name in tokio.
const STKFLT: i32 = 16;
const XCPU: i32 = 24;
const XFSZ: i32 = 25;
const VTALRM: i32 = 26;
const PROF: i32 = 27;
const PWR: i32 = 30;
/// Those for applications, without the two that the C library keeps for itself.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Tells that a signal came that asks to stop.
#[derive(Clone, Debug)]
pub(super) struct Stop(watch::Receiver<Option<Exit>>);

/// What a daemon is told.
#[derive(Debug)]
pub(super) struct DaemonSignals {
    pub stop: Stop,
    /// The settings are to be read again. Asked for twice before it is done, it is done once.
    pub reload: mpsc::Receiver<()>,
}

impl Stop {
    /// Begins to listen, within a runtime: for a command that ends when its terminal does.
    pub(super) fn listen() -> io::Result<Stop> {
        let ignored = Ignored::now();
        let (told, stop) = watch::channel(None);
        ask_to_stop(&told, &ignored)?;
        if !ignored.has(SignalKind::hangup()) {
            ends(&told, SignalKind::hangup(), Exit::HungUp, false)?;
        }
        Ok(Stop(stop))
    }

    /// Whether a signal came.
    pub(super) fn requested(&self) -> Option<Exit> {
        *self.0.borrow()
    }

    /// Waits for a signal.
    pub(super) async fn wait(&mut self) -> Exit {
        match self.0.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // The listening tasks end with the runtime only.
            _ => std::future::pending().await,
        }
    }
}

impl DaemonSignals {
    /// Begins to listen, within a runtime. On a terminal SIGHUP stops, for it says that the terminal is
    /// gone, and nobody should find a daemon running that nobody sees; elsewhere, and under `nohup`, it
    /// reloads.
    pub(super) fn listen() -> io::Result<DaemonSignals> {
        let ignored = Ignored::now();
        let (told, stop) = watch::channel(None);
        ask_to_stop(&told, &ignored)?;
        for asks in [PWR, XCPU] {
            // Not when it comes again: processor time is over every second.
            ends(&told, SignalKind::from_raw(asks), Exit::Terminated, false)?;
        }
        let (wish, reload) = mpsc::channel(1);
        let hangup = SignalKind::hangup();
        if has_terminal() && !ignored.has(hangup) {
            ends(&told, hangup, Exit::HungUp, false)?;
        } else {
            // A wish that waits already is as good.
            on(hangup, move || {
                let _ = wish.try_send(());
            })?;
        }
        pass_over();
        Ok(DaemonSignals { stop: Stop(stop), reload })
    }
}

/// Ctrl-C, Ctrl-\ and the polite kill. What was ignored when the program began stays so: a shell does that
/// for what it runs in the background, whose terminal belongs to another program.
fn ask_to_stop(told: &watch::Sender<Option<Exit>>, ignored: &Ignored) -> io::Result<()> {
    ends(told, SignalKind::terminate(), Exit::Terminated, true)?;
    for (kind, exit) in
        [(SignalKind::interrupt(), Exit::Interrupted), (SignalKind::quit(), Exit::Quit)]
    {
        if !ignored.has(kind) {
            ends(told, kind, exit, true)?;
        }
    }
    Ok(())
}

/// Tells of this one; the second of those that people send ends the process.
fn ends(
    told: &watch::Sender<Option<Exit>>,
    kind: SignalKind,
    exit: Exit,
    is_urgent_again: bool,
) -> io::Result<()> {
    let told = told.clone();
    on(kind, move || {
        let is_first = told.send_if_modified(|now| {
            let is_first = now.is_none();
            now.get_or_insert(exit);
            is_first
        });
        if !is_first && is_urgent_again {
            // Also when the main thread sits in a blocking write. What was logged is not lost by it.
            telemetry::flush();
            std::process::exit(i32::from(exit.code()));
        }
    })
}

/// Those that would end the process, as they come, and mean nothing to it.
fn pass_over() {
    let named = [
        (SignalKind::user_defined1().as_raw_value(), "SIGUSR1"),
        (SignalKind::user_defined2().as_raw_value(), "SIGUSR2"),
        (SignalKind::alarm().as_raw_value(), "SIGALRM"),
        (SignalKind::io().as_raw_value(), "SIGIO"),
        (VTALRM, "SIGVTALRM"),
        (PROF, "SIGPROF"),
        (STKFLT, "SIGSTKFLT"),
        // The write that is too long for the limit of file sizes fails all the same, and says so.
        (XFSZ, "SIGXFSZ"),
    ];
    for (number, name) in named.into_iter().chain(REAL_TIME.map(|number| (number, "real-time"))) {
        let tell = move || {
            tracing::warn!(signal = number, name, "this signal means nothing here; SIGHUP reloads");
        };
        if let Err(error) = on(SignalKind::from_raw(number), tell) {
            tracing::debug!(signal = number, %error, "cannot listen for this signal");
        }
    }
}

/// Does something whenever this one comes.
fn on(kind: SignalKind, mut then: impl FnMut() + Send + 'static) -> io::Result<()> {
    let mut comes = signal(kind)?;
    tokio::spawn(async move {
        while comes.recv().await.is_some() {
            then();
        }
    });
    Ok(())
}

/// Whether a terminal stands behind this process, and not only behind one of its streams.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Signals that this process was told to ignore by who started it; to be asked before any is listened for.
struct Ignored(u64);

impl Ignored {
    fn now() -> Ignored {
        let status = procfs::process::Process::myself().and_then(|own| own.status());
        Ignored(status.map_or(0, |status| status.sigign))
    }

    fn has(&self, kind: SignalKind) -> bool {
        let bit = u32::try_from(kind.as_raw_value() - 1).unwrap_or(u32::MAX);
        1_u64.checked_shl(bit).is_some_and(|bit| self.0 & bit != 0)
    }
}
