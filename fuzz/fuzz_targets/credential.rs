//! What stands behind `Bearer`, and keys of issuers: nothing that nobody signed is ever taken. What is
//! above an empty line is the key set, below it the token.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tailmark::server::{Credentials, Jwt, Keys, TokenHash};

const KEY: &str = include_str!("../../src/server/auth/jwt/rsa.test.pem");

/// Knows one issuer's key, whose other half nobody here has.
static KNOWN: LazyLock<Credentials> = LazyLock::new(|| {
    let credentials = Credentials::with(Jwt::default());
    credentials.set_keys(Keys::parse(KEY).expect("a key"));
    credentials
});

/// The one token in the corpus that was signed with it, long ago.
const SIGNED: &str = include_str!("../../src/server/auth/jwt/rsa.test.jwt");

fuzz_target!(|text: &str| {
    let (keys, token) = text.split_once("\n\n").unwrap_or(("", text));
    let refused = KNOWN.check(token);
    assert!(refused.is_err() || token.trim() == SIGNED.trim(), "taken: {token}");
    let _ = TokenHash::parse(token);
    if let Ok(keys) = Keys::parse(keys) {
        let credentials = Credentials::with(Jwt::default());
        credentials.set_keys(keys);
        let _ = credentials.check(token);
    }
});
