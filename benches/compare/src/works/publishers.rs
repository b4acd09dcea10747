//! Many publishers at once, single events: by their connections, and how many events of each are under way.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Figure, Plan, Unit};
use crate::load::{self, Enough, Lane, Shape};
use crate::peers::{Call, Peer};
use crate::stats;

const SHAPES: [Shape; 3] = [
    Shape { connections: 50, in_flight: 1 },
    Shape { connections: 50, in_flight: 10 },
    Shape { connections: 1_000, in_flight: 1 },
];

pub(crate) async fn run(peer: &dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut first = None;
    for shape in SHAPES {
        let rate = match peer.lane(Call::Own) {
            Some(lane) => Some(rate(peer, &lane, shape, plan.time).await?),
            None => None,
        };
        first = first.or(rate);
        let name =
            format!("publishes, {} connections, {} at a time", shape.connections, shape.in_flight);
        figures.push(Figure::of(name, Unit::PerSecond, rate));
    }
    let http = match peer.lane(Call::Http) {
        Some(lane) => Some(rate(peer, &lane, SHAPES[0], plan.time).await?),
        None => None,
    };
    let share = http.zip(first).and_then(|(http, first)| stats::ratio(http, first));
    let name = "POST /v1/events, 50 connections, 1 at a time";
    figures.push(Figure::of(name, Unit::PerSecond, http));
    figures.push(Figure::of(format!("{name}, by gRPC"), Unit::Share, share));
    Ok(figures)
}

/// Acks a second; every acked event is stored, and no other.
async fn rate(peer: &dyn Peer, lane: &Lane, shape: Shape, time: Duration) -> Result<f64> {
    let before = peer.stored().await?;
    let outcome = load::run(lane, shape, Enough::Time(time)).await?;
    if let (Some(before), Some(after)) = (before, peer.stored().await?) {
        let stored = after - before;
        ensure!(stored == outcome.acked, "{} were acked, {stored} stored", outcome.acked);
    }
    Ok(stats::rate(outcome.timed, outcome.took))
}
