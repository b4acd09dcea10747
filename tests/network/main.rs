//! The real client library and the real server, and between them a network that does what networks
//! and proxies do: cuts in the middle of a frame, stalls, connections that are open at one end only,
//! bytes that crawl, answers in the server's place, requests that come twice; and the server goes
//! away and comes back. What clients were told and saw is held against each guarantee by its name.
//!
//! A seed is a plan (`plan.rs`), which is printed when it fails:
//! `NETWORK_SEEDS=17 cargo test --test network`, `NETWORK_SEEDS=1..10001` for many,
//! `NETWORK_TIMES=20` for each as often. A plan fixes what happens and after how many bytes, not how
//! threads meet.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a harness ends where something is not as it must be, and counts small numbers"
)]

mod checks;
mod controls;
#[path = "../crash/mod.rs"]
mod crash;
mod frames;
mod plan;
mod run;
mod sending;
mod server;
mod watching;
mod way;
mod world;

#[allow(dead_code, reason = "a part of what the integration tests share")]
mod support;

fn main() {
    crash::run(&[
        ("no_network_loses_repeats_or_reorders_anything", run::seeds),
        ("a_dropped_message_is_told", controls::a_dropped_message_is_told),
        ("every_control_is_caught", controls::every_control_is_caught),
        ("a_seed_is_one_plan", controls::a_seed_is_one_plan),
    ]);
}
