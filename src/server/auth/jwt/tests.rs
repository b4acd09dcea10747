use ::ring::rand::SystemRandom;
use ::ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};
use tonic_types::StatusExt;

use super::*;

/// Signed by OpenSSL; good until the year 2100.
const RSA_TOKEN: &str = include_str!("rsa.test.jwt");
const RSA_KEY: &str = include_str!("rsa.test.pem");

const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanos: 0 };

struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new() -> Issuer {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Issuer(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn jwk(&self, name: &str) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": name, "alg": "EdDSA", "use": "sig"})
    }

    fn keys(&self) -> Keys {
        Keys::parse(&json!({"keys": [self.jwk("one")]}).to_string()).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "EdDSA", "kid": "one"}), claims)
    }
}

fn message(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

fn claims() -> Value {
    let rights = json!({"publish": ["in.>"], "watch": ["out.*", "x"], "admin": true});
    json!({"sub": "ann", "exp": NOW.seconds + 60, "tailmark": rights})
}

/// The claims with one of them changed; null takes it out.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn verify(keys: &Keys, token: &str, rules: &Jwt) -> Result<Verified, String> {
    keys.verify(token, rules, NOW)
        .map_err(|failure| tonic::Status::from(failure).get_details_error_info().unwrap().reason)
}

#[test]
fn a_token_says_who_it_is_and_what_they_may() {
    let issuer = Issuer::new();
    let verified = verify(&issuer.keys(), &issuer.token(&claims()), &Jwt::default()).unwrap();
    assert_eq!(verified.name, "ann");
    assert_eq!(verified.expires.seconds, NOW.seconds + 60);
    let rights = verified.rights;
    assert_eq!((rights.publish(), rights.watch()), (vec!["in.>"], vec!["out.*", "x"]));
    assert!(rights.is_admin());
    // Without the claim of ours somebody is named, and may do nothing.
    let bare = issuer.token(&with("tailmark", Value::Null));
    let bare = verify(&issuer.keys(), &bare, &Jwt::default()).unwrap();
    assert_eq!(bare.rights, Rights::default());
}

#[test]
fn whatever_is_wrong_with_it_is_not_told() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let keys = issuer.keys();
    let good = issuer.token(&claims());
    let rules = Jwt::default();
    assert!(verify(&keys, &good, &rules).is_ok());
    let none = message(&json!({"alg": "none"}), &claims());
    let shared = message(&json!({"alg": "HS256"}), &claims());
    let mut altered: Vec<&str> = good.split('.').collect();
    let claims_of_admin = URL_SAFE_NO_PAD.encode(with("sub", json!("root")).to_string());
    altered[1] = &claims_of_admin;
    for bad in [
        other.token(&claims()),
        altered.join("."),
        good[..good.len() - 4].to_owned(),
        format!("{good}.x"),
        good.replace('.', ""),
        format!("{none}."),
        format!("{shared}.{}", URL_SAFE_NO_PAD.encode([0; 32])),
        "..".to_owned(),
        String::new(),
        format!("{good}{}", "x".repeat(MAX_BYTES)),
        issuer.token(&with("sub", Value::Null)),
        issuer.token(&with("sub", json!(""))),
        issuer.token(&with("sub", json!("a\u{1f}b"))),
        issuer.token(&with("sub", json!("x".repeat(MAX_NAME_BYTES + 1)))),
        issuer.token(&with("sub", json!(7))),
        issuer.token(&with("exp", Value::Null)),
        issuer.token(&with("exp", json!("never"))),
        issuer.token(&with("nbf", json!(NOW.seconds + 61))),
        issuer.token(&with("aud", json!("somebody"))),
        issuer.token(&with("tailmark", json!({"publish": ["a..b"]}))),
        issuer.token(&with("tailmark", json!({"publish": "a"}))),
        issuer.token(&with("tailmark", json!({"root": true}))),
        issuer.token(&with("tailmark", json!({"watch": vec!["a"; MAX_PATTERNS + 1]}))),
        issuer.sign(&json!({"alg": "ES256", "kid": "one"}), &claims()),
    ] {
        assert_eq!(verify(&keys, &bad, &rules).err(), Some("TOKEN_INVALID".to_owned()), "{bad}");
    }
    assert!(verify(&Keys::default(), &good, &rules).is_err());
    // Little ahead is a clock that goes wrong.
    let early = issuer.token(&with("nbf", json!(NOW.seconds + 59)));
    assert!(verify(&keys, &early, &rules).is_ok());
}

#[test]
fn issuer_audience_and_algorithm_are_those_of_the_settings() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let of = |name: &str, value: Value| issuer.token(&with(name, value));
    let rules = Jwt { issuer: "https://id.example".to_owned(), ..Jwt::default() };
    assert!(verify(&keys, &of("iss", json!("https://id.example")), &rules).is_ok());
    for bad in [of("iss", json!("https://evil.example")), of("iss", Value::Null)] {
        assert!(verify(&keys, &bad, &rules).is_err());
    }
    let rules = Jwt { audience: "tailmark".to_owned(), ..Jwt::default() };
    for good in [json!("tailmark"), json!(["other", "tailmark"])] {
        assert!(verify(&keys, &of("aud", good.clone()), &rules).is_ok(), "{good}");
    }
    for bad in [json!("other"), json!(["other"]), json!([]), Value::Null] {
        assert!(verify(&keys, &of("aud", bad.clone()), &rules).is_err(), "{bad}");
    }
    let rules = Jwt { algorithms: vec![JwtAlgorithm::Es256], ..Jwt::default() };
    assert!(verify(&keys, &issuer.token(&claims()), &rules).is_err());
}

