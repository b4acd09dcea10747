//! Rounds: each work on each target in turn, again and again, so that what else the machine does
//! falls on all alike.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::peers::{Peer, Setup, Target};
use crate::table::Table;
use crate::works::{Figure, Ground, Plan, Work};

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Rounds {
    pub(crate) setup: Setup,
    pub(crate) plan: Plan,
    pub(crate) works: Vec<Work>,
    pub(crate) targets: Vec<Target>,
    pub(crate) rounds: usize,
    /// Of one work on one target, in one round.
    pub(crate) timeout: Duration,
}

impl Rounds {
    /// Works that need the same ground come one after the other and share it.
    pub(crate) async fn run(mut self, table: &mut Table) -> Result<()> {
        let mut works = std::mem::take(&mut self.works).into_iter().peekable();
        while let Some(work) = works.next() {
            match work.ground(&self.plan) {
                Ground::Fresh => self.on_fresh(work, table).await?,
                Ground::Filled(load) => {
                    let mut peers = Vec::new();
                    for target in self.suited(work) {
                        let peer = self.start(target).await?;
                        eprintln!("{}: filling {} events", target.name(), load.events);
                        self.bound(target, "filling", peer.fill(load)).await?;
                        peers.push((target, peer));
                    }
                    self.on_filled(work, &mut peers, table).await?;
                    let ground = Ground::Filled(load);
                    while let Some(work) = works.next_if(|next| next.ground(&self.plan) == ground) {
                        self.on_filled(work, &mut peers, table).await?;
                    }
                }
            }
        }
        Ok(())
    }

    fn suited(&self, work: Work) -> Vec<Target> {
        self.targets.iter().copied().filter(|target| work.suits(*target)).collect()
    }

    async fn on_fresh(&mut self, work: Work, table: &mut Table) -> Result<()> {
        for round in 1..=self.rounds {
            for target in self.suited(work) {
                let mut peer = self.start(target).await?;
                let figures = self.measure(work, round, target, &mut *peer).await?;
                if work == Work::Append
                    && let Some(bytes) = peer.commit_bytes().await?
                {
                    // What the limit of the disk writes at once from here on.
                    self.setup.commit_bytes = usize::try_from(bytes)?;
                }
                table.add(target, figures);
            }
        }
        Ok(())
    }

    async fn on_filled(
        &self,
        work: Work,
        peers: &mut [(Target, Box<dyn Peer>)],
        table: &mut Table,
    ) -> Result<()> {
        for round in 1..=self.rounds {
            for (target, peer) in peers.iter_mut() {
                table.add(*target, self.measure(work, round, *target, &mut **peer).await?);
            }
        }
        Ok(())
    }

    async fn start(&self, target: Target) -> Result<Box<dyn Peer>> {
        self.bound(target, "the start", target.start(&self.setup)).await
    }

    async fn measure(
        &self,
        work: Work,
        round: usize,
        target: Target,
        peer: &mut dyn Peer,
    ) -> Result<Vec<Figure>> {
        let what = format!("{work:?}");
        let figures = self.bound(target, &what, work.run(target, peer, &self.plan)).await?;
        for figure in figures.iter().filter(|figure| figure.value.is_some()) {
            let value = crate::table::written(figure.unit, figure.value.unwrap_or_default());
            eprintln!("{round}/{} {}: {}: {value}", self.rounds, target.name(), figure.name);
        }
        Ok(figures)
    }

    async fn bound<T>(
        &self,
        target: Target,
        what: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::time::timeout(self.timeout, work)
            .await
            .with_context(|| format!("{}: {what} took over {:?}", target.name(), self.timeout))?
            .with_context(|| format!("{}: {what} failed", target.name()))
    }
}
