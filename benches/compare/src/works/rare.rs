//! All events of a topic that has one in thousands of the log.

use anyhow::Result;

use super::{Figure, Plan, Unit};
use crate::peers::Peer;
use crate::stats;

pub(crate) async fn run(peer: &mut dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    peer.restart().await?;
    let events = plan.rare.rare();
    let name = format!("rare topic, its {events} events");
    let first = peer.rare(events).await?.map(stats::ms);
    let again = peer.rare(events).await?.map(stats::ms);
    Ok(vec![
        Figure::of(format!("{name}, after a start"), Unit::Millis, first),
        Figure::of(format!("{name}, again"), Unit::Millis, again),
    ])
}
