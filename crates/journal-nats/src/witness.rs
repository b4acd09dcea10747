//! Whether every replica of the stream holds the same bytes. JetStream does not look: a replica whose peers were put
//! back to an older state keeps what it had, is told as current, and serves it, now and then or as their leader.
//!
//! A direct get is answered by any replica, and does not say by which. A consumer is led by one server, reads what
//! that has, and says who leads it: so each server gets one of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::StatusCode;
use bytes::Bytes;
use serde_json::Value;

use crate::client::{Connected, Failure};
use crate::consumer::{self, slot_of};
use crate::stream;
use tailmark_log::storage::shared::{FrameChain, Slot};
use tailmark_record::LogId;

/// The servers choose who leads a consumer; so many are made until each leads one.
const TRIES: usize = 60;
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// A replica that does not have what the others have.
#[derive(Clone, Debug)]
pub struct Stray {
    /// Its server.
    pub server: String,
    /// Where.
    pub slot: u64,
    /// What it has there.
    pub has: Slot,
}

impl std::fmt::Display for Stray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Stray { server, slot, .. } = self;
        write!(
            f,
            "{server} holds other bytes than the log at slot {slot}: empty its store directory, and it fetches them"
        )
    }
}

/// What each replica has otherwise than `known`, from a slot on; and the servers of which that was not heard to the
/// end.
pub(crate) fn compare(
    (connected, name, log): (&Connected, &str, LogId),
    info: &Value,
    (from, known): (u64, &[FrameChain]),
) -> Result<(Vec<Stray>, Vec<String>), Failure> {
    let members = stream::members(info);
    let mut consumers = BTreeMap::new();
    for _ in 0..TRIES {
        if members.iter().all(|it| consumers.contains_key(it)) {
            break;
        }
        let (leader, consumer) = create(connected, name, from)?;
        let Some(leader) = leader.filter(|it| !consumers.contains_key(it)) else {
            delete(connected, name, &consumer);
            continue;
        };
        consumers.insert(leader, consumer);
    }
    let (mut strays, mut unheard) = (Vec::new(), Vec::new());
    for server in members {
        let mut is_heard = false;
        if let Some(consumer) = consumers.get(&server) {
            is_heard = true;
            for (slot, chain) in (from..).zip(known) {
                match next(connected, name, consumer) {
                    Ok(Some((at, message))) if at == slot => match Slot::of(&message, log) {
                        Slot::Frame(frame) if frame.chain() == *chain => {}
                        has => strays.push(Stray { server: server.clone(), slot, has }),
                    },
                    _ => {
                        is_heard = false;
                        break;
                    }
                }
            }
            delete(connected, name, consumer);
        }
        if !is_heard {
            unheard.push(server);
        }
    }
    Ok((strays, unheard))
}

/// Makes a consumer; who leads it, and its name.
fn create(
    connected: &Connected,
    stream: &str,
    from: u64,
) -> Result<(Option<String>, String), Failure> {
    let request = consumer::request(stream, from);
    let made = connected.ask_api(&format!("CONSUMER.CREATE.{stream}"), &request)?;
    let text = |at: &str| made.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let name = text("/name").ok_or(Failure::NoAnswer)?;
    let leader = match text("/cluster/leader") {
        Some(leader) => Some(leader),
        // It is chosen just now.
        None => {
            let info =
                connected.ask_api(&format!("CONSUMER.INFO.{stream}.{name}"), &Value::Null)?;
            info.pointer("/cluster/leader").and_then(Value::as_str).map(str::to_owned)
        }
    };
    Ok((leader, name))
}

fn delete(connected: &Connected, stream: &str, consumer: &str) {
    // Else it goes by itself.
    let _ = connected.ask_api(&format!("CONSUMER.DELETE.{stream}.{consumer}"), &Value::Null);
}

/// The next message of a consumer, which may just have been made and then hears nobody yet.
fn next(
    connected: &Connected,
    stream: &str,
    consumer: &str,
) -> Result<Option<(u64, Bytes)>, Failure> {
    let begun = Instant::now();
    loop {
        let next = ask_next(connected, stream, consumer);
        if begun.elapsed() > PATIENCE || matches!(next, Ok(Some(_))) {
            return next;
        }
        std::thread::sleep(PAUSE);
    }
}

/// A message, and its slot; `None` where there is none.
fn ask_next(
    connected: &Connected,
    stream: &str,
    consumer: &str,
) -> Result<Option<(u64, Bytes)>, Failure> {
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
    let request = Bytes::from_static(br#"{"batch":1,"expires":1000000000}"#);
    let message = connected.ask_for_stored(subject, request)?;
    if message.status.is_some_and(|it| it != StatusCode::OK) {
        return Ok(None);
    }
    let slot = message.reply.as_deref().and_then(slot_of).ok_or(Failure::NoAnswer)?;
    Ok(Some((slot, message.payload)))
}
