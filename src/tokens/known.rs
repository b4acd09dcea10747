//! What a token may, by the files alone.

use std::path::Path;

use super::{Tokens, TokensError, read_keys};
use crate::server::{Credentials, Jwt, JwtAlgorithm};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::values::timestamp;

/// Where it says who is known, as the settings have it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The file of tokens.
    pub tokens: &'a Path,
    /// The keys of issuers; empty = none.
    pub keys: &'a Path,
    /// Who must have issued a JWT.
    pub issuer: &'a str,
    /// Whom it must be meant for.
    pub audience: &'a str,
    /// By which algorithms it may be signed.
    pub algorithms: &'a [String],
}

impl Known<'_> {
    /// Who has this token, as a daemon would say it; or why it would not take it.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn principal(&self, token: &str) -> Result<Result<pb::Principal, String>, TokensError> {
        let algorithms = self.algorithms.iter();
        let credentials = Credentials::with(Jwt {
            issuer: self.issuer.to_owned(),
            audience: self.audience.to_owned(),
            algorithms: algorithms.filter_map(|name| JwtAlgorithm::parse(name)).collect(),
        });
        Tokens::read(self.tokens)?.set(&credentials);
        credentials.set_keys(read_keys(self.keys)?);
        Ok(credentials.check(token).map(|(name, rights, expires)| {
            let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
            pb::Principal {
                publish: owned(rights.publish()),
                watch: owned(rights.watch()),
                admin: rights.is_admin(),
                expires: expires.map(timestamp),
                name,
            }
        }))
    }
}
