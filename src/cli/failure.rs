//! How a command fails: an exit code, what happened, why, and what to do.

use std::error::Error as StdError;
use std::io::{self, Write as _};
use std::time::Duration;

use super::address::{Address, Origin};
use super::message::message;
use crate::config::ConfigError;
use tailmark_client::{Error, Kind, Reason, TlsProblem};
use tailmark_log::storage::StoreError;

/// What the program says to its caller. Documented in `--help` and `docs/cli.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing to report: the reader of our output has left.
    Quiet,
    /// Failed.
    Failure,
    /// Wrong usage or bad input.
    Usage,
    /// Not found, or there no more.
    NotFound,
    /// Data is damaged.
    Damaged,
    /// Locked, or the server is not available.
    Unavailable,
    /// SIGHUP: the terminal is gone.
    HungUp,
    /// SIGINT.
    Interrupted,
    /// SIGQUIT.
    Quit,
    /// SIGTERM.
    Terminated,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Quiet => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Damaged => 4,
            Exit::Unavailable => 5,
            Exit::HungUp => 129,
            Exit::Interrupted => 130,
            Exit::Quit => 131,
            Exit::Terminated => 143,
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    /// No server was met: where it was looked for helps.
    is_unmet: bool,
    /// A log found no room for what it needs, or is to leave free.
    has_no_room: bool,
}

/// What is said of a field, without its name on the wire among the facts.
fn without(problem: &str, field: &str) -> String {
    let mut said = problem.to_owned();
    for fact in ["field=", "what=", "field=event."] {
        let fact = format!(" {fact}{field}");
        if let Some((before, after)) = said.rsplit_once(&fact)
            && after.starts_with([' ', ']'])
        {
            said = format!("{before}{after}");
        }
    }
    said
}

/// What to do about a disk that this program writes to, and a server's may be another.
const FULL: &str = "the disk that it writes to is full: free some room there";

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How an error begins when nobody listens.
const CANNOT_CONNECT: &str = "cannot connect";

