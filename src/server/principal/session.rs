//! A credential in force: whose it is, what it allows, and when it ends.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

use super::Rights;
use crate::server::rpc::status::{self, Failure};
use crate::server::shares::Pace;
use tailmark_record::Timestamp;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its time is over.
    Expired,
    /// It was taken back, or has other rights now.
    Revoked,
}

/// What one credential stands for, from when it came into force until it ends. Shared by all that was
/// begun with it; holds no secret.
pub(crate) struct Session {
    name: Arc<str>,
    rights: Rights,
    expires: Option<Timestamp>,
    /// What the principal has stored lately, where that is limited.
    pace: Option<Arc<Pace>>,
    over: CancellationToken,
    why: OnceLock<Ended>,
}

impl Session {
    pub(crate) fn new(
        name: &str,
        rights: Rights,
        expires: Option<Timestamp>,
        pace: Option<Arc<Pace>>,
    ) -> Session {
        let (over, why) = (CancellationToken::new(), OnceLock::new());
        Session { name: name.into(), rights, expires, pace, over, why }
    }

    /// What the principal has stored lately, where that is limited.
    pub(crate) fn pace(&self) -> Option<&Pace> {
        self.pace.as_deref()
    }

    /// Of the principal.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn rights(&self) -> &Rights {
        &self.rights
    }

    /// From then on it is over; `None` = never by itself.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// Ends what was begun with it. Only the first call counts.
    pub(crate) fn end(&self, why: Ended) {
        let _ = self.why.set(why);
        self.over.cancel();
    }

    /// Cancelled when it is over.
    pub(crate) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Why it is over, if it is.
    pub(crate) fn ended(&self) -> Option<Failure> {
        self.over.is_cancelled().then(|| self.failure())
    }

    /// What its streams end with.
    pub(crate) fn failure(&self) -> Failure {
        match self.why.get() {
            Some(Ended::Expired) => status::token_expired(),
            Some(Ended::Revoked) | None => status::token_revoked(),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("name", &self.name).finish_non_exhaustive()
    }
}
