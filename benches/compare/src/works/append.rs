//! Appends of one producer, until all is acked.

use anyhow::Result;

use super::{Figure, Plan, Unit};
use crate::peers::Peer;
use crate::sample::Load;
use crate::stats;

pub(crate) async fn one_by_one(peer: &dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    let took = peer.append(Load::of(plan.append)).await?;
    let rate = took.map(|took| stats::rate(plan.append, took));
    Ok(vec![Figure::of("append, one event a message", Unit::PerSecond, rate)])
}

pub(crate) async fn in_batches(peer: &dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    let took = peer.append_batches(Load::of(plan.append), plan.batch).await?;
    let rate = took.map(|took| stats::rate(plan.append, took));
    Ok(vec![Figure::of(format!("append, batches of {}", plan.batch), Unit::PerSecond, rate)])
}
