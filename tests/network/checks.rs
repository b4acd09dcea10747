//! What the checker of histories does not know: producers and rooms.

use std::collections::BTreeMap;

use tailmark_wire::{chat, feed_v1 as pb};

use crate::support::checker::label_of;

/// Each producer's numbers from 1 on, each once and in order.
pub fn produced(log: &[pb::Event], producers: &BTreeMap<String, u64>) -> Result<(), String> {
    for (name, count) in producers {
        let prefix = format!("{name}.");
        let mine = log.iter().filter(|event| label_of(event).starts_with(&prefix));
        let numbers: Vec<u64> = mine.map(|event| event.key.parse().unwrap_or(0)).collect();
        if numbers != (1..=*count).collect::<Vec<_>>() {
            return Err(format!("{name} produced {count}, stored are {numbers:?}"));
        }
    }
    Ok(())
}

/// Who listens hears each message of the room once, in the order of the log.
pub fn heard(
    log: &[pb::Event],
    rooms: &BTreeMap<String, Vec<chat::Message>>,
) -> Result<(), String> {
    for (room, heard) in rooms {
        let topic = format!("chat.{room}");
        let said = log.iter().filter(|event| event.topic == topic);
        let said: Vec<_> = said.map(|event| (event.seq, &*event.body)).collect();
        let heard: Vec<_> = heard.iter().map(|one| (one.seq, &*one.content)).collect();
        if said != heard {
            return Err(format!("in {room} there were {said:?}, and heard was {heard:?}"));
        }
    }
    Ok(())
}
