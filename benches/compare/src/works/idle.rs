//! What a watcher that waits costs its server.

use anyhow::Result;

use super::{Figure, Plan, Unit};
use crate::peers::{Peer, Target};
use crate::sample::Load;

pub(crate) async fn run(target: Target, peer: &mut dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    // As after some use.
    peer.fill(Load::of(1_000)).await?;
    for (watchers, is_for_all) in [(plan.idle, true), (plan.many_idle, false)] {
        let may = is_for_all || matches!(target, Target::Tailmark | Target::Tonic);
        // What the one before left behind would be taken again.
        peer.restart().await?;
        let bytes = if may { each(peer, watchers).await? } else { None };
        let name = format!("memory a waiting watcher, of {watchers}");
        figures.push(Figure::of(name, Unit::Bytes, bytes));
    }
    Ok(figures)
}

async fn each(peer: &dyn Peer, watchers: usize) -> Result<Option<f64>> {
    let Some(server) = peer.server() else { return Ok(None) };
    let before = server.settled_memory().await?.resident;
    let Some(held) = peer.idle(watchers, watchers.div_ceil(1_000).max(10)).await? else {
        return Ok(None);
    };
    let after = server.settled_memory().await?.resident;
    drop(held);
    Ok(Some(after.saturating_sub(before) as f64 / watchers as f64))
}
