//! Answers as proto3 JSON with the proto's names: one line an object, the same from the terminal
//! and over HTTP. Events are written by `record::json`.

use crate::feed_v1 as pb;
use crate::values::from_timestamp;
use tailmark_record::json::{Object, duration_text};

/// The name of a durability; empty for the default.
pub fn durability(number: i32) -> &'static str {
    match pb::Durability::try_from(number) {
        Ok(pb::Durability::Fsync) => "FSYNC",
        Ok(pb::Durability::Replicated) => "REPLICATED",
        Ok(pb::Durability::Unsynced) => "UNSYNCED",
        _ => "",
    }
}

/// How long the daemon has been up, where it says so.
pub fn uptime(status: &pb::LogStatus) -> Option<std::time::Duration> {
    status.uptime.and_then(|uptime| uptime.try_into().ok())
}

/// What `Publish` answers.
pub fn publish_result(result: &pb::PublishResult) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("id", &result.id);
    object.number("seq", result.seq);
    object.text("cursor", &result.cursor);
    object.flag("duplicate", result.duplicate);
    object.time("appended_at", result.appended_at.map(from_timestamp));
    object.text("durability", durability(result.durability));
    object.close();
    out
}

/// What `UploadEvents` answers.
pub fn upload_result(result: &pb::UploadResult) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.integer("received", result.received);
    object.number("first_seq", result.first_seq);
    object.number("last_seq", result.last_seq);
    object.text("last_cursor", &result.last_cursor);
    object.number("duplicates", result.duplicates);
    object.text("durability", durability(result.durability));
    object.number("stored", result.stored);
    object.close();
    out
}

/// What `Trim` answers.
pub fn trim_result(result: &pb::TrimResult) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.number("oldest_seq", result.oldest_seq);
    object.number("head_seq", result.head_seq);
    object.number("removed", result.removed);
    object.close();
    out
}

/// How far an erasure is.
pub fn erase_progress(progress: &pb::EraseProgress) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    write_erase_progress(&mut object, progress);
    object.close();
    out
}

/// The name of a phase of an erasure; empty for one that this program does not know.
pub fn erase_phase(progress: &pb::EraseProgress) -> &'static str {
    use pb::erase_progress::Phase;
    match progress.phase() {
        Phase::Unspecified => "",
        Phase::Selecting => "SELECTING",
        Phase::Sealing => "SEALING",
        Phase::Rewriting => "REWRITING",
        Phase::Wiping => "WIPING",
        Phase::Telling => "TELLING",
        Phase::Done => "DONE",
    }
}

fn write_erase_progress(object: &mut Object<'_>, progress: &pb::EraseProgress) {
    object.text("phase", erase_phase(progress));
    object.text("erasure", &progress.erasure);
    object.number("events_done", progress.events_done);
    object.number("events", progress.events);
    object.number("segments_done", progress.segments_done);
    object.number("segments", progress.segments);
    if let Some(selection) = &progress.selection {
        object.object("selection", |object| write_erase_selection(object, selection));
    }
    if let Some(result) = &progress.result {
        object.object("result", |object| write_erase_result(object, result));
    }
}

/// What an erasure would erase.
pub fn erase_selection(selection: &pb::EraseSelection) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    write_erase_selection(&mut object, selection);
    object.close();
    out
}

fn write_erase_selection(object: &mut Object<'_>, selection: &pb::EraseSelection) {
    object.number("events", selection.events);
    object.number("first_seq", selection.first_seq);
    object.number("last_seq", selection.last_seq);
    object.time("first_at", selection.first_at.map(from_timestamp));
    object.time("last_at", selection.last_at.map(from_timestamp));
    object.objects("topics", &selection.topics, |object, topic| {
        object.text("topic", &topic.topic);
        object.number("events", topic.events);
    });
    object.flag("has_more_topics", selection.has_more_topics);
    object.number("already", selection.already);
    object.number("trimmed", selection.trimmed);
    object.number("removed", selection.removed);
    object.number("left_notices", selection.left_notices);
    object.number("up_to_seq", selection.up_to_seq);
}

/// What an erasure came to.
pub fn erase_result(result: &pb::EraseResult) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    write_erase_result(&mut object, result);
    object.close();
    out
}

fn write_erase_result(object: &mut Object<'_>, result: &pb::EraseResult) {
    object.text("erasure", &result.erasure);
    object.number("events", result.events);
    object.number("already", result.already);
    object.number("trimmed", result.trimmed);
    object.number("removed", result.removed);
    object.number("left_notices", result.left_notices);
    object.number("notices", result.notices);
    object.number("segments", result.segments);
    if result.cancelled {
        object.flag("cancelled", true);
    }
}

