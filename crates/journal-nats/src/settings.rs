//! Where the journal is, and what is asked of it.

use std::path::PathBuf;
use std::time::Duration;

use crate::Error;
use tailmark_record::FingerprintKey;

/// Who we are to the servers.
#[derive(Clone, Default)]
pub enum Login {
    /// Nobody.
    #[default]
    None,
    /// A user and a password.
    User(String, String),
    /// A token.
    Token(String),
    /// A file of credentials, as `nsc` writes it.
    Credentials(PathBuf),
}

/// Where the journal is, and what is asked of it.
#[derive(Clone)]
pub struct Settings {
    /// `nats://HOST:PORT`, or `tls://`; any of them will do.
    pub servers: Vec<String>,
    /// Who we are.
    pub login: Login,
    /// Certificates of authorities to trust beside the system's.
    pub authorities: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Name of the log there: letters, digits, `-` and `_`.
    pub name: String,
    /// Secret for telling repeats: the same at all daemons.
    pub key: FingerprintKey,
    /// Copies that the stream has, at least.
    pub replicas: u64,
    /// `HOST:PORT` of each server's monitoring, which alone says whether it syncs before it acks.
    pub monitors: Vec<String>,
    /// Goes on where the stream is weaker than is asked for.
    pub allow_weaker: bool,
    /// Makes the stream where there is none.
    pub create: bool,
    /// For how long one try of a publish, or a question, waits for its answer.
    pub answer: Duration,
    /// For how long a frame is published again and again before its caller hears that nobody knows. An election
    /// takes 4 to 9 s.
    pub patience: Duration,
}

impl Settings {
    /// As they are meant to be, for a journal on these servers.
    pub fn new(servers: Vec<String>, name: &str, key: FingerprintKey) -> Settings {
        Settings {
            servers,
            login: Login::None,
            authorities: None,
            certificate: None,
            name: name.to_owned(),
            key,
            replicas: 3,
            monitors: Vec::new(),
            allow_weaker: false,
            create: true,
            answer: Duration::from_secs(2),
            patience: Duration::from_secs(15),
        }
    }

    /// Of the stream.
    pub fn stream(&self) -> String {
        format!("TM_{}", self.name)
    }

    /// That its messages have.
    pub fn subject(&self) -> String {
        format!("tm.{}.j", self.name)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let refuse = |text: &str| Err(Error::Setting(text.to_owned()));
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(is_plain) {
            return refuse("the name of a log on NATS has letters, digits, - and _, 64 at most");
        }
        if self.servers.is_empty() {
            return refuse("no NATS server is named");
        }
        if self.replicas == 0 {
            return refuse("a stream has one replica at least");
        }
        Ok(())
    }
}
