//! `Erase` and `tailmark erase`: what a person asks to be deleted goes, and nobody loses a place by it.

mod asking;
mod cancelled;
mod carried_out;
mod selecting;
mod shown;

use tailmark_client::{Client, Erasing};
use tailmark_wire::feed_v1 as pb;

use crate::support::server::within;

/// All messages of a call that must end well.
async fn messages(client: &Client, request: pb::EraseRequest) -> Vec<pb::EraseProgress> {
    let mut erasing = within("erase", client.erase(request)).await.unwrap();
    let mut all = Vec::new();
    while let Some(progress) = next(&mut erasing).await.unwrap() {
        all.push(progress);
    }
    all
}

async fn next(erasing: &mut Erasing) -> Result<Option<pb::EraseProgress>, tailmark_client::Error> {
    within("progress", erasing.next()).await
}

/// What it came to.
async fn erased(client: &Client, request: pb::EraseRequest) -> pb::EraseResult {
    let last = messages(client, request).await.pop().expect("a message");
    assert_eq!(last.phase(), pb::erase_progress::Phase::Done);
    last.result.expect("a result")
}

/// Of all events with these seqs.
fn of_seqs(ranges: &[(u64, u64)]) -> pb::EraseRequest {
    let range = |&(first_seq, last_seq): &(u64, u64)| pb::SeqRange { first_seq, last_seq };
    let seqs = ranges.iter().map(range).collect();
    pb::EraseRequest { seqs, reason: "asked for".into(), ..Default::default() }
}

/// Of all events of a topic or pattern.
fn of_topic(topic: &str) -> pb::EraseRequest {
    pb::EraseRequest { topic: topic.into(), reason: "asked for".into(), ..Default::default() }
}