/// A page of topics.
pub fn topics(page: &pb::ListTopicsResponse) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.objects("topics", &page.topics, write_topic);
    object.text("next_page_token", &page.next_page_token);
    object.close();
    out
}

/// One topic.
pub fn topic(topic: &pb::TopicStatus) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    write_topic(&mut object, topic);
    object.close();
    out
}

fn write_topic(object: &mut Object<'_>, topic: &pb::TopicStatus) {
    object.text("topic", &topic.topic);
    object.number("events", topic.events);
    object.number("last_seq", topic.last_seq);
    object.time("last_at", topic.last_at.map(from_timestamp));
}

/// What `GetPrincipal` answers.
pub fn principal(principal: &pb::Principal) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("name", &principal.name);
    object.texts("publish", &principal.publish);
    object.texts("watch", &principal.watch);
    object.flag("admin", principal.admin);
    object.time("expires", principal.expires.map(from_timestamp));
    object.close();
    out
}

/// What `GetLog` answers.
pub fn log_status(status: &pb::LogStatus) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    object.text("log_id", &status.log_id);
    if let Some(generation) = &status.generation {
        object.object("generation", |object| {
            object.unsigned("counter", generation.counter);
            object.unsigned("nonce", generation.nonce);
            object.number("first_seq", generation.first_seq);
            object.time("since", generation.since.map(from_timestamp));
            object.text("cause", &generation.cause);
        });
    }
    object.number("oldest_seq", status.oldest_seq);
    object.number("head_seq", status.head_seq);
    object.time("oldest_time", status.oldest_time.map(from_timestamp));
    object.text("head_cursor", &status.head_cursor);
    if let Some(limits) = &status.limits {
        object.object("limits", |object| write_limits(object, limits));
    }
    object.text("version", &status.version);
    object.texts("capabilities", &status.capabilities);
    object.text("durability", durability(status.durability));
    object.time("head_time", status.head_time.map(from_timestamp));
    object.number("disk_bytes", status.disk_bytes);
    object.number("segments", status.segments);
    object.number("watches", status.watches);
    if let Some(uptime) = uptime(status) {
        object.text("uptime", &duration_text(uptime));
    }
    if !status.consumers.is_empty() {
        object.objects("consumers", &status.consumers, write_consumer);
    }
    if let Some(erasing) = &status.erasing {
        object.object("erasing", |object| write_erase_progress(object, erasing));
    }
    object.number("removed_events", status.removed_events);
    if let Some(state) = &status.retention {
        object.object("retention", |object| write_retention_state(object, state));
    }
    if let Some(journal) = &status.journal {
        object.object("journal", |object| write_journal(object, journal));
    }
    object.close();
    out
}

/// What a daemon knows of a journal that several share.
pub fn journal_status(journal: &pb::JournalStatus) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    write_journal(&mut object, journal);
    object.close();
    out
}

/// The name of what a daemon is to a shared journal; empty for one that this program does not know.
pub fn daemon_role(role: pb::DaemonRole) -> &'static str {
    match role {
        pb::DaemonRole::Unspecified => "",
        pb::DaemonRole::Following => "FOLLOWING",
        pb::DaemonRole::Writing => "WRITING",
        pb::DaemonRole::Diverged => "DIVERGED",
    }
}

fn write_journal(object: &mut Object<'_>, journal: &pb::JournalStatus) {
    object.text("stream", &journal.stream);
    object.text("daemon", &journal.daemon);
    object.text("role", daemon_role(journal.role()));
    object.number("term", journal.term);
    object.number("slot", journal.slot);
    object.text("writer", &journal.writer);
    object.text("durability", durability(journal.durability));
    write_duration(object, "writer_heard", journal.writer_heard);
    object.text("trouble", &journal.trouble);
    object.objects("daemons", &journal.daemons, |object, daemon| {
        object.text("name", &daemon.name);
        object.text("address", &daemon.address);
        object.text("role", daemon_role(daemon.role()));
        object.number("term", daemon.term);
        object.number("slot", daemon.slot);
        object.number("head_seq", daemon.head_seq);
        object.number("lag_slots", daemon.lag_slots);
        write_duration(object, "heard", daemon.heard);
        object.text("version", &daemon.version);
        object.flag("is_this", daemon.is_this);
    });
    object.objects("replicas", &journal.replicas, |object, replica| {
        object.text("server", &replica.server);
        object.flag("leads", replica.leads);
        object.flag("is_current", replica.is_current);
        object.flag("is_offline", replica.is_offline);
        object.number("lag", replica.lag);
        object.number("differs_at_slot", replica.differs_at_slot);
    });
    object.texts("weaknesses", &journal.weaknesses);
    object.number("takeovers", journal.takeovers);
    object.number("forwarded", journal.forwarded);
    object.number("forwards_failed", journal.forwards_failed);
    object.number("in_doubt", journal.in_doubt);
}

