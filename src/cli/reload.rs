//! Taking settings while the daemon runs: those that may change then do, all others wait for a restart, and
//! settings that cannot be read change nothing.

use tokio::sync::mpsc;
use tracing::Level;

use super::live::Live;
use super::notify::Notifier;
use crate::config::{Config, ConfigError, Loaded, Sources};
use crate::telemetry;

/// Those that take effect at once.
const LIVE: [&str; 8] = [
    "telemetry.log_level",
    "retention.max_age",
    "retention.max_bytes",
    "retention.max_events",
    "retention.interval",
    "retention.topics",
    "http.cors_origins",
    "http.allowed_hosts",
];

/// The settings in force, and where they come from.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    sources: Sources,
    running: Config,
}

/// What became of a wish to reload. Keys, as `section.key`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Taken {
    taken: Vec<String>,
    need_restart: Vec<String>,
}

impl Settings {
    pub(super) fn new(sources: Sources, loaded: &Loaded) -> Settings {
        Settings { sources, running: loaded.config.clone() }
    }

    /// Reads all sources again.
    fn read(&self) -> Result<Config, ConfigError> {
        self.sources.load_again().map(|loaded| loaded.config)
    }

    /// Puts into force what may change, all of it or nothing, and tells of it: by the level that was, if that
    /// lets it through, for the one that comes may hide it.
    fn take(&mut self, new: &Config, live: &Live) -> Result<(), String> {
        let changed = self.running.changes(new);
        let (taken, need_restart): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|key| LIVE.contains(&key.as_str()));
        let taken = Taken { taken, need_restart };
        let warnings = new.warnings();
        // Nothing can fail after this.
        telemetry::filter(&new.telemetry.log_level)?;
        let are_warnings_heard = tracing::enabled!(Level::WARN);
        let is_report_heard = taken.is_heard();
        if are_warnings_heard {
            warn(&warnings);
        }
        if is_report_heard {
            tell(&taken);
        }
        live.take(new)?;
        if !are_warnings_heard {
            warn(&warnings);
        }
        if !is_report_heard {
            tell(&taken);
        }
        self.running.telemetry.log_level.clone_from(&new.telemetry.log_level);
        self.running.retention = new.retention.clone();
        self.running.http = new.http.clone();
        Ok(())
    }
}

impl Taken {
    /// Whether the log takes [`tell`]'s line as it is now.
    fn is_heard(&self) -> bool {
        match self.need_restart.is_empty() {
            true => tracing::enabled!(Level::INFO),
            false => tracing::enabled!(Level::WARN),
        }
    }
}

fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

/// Reloads whenever it is wished.
pub(super) async fn run(
    mut settings: Settings,
    mut wishes: mpsc::Receiver<()>,
    live: Live,
    notifier: Notifier,
) {
    while wishes.recv().await.is_some() {
        notifier.reloading();
        settings = reload(settings, &live, &notifier).await;
    }
}

async fn reload(settings: Settings, live: &Live, notifier: &Notifier) -> Settings {
    let mut settings = settings;
    let reader = settings.clone();
    // Off the runtime: a file may lie anywhere.
    let read = tokio::task::spawn_blocking(move || reader.read()).await;
    live.reload_certificates().await;
    let outcome = match read {
        Ok(Ok(new)) => settings.take(&new, live),
        Ok(Err(error)) => Err(chain(&error)),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(()) => notifier.ready("serving"),
        Err(why) => {
            // At the level `off` the service manager alone hears of it.
            tracing::error!(
                why,
                "the settings are not taken: nothing has changed, and the next start would fail"
            );
            notifier.ready(&format!("serving by the old settings; the new ones are wrong: {why}"));
        }
    }
    settings
}

fn tell(taken: &Taken) {
    let (now, later) = (taken.taken.join(" "), taken.need_restart.join(" "));
    match (now.as_str(), later.as_str()) {
        ("", "") => tracing::info!("the settings were read again; none has changed"),
        (now, "") => tracing::info!(taken = now, "the settings were read again"),
        (now, later) => {
            let text = "the settings were read again; some need a restart to take effect";
            tracing::warn!(taken = now, need_restart = later, "{text}");
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
