//! One event at a time, each until its ack.

use anyhow::Result;

use super::{Figure, Plan, Unit};
use crate::peers::Peer;
use crate::stats;

pub(crate) async fn run(peer: &dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    // The first ones make the connection and what else is made once.
    peer.publish(plan.publishes / 20).await?;
    let samples = peer.publish(plan.publishes).await?.unwrap_or_default();
    let samples: Vec<f64> = samples.into_iter().map(stats::ms).collect();
    let figure = |percent| {
        let value = stats::percentile(&samples, percent);
        Figure::of(format!("publish to ack, p{percent}"), Unit::Millis, value)
    };
    Ok(vec![figure(50), figure(99)])
}
