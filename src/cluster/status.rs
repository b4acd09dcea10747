//! What is told of the journal and of its daemons.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Inner;
use super::beat::{Beat, Part};
use tailmark_log::storage::shared::{Role, SharedJournal as _};
use tailmark_log::storage::{Level, Store as _};
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::values::duration;

fn role(part: Part) -> pb::DaemonRole {
    match part {
        Part::Following => pb::DaemonRole::Following,
        Part::Writing => pb::DaemonRole::Writing,
        Part::Diverged => pb::DaemonRole::Diverged,
    }
}

fn durability(level: Level) -> pb::Durability {
    match level {
        Level::Fsync => pb::Durability::Fsync,
        Level::Replicated => pb::Durability::Replicated,
        Level::Unsynced => pb::Durability::Unsynced,
    }
}

pub(super) fn servers(replicas: Vec<tailmark_journal_nats::Replica>) -> Vec<pb::JournalReplica> {
    let of = |it: tailmark_journal_nats::Replica| pb::JournalReplica {
        server: it.server,
        leads: it.leads,
        is_current: it.is_current,
        is_offline: it.is_offline,
        lag: it.lag,
        differs_at_slot: 0,
    };
    replicas.into_iter().map(of).collect()
}

fn daemon(beat: &Beat, at: Instant, farthest: u64, is_this: bool) -> pb::Daemon {
    pb::Daemon {
        name: beat.daemon.clone(),
        address: beat.address.clone(),
        role: role(beat.role).into(),
        term: beat.term,
        slot: beat.slot,
        head_seq: beat.head,
        lag_slots: farthest.saturating_sub(beat.slot),
        heard: Some(duration(at.elapsed())),
        version: beat.version.clone(),
        is_this,
    }
}

impl Inner {
    /// Why the copy is of another history than the journal, where it is.
    pub(super) fn diverged(&self) -> Option<String> {
        let is_diverged = self.replica.role() == Role::Diverged;
        is_diverged.then(|| self.replica.trouble().unwrap_or_default())
    }
}

pub(super) fn of(inner: &Inner) -> pb::JournalStatus {
    let (own, now) = (inner.beat(), Instant::now());
    let heard = inner.heard.lock();
    let slots = heard.all().map(|(it, _)| it.slot);
    let farthest = slots.chain([own.slot]).max().unwrap_or_default();
    let others = heard.all().map(|(it, at)| daemon(it, *at, farthest, false));
    let mut daemons: Vec<_> = others.chain([daemon(&own, now, farthest, true)]).collect();
    daemons.sort_by(|one, other| one.name.cmp(&other.name));
    let writes = own.role == Part::Writing;
    let writer = heard.writer(own.term, now).map(|(it, at)| (it.daemon.clone(), *at));
    // Of one that was not heard for a while, as far as it is known who that was.
    let last = || inner.replica.writer().and_then(|id| heard.name_of(id)).map(str::to_owned);
    let writer_heard = writer.as_ref().filter(|_| !writes).map(|(_, at)| duration(at.elapsed()));
    let name = match writer {
        _ if writes => inner.daemon.clone(),
        Some((name, _)) => name,
        None => last().unwrap_or_default(),
    };
    drop(heard);
    let trouble = inner.replica.status().trouble.or_else(|| inner.silent.lock().clone());
    let mut replicas = inner.servers.lock().clone();
    {
        let witnessed = inner.witnessed.lock();
        replicas.iter_mut().for_each(|it| it.differs_at_slot = witnessed.differs_at(&it.server));
    }
    let count = |it: &std::sync::atomic::AtomicU64| it.load(Ordering::Relaxed);
    pb::JournalStatus {
        stream: inner.journal.name(),
        daemon: inner.daemon.clone(),
        role: role(own.role).into(),
        term: own.term,
        slot: own.slot,
        writer: name,
        durability: durability(inner.journal.identity().level).into(),
        writer_heard,
        trouble: trouble.unwrap_or_default(),
        daemons,
        replicas,
        weaknesses: inner.journal.strength().weaknesses,
        takeovers: count(&inner.counters.takeovers),
        forwarded: count(&inner.counters.forwarded),
        forwards_failed: count(&inner.counters.forwards_failed),
        in_doubt: inner.replica.is_in_doubt().into(),
    }
}
