//! One publisher, one event at a time, beside watches that none of its events concern.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::{Figure, Plan, Unit};
use crate::load::{self, Lane, Until};
use crate::own::Own;
use crate::peers::{Call, Peer};
use crate::stats;

pub(crate) async fn run(peer: &mut dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    let (mut rates, mut shares) = (Vec::new(), Vec::new());
    for watches in plan.interest {
        // Nobody is left of those before, and each has an alone of its own right before it.
        peer.restart().await?;
        let (mut alone, mut beside, mut note) = (None, None, None);
        if let Some(lane) = peer.lane(Call::Own) {
            let rate_alone = rate(&lane, plan.time).await?;
            let own = Arc::new(Own::new(watches, plan.opening, Duration::ZERO));
            if let Some(opened) = peer.watch_own(&own).await? {
                alone = Some(rate_alone);
                beside = Some(rate(&lane, plan.time).await?);
                note = (opened.count < watches).then(|| format!("of {}", opened.count));
            }
        }
        if rates.is_empty() {
            rates.push(Figure::of("publishes of one, alone", Unit::PerSecond, alone));
        }
        let name = format!("publishes of one beside {watches} watches of other topics");
        let share = alone.zip(beside).and_then(|(alone, beside)| stats::ratio(beside, alone));
        rates.push(Figure::of(name.clone(), Unit::PerSecond, beside).noted(note.clone()));
        let share = Figure::of(format!("{name}, of those alone"), Unit::Share, share);
        shares.push(share.noted(note));
    }
    rates.extend(shares);
    Ok(rates)
}

/// Acks a second of one publisher.
pub(crate) async fn rate(lane: &Lane, time: Duration) -> Result<f64> {
    // The first ones make the connection and what else is made once.
    load::one(lane, Until::within(100, time / 2)).await?;
    let samples = load::one(lane, Until::within(usize::MAX, time)).await?;
    Ok(stats::rate(samples.len() as u64, samples.iter().sum()))
}
