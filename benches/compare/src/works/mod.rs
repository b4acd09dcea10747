//! What is done on each of those that are compared, and what figures come out.

mod append;
pub(crate) mod fanout;
mod idle;
mod memory;
mod publish;
mod rare;
mod replay;
mod resume;

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
}

impl Unit {
    pub(crate) fn is_more_better(self) -> bool {
        self == Unit::PerSecond
    }
}

/// One measured value; `None` where there is no way to do the work.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub name: String,
    pub unit: Unit,
    pub value: Option<f64>,
}

impl Figure {
    pub(crate) fn of(name: impl Into<String>, unit: Unit, value: Option<f64>) -> Figure {
        Figure { name: name.into(), unit, value }
    }
}

/// Sizes of the works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Events of an append.
    pub append: u64,
    /// Events of a batch.
    pub batch: usize,
    /// Events of the log that is replayed and resumed in.
    pub log: u64,
    /// Of a fan-out, over all watchers.
    pub deliveries: u64,
    /// Single publishes.
    pub publishes: usize,
    /// Resumes at a place that was read just before.
    pub hot: usize,
    /// Resumes at places that were not read since the start.
    pub cold: usize,
    /// The log in which a topic is rare.
    pub rare: Load,
    /// Events after which memory is looked at.
    pub memory: u64,
    /// Watchers that wait.
    pub idle: usize,
    /// As many as Tailmark and the limit have to hold; peers need not.
    pub many_idle: usize,
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
        }
    }

    /// Small enough to see within a minute or two whether all of it works.
    pub(crate) fn quick() -> Plan {
        let small = Plan::new(100_000);
        Plan { publishes: 300, hot: 50, many_idle: 2_000, ..small }
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

    pub(crate) async fn run(
        self,
        target: Target,
        peer: &mut dyn Peer,
        plan: &Plan,
    ) -> Result<Vec<Figure>> {
        match self {
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
        }
    }
}
