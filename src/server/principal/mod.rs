//! Who asks, and what they may: rights on topics, the session that a credential stands for while it is
//! in force, and the one place that answers whether something is allowed.
//!
//! Must not know how a credential is told from a forged one (`auth`), nor who carries it. Invariant: no
//! refusal depends on what is in the log.

mod caller;
mod rights;
mod session;

pub(crate) use caller::Caller;
pub use rights::Rights;
pub(crate) use session::{Ended, Session};
