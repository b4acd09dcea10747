//! Watches that each have a topic of their own, and events that go round over those topics: each event concerns one.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::{Figure, Plan, Unit};
use crate::calls;
use crate::own::Own;
use crate::peers::Peer;
use crate::stats;

pub(crate) async fn run(peer: &mut dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    let (mut rate, mut bytes) = (None, None);
    // As after some use.
    peer.restart().await?;
    let own = Arc::new(Own::new(plan.own, plan.opening, plan.time));
    let before = peer.server().map(|server| server.settled_memory());
    let before = match before {
        Some(memory) => Some(memory.await?.resident),
        None => None,
    };
    if let Some(mut opened) = peer.watch_own(&own).await? {
        ensure!(opened.count == plan.own, "only {} watches were opened", opened.count);
        if let (Some(server), Some(before)) = (peer.server(), before) {
            let after = server.settled_memory().await?.resident;
            bytes = Some(after.saturating_sub(before) as f64 / opened.count as f64);
        }
        let work = async {
            peer.publish_own(&own).await?;
            own.all_delivered().await
        };
        let (count, took) = calls::unless_one_fails(&mut opened.watches, work).await?;
        rate = Some(stats::rate(count, took));
    }
    let watches = format!("{} watches with a topic each", plan.own);
    Ok(vec![
        Figure::of(format!("deliveries to {watches}"), Unit::PerSecond, rate),
        Figure::of(format!("memory a watch, of {watches}"), Unit::Bytes, bytes),
    ])
}
