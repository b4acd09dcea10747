//! What the integration tests have, too.

#[path = "../it/support/daemon.rs"]
pub mod daemon;
#[path = "../it/support/proxy.rs"]
pub mod proxy;
