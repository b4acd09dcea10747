//! Resumes in the middle of a log: asked for, until the first event is there.

use anyhow::Result;
use rand::seq::SliceRandom;

use super::{Figure, Plan, Unit};
use crate::peers::Peer;
use crate::stats;

pub(crate) async fn run(peer: &mut dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    // Of a server that has read nothing yet: places as far from each other as they get, none twice.
    peer.restart().await?;
    let places = places(plan.log, plan.cold);
    let mut cold = Vec::new();
    for place in places {
        cold.extend(peer.resume(place).await?.map(stats::ms));
    }
    let middle = plan.log / 2;
    peer.resume(middle).await?;
    let mut hot = Vec::new();
    for _ in 0..plan.hot {
        hot.extend(peer.resume(middle).await?.map(stats::ms));
    }
    let figure = |name: &str, samples: &[f64]| {
        Figure::of(format!("resume, {name}, p50"), Unit::Millis, stats::percentile(samples, 50))
    };
    Ok(vec![figure("hot", &hot), figure("cold", &cold)])
}

/// One random place in each of so many equal parts, in random order.
fn places(events: u64, count: usize) -> Vec<u64> {
    let part = (events / count as u64).max(1);
    let place = |at: u64| at * part + rand::random_range(1..=part);
    let mut places: Vec<u64> = (0..count as u64).map(place).collect();
    places.shuffle(&mut rand::rng());
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_a_part_of_its_own() {
        let mut found = places(1_000, 8);
        found.sort();
        for (at, place) in found.into_iter().enumerate() {
            let at = at as u64;
            assert!((at * 125 + 1..=at * 125 + 125).contains(&place), "{place}");
        }
    }
}