impl Failure {
    /// A failure that says `message`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        let (causes, hint, is_unmet, has_no_room) = (Vec::new(), None, false, false);
        Failure { exit, message: message.into(), causes, hint, is_unmet, has_no_room }
    }

    /// One that has nothing to say.
    pub fn silent(exit: Exit) -> Self {
        Failure::new(exit, "")
    }

    /// Adds a cause, and its causes; of a full disk also what to do.
    #[must_use]
    pub fn because(mut self, cause: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            if error.downcast_ref::<io::Error>().is_some_and(is_full) && self.hint.is_none() {
                self.hint = Some(FULL.to_owned());
            }
            next = error.source();
        }
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what to do where no room was left for a new log, whatever it says by itself.
    #[must_use]
    pub(super) fn hint_of_room(self, hint: &str) -> Self {
        if self.has_no_room { self.hint(hint) } else { self }
    }

    /// Names a parameter that the server refuses as the user typed it. `names` has what it is on the
    /// wire, and the argument or flag.
    #[must_use]
    pub fn naming(mut self, names: &[(&str, &str)]) -> Self {
        if let Some((named, problem)) = self.message.split_once(": ") {
            let field = named.strip_prefix("event.").unwrap_or(named);
            // One of several, from 0.
            let (field, at) = match field.strip_suffix(']').and_then(|field| field.split_once('['))
            {
                Some((field, at)) => (field, at.parse::<usize>().ok()),
                None => (field, None),
            };
            if let Some((_, typed)) = names.iter().find(|(wire, _)| *wire == field) {
                let which = at.filter(|at| *at > 0).map(|at| format!(" {}", at + 1));
                // The brackets, too, speak of nothing that was not typed.
                let problem = without(problem, named);
                self.message = format!("{typed}{}: {problem}", which.unwrap_or_default());
                // Too long an id can never be stored: it is bad input like a topic with a space.
                if self.exit == Exit::Failure {
                    self.exit = Exit::Usage;
                }
            }
        }
        self
    }

    /// One where no server was met.
    #[must_use]
    pub(super) fn unmet(self) -> Self {
        Failure { is_unmet: true, ..self }
    }

    /// Says which server it is about and who named it, where none was met.
    #[must_use]
    pub(super) fn of_server(mut self, address: &Address) -> Self {
        if !self.is_unmet {
            return self;
        }
        let Address { url, origin } = address;
        match self.message.strip_prefix(CANNOT_CONNECT) {
            Some(why) => {
                self.message = format!("{CANNOT_CONNECT} to {url} ({origin}){why}");
                if *origin != Origin::Default {
                    self.hint = Some(format!(
                        "is the daemon running there? `tailmark doctor {url}` looks at each step"
                    ));
                }
            }
            None => self.message.push_str(&format!("; asked at {url} ({origin})")),
        }
        self
    }

    /// Tells the user as [`Failure::report`] does, but waits no longer than this for standard error to take
    /// it: a program that ends must not hang on a pipe that nobody reads. What is left says nothing more.
    #[must_use]
    pub fn reported_within(self, patience: Duration) -> Failure {
        let silent = Failure::silent(self.exit);
        let (done, reported) = std::sync::mpsc::sync_channel(1);
        let report = move || {
            self.report();
            let _ = done.send(());
        };
        if std::thread::Builder::new().spawn(report).is_ok() {
            let _ = reported.recv_timeout(patience);
        }
        silent
    }

    /// What the program says to its caller.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What happened, in a line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Tells the user on standard error.
    pub fn report(&self) {
        if self.message.is_empty() {
            return;
        }
        // anstream drops the colour unless standard error is a terminal that wants it. Where nobody
        // can be told, the exit code still tells.
        let mut out = anstream::stderr().lock();
        let _ = writeln!(out, "\x1b[1;31merror:\x1b[0m {}", message(&self.message));
        let mut last = self.message.as_str();
        for cause in self.causes.iter().filter(|cause| !self.message.contains(cause.as_str())) {
            if cause != last {
                let _ = writeln!(out, "  caused by: {}", message(cause));
            }
            last = cause;
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "  \x1b[1mhint:\x1b[0m {}", message(hint));
        }
    }
}

