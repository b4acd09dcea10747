//! What the stream must be, and whose it is.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::Settings;
use crate::varz::{self, Server};
use tailmark_record::{FingerprintKey, LogId, Timestamp};

/// The form of frames and of their meaning.
const FORMAT: &str = "1";
/// The largest frame: events of 4 MiB, their delta and a head.
pub(crate) const MAX_COMMIT_BYTES: usize = 4 << 20;
pub(crate) const MAX_PAYLOAD: usize = 8_000_000;
/// Where the stream keeps which of its servers sync.
const SYNCED: &str = "tailmark.synced";
/// Before it a commit synced more than once, and failed proposals moved what a leader compares with.
const OLDEST_SERVER: (u64, u64) = (2, 15);

/// What the stream promises, as far as it can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strength {
    /// Copies of it.
    pub replicas: u64,
    /// Each of its servers says that it syncs before it acks.
    pub is_synced: bool,
    /// Those that cannot be asked now and said so before, by what the stream keeps.
    pub remembered: Vec<String>,
    /// All that is weaker than was asked for.
    pub weaknesses: Vec<String>,
    /// What each server that could be asked says of itself.
    said: Vec<(String, bool)>,
}

/// Tells keys from each other, and does not tell them.
fn key_id(key: &FingerprintKey) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(b"tailmark journal key\0");
    context.update(key.bytes());
    context.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The stream as it is made for a new log.
pub(crate) fn config(settings: &Settings) -> Value {
    json!({
        "name": settings.stream(),
        "description": "A journal of Tailmark's. Only its daemons write here.",
        "subjects": [settings.subject()],
        "retention": "limits",
        "discard": "new",
        "storage": "file",
        "num_replicas": settings.replicas,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msg_size": -1,
        // A repeat is told by what is in it.
        "duplicate_window": 100_000_000,
        "allow_direct": true,
        "deny_delete": true,
        "deny_purge": false,
        "metadata": {
            "tailmark.format": FORMAT,
            "tailmark.log": Uuid::new_v4().to_string(),
            "tailmark.key": key_id(&settings.key),
            "tailmark.created": Timestamp::now().as_nanos().to_string(),
        },
    })
}

/// The log whose journal a stream is, by what it says of itself.
pub(crate) fn log_of(info: &Value) -> Option<LogId> {
    let text = info.pointer("/config/metadata")?.get("tailmark.log")?.as_str()?;
    Uuid::parse_str(text).ok().map(LogId::new)
}

/// When the log was created, by what the stream says of it: a stream that is made anew for the same log says the same.
pub(crate) fn created_of(info: &Value) -> Option<Timestamp> {
    let nanos = info.pointer("/config/metadata")?.get("tailmark.created")?.as_str()?;
    nanos.parse().ok().map(Timestamp::from_nanos)
}

/// A field of its state.
pub(crate) fn state(info: &Value, field: &str) -> Option<u64> {
    info.get("state")?.get(field)?.as_u64()
}