#[test]
fn keys_are_told_apart_by_name_and_kind() {
    let (one, two) = (Issuer::new(), Issuer::new());
    let set = json!({"keys": [one.jwk("one"), two.jwk("two")]}).to_string();
    let keys = Keys::parse(&set).unwrap();
    let rules = Jwt::default();
    let signed = |issuer: &Issuer, header: Value| issuer.sign(&header, &claims());
    assert!(verify(&keys, &signed(&two, json!({"alg": "EdDSA", "kid": "two"})), &rules).is_ok());
    assert!(verify(&keys, &signed(&two, json!({"alg": "EdDSA"})), &rules).is_ok());
    // A name that no key has is that of no key that has one, and may be that of one that has none.
    let renamed = signed(&two, json!({"alg": "EdDSA", "kid": "new"}));
    assert!(verify(&keys, &renamed, &rules).is_err());
    let mut bare = two.jwk("");
    bare.as_object_mut().unwrap().remove("kid");
    let set = json!({"keys": [one.jwk("one"), bare]}).to_string();
    assert!(verify(&Keys::parse(&set).unwrap(), &renamed, &rules).is_ok());
    assert!(verify(&keys, &signed(&two, json!({"alg": "EdDSA", "kid": "one"})), &rules).is_err());
    // The one that signed is the one that counts when keys change.
    let key = verify(&keys, &signed(&two, json!({"alg": "EdDSA"})), &rules).unwrap().key;
    assert!(keys.has(&key) && !one.keys().has(&key));
}

#[test]
fn a_token_is_held_against_so_many_keys_and_no_more() {
    let others: Vec<_> = (0..MAX_TRIES).map(|_| Issuer::new()).collect();
    let last = Issuer::new();
    let token = last.sign(&json!({"alg": "EdDSA"}), &claims());
    for (before, is_found) in [(MAX_TRIES - 1, true), (MAX_TRIES, false)] {
        let keys = others[..before].iter().chain([&last]).map(|it| it.jwk("x")).collect::<Vec<_>>();
        let keys = Keys::parse(&json!({"keys": keys}).to_string()).unwrap();
        assert_eq!(verify(&keys, &token, &Jwt::default()).is_ok(), is_found, "{before}");
    }
}

#[test]
fn elliptic_curves_and_rsa_are_taken_as_sets_and_as_pem() {
    let random = SystemRandom::new();
    let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(signing, pair.as_ref(), &random).unwrap();
    let message = message(&json!({"alg": "ES256"}), &claims());
    let signature = pair.sign(&random, message.as_bytes()).unwrap();
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    let point = pair.public_key().as_ref();
    let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
    let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y}]}).to_string();
    // SubjectPublicKeyInfo of P-256, up to the point.
    let head = STANDARD.decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE").unwrap();
    let der = STANDARD.encode([&head[..], &point[1..]].concat());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
    let rules = Jwt::default();
    for text in [set, pem.clone(), format!("# ours\n{RSA_KEY}\n{pem}")] {
        let keys = Keys::parse(&text).unwrap();
        assert_eq!(verify(&keys, &token, &rules).unwrap().name, "ann", "{text}");
    }
    assert!(verify(&Keys::parse(RSA_KEY).unwrap(), &token, &rules).is_err());

    let n = RSA_KEY.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    // SubjectPublicKeyInfo of RSA: the modulus lies between its head and the exponent 65537.
    let der = STANDARD.decode(n).unwrap();
    let n = URL_SAFE_NO_PAD.encode(&der[33..33 + 256]);
    let set = json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]}).to_string();
    for text in [RSA_KEY, &set, &format!("{RSA_KEY}{pem}")] {
        let keys = Keys::parse(text).unwrap();
        assert_eq!(verify(&keys, RSA_TOKEN.trim(), &rules).unwrap().rights.watch(), ["a.>"]);
    }
}

#[test]
fn what_is_no_public_key_is_refused() {
    for (text, part) in [
        ("hello", "expected a JSON Web Key Set"),
        ("{\"keys\": 7}", "not a JSON Web Key Set"),
        ("{\"keys\": [{\"kty\": \"oct\", \"k\": \"AAAA\"}]}", "shared secret"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "private key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "key 1"),
        ("-----BEGIN X", "key 1"),
    ] {
        let error = Keys::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(Keys::parse("").is_ok() && Keys::parse("{\"keys\": []}").is_ok());
}

proptest! {
    /// Whatever is sent, it is an answer.
    #[test]
    fn no_text_is_a_panic(text in ".{0,200}", parts in "[A-Za-z0-9_-]{0,60}(\\.[A-Za-z0-9_-]{0,60}){0,4}") {
        let keys = Keys::parse(RSA_KEY).unwrap();
        for token in [&text, &parts] {
            prop_assert!(verify(&keys, token, &Jwt::default()).is_err());
            let _ = Keys::parse(token);
        }
    }
}