/// Trouble with standard output or input.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::silent(Exit::Quiet);
        }
        Failure::new(Exit::Failure, "input or output failed").because(&error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = match &error {
            ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Exit::NotFound
            }
            // What can be no file of settings, whatever happens.
            ConfigError::Read { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::IsADirectory
                        | io::ErrorKind::InvalidInput
                        | io::ErrorKind::InvalidData
                        | io::ErrorKind::FileTooLarge
                ) =>
            {
                Exit::Usage
            }
            ConfigError::Read { .. } => Exit::Failure,
            _ => Exit::Usage,
        };
        let source = StdError::source(&error);
        let failure = Failure::new(exit, error.to_string());
        let failure = source.map_or(Failure::new(exit, error.to_string()), |s| failure.because(s));
        failure.hint("`tailmark config print --default` shows every setting")
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (exit, hint) = match &error {
            StoreError::Locked { .. } => {
                (Exit::Unavailable, "stop the other daemon, or use another --data-dir")
            }
            StoreError::Unlockable { .. } => (
                Exit::Failure,
                "use a local disk, or mount the file system with locks (NFS: without `nolock`)",
            ),
            StoreError::Unsettled { .. } => (
                Exit::Unavailable,
                "a daemon is too busy for it just now; nothing is known to be wrong",
            ),
            StoreError::Damaged(_) => (
                Exit::Damaged,
                "nothing was changed; `tailmark log verify --data-dir DIR` names every damaged range",
            ),
            StoreError::Removed(range) => (
                if range.is_intended() { Exit::NotFound } else { Exit::Damaged },
                "nothing was changed; what lies before the range and after it can be read",
            ),
            StoreError::Missing { .. } => (Exit::NotFound, "check --data-dir"),
            StoreError::Unfinished { .. } => {
                (Exit::Failure, "`tailmark log migrate --data-dir DIR` finishes it")
            }
            StoreError::Partial { .. } => {
                (Exit::Failure, "run the same command again, or remove the directory")
            }
            StoreError::IsCopy { .. } => (
                Exit::Usage,
                "the daemon whose [journal] names it opens it; a backup, an export or a salvage of it becomes a log of \
                 its own",
            ),
            StoreError::NoCopy { .. } => (
                Exit::Usage,
                "nothing was changed; name a directory that is empty or not there yet: the copy is made of the journal",
            ),
            StoreError::NotEmpty { .. } => {
                (Exit::Usage, "name a directory that is empty or not there yet")
            }
            StoreError::Unsuitable { .. } => (Exit::Usage, "name another directory"),
            StoreError::Format { found, supported, .. } if found < supported => {
                (Exit::Failure, "`tailmark log migrate --data-dir DIR` brings it up to date")
            }
            StoreError::Format { .. } => (Exit::Failure, "use the newer tailmark that wrote it"),
            StoreError::DiskFull { .. } => (
                Exit::Failure,
                "free space on the disk of the data directory, or lower storage.min_free_bytes or \
                 storage.slot_bytes",
            ),
            StoreError::Io { action, source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    (Exit::Failure, "the data directory must be readable and writable by this user")
                }
                io::ErrorKind::NotFound => (Exit::NotFound, "check --data-dir"),
                // A file stands where a directory was named.
                io::ErrorKind::NotADirectory => (Exit::Usage, "name a directory"),
                io::ErrorKind::AlreadyExists if *action == "create" => {
                    (Exit::Usage, "name a directory")
                }
                _ => (Exit::Failure, ""),
            },
            _ => (Exit::Failure, ""),
        };
        let mut failure = Failure::new(exit, error.to_string());
        failure.has_no_room = matches!(error, StoreError::DiskFull { .. });
        if let Some(source) = StdError::source(&error) {
            failure = failure.because(source);
        }
        if hint.is_empty() { failure } else { failure.hint(hint) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            // No server was met, whatever the answer was.
            _ if error.is_foreign() => Exit::Unavailable,
            Kind::InvalidRequest => Exit::Usage,
            Kind::NotFound | Kind::Gone => Exit::NotFound,
            Kind::Damaged => Exit::Damaged,
            Kind::Connect | Kind::Unavailable | Kind::Timeout => Exit::Unavailable,
            _ => Exit::Failure,
        };
        let mut message = error.to_string();
        // A limit on something within a field goes by the limit's name.
        if let Some(field) = error.metadata("field") {
            let name = field.rsplit('.').next().unwrap_or(field);
            let says = |name: &str| message.strip_prefix(name).is_some_and(|s| s.starts_with(": "));
            if !says(field) && !says(name) {
                message = format!("{field}: {message}");
            }
        }
        for (field, why) in error.fields() {
            if !message.contains(why) {
                message.push_str(&format!("; {field}: {why}"));
            }
        }
        if !error.reason().is_empty() {
            let facts = error.all_metadata();
            let facts: Vec<_> =
                facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let separator = if facts.is_empty() { "" } else { " " };
            message.push_str(&format!(" [{}{separator}{}]", error.reason(), facts.join(" ")));
        }
        // Not twice.
        let hint = hint_for(&error).filter(|hint| !message.contains(hint));
        let mut failure = Failure::new(exit, message);
        failure.is_unmet = error.is_foreign()
            || error.reason().is_empty()
                && matches!(
                    error.kind(),
                    Kind::Connect | Kind::Untrusted | Kind::Unavailable | Kind::Timeout
                );
        if let Some(source) = StdError::source(&error) {
            failure = failure.because(source);
        }
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// What answers is not what was expected.
const NOT_OURS: &str = "is this a tailmark server? --addr names another";
/// What was on the way was ended there.
const CUT: &str = "try again; if it stays so: is this a tailmark server? --addr names another";

