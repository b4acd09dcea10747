//! Signals that ask to stop: the first is told, the second ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::Exit;

/// Tells that a signal came.
#[derive(Clone, Debug)]
pub(super) struct Stop(watch::Receiver<Option<Exit>>);

impl Stop {
    /// Begins to listen, within a runtime.
    pub fn listen() -> std::io::Result<Stop> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (told, stop) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let exit = tokio::select! {
                    _ = interrupt.recv() => Exit::Interrupted,
                    _ = terminate.recv() => Exit::Terminated,
                };
                if told.borrow().is_some() {
                    // Also when the main thread sits in a blocking write.
                    std::process::exit(i32::from(exit.code()));
                }
                told.send_replace(Some(exit));
            }
        });
        Ok(Stop(stop))
    }

    /// Whether a signal came.
    pub fn requested(&self) -> Option<Exit> {
        *self.0.borrow()
    }

    /// Waits for a signal.
    pub async fn wait(&mut self) -> Exit {
        match self.0.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // The listening task ends with the runtime only.
            _ => std::future::pending().await,
        }
    }
}
