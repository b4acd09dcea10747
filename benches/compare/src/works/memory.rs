//! What a server takes after a long append.

use anyhow::Result;

use super::{Figure, Plan, Unit};
use crate::peers::Peer;
use crate::sample::Load;

pub(crate) async fn run(peer: &dyn Peer, plan: &Plan) -> Result<Vec<Figure>> {
    let memory = match peer.append(Load::of(plan.memory)).await? {
        Some(_) => peer.server().map(|server| server.memory()).transpose()?,
        None => None,
    };
    let figure = |name: &str, bytes: Option<u64>| {
        Figure::of(format!("memory after appending, {name}"), Unit::Bytes, bytes.map(|b| b as f64))
    };
    Ok(vec![figure("resident", memory.map(|m| m.resident)), figure("peak", memory.map(|m| m.peak))])
}