/// What to do about an answer of a proxy.
fn hint_for_http(status: u16) -> &'static str {
    match status {
        401 | 403 | 407 | 511 => "the proxy decides who it lets through; --addr names another way",
        429 => "the proxy takes no more for now: too many requests; try again later",
        413 | 414 | 431 => {
            "raise the proxy's limits (nginx: client_max_body_size 0); docs/http.md has whole \
             configurations"
        }
        200..=399 | 404 | 410 => NOT_OURS,
        408 | 421 | 425 | 500 | 502..=504 | 507 | 509 | 512.. => {
            "the proxy cannot reach the server: is the daemon running behind it?"
        }
        _ => "the proxy must pass on gRPC over HTTP/2; docs/http.md has whole configurations",
    }
}

/// What to do where TLS fails.
pub(super) fn hint_for_tls(problem: TlsProblem) -> Option<&'static str> {
    Some(match problem {
        TlsProblem::NotSpoken => "if the server has no TLS: --addr http://...",
        TlsProblem::Required => "--addr https://..., and --ca FILE where its authority is your own",
        TlsProblem::UnknownIssuer => "--ca FILE (TAILMARK_CA) names the authority to trust",
        TlsProblem::Expired | TlsProblem::NotYetValid => {
            "the server needs a new certificate, or one of the two clocks is wrong"
        }
        TlsProblem::WrongName => "--addr must name the server as its certificate does",
        TlsProblem::ClientRefused => {
            "--cert FILE and --key FILE show one that the server's tls.client_ca_file has signed"
        }
        TlsProblem::NoHttp2 => {
            "a proxy in between must pass on HTTP/2 (ALPN h2); docs/http.md has configurations"
        }
        TlsProblem::Files => "files of certificates and keys are PEM, and not encrypted",
        _ => "`tailmark doctor URL` looks at each step",
    })
}

/// What to do about an error of a call.
pub(super) fn hint_for(error: &Error) -> Option<&'static str> {
    if let Some(status) = error.http_status() {
        return Some(hint_for_http(status));
    }
    if let Some(problem) = error.tls_problem() {
        return hint_for_tls(problem);
    }
    Some(match (error.kind(), error.known_reason()) {
        _ if error.is_foreign() => NOT_OURS,
        (Kind::Connect, _) => {
            "is the daemon running? start it with `tailmark serve`, or name another with --addr"
        }
        (Kind::Gone, Some(Reason::CursorTrimmed)) => {
            "go on with what is left: --on-lost oldest, or start anew: --from oldest"
        }
        (Kind::Gone, Some(Reason::LogChanged | Reason::LogDiverged | Reason::CursorAhead)) => {
            "the log is not the one this cursor came from; --on-lost says how to go on"
        }
        (Kind::InvalidRequest, Some(Reason::CursorMalformed)) => {
            "a cursor is copied whole, as `watch --json` prints it, or a plain sequence number"
        }
        (Kind::Denied, Some(reason)) if reason.is_of_token() => {
            "give a token that is in force: TAILMARK_TOKEN or --token-file; on the server, \
             `tailmark token create` gives one out"
        }
        (Kind::Denied, Some(Reason::RightMissing)) => {
            "`tailmark token check --addr URL` says what this token may"
        }
        (Kind::Damaged, _) => Reason::Damaged.remedy(),
        (Kind::Unavailable | Kind::Timeout, _) if error.may_have_applied() => {
            "it may have been done all the same"
        }
        (Kind::Unavailable | Kind::Timeout, _) if error.reason().is_empty() => CUT,
        // The field that is named says it better.
        (_, Some(Reason::InvalidField | Reason::LimitExceeded)) => return None,
        (_, Some(reason)) => reason.remedy(),
        _ => return None,
    })
}
