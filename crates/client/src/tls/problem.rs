//! What is wrong with TLS between us and the server, in words.

use std::fmt;

/// What is wrong with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The server speaks none at this port; its address begins with `http://`.
    NotSpoken,
    /// The server speaks nothing else at this port; its address begins with `https://`.
    Required,
    /// An authority that is not trusted has signed the server's certificate.
    UnknownIssuer,
    /// The server's certificate has expired, by this machine's clock.
    Expired,
    /// The server's certificate is not valid yet, by this machine's clock.
    NotYetValid,
    /// The server's certificate is for other names.
    WrongName,
    /// The server wants a certificate of the client, or another one.
    ClientRefused,
    /// What answers does not speak HTTP/2.
    NoHttp2,
    /// A file of certificates or a key cannot be used.
    Files,
    /// Something else.
    Other,
}

/// The same with its words.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) what: TlsProblem,
    words: String,
}

impl Problem {
    pub(crate) fn new(what: TlsProblem, words: impl Into<String>) -> Problem {
        Problem { what, words: words.into() }
    }

    /// Seen by what came in answer to plain HTTP/2.
    pub(crate) fn required() -> Problem {
        Problem::new(
            TlsProblem::Required,
            "the server speaks TLS at this port: its address must begin with https://",
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Problem {}
