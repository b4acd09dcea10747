//! Tokens of an issuer (JWT, RFC 7519): who is named and what is allowed stands in the token, signed.
//!
//! Owns which keys are believed and what a token must say. Must not know where keys come from. Nothing
//! with a shared secret is taken: whoever can check such a token can make one.

mod ring;

use std::sync::Arc;

use ::ring::digest::{SHA256, digest};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use crate::server::Rights;
use crate::server::options::{Jwt, JwtAlgorithm};
use crate::server::rpc::status::{self, Failure};
use tailmark_record::topic::Pattern;
use tailmark_record::{Limits, Timestamp};

/// Longer than any that is meant.
const MAX_BYTES: usize = 8 << 10;
/// Of one right in a token. What it costs to hold a watch against them grows with their number.
const MAX_PATTERNS: usize = 256;
/// Keys that one token is held against, in the order of the file.
const MAX_TRIES: usize = 16;
/// Of a principal's name.
const MAX_NAME_BYTES: usize = 128;
/// By how much the issuer's clock may be ahead of ours.
const LEEWAY_S: f64 = 60.0;

/// The public keys of issuers that are believed.
#[derive(Clone, Default)]
pub struct Keys(Arc<[Key]>);

/// Which key it was: a hash of it and of the name that it goes by.
pub(super) type KeyId = [u8; 32];

struct Key {
    id: KeyId,
    name: Option<String>,
    key: DecodingKey,
    /// Where the key says what it is for.
    algorithm: Option<Algorithm>,
}

/// Why a text has no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// Neither of the two forms.
    #[error("expected a JSON Web Key Set ({{\"keys\": [...]}}) or public keys as PEM")]
    Neither,
    /// It is JSON, but not as RFC 7517 has it.
    #[error("not a JSON Web Key Set")]
    Json(#[source] serde_json::Error),
    /// One key, counted from 1.
    #[error("key {number}: {problem}")]
    Key {
        /// Which.
        number: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// What a good token says.
pub(super) struct Verified {
    pub(super) name: String,
    pub(super) rights: Rights,
    pub(super) expires: Timestamp,
    pub(super) key: KeyId,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    #[serde(default)]
    tailmark: Given,
}

/// The claim of ours. Without it somebody is named, and may do nothing.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    publish: Vec<String>,
    watch: Vec<String>,
    admin: bool,
}

impl Keys {
    /// Reads a JSON Web Key Set, or PEM with one public key or more.
    ///
    /// # Errors
    /// What is wrong with it. No keys at all are no error: nobody is believed then.
    pub fn parse(text: &str) -> Result<Keys, KeysError> {
        let text = text.trim();
        let keys = if text.is_empty() {
            Vec::new()
        } else if text.starts_with('{') {
            of_set(serde_json::from_str(text).map_err(KeysError::Json)?)?
        } else if text.contains("-----BEGIN ") {
            of_pem(text)?
        } else {
            return Err(KeysError::Neither);
        };
        Ok(Keys(keys.into()))
    }

    pub(super) fn has(&self, id: &KeyId) -> bool {
        self.0.iter().any(|key| key.id == *id)
    }

    /// Who is named by a token of an issuer that is believed. That its time is not over is for the
    /// caller to see.
    pub(super) fn verify(
        &self,
        token: &str,
        rules: &Jwt,
        now: Timestamp,
    ) -> Result<Verified, Failure> {
        if token.len() > MAX_BYTES || self.0.is_empty() {
            return Err(status::token_invalid());
        }
        // Another may be there already, where the server is a part of something larger.
        let _ = ring::PROVIDER.install_default();
        let header = decode_header(token).map_err(|_| status::token_invalid())?;
        if !rules.algorithms.iter().any(|it| algorithm(*it) == header.alg) {
            return Err(status::token_invalid());
        }
        let validation = validation(header.alg, rules);
        let named = header.kid.as_deref();
        let is_known = named.is_some_and(|name| self.0.iter().any(|key| key.is_called(name)));
        let fits = |key: &&Key| {
            key.key.family() == header.alg.family()
                && key.algorithm.is_none_or(|algorithm| algorithm == header.alg)
                && match named {
                    Some(name) if is_known => key.is_called(name),
                    // One with another name did not sign it.
                    Some(_) => key.name.is_none(),
                    None => true,
                }
        };
        for key in self.0.iter().filter(fits).take(MAX_TRIES) {
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(data) => return verified(data.claims, key.id, now),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
                Err(_) => return Err(status::token_invalid()),
            }
        }
        Err(status::token_invalid())
    }
}

