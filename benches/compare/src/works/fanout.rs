//! Live fan-out: every watcher gets every event.

use std::sync::Arc;

use anyhow::Result;

use super::{Figure, Plan, Unit};
use crate::fan::Fan;
use crate::peers::Peer;
use crate::stats;

pub(crate) async fn run(peer: &dyn Peer, plan: &Plan, watchers: usize) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (is_single, how) in [(true, "one event a message"), (false, "client library")] {
        let fan = Arc::new(Fan::new(watchers, plan.deliveries, is_single));
        let name = format!("live fan-out, {watchers} watchers, {how}");
        let took = peer.fan_out(&fan).await?;
        let rate = took.map(|took| stats::rate(fan.deliveries(), took));
        figures.push(Figure::of(name, Unit::PerSecond, rate));
    }
    Ok(figures)
}
