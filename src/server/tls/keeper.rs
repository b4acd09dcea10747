//! Which certificate is in force, and the watch over its files.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::certificate::Validity;
use super::files::{Bytes, Made, TlsError, TlsFiles};
use crate::certificate::time_text;

/// How often the files are looked at. What is new counts once it was seen twice.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// From so long before its end on a certificate is warned about.
const ENDS_SOON: Duration = Duration::from_secs(14 * 86_400);
/// How often that is said again.
const REMIND_INTERVAL: Duration = Duration::from_secs(86_400);

/// The certificates of a server; clones are the same.
#[derive(Clone)]
pub struct Certificates(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    current: RwLock<Made>,
    /// Held while the files are looked at.
    looks: Mutex<Looks>,
    trouble: RwLock<Option<String>>,
}

/// What was seen of the files so far.
struct Looks {
    /// What is in force was made of these.
    taken: Bytes,
    /// What the last look found instead. Files are written piece by piece, and one after the other.
    seen: Option<Result<Bytes, String>>,
    /// The failure that was told.
    told: Option<String>,
    reminded: Option<SystemTime>,
}

impl Certificates {
    /// Reads the files. One that has expired is taken, and told: a restart must not turn a warning
    /// into an outage. Blocks.
    ///
    /// # Errors
    /// When they cannot be read, or do not go together.
    pub(crate) fn open(files: TlsFiles) -> Result<Certificates, TlsError> {
        let bytes = files.read()?;
        let made = files.make(&bytes)?;
        tracing::info!(
            cert = %files.cert.display(),
            not_after = time_text(made.validity.not_after),
            clients = if files.client_ca.is_some() { "by certificate" } else { "any" },
            "TLS"
        );
        let looks = Looks { taken: bytes, seen: None, told: None, reminded: None };
        let inner = Inner {
            files,
            current: RwLock::new(made),
            looks: Mutex::new(looks),
            trouble: RwLock::new(None),
        };
        let all = Certificates(Arc::new(inner));
        all.weigh(&mut all.0.looks.lock(), SystemTime::now());
        Ok(all)
    }

    /// What a handshake that begins now is done with.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.current.read().config)
    }

    /// Until when what is in force is valid, with all of its chain.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.0.current.read().validity.not_after
    }

    /// What does not work, in words: the files cannot be taken, or what is in force has expired.
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble.read().clone()
    }

    /// Reads the files again at once, and says what came of it. Blocks.
    pub fn reload(&self) {
        let mut looks = self.0.looks.lock();
        let now = SystemTime::now();
        looks.told = None;
        match self.0.files.read() {
            Ok(bytes) if bytes == looks.taken => {
                tracing::info!("the certificate was read again; it is the same");
            }
            read => self.judge(&mut looks, read, now),
        }
        self.weigh(&mut looks, now);
    }

    /// Looks at the files until the server stops.
    pub(crate) async fn watch(self, stop: CancellationToken) {
        let mut due = tokio::time::interval(LOOK_INTERVAL);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = due.tick() => {}
            }
            let all = self.clone();
            // Off the workers: the files may lie anywhere.
            let looked = tokio::task::spawn_blocking(move || all.look(SystemTime::now()));
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looked => {}
            }
        }
    }

    /// One look of the watch.
    fn look(&self, now: SystemTime) {
        let mut looks = self.0.looks.lock();
        match self.0.files.read() {
            Ok(bytes) if bytes == looks.taken => {
                looks.seen = None;
                if looks.told.take().is_some() {
                    tracing::info!("the files have the certificate in force again");
                }
            }
            read => {
                let seen = read.as_ref().map_err(ToString::to_string);
                let is_settled = match (&looks.seen, &seen) {
                    (Some(Ok(before)), Ok(now)) => before == *now,
                    (Some(Err(before)), Err(now)) => before == now,
                    _ => false,
                };
                if is_settled {
                    self.judge(&mut looks, read, now);
                } else {
                    looks.seen = Some(read.map_err(|error| error.to_string()));
                }
            }
        }
        self.weigh(&mut looks, now);
    }

    /// Takes what was read, if it can be used.
    fn judge(&self, looks: &mut Looks, read: Result<Bytes, TlsError>, now: SystemTime) {
        let files = &self.0.files;
        let made = read.and_then(|bytes| {
            let made = files.make(&bytes)?;
            match not_valid(made.validity, now) {
                Some(problem) => Err(TlsError::NotValid { path: files.cert.clone(), problem }),
                None => Ok((bytes, made)),
            }
        });
        match made {
            Ok((bytes, made)) => {
                let not_after = time_text(made.validity.not_after);
                *self.0.current.write() = made;
                *looks = Looks { taken: bytes, seen: None, told: None, reminded: None };
                tracing::info!(not_after, "a new certificate is in force; open connections go on");
            }
            Err(error) => {
                let why = error.to_string();
                if looks.told.as_ref() != Some(&why) {
                    tracing::error!(
                        why,
                        "the new certificate is not taken; the old one stays in force"
                    );
                    looks.told = Some(why);
                }
            }
        }
    }

    /// Settles what is in trouble, and warns of an end that comes near.
    fn weigh(&self, looks: &mut Looks, now: SystemTime) {
        let validity = self.0.current.read().validity;
        let invalid = not_valid(validity, now);
        let refused =
            looks.told.as_ref().map(|why| format!("a new certificate is not taken: {why}"));
        let trouble = match (&invalid, refused) {
            (Some(problem), None) => Some(format!("the certificate in force: {problem}")),
            (Some(problem), Some(refused)) => {
                Some(format!("the certificate in force: {problem}; {refused}"))
            }
            (None, refused) => refused,
        };
        *self.0.trouble.write() = trouble;
        let left = validity.not_after.duration_since(now).unwrap_or_default();
        let is_due = looks.reminded.is_none_or(|last| {
            now.duration_since(last).map_or(true, |since| since >= REMIND_INTERVAL)
        });
        if (invalid.is_some() || left < ENDS_SOON) && is_due {
            looks.reminded = Some(now);
            let not_after = time_text(validity.not_after);
            match invalid {
                Some(problem) => tracing::error!(not_after, "the certificate in force: {problem}"),
                None => tracing::warn!(
                    not_after,
                    days = left.as_secs() / 86_400,
                    "the certificate in force expires soon; put a new one in its files"
                ),
            }
        }
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("files", &self.0.files).finish_non_exhaustive()
    }
}

fn not_valid(validity: Validity, now: SystemTime) -> Option<String> {
    if now > validity.not_after {
        return Some(format!("it expired at {}", time_text(validity.not_after)));
    }
    (now < validity.not_before)
        .then(|| format!("it is not valid before {}", time_text(validity.not_before)))
}

#[cfg(test)]
mod tests;
