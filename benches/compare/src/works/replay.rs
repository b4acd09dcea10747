//! Replays of the whole log from its oldest event.

use anyhow::Result;

use super::{Figure, Plan, Unit};
use crate::peers::{Peer, Replay};
use crate::stats;

pub(crate) async fn one_by_one(peer: &dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    let received = figure(peer, plan, Replay::Received, "one event a message, received");
    let decoded = figure(peer, plan, Replay::Decoded, "one event a message, decoded");
    Ok(vec![received.await?, decoded.await?])
}

pub(crate) async fn in_batches(peer: &dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    Ok(vec![figure(peer, plan, Replay::Batches, "batches, decoded").await?])
}

async fn figure(peer: &dyn Peer, plan: &Plan, how: Replay, name: &str) -> Result<Figure> {
    let took = peer.replay(how, plan.log).await?;
    let rate = took.map(|took| stats::rate(plan.log, took));
    Ok(Figure::of(format!("replay, {name}"), Unit::PerSecond, rate))
}
