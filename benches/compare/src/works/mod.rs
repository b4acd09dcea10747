//! What is done on each of those that are compared, and what figures come out.

mod append;
pub(crate) mod fanout;
mod idle;
mod interest;
mod memory;
mod own_topics;
mod publish;
mod publishers;
mod rare;
mod replay;
mod resume;
mod storm;

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::peers::{Peer, Target};
use crate::sample::Load;

/// What a figure counts, and so how it is written and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "ms")]
    Millis,
    #[serde(rename = "bytes")]
    Bytes,
    /// How much of something is left, of 1.
    #[serde(rename = "share")]
    Share,
    /// How many times as much something takes.
    #[serde(rename = "times")]
    Times,
}

impl Unit {
    pub(crate) fn is_more_better(self) -> bool {
        matches!(self, Unit::PerSecond | Unit::Share)
    }
}

/// One measured value; `None` where there is no way to do the work.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) value: Option<f64>,
    /// What the table says of it, as where a target takes less than others.
    pub(crate) note: Option<String>,
}

impl Figure {
    pub(crate) fn of(name: impl Into<String>, unit: Unit, value: Option<f64>) -> Figure {
        Figure { name: name.into(), unit, value, note: None }
    }

    pub(crate) fn noted(self, note: Option<String>) -> Figure {
        Figure { note, ..self }
    }
}

/// Sizes of the works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Events of an append.
    pub(crate) append: u64,
    /// Events of a batch.
    pub(crate) batch: usize,
    /// Events of the log that is replayed and resumed in.
    pub(crate) log: u64,
    /// Of a fan-out, over all watchers.
    pub(crate) deliveries: u64,
    /// Single publishes.
    pub(crate) publishes: usize,
    /// Resumes at a place that was read just before.
    pub(crate) hot: usize,
    /// Resumes at places that were not read since the start.
    pub(crate) cold: usize,
    /// The log in which a topic is rare.
    pub(crate) rare: Load,
    /// Events after which memory is looked at.
    pub(crate) memory: u64,
    /// Watchers that wait.
    pub(crate) idle: usize,
    /// As many as Tailmark and the limit have to hold; peers need not.
    pub(crate) many_idle: usize,
    /// Watches of other topics beside a publisher.
    pub(crate) interest: [usize; 3],
    /// Until such watches are open, at most: with what there is then it goes on.
    pub(crate) opening: Duration,
    /// Watches that have a topic of their own, of which all events are.
    pub(crate) own: usize,
    /// Of publishing.
    pub(crate) time: Duration,
    /// Clients that come back at once, of so many topics; how many events each topic has, and how many were missed.
    pub(crate) storm: [u64; 4],
}

impl Plan {
    pub(crate) fn new(events: u64) -> Plan {
        Plan {
            append: events,
            batch: 1_000,
            log: 2 * events,
            deliveries: 4 * events,
            publishes: 2_000,
            hot: 200,
            cold: 8,
            rare: Load { events: 5 * events, rare_every: (5 * events / 1_000).max(1) },
            memory: 5 * events,
            idle: 1_000,
            many_idle: 10_000,
            interest: [1_000, 10_000, 100_000],
            opening: Duration::from_secs(120),
            own: 10_000,
            time: Duration::from_secs(3),
            storm: [10_000, 10_000, (events / 8_333).max(2), (events / 10_000).max(1)],
        }
    }

    /// Small enough to see within a minute or two whether all of it works.
    pub(crate) fn quick() -> Plan {
        let small = Plan::new(100_000);
        Plan {
            publishes: 300,
            hot: 50,
            many_idle: 2_000,
            interest: [100, 1_000, 10_000],
            opening: Duration::from_secs(30),
            own: 1_000,
            time: Duration::from_secs(1),
            storm: [1_000, 10_000, 30, 20],
            ..small
        }
    }

    /// Bytes on disk that the largest works take, generously, with so many stores at once. A
    /// peer may keep a log twice while it rewrites it.
    pub(crate) fn disk_bytes(&self, stores: usize) -> u64 {
        let largest = self.log.max(self.rare.events).max(self.memory).max(self.append);
        largest * 800 * stores as u64 + (1 << 30)
    }
}

/// The rows of the table, but for what a work measures several of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Work {
    Append,
    AppendBatches,
    Publish,
    #[value(name = "fanout-100")]
    Fanout100,
    #[value(name = "fanout-1000")]
    Fanout1000,
    Replay,
    ReplayBatches,
    Resume,
    Rare,
    Memory,
    Idle,
    Interest,
    OwnTopics,
    Storm,
    Publishers,
}

/// What a server must hold before a work begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Nothing, and nobody else's work before.
    Fresh,
    /// This, filled once for all rounds.
    Filled(Load),
}

impl Work {
    pub(crate) fn ground(self, plan: &Plan) -> Ground {
        match self {
            Work::Replay | Work::ReplayBatches | Work::Resume => Ground::Filled(Load::of(plan.log)),
            Work::Rare => Ground::Filled(plan.rare),
            _ => Ground::Fresh,
        }
    }

    /// Whether a target can be expected to get to the end of it.
    pub(crate) fn suits(self, target: Target) -> bool {
        let is_short = matches!(
            self,
            Work::Append | Work::Publish | Work::Interest | Work::OwnTopics | Work::Publishers
        );
        // What does not go through the client library has no TLS.
        let has_tls = matches!(
            self,
            Work::Append
                | Work::AppendBatches
                | Work::Publish
                | Work::Fanout100
                | Work::Fanout1000
                | Work::ReplayBatches
                | Work::Resume
        );
        match target {
            Target::TailmarkTls => has_tls,
            target => is_short || !target.syncs_each(),
        }
    }

    pub(crate) async fn run(
        self,
        target: Target,
        peer: &mut dyn Peer,
        plan: &Plan,
    ) -> Result<Vec<Figure>> {
        match self {
            Work::Append if target.syncs_each() => {
                let fewer = Plan { append: (plan.append / 100).max(1), ..*plan };
                append::one_by_one(peer, &fewer).await
            }
            Work::Append => append::one_by_one(peer, plan).await,
            Work::AppendBatches => append::in_batches(peer, plan).await,
            Work::Publish => publish::run(peer, plan).await,
            Work::Fanout100 => fanout::run(peer, plan, 100).await,
            Work::Fanout1000 => fanout::run(peer, plan, 1_000).await,
            Work::Replay => replay::one_by_one(peer, plan).await,
            Work::ReplayBatches => replay::in_batches(peer, plan).await,
            Work::Resume => resume::run(peer, plan).await,
            Work::Rare => rare::run(peer, plan).await,
            Work::Memory => memory::run(peer, plan).await,
            Work::Idle => idle::run(target, peer, plan).await,
            Work::Interest => interest::run(peer, plan).await,
            Work::OwnTopics => own_topics::run(peer, plan).await,
            Work::Storm => storm::run(peer, plan).await,
            Work::Publishers => publishers::run(peer, plan).await,
        }
    }
}
