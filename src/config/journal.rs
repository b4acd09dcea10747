//! Who keeps the log's journal, as settings.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Invalid, count, is_host};

/// Whether this program can share a journal on NATS.
pub const HAS_NATS: bool = cfg!(feature = "nats");

/// Who keeps the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalKind {
    /// The log lies on this machine's disk, and nowhere else.
    Local,
    /// A stream of NATS JetStream, which several daemons share.
    Nats,
}

section!(
    /// Who keeps the log's journal; what follows is of `nats` alone.
    Journal {
        /// Who.
        kind: JournalKind = JournalKind::Local,
        /// `nats://HOST:PORT` or `tls://HOST:PORT`; any of them will do.
        servers: Vec<String> = Vec::new(),
        /// Name of the log there.
        name: String = String::new(),
        /// A secret that all daemons of the log have.
        key_file: PathBuf = PathBuf::new(),
        /// Where other daemons reach this one; empty = where it listens.
        advertise: String = String::new(),
        /// Who vouches for the other daemons' certificates, beside the system's authorities.
        peers_ca_file: PathBuf = PathBuf::new(),
        /// A file of credentials, as `nsc` writes it.
        credentials_file: PathBuf = PathBuf::new(),
        /// A file with a token.
        token_file: PathBuf = PathBuf::new(),
        /// A user.
        user: String = String::new(),
        /// A file with his password.
        password_file: PathBuf = PathBuf::new(),
        /// Who vouches for the servers, beside the system's authorities.
        ca_file: PathBuf = PathBuf::new(),
        /// Our certificate for them.
        cert_file: PathBuf = PathBuf::new(),
        /// Its key.
        cert_key_file: PathBuf = PathBuf::new(),
        /// `HOST:PORT` of each server's monitoring.
        monitors: Vec<String> = Vec::new(),
        /// Copies that the stream has, at least.
        replicas: u64 = 3,
        /// Goes on where the journal promises less than that, or does not sync before it acks.
        allow_weaker_durability: bool = false,
        /// Makes the stream where there is none.
        create: bool = true,
    }
);

impl Journal {
    /// Whether several daemons share it.
    pub fn is_shared(&self) -> bool {
        self.kind == JournalKind::Nats
    }

    pub(super) fn check(&self) -> Result<(), Invalid> {
        if !self.is_shared() {
            return Ok(());
        }
        if !HAS_NATS {
            let problem = "this program was built without NATS; build it with `--features nats`";
            return Err(Invalid::new("journal.kind", problem));
        }
        let missing = |key| {
            let invalid = Invalid::new(key, "is missing");
            Err(invalid.against("journal.kind"))
        };
        if self.servers.is_empty() {
            return missing("journal.servers");
        }
        let has = |path: &Path| !path.as_os_str().is_empty();
        if self.name.is_empty() {
            return missing("journal.name");
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.len() > 64 || !self.name.chars().all(is_plain) {
            let problem = "has letters, digits, - and _, 64 at most";
            return Err(Invalid::new("journal.name", problem));
        }
        if !has(&self.key_file) {
            return missing("journal.key_file");
        }
        let bad = |key, text: &str, expected: &str| {
            Err(Invalid::new(key, format!("`{text}` is not {expected}")))
        };
        for server in &self.servers {
            let host = server.strip_prefix("nats://").or_else(|| server.strip_prefix("tls://"));
            if !host.is_some_and(is_host) {
                let expected = "a server, as in \"nats://127.0.0.1:4222\" or \"tls://HOST:4222\"";
                return bad("journal.servers", server, expected);
            }
        }
        if let Some(monitor) = self.monitors.iter().find(|it| !is_host(it) || !it.contains(':')) {
            return bad("journal.monitors", monitor, "an address, as in \"127.0.0.1:8222\"");
        }
        let of_peers = self.advertise.strip_prefix("http://");
        let of_peers = of_peers.or_else(|| self.advertise.strip_prefix("https://"));
        if !self.advertise.is_empty() && !of_peers.is_some_and(is_host) {
            let expected = "an address, as in \"https://log-1.example:50051\"";
            return bad("journal.advertise", &self.advertise, expected);
        }
        let logins = [has(&self.credentials_file), has(&self.token_file), !self.user.is_empty()];
        if logins.iter().filter(|is_there| **is_there).count() > 1 {
            let problem =
                "there are several ways to log in; one of credentials_file, token_file and user";
            return Err(Invalid::new("journal.user", problem));
        }
        if self.user.is_empty() == has(&self.password_file) {
            let (key, other) = ("journal.password_file", "journal.user");
            return Err(Invalid::new(key, "one is not there without the other").against(other));
        }
        if has(&self.cert_file) != has(&self.cert_key_file) {
            let (key, other) = ("journal.cert_key_file", "journal.cert_file");
            return Err(Invalid::new(key, "one is not there without the other").against(other));
        }
        count("journal.replicas", self.replicas, 1, 5)
    }
}
