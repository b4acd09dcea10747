//! Events in, and events gone: the calls that change the log.

pub(crate) mod append;
pub(crate) mod publish;
pub(crate) mod trim;
pub(crate) mod upload;
