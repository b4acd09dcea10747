//! Who is woken: readers with a filter sleep until an event that concerns them is published.
//!
//! ```text
//! writer: publish a head -> poke
//! matcher (a thread): the commits up to that head -> their topics -> the readers that they concern -> examined = head
//! reader: register -> read the head -> read up to it -> sleep -> read what was matched -> sleep
//! ```
//!
//! It decides nothing but wake-ups: readers pull, and read by themselves what the index knows nothing of.
//! A wake-up may be early or double, never missing:
//! 1. A reader registers before it reads the head. So each commit that it does not read by itself is published,
//!    and then matched, when it is in the index.
//! 2. The matcher notes all that a commit matched before it says that it has examined it, and a reader looks
//!    how far that has come before it takes what was noted. So what it has not been told of up to there does
//!    not concern it.
//!
//! Readers of everything are not in the index: they wait for the head itself. The models are NATS' subject
//! list and etcd's watcher groups.

mod index;
mod signal;

pub(super) use index::{Interest, Registration, Waking};
pub(super) use signal::Woken;

#[cfg(test)]
mod tests;
