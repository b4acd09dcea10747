//! What daemons of one log know each other by: a secret that all of them have, in a file of each.

use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use subtle::ConstantTimeEq as _;

use tailmark_record::FingerprintKey;

/// Metadata that a daemon sends with what it asks another one.
pub(super) const HEADER: &str = "tailmark-peer";
/// A secret that can be guessed is none.
const LEAST: usize = 16;
const MOST: u64 = 4096;

/// Why a file has no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is too short or too long.
    #[error("{} has {bytes} bytes; a secret has {LEAST} to {MOST}", path.display())]
    Size {
        /// Which.
        path: PathBuf,
        /// How many.
        bytes: usize,
    },
}

/// The secret, and what is made of it.
#[derive(Clone)]
pub struct Secret {
    key: [u8; 16],
    token: String,
}

impl Secret {
    /// Reads it. Space around it does not count.
    ///
    /// # Errors
    /// When the file cannot be read, or has none.
    pub fn read(path: &Path) -> Result<Secret, SecretError> {
        let failed = |source| SecretError::Read { path: path.to_owned(), source };
        let text = std::fs::read(path).map_err(failed)?;
        Secret::of(&text).ok_or_else(|| SecretError::Size {
            path: path.to_owned(),
            bytes: text.trim_ascii().len(),
        })
    }

    fn of(text: &[u8]) -> Option<Secret> {
        let text = text.trim_ascii();
        if text.len() < LEAST || text.len() as u64 > MOST {
            return None;
        }
        let made = |purpose: &str| {
            let mut context = Context::new(&SHA256);
            context.update(purpose.as_bytes());
            context.update(b"\0");
            context.update(text);
            context.finish()
        };
        let (of_key, of_token) = (made("tailmark repeats"), made("tailmark peers"));
        let mut key = [0; 16];
        key.copy_from_slice(&of_key.as_ref()[..16]);
        let token = of_token.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Secret { key, token })
    }

    /// What repeats are told by: the same at all daemons.
    pub fn fingerprint_key(&self) -> FingerprintKey {
        FingerprintKey::new(self.key)
    }

    /// What a daemon shows to another. Neither the secret nor the key follows from it.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Whether that is what a daemon of this log shows. Takes as long for every other.
    pub(super) fn admits(&self, token: &[u8]) -> bool {
        self.token.as_bytes().ct_eq(token).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_what_stands_in_the_file_and_nothing_of_it_shows() {
        let of = |text: &str| Secret::of(text.as_bytes());
        let one = of("0123456789abcdef").unwrap();
        let same = of("\n 0123456789abcdef\n").unwrap();
        let other = of("0123456789abcdeg").unwrap();
        assert_eq!(one.fingerprint_key().bytes(), same.fingerprint_key().bytes());
        assert!(one.admits(same.token().as_bytes()) && !one.admits(other.token().as_bytes()));
        assert!(!one.admits(b"") && !one.admits(b"0123456789abcdef"));
        assert_ne!(one.fingerprint_key().bytes(), other.fingerprint_key().bytes());
        assert!(!one.token().contains("0123456789abcdef"));
        assert!(of("too short").is_none() && of(&"x".repeat(5_000)).is_none());
    }
}
