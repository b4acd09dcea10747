//! Tokens that this server's administrator gives out: 256 random bits behind a prefix that scanners for
//! secrets can look for. Only their hashes are kept: of so many random bits nothing can be guessed, and
//! so a plain SHA-256 says no more than a slow one would.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use crate::server::Rights;
use tailmark_record::Timestamp;

/// What every token of ours begins with.
pub(super) const PREFIX: &str = "tailmark_";
const RANDOM_BYTES: usize = 32;

/// A new token, as its owner sends it.
///
/// # Errors
/// When the system has no random numbers.
pub fn new_token() -> std::io::Result<String> {
    let mut bytes = [0; RANDOM_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| std::io::Error::other("the system gave no random numbers"))?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// What is kept of a token: its SHA-256.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of a token as its owner sends it.
    pub fn of(token: &str) -> TokenHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        TokenHash(hash)
    }

    /// Reads what [`Display`](fmt::Display) writes; `None` if it is none.
    pub fn parse(text: &str) -> Option<TokenHash> {
        let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64)?.as_bytes();
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.chunks(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            if !pair.bytes().all(|c| c.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(TokenHash(hash))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// In the same time wherever they differ.
impl PartialEq for TokenHash {
    fn eq(&self, other: &TokenHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Not even the hash: it names the token to whoever has it.
impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// A token that is in force, without the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The principal who has it.
    pub name: String,
    /// What is kept of it.
    pub hash: TokenHash,
    /// What it allows.
    pub rights: Rights,
    /// From then on it is not taken; `None` = it stays until it is taken back.
    pub expires: Option<Timestamp>,
}

/// What the holder of a certificate may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The name in the certificate, and of the principal.
    pub name: String,
    /// What it allows.
    pub rights: Rights,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_256_random_bits_and_is_kept_as_a_hash() {
        let (one, two) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(one, two);
        let random = URL_SAFE_NO_PAD.decode(one.strip_prefix("tailmark_").unwrap()).unwrap();
        assert_eq!(random.len(), 32);
        let hash = TokenHash::of(&one);
        assert_eq!(TokenHash::parse(&hash.to_string()), Some(hash));
        assert_ne!(hash, TokenHash::of(&two));
        assert!(!format!("{hash:?}").contains(&hash.to_string()[7..]));
        for bad in ["", "sha256:", "sha256:00", &format!("sha1:{}", &hash.to_string()[7..])] {
            assert_eq!(TokenHash::parse(bad), None, "{bad}");
        }
        assert_eq!(TokenHash::parse(&format!("sha256:{}", "+1".repeat(32))), None);
    }
}
