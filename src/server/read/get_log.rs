//! `GetLog`: the log's status and the server's limits.

use super::failure;
use crate::server::Shared;
use crate::server::figures::ConsumerCount;
use crate::server::principal::Caller;
use crate::server::rpc::status::Failure;
use crate::server::rpc::{convert, retention};
use tailmark_log::eventlog::ReadError;
use tailmark_record::{Seq, Timestamp};
use tailmark_wire::feed_v1 as pb;

/// What this server has beyond the seeds' calls.
const CAPABILITIES: [&str; 9] = [
    "append",
    "dedup",
    "erase",
    "expected_head",
    "markers",
    "on_lost",
    "retention_by_topic",
    "trim",
    "watch_batches",
];

/// Where the log lies in a directory.
const BACKUP: &str = "backup";

/// What the log is. What is open, and what the log takes on disk, is for whoever administers it.
pub(crate) async fn get_log(shared: &Shared, caller: Caller) -> Result<pb::LogStatus, Failure> {
    let (log, options) = (&shared.log, &shared.options);
    let bounds = log.bounds();
    let (oldest_time, head_time) = if bounds.is_empty() {
        (None, None)
    } else {
        (time_of(shared, bounds.oldest).await?, time_of(shared, bounds.head).await?)
    };
    let (status, is_admin) = (log.status(), caller.is_admin());
    let dedup_window = options.dedup_window as u64;
    Ok(pb::LogStatus {
        log_id: log.id().to_string(),
        generation: Some(convert::generation(bounds.generations.current())),
        oldest_seq: bounds.oldest.get(),
        head_seq: bounds.head.get(),
        oldest_time: oldest_time.map(convert::timestamp),
        head_cursor: log.cursor(bounds.head).await,
        limits: Some(convert::limits(options, log.limits(), dedup_window)),
        version: options.version.clone(),
        capabilities: capabilities(shared),
        durability: convert::durability(log.level()).into(),
        head_time: head_time.map(convert::timestamp),
        disk_bytes: if is_admin { status.store.disk_bytes } else { 0 },
        segments: if is_admin { status.store.segments } else { 0 },
        watches: if is_admin { shared.gauges.watches() as u64 } else { 0 },
        uptime: Some(convert::duration(shared.started.elapsed())),
        consumers: if is_admin { consumers(shared, bounds.head) } else { Vec::new() },
        erasing: log.erasing().filter(|_| is_admin).map(|it| convert::erasing(&it)),
        retention: if is_admin { retained(shared) } else { None },
        removed_events: if is_admin { status.store.removed_events } else { 0 },
        journal: shared.peers.as_ref().map(|peers| journal(peers.journal(), is_admin)),
    })
}

/// Other daemons, where they are, and the journal's servers are for who administers.
fn journal(journal: pb::JournalStatus, is_admin: bool) -> pb::JournalStatus {
    if is_admin {
        return journal;
    }
    let (daemons, replicas, weaknesses) = (Vec::new(), Vec::new(), Vec::new());
    pb::JournalStatus { daemons, replicas, weaknesses, trouble: String::new(), ..journal }
}

fn capabilities(shared: &Shared) -> Vec<String> {
    let backup = shared.options.data_dir.as_ref().map(|_| BACKUP);
    backup.into_iter().chain(CAPABILITIES).map(str::to_owned).collect()
}

/// What has come of the rules for topics, where there is something to tell.
fn retained(shared: &Shared) -> Option<pb::RetentionState> {
    let topics = shared.log.topic_retention();
    let has_removed = topics.expired + topics.compacted > 0;
    let mut state = (has_removed || !topics.rules.is_idle()).then(|| retention::state(&topics))?;
    if let Some(last) = &mut state.last {
        last.rules.clear();
    }
    Some(state)
}

fn consumers(shared: &Shared, head: Seq) -> Vec<pb::Consumer> {
    let count = |it: ConsumerCount| pb::Consumer {
        name: it.name.into(),
        watches: it.watches,
        delivered: it.delivered,
        lag_events: it.lag,
        idle: Some(convert::duration(it.idle)),
        events_per_second: it.rate,
    };
    shared.figures.consumers(head).into_iter().map(count).collect()
}

/// `None` when it was trimmed meanwhile, or is gone.
async fn time_of(shared: &Shared, seq: Seq) -> Result<Option<Timestamp>, Failure> {
    match shared.log.time_of(seq).await {
        Ok(time) => Ok(Some(time)),
        Err(ReadError::Trimmed { .. } | ReadError::Removed(_)) => Ok(None),
        Err(error) => Err(failure(shared, &error).await),
    }
}
