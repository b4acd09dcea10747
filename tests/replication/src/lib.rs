//! The protocol by which any number of daemons share one log over a journal that others keep
//! (a JetStream stream), as a model that is checked in every order of what can happen.
//!
//! It is the specification of what a journal over NATS does, and nothing of the program: read
//! [`rules`] first, then [`daemon`], which is the protocol; [`journal`] is what the stream does,
//! [`world`] what can go wrong, [`properties`] what must hold all the same. What is left out, and
//! what each rule is for, is in `docs/decisions/0027-replication-model.md`.

pub mod daemon;
pub mod frame;
pub mod journal;
pub mod properties;
pub mod rules;
pub mod scenes;
pub mod sessions;
pub mod trust;
pub mod world;
