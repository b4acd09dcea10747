//! Who asks: from what a request carries to a principal, before anything of it is handled.
//!
//! Owns the credentials in force and the layer that looks at every request. What a principal may do is
//! for each call to ask (`principal`). Must not know of files: whoever reads them sets what is in force
//! (`Credentials`). Invariants: no token is kept, but as a hash; what is refused does not say why more
//! than its owner may know.

mod credentials;
mod guard;
mod jwt;
mod token;

use std::sync::Arc;

use http::{Extensions, HeaderMap, header};

pub use credentials::Credentials;
pub(super) use guard::{Guard, guard};
pub use jwt::{Keys, KeysError};
pub use token::{Certificate, Token, TokenHash, new_token};

use crate::server::options::{self, Rates};
use crate::server::principal::{Caller, Session};
use crate::server::quotas::Peer;
use crate::server::rpc::status::{self, Failure};
use tailmark_record::Timestamp;

/// Whether callers must say who they are, and who they then are.
pub(crate) struct Auth {
    options: options::Auth,
    credentials: Credentials,
}

impl Auth {
    pub(crate) fn new(options: options::Auth, rates: Rates) -> Auth {
        let credentials = Credentials::new(options.jwt.clone(), rates);
        Auth { options, credentials }
    }

    /// What is in force, to be changed while the server runs.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Whether callers must say who they are.
    pub(crate) fn is_required(&self) -> bool {
        self.options.required
    }

    /// Who makes a call. What has not passed the layer is nobody's.
    pub(crate) fn caller(&self, extensions: &Extensions) -> Result<Caller, Failure> {
        let caller = match extensions.get::<Caller>() {
            _ if !self.options.required => Caller::anyone(),
            Some(caller) if caller.name().is_some() => caller.clone(),
            Some(_) | None => return Err(status::token_missing()),
        };
        Ok(caller.from(extensions.get::<Peer>()))
    }

    /// Who sends a request with these headers, over a connection with this certificate.
    fn authenticate(
        &self,
        headers: &HeaderMap,
        certificate: Option<(&str, Timestamp)>,
    ) -> Result<Arc<Session>, Failure> {
        let now = Timestamp::now();
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        match (values.next(), values.next(), certificate) {
            (None, _, None) => Err(status::token_missing()),
            (None, _, Some((name, until))) => self.credentials.of_certificate(name, until, now),
            // Two that differ would be whichever somebody else looks at.
            (Some(_), Some(_), _) => Err(status::token_invalid()),
            (Some(value), None, _) => {
                let text = value.to_str().map_err(|_| status::token_invalid())?;
                let (scheme, token) = text.split_once(' ').ok_or_else(status::token_invalid)?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(status::token_invalid());
                }
                self.credentials.of_token(token.trim(), now)
            }
        }
    }
}
