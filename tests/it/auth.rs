//! Who may do what, over every protocol: nobody without a credential, and nobody beyond their rights.

mod certificates;
mod leaks;
mod limits;
mod matrix;
mod program;
mod renewal;
mod rooms;
mod streams;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use tailmark::server::{Auth, Keys, Options, Rights, Token, TokenHash, new_token};
use tailmark_record::topic::Pattern;
use tailmark_record::{Limits, Timestamp};

use crate::support::server::{TestServer, new_log, start_with};

/// Within this time what a credential has begun must have ended once it is not in force any more.
const SOON: Duration = Duration::from_secs(5);

/// A server that wants to know who asks.
async fn start() -> TestServer {
    start_with(new_log(), options()).await
}

fn options() -> Options {
    Options { auth: Auth { required: true, ..Auth::default() }, ..Options::default() }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::parse(text, &Limits::default()).unwrap()).collect()
}

fn rights(publish: &[&str], watch: &[&str], admin: bool) -> Rights {
    Rights::new(patterns(publish), patterns(watch), admin)
}

/// Tokens that are in force, put there one after the other.
#[derive(Default)]
struct Known(Vec<Token>);

impl Known {
    /// Gives out a token; it counts once these are put into force.
    fn give(&mut self, name: &str, rights: Rights) -> String {
        self.give_until(name, rights, None)
    }

    fn give_until(&mut self, name: &str, rights: Rights, expires: Option<Timestamp>) -> String {
        let token = new_token().unwrap();
        let (name, hash) = (name.to_owned(), TokenHash::of(&token));
        self.0.push(Token { name, hash, rights, expires });
        token
    }

    fn take_back(&mut self, name: &str) {
        self.0.retain(|token| token.name != name);
    }

    fn enforce(&self, server: &TestServer) {
        server.credentials.set_known(self.0.clone(), Vec::new());
    }
}

fn after(seconds: i64) -> Timestamp {
    Timestamp { seconds: Timestamp::now().seconds + seconds, nanos: 0 }
}

/// Who issues JWTs.
struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new() -> Issuer {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Issuer(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn keys_text(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}).to_string()
    }

    fn keys(&self) -> Keys {
        Keys::parse(&self.keys_text()).unwrap()
    }

    fn token(&self, name: &str, rights: &Rights, expires: Timestamp) -> String {
        let claim = json!({
            "publish": rights.publish(), "watch": rights.watch(), "admin": rights.is_admin(),
        });
        let claims = json!({"sub": name, "exp": expires.seconds, "tailmark": claim});
        let parts = [json!({"alg": "EdDSA"}), claims];
        let message = parts.map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// A request of gRPC with a token.
fn bearing<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}
