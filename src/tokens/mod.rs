//! The file of tokens: what is known of the tokens that were given out, and what certificates stand for.
//!
//! Owns the file's form, how it is changed, and how a daemon follows it. Must not know of requests, nor
//! of the command line. Invariants: a token itself is never in the file; a file that cannot be read
//! changes nothing; a change is whole or absent, and two at a time are one after the other.

mod change;
mod entry;
mod follow;
mod known;

use std::io;
use std::path::{Path, PathBuf};

pub use change::{New, create, revoke};
pub use entry::Entry;
pub use follow::Files;
pub use known::Known;

use crate::server::{Certificate, Credentials, Keys, KeysError, Token};

/// Far more than thousands of tokens take.
const MAX_BYTES: u64 = 16 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The system says why.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What is wrong in it.
    #[error("{}:{line}: {message}", path.display())]
    Content {
        /// In which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What.
        message: String,
    },
    /// What is wrong with what a new token was to be.
    #[error("{what}: {problem}")]
    Asked {
        /// Which part of it: `name`, `publish` or `watch`.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The keys of issuers.
    #[error("{}", path.display())]
    Keys {
        /// In which file.
        path: PathBuf,
        /// What is wrong with them.
        source: KeysError,
    },
    /// There is a token of this name.
    #[error("there is a token `{0}` already")]
    Taken(String),
    /// There is none.
    #[error("there is no token `{0}`")]
    Unknown(String),
}

/// All that a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Each with a hash.
    pub tokens: Vec<Entry>,
    /// Each without one.
    pub certificates: Vec<Entry>,
}

impl Tokens {
    /// Reads a file; one that is not there says nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<Tokens, TokensError> {
        match text_of(path)? {
            Some(text) => Tokens::parse(path, &text),
            None => Ok(Tokens::default()),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Tokens, TokensError> {
        entry::parse(text).map_err(|(line, message)| {
            let path = path.to_owned();
            TokensError::Content { path, line, message }
        })
    }

    /// Puts what it says into force.
    fn set(self, credentials: &Credentials) {
        let tokens = self.tokens.into_iter().filter_map(|entry| {
            Some(Token {
                hash: entry.hash?,
                rights: entry.rights(),
                name: entry.name,
                expires: entry.expires,
            })
        });
        let certificates = self.certificates.into_iter();
        let certificates = certificates
            .map(|entry| Certificate { rights: entry.rights(), name: entry.name })
            .collect();
        credentials.set_known(tokens.collect(), certificates);
    }
}

/// Reads the keys of issuers; no path has none.
///
/// # Errors
/// What is wrong with the file. One that is named must be there.
pub fn read_keys(path: &Path) -> Result<Keys, TokensError> {
    if path.as_os_str().is_empty() {
        return Ok(Keys::default());
    }
    let absent = || io_error("read", path, io::ErrorKind::NotFound.into());
    parse_keys(path, &text_of(path)?.ok_or_else(absent)?)
}

fn parse_keys(path: &Path, text: &str) -> Result<Keys, TokensError> {
    Keys::parse(text).map_err(|source| TokensError::Keys { path: path.to_owned(), source })
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> TokensError {
    TokensError::Io { action, path: path.to_owned(), source }
}

/// What a file has; `None` if it is not there.
fn text_of(path: &Path) -> Result<Option<String>, TokensError> {
    use std::io::Read;
    let read = || {
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // To take it for a file that is not there would replace it by one.
                if path.is_symlink() {
                    return Err(io::Error::other("it is a link that leads nowhere"));
                }
                return Ok(None);
            }
            file => file?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(io::Error::other(format!("it has more than {} MiB", MAX_BYTES >> 20)));
        }
        String::from_utf8(bytes).map(Some).map_err(|_| io::Error::other("it is no UTF-8"))
    };
    read().map_err(|source| io_error("read", path, source))
}

#[cfg(test)]
mod tests;