impl Key {
    fn is_called(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }
}

fn validation(algorithm: Algorithm, rules: &Jwt) -> Validation {
    let mut validation = Validation::new(algorithm);
    // By the clock that everything here goes by, which may stand before 1970.
    validation.validate_exp = false;
    let mut required = vec!["exp", "sub"];
    if !rules.issuer.is_empty() {
        validation.set_issuer(&[&rules.issuer]);
        required.push("iss");
    }
    // Without a name of ours, a token that is meant for somebody by name is not meant for us.
    if !rules.audience.is_empty() {
        validation.set_audience(&[&rules.audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn verified(claims: Claims, key: KeyId, now: Timestamp) -> Result<Verified, Failure> {
    let name = claims.sub;
    let is_name = !name.is_empty() && name.len() <= MAX_NAME_BYTES;
    #[expect(clippy::cast_precision_loss, reason = "of a second a part is enough")]
    let is_early = claims.nbf.is_some_and(|from| from > now.seconds as f64 + LEEWAY_S);
    if !is_name || name.chars().any(char::is_control) || !claims.exp.is_finite() || is_early {
        return Err(status::token_invalid());
    }
    let patterns = |texts: Vec<String>| {
        if texts.len() > MAX_PATTERNS {
            return None;
        }
        let limits = Limits::default();
        texts.iter().map(|text| Pattern::parse(text, &limits).ok()).collect::<Option<Vec<_>>>()
    };
    let Given { publish, watch, admin } = claims.tailmark;
    let (Some(publish), Some(watch)) = (patterns(publish), patterns(watch)) else {
        return Err(status::token_invalid());
    };
    #[expect(clippy::cast_possible_truncation, reason = "what is beyond is the end of time")]
    let expires = Timestamp { seconds: claims.exp as i64, nanos: 0 };
    Ok(Verified { name, rights: Rights::new(publish, watch, admin), expires, key })
}

fn algorithm(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::Es384 => Algorithm::ES384,
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Rs384 => Algorithm::RS384,
        JwtAlgorithm::Rs512 => Algorithm::RS512,
        JwtAlgorithm::Ps256 => Algorithm::PS256,
        JwtAlgorithm::Ps384 => Algorithm::PS384,
        JwtAlgorithm::Ps512 => Algorithm::PS512,
    }
}

fn of_set(set: JwkSet) -> Result<Vec<Key>, KeysError> {
    set.keys.iter().enumerate().map(|(at, jwk)| of_jwk(at + 1, jwk)).collect()
}

fn of_jwk(number: usize, jwk: &Jwk) -> Result<Key, KeysError> {
    let wrong = |problem| KeysError::Key { number, problem };
    if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
        return Err(wrong("a shared secret: whoever checks a token with it can make one"));
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|_| wrong("not a public key that is known"))?;
    let algorithm = match jwk.common.key_algorithm {
        None => None,
        Some(named) => {
            let algorithm = named.to_string().parse::<Algorithm>();
            Some(algorithm.map_err(|_| wrong("`alg` is none that signs"))?)
        }
    };
    let name = jwk.common.key_id.clone();
    let told = serde_json::to_vec(jwk).unwrap_or_default();
    Ok(Key { id: id_of(&told), name, key, algorithm })
}

fn of_pem(text: &str) -> Result<Vec<Key>, KeysError> {
    let read = [DecodingKey::from_ed_pem, DecodingKey::from_ec_pem, DecodingKey::from_rsa_pem];
    let mut keys = Vec::new();
    for (at, block) in blocks(text).enumerate() {
        let wrong = |problem| KeysError::Key { number: at + 1, problem };
        if block.contains("PRIVATE KEY-----") {
            return Err(wrong("a private key: its owner alone should have it"));
        }
        let key = read.iter().find_map(|read| read(block.as_bytes()).ok());
        let key = key.ok_or(wrong("not a public key of Ed25519, P-256, P-384 or RSA"))?;
        keys.push(Key { id: id_of(block.as_bytes()), name: None, key, algorithm: None });
    }
    Ok(keys)
}

/// The blocks of PEM in a text.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = &rest[rest.find("-----BEGIN ")?..];
        let end = rest.find("-----END ").map(|end| end + "-----END ".len());
        let len = end.and_then(|end| Some(end + rest[end..].find("-----")? + "-----".len()));
        let (block, after) = rest.split_at(len.unwrap_or(rest.len()));
        rest = after;
        Some(block)
    })
}

fn id_of(bytes: &[u8]) -> KeyId {
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, bytes).as_ref());
    id
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("count", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests;
