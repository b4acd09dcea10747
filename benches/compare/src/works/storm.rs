//! Clients that come back all at once, each with its own cursor and its own topic, beside a publisher.

use std::time::Duration;

use anyhow::Result;

use super::{Figure, Plan, Unit};
use crate::load::{self, Until};
use crate::own::Storm;
use crate::peers::{Call, Peer};
use crate::stats;

pub(crate) async fn run(peer: &mut dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    let [clients, topics, events, missed] = plan.storm;
    let mut storm = Storm { clients, topics, events, missed };
    let is_there = peer.fill_storm(&mut storm).await?;
    let mut figures = Vec::new();
    for (phase, is_sealed) in [("newest unsealed", false), ("sealed", true)] {
        let has_phase = is_there && (!is_sealed || peer.seal().await?);
        let seen = if has_phase { one(peer, &storm).await? } else { None };
        figures.extend(rows(&format!("storm of {clients}, {phase}"), seen));
    }
    Ok(figures)
}

/// A single event takes a page of the journal: without a pause the publisher alone would fill the newest slot, and
/// have it sealed, while the clients come back.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the publisher is looked at while nothing else goes on.
const QUIET: Duration = Duration::from_secs(3);

/// What was seen of one storm.
struct Seen {
    cpu: Duration,
    all_caught_up: Duration,
    quiet: Vec<Duration>,
    beside: Vec<Duration>,
}

async fn one(peer: &dyn Peer, storm: &Storm) -> Result<Option<Seen>> {
    let (Some(lane), Some(server)) = (peer.lane(Call::Own), peer.server()) else { return Ok(None) };
    load::one(&lane, Until::within(50, QUIET)).await?;
    let begun = server.cpu()?;
    let quiet = load::one(&lane, Until::paced(PAUSE, Some(QUIET))).await?;
    let before = server.cpu()?;
    let each = (before - begun) / u32::try_from(quiet.len().max(1))?;

    let until = Until::paced(PAUSE, None);
    let come_back = async {
        let took = peer.storm(storm).await;
        until.stop();
        took
    };
    let (took, beside) = tokio::try_join!(come_back, load::one(&lane, until.clone()))?;
    let Some(all_caught_up) = took else { return Ok(None) };
    // What the publisher takes is not the clients'.
    let publisher = each * u32::try_from(beside.len())?;
    let cpu = (server.cpu()? - before).saturating_sub(publisher) / u32::try_from(storm.clients)?;
    Ok(Some(Seen { cpu, all_caught_up, quiet, beside }))
}

fn rows(name: &str, seen: Option<Seen>) -> Vec<Figure> {
    let percentile = |samples: &[Duration], percent| {
        let samples: Vec<f64> = samples.iter().copied().map(stats::ms).collect();
        stats::percentile(&samples, percent)
    };
    let seen = seen.as_ref();
    let mut figures = vec![
        Figure::of(
            format!("{name}: server's time on a processor a client"),
            Unit::Millis,
            seen.map(|seen| stats::ms(seen.cpu)),
        ),
        Figure::of(
            format!("{name}: until all have caught up"),
            Unit::Millis,
            seen.map(|seen| stats::ms(seen.all_caught_up)),
        ),
    ];
    for percent in [50, 99] {
        let quiet = seen.and_then(|seen| percentile(&seen.quiet, percent));
        let beside = seen.and_then(|seen| percentile(&seen.beside, percent));
        let times = beside.zip(quiet).and_then(|(beside, quiet)| stats::ratio(beside, quiet));
        let name = format!("{name}: a publisher's p{percent}");
        figures.push(Figure::of(format!("{name} beside it"), Unit::Millis, beside));
        figures.push(Figure::of(format!("{name} by its quiet one"), Unit::Times, times));
    }
    figures
}
