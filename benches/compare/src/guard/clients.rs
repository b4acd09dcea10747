//! What many clients at once cost, each of which does little.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Costs, Guarded, spent};
use crate::limits::Tonic;
use crate::load::{self, Enough, Lane, Shape, Until};
use crate::own::Own;
use crate::peers::{Call, Peer, Setup, Tailmark};

const SHAPE: Shape = Shape { connections: 50, in_flight: 1 };
/// Of all connections, in one round.
const PUBLISHES: u64 = 20_000;
const WATCHES: usize = 10_000;
/// Of one publisher in one round: so many, or what there is in this time.
const MOST: usize = 2_000;
const TIME: Duration = Duration::from_secs(1);
/// Until the watches are open.
const OPENING: Duration = Duration::from_secs(60);

fn lane(peer: &dyn Peer) -> Result<Lane> {
    peer.lane(Call::Own).context("it publishes nothing")
}

/// Single publishes from many connections, against an echo of them.
pub(crate) async fn publishers(
    tailmark: &Tailmark,
    tonic: &Tonic,
    rounds: u16,
    times: u32,
) -> Result<Costs> {
    let mut costs = Costs::new(Guarded::Publishers);
    let (ours, limit) = (lane(tailmark)?, lane(tonic)?);
    for _ in 0..rounds {
        let events = Enough::Events(PUBLISHES * u64::from(times));
        costs.ours.push(spent(tailmark, load::run(&ours, SHAPE, events)).await?.0);
        let events = Enough::Events(PUBLISHES);
        costs.limit.push(spent(tonic, load::run(&limit, SHAPE, events)).await?.0);
    }
    Ok(costs)
}

/// One publisher beside watches of other topics, against one alone.
pub(crate) async fn interest(
    alone: &Tailmark,
    setup: &Setup,
    rounds: u16,
    times: u32,
) -> Result<Costs> {
    let mut costs = Costs::new(Guarded::Interest);
    let watched = Tailmark::start(setup).await?;
    let own = Arc::new(Own::new(WATCHES, OPENING, Duration::ZERO));
    let opened = watched.watch_own(&own).await?.context("it has no watches")?;
    ensure!(opened.count == WATCHES, "only {} watches were opened in time", opened.count);
    let (ours, limit) = (lane(&watched)?, lane(alone)?);
    for _ in 0..rounds {
        let mut done = 0;
        let work = async {
            for _ in 0..times {
                done += load::one(&ours, Until::within(MOST, TIME)).await?.len();
            }
            Ok(())
        };
        let (cost, ()) = spent(&watched, work).await?;
        // Of doing it once: done twice, each costs twice as much.
        costs.ours.push(cost.each(u32::try_from(done.max(1))?).times(times));
        let (cost, samples) = spent(alone, load::one(&limit, Until::within(MOST, TIME))).await?;
        costs.limit.push(cost.each(u32::try_from(samples.len().max(1))?));
    }
    Ok(costs)
}
