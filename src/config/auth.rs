//! Who must say who they are, as settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// What `auth.jwt_algorithms` may name.
pub const JWT_ALGORITHMS: [&str; 9] =
    ["EdDSA", "ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];

/// Whether callers must say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Whoever reaches the daemon may do everything.
    None,
    /// Whoever does not is not answered.
    Required,
}

section!(
    /// Who must say who they are, and how.
    Auth {
        /// Whether.
        mode: AuthMode = AuthMode::None,
        /// Tokens that `tailmark token` gives out, and what certificates stand for.
        tokens_file: PathBuf = PathBuf::from("tokens.toml"),
        /// Public keys of issuers of JWTs; empty = none is believed.
        jwt_keys_file: PathBuf = PathBuf::new(),
        /// Who must have issued one.
        jwt_issuer: String = String::new(),
        /// Whom it must be meant for.
        jwt_audience: String = String::new(),
        /// By which algorithms it may be signed.
        jwt_algorithms: Vec<String> = ["EdDSA", "ES256", "RS256"].map(str::to_owned).to_vec(),
        /// `/metrics` is for everybody.
        metrics_open: bool = false,
    }
);

impl Auth {
    pub(super) fn check(&self) -> Result<(), Invalid> {
        if self.tokens_file.as_os_str().is_empty() {
            return Err(Invalid::new("auth.tokens_file", "must not be empty"));
        }
        let is_known = |name: &&String| JWT_ALGORITHMS.contains(&name.as_str());
        if let Some(name) = self.jwt_algorithms.iter().find(|name| !is_known(name)) {
            let all = JWT_ALGORITHMS.join(", ");
            let problem = format!("`{name}` is not one of {all}");
            return Err(Invalid::new("auth.jwt_algorithms", problem));
        }
        if self.jwt_algorithms.is_empty() && !self.jwt_keys_file.as_os_str().is_empty() {
            let invalid = Invalid::new("auth.jwt_algorithms", "names none");
            return Err(invalid.against("auth.jwt_keys_file"));
        }
        Ok(())
    }
}