/// What is removed by itself.
pub fn retention(retention: &pb::Retention) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    write_duration(&mut object, "max_age", retention.max_age);
    object.number("max_bytes", retention.max_bytes);
    object.number("max_events", retention.max_events);
    object.objects("rules", &retention.rules, |object, rule| {
        object.text("pattern", &rule.pattern);
        write_duration(object, "max_age", rule.max_age);
        object.number("max_events", rule.max_events);
        object.text("keep", keep(rule));
    });
    if let Some(state) = &retention.state {
        object.object("state", |object| write_retention_state(object, state));
    }
    if let Some(pass) = &retention.dry_run {
        object.object("dry_run", |object| write_retention_pass(object, pass));
    }
    object.close();
    out
}

/// The name of what a rule keeps; empty for one that this program does not know.
pub fn keep(rule: &pb::RetentionRule) -> &'static str {
    use pb::retention_rule::Keep;
    match Keep::try_from(rule.keep) {
        Ok(Keep::All) => "ALL",
        Ok(Keep::LatestPerKey) => "LATEST_PER_KEY",
        Ok(Keep::Unspecified) | Err(_) => "",
    }
}

fn write_retention_state(object: &mut Object<'_>, state: &pb::RetentionState) {
    object.flag("running", state.running);
    if let Some(pass) = &state.last {
        object.object("last", |object| write_retention_pass(object, pass));
    }
    if let Some(totals) = &state.totals {
        object.object("totals", |object| {
            object.number("passes", totals.passes);
            object.number("expired", totals.expired);
            object.number("compacted", totals.compacted);
            object.number("segments", totals.segments);
            object.number("freed_bytes", totals.freed_bytes);
        });
    }
}

fn write_retention_pass(object: &mut Object<'_>, pass: &pb::RetentionPass) {
    object.time("at", pass.at.map(from_timestamp));
    write_duration(object, "took", pass.took);
    if !pass.rules.is_empty() {
        object.objects("rules", &pass.rules, |object, found| {
            object.number("events", found.events);
            object.number("bytes", found.bytes);
            object.number("expired", found.expired);
            object.number("compacted", found.compacted);
            object.number("dead_bytes", found.dead_bytes);
        });
    }
    object.number("removed", pass.removed);
    object.number("segments", pass.segments);
    object.number("freed_bytes", pass.freed_bytes);
    object.flag("partial", pass.partial);
}

fn write_duration(
    object: &mut Object<'_>,
    name: &'static str,
    duration: Option<prost_types::Duration>,
) {
    if let Some(Ok(duration)) = duration.map(std::time::Duration::try_from) {
        object.text(name, &duration_text(duration));
    }
}

fn write_consumer(object: &mut Object<'_>, consumer: &pb::Consumer) {
    object.text("name", &consumer.name);
    object.number("watches", consumer.watches);
    object.number("delivered", consumer.delivered);
    object.number("lag_events", consumer.lag_events);
    object.raw("events_per_second", &format!("{:.1}", consumer.events_per_second));
    if let Some(idle) = consumer.idle.and_then(|idle| idle.try_into().ok()) {
        object.text("idle", &duration_text(idle));
    }
}

fn write_limits(object: &mut Object<'_>, limits: &pb::Limits) {
    object.number("message_bytes", limits.message_bytes);
    object.number("event_bytes", limits.event_bytes);
    object.number("batch_events", limits.batch_events);
    object.number("batch_bytes", limits.batch_bytes);
    object.number("topic_bytes", limits.topic_bytes);
    object.number("topic_segments", limits.topic_segments);
    object.number("name_bytes", limits.name_bytes);
    object.number("headers", limits.headers);
    object.number("header_bytes", limits.header_bytes);
    object.number("patterns_per_watch", limits.patterns_per_watch);
    object.number("watches_per_connection", limits.watches_per_connection);
    object.number("watches", limits.watches);
    object.number("connections", limits.connections);
    object.number("dedup_window", limits.dedup_window);
}