/// All that keeps a stream from being the journal of this log.
pub(crate) fn unusable(info: &Value, settings: &Settings, max_payload: usize) -> Vec<String> {
    let mut reasons = Vec::new();
    if max_payload < MAX_PAYLOAD {
        reasons.push(format!("its server takes {max_payload} bytes a message, of {MAX_PAYLOAD}"));
    }
    let config = info.get("config").unwrap_or(&Value::Null);
    let metadata = |name: &str| {
        config
            .get("metadata")
            .and_then(|it| it.get(name))
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    match metadata("tailmark.format") {
        FORMAT => {}
        "" => reasons.push("it is not of Tailmark".to_owned()),
        other => reasons.push(format!("it has format {other}, and this program reads {FORMAT}")),
    }
    if log_of(info).is_none() {
        reasons.push("it names no log".to_owned());
    }
    if metadata("tailmark.key") != key_id(&settings.key) {
        reasons.push("its daemons have another key for telling repeats".to_owned());
    }
    let is = |name: &str, value: Value| config.get(name).unwrap_or(&Value::Null) == &value;
    let mut must = |is_so: bool, what: &str| {
        if !is_so {
            reasons.push(what.to_owned());
        }
    };
    must(is("subjects", json!([settings.subject()])), "its subjects are others");
    must(is("storage", json!("file")), "it is not on disk");
    must(is("retention", json!("limits")), "its retention removes messages");
    must(is("discard", json!("new")), "it makes room by removing messages (discard)");
    let unlimited = |name: &str| config.get(name).and_then(Value::as_i64).is_none_or(|it| it <= 0);
    must(unlimited("max_age"), "it removes messages by age (max_age)");
    must(unlimited("max_msgs"), "it has a limit of messages (max_msgs)");
    must(unlimited("max_msgs_per_subject"), "it has a limit of messages (max_msgs_per_subject)");
    must(unlimited("max_msg_size"), "it has a limit of sizes (max_msg_size)");
    must(is("allow_direct", json!(true)), "its replicas do not answer reads (allow_direct)");
    must(is("deny_delete", json!(true)), "its messages can be deleted (deny_delete)");
    let off = |name: &str| config.get(name).is_none_or(|it| it == &json!(false) || it.is_null());
    must(off("no_ack"), "it acks nothing (no_ack)");
    must(off("sealed"), "it is sealed");
    must(off("allow_rollup_hdrs"), "a message may remove others (allow_rollup_hdrs)");
    must(off("allow_msg_ttl"), "messages may remove themselves (allow_msg_ttl)");
    must(off("allow_msg_schedules"), "messages may be scheduled (allow_msg_schedules)");
    must(off("allow_msg_counter"), "messages may be counters (allow_msg_counter)");
    let none = |name: &str| config.get(name).is_none_or(|it| it.is_null() || it == &json!([]));
    must(none("mirror") && none("sources"), "it is fed from other streams");
    must(none("subject_transform"), "it changes subjects");
    reasons
}

/// How strong it is: by what it says, and by what its servers' monitoring says.
pub(crate) fn strength(info: &Value, settings: &Settings, version: &str) -> Strength {
    let mut weaknesses = Vec::new();
    let config = |name: &str| info.get("config").and_then(|it| it.get(name));
    let replicas = config("num_replicas").and_then(Value::as_u64).unwrap_or_default();
    if replicas < settings.replicas {
        weaknesses.push(format!("it has {replicas} replicas, of {}", settings.replicas));
    }
    let persists = config("persist_mode").and_then(Value::as_str);
    let is_async = persists.is_some_and(|mode| mode != "default");
    if is_async {
        weaknesses.push("it acks before it writes (persist_mode)".to_owned());
    }
    let mut is_new = |version: &str| {
        if !is_new_enough(version) {
            let (major, minor) = OLDEST_SERVER;
            weaknesses.push(format!("a server of it is of version {version}, of {major}.{minor}"));
        }
    };
    is_new(version);
    let mut servers: Vec<Server> = Vec::new();
    let mut silent = Vec::new();
    for monitor in &settings.monitors {
        match varz::ask(monitor) {
            Ok(server) => {
                is_new(&server.version);
                servers.push(server);
            }
            Err(why) => silent.push(why),
        }
    }
    let mut is_synced = !is_async;
    // Who can ask none of them would never hear that it is otherwise now.
    let known = if settings.monitors.is_empty() { BTreeSet::new() } else { synced_of(info) };
    let mut remembered = Vec::new();
    for name in members(info) {
        match servers.iter().find(|server| server.name == name) {
            Some(server) if server.is_synced => {}
            Some(_) => {
                is_synced = false;
                weaknesses
                    .push(format!("{name} acks before it syncs (sync_interval is not always)"));
            }
            None if known.contains(&name) => remembered.push(name),
            None => {
                is_synced = false;
                let unseen = format!("it cannot be seen whether {name} syncs (monitors)");
                weaknesses.push([&[unseen][..], &silent].concat().join(": "));
            }
        }
    }
    let said = servers.into_iter().map(|server| (server.name, server.is_synced)).collect();
    Strength { replicas, is_synced, remembered, weaknesses, said }
}

/// Servers of which the stream keeps that they sync before they ack: each was asked once.
fn synced_of(info: &Value) -> BTreeSet<String> {
    let text = info.pointer("/config/metadata").and_then(|it| it.get(SYNCED)?.as_str());
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// What to ask for, so that the stream keeps what its servers say; `None` where it does.
pub(crate) fn remembering(info: &Value, strength: &Strength) -> Option<(String, Value)> {
    let known = synced_of(info);
    let mut synced = known.clone();
    for (name, is_synced) in &strength.said {
        if *is_synced {
            synced.insert(name.clone());
        } else {
            synced.remove(name);
        }
    }
    let mut config = info.get("config").filter(|_| synced != known)?.clone();
    let name = config.get("name")?.as_str()?.to_owned();
    let metadata = config.get_mut("metadata")?.as_object_mut()?;
    // Its own, which it writes anew.
    metadata.retain(|key, _| !key.starts_with("_nats."));
    metadata.insert(SYNCED.to_owned(), serde_json::to_string(&synced).ok()?.into());
    Some((format!("STREAM.UPDATE.{name}"), config))
}

/// Names of the servers that have it.
pub(crate) fn members(info: &Value) -> Vec<String> {
    let name = |it: &Value| it.as_str().map(str::to_owned);
    let Some(cluster) = info.get("cluster") else { return vec!["the server".to_owned()] };
    let leader = cluster.get("leader").and_then(name);
    let others = cluster.get("replicas").and_then(Value::as_array);
    let others = others.into_iter().flatten().filter_map(|it| it.get("name").and_then(name));
    leader.into_iter().chain(others).collect()
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse::<u64>().ok());
    let version = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    version >= OLDEST_SERVER
}

#[cfg(test)]
mod tests;
