//! A daemon that runs, as those see it who change its settings and who watch over it.

use super::layer_options::{access_rules, retention, topic_rules};
use super::part::Part;
use crate::config::Config;
use crate::server::{AccessRules, Certificates, Credentials, ServedLog, Server};
use crate::telemetry::LogLevel;

/// What settings act on while the daemon runs, and what shows how it is.
#[derive(Clone)]
pub(super) struct Live {
    served: ServedLog,
    part: Part,
    access: AccessRules,
    certificates: Option<Certificates>,
    credentials: Credentials,
    level: LogLevel,
}

impl Live {
    pub(super) fn new(server: &Server, part: Part, level: LogLevel) -> Live {
        let (access, certificates) = (server.access_rules(), server.certificates());
        let credentials = server.credentials();
        let served = server.served_log();
        Live { served, part, access, certificates, credentials, level }
    }

    /// Reads the certificates again, and logs what came of it.
    pub(super) async fn reload_certificates(&self) {
        if let Some(certificates) = self.certificates.clone() {
            // Off the runtime: the files may lie anywhere.
            let _ = tokio::task::spawn_blocking(move || certificates.reload()).await;
        }
    }

    /// Puts into force what may change.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub(super) fn take(&self, config: &Config) -> Result<(), String> {
        // The one step that can fail is the first.
        self.level.set(&config.telemetry.log_level)?;
        let log = self.served.log();
        log.set_retention(retention(config), config.retention.interval);
        log.set_topic_rules(topic_rules(config));
        self.part.takes(config);
        self.access.set(access_rules(config));
        Ok(())
    }

    /// Returns when the writer thread has come to a question among its work.
    pub(super) async fn writer_answers(&self) {
        self.served.log().ping().await;
    }

    /// What does not work, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        let status = self.served.log().status();
        let tls = || self.certificates.as_ref().and_then(Certificates::trouble);
        let of_log = status.trouble.or(status.store.trouble).or(status.clock);
        of_log.or_else(tls).or_else(|| self.credentials.trouble())
    }
}
