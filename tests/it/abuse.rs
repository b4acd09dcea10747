//! Attacks on a server, each with a victim beside it: they are refused with a status and a reason, the
//! victim goes on, and afterwards all that they took is back.

mod costs;
mod descriptors;
mod long_messages;
pub(crate) mod memory;
mod resets;
mod streams;
mod vanished;
mod victim;
