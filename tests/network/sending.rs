//! Clients that store: uploads and single events, producers, and who speaks in a room.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_client::{Client, Error, Producer, RoomItem, Saying, Seq};
use tailmark_wire::feed_v1 as pb;
use tokio_stream::StreamExt as _;

use crate::plan::{ProducePlan, SendPlan, TOPICS};
use crate::support::checker::{Outcome, Sent};
use crate::support::server::within;
use crate::world::{World, producer_options};

const PAUSE: Duration = Duration::from_millis(5);

/// Uploads and publishes.
pub async fn send(plan: SendPlan, name: String, client: Client, world: Arc<World>) {
    let mut sender = Sender {
        rng: StdRng::seed_from_u64(plan.seed),
        is_named: plan.is_named,
        count: 0,
        name,
        client,
    };
    for _ in 0..plan.turns {
        let is_upload = sender.rng.random_bool(0.6);
        let count = if is_upload { sender.rng.random_range(1..80) } else { 1 };
        let batch = sender.events(count);
        // What has ids may be sent again until it is known to be there, and once more for good measure.
        let mut once_more = plan.is_named && sender.rng.random_bool(0.2);
        loop {
            let is_known = match is_upload {
                true => sender.upload(&world, &batch).await,
                false => sender.publish(&world, &batch[0]).await,
            };
            let goes_on = !is_known && (plan.is_named || plan.is_careless);
            if !goes_on && !std::mem::take(&mut once_more) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

struct Sender {
    name: String,
    rng: StdRng,
    is_named: bool,
    count: u64,
    client: Client,
}

impl Sender {
    fn events(&mut self, count: usize) -> Vec<Sent> {
        let mut events = Vec::new();
        for _ in 0..count {
            self.count += 1;
            let label = format!("{}.{}", self.name, self.count);
            let most = if self.rng.random_bool(0.01) { 30_000 } else { 1_500 };
            let filler = "x".repeat(self.rng.random_range(0..most));
            events.push(Sent {
                event: pb::Event {
                    id: if self.is_named { format!("id-{label}") } else { String::new() },
                    topic: TOPICS[self.rng.random_range(0..TOPICS.len())].to_owned(),
                    body: format!("{label}|{filler}"),
                    ..pb::Event::default()
                },
                label,
            });
        }
        events
    }

    /// Answers whether all of it is known to be there.
    async fn upload(&self, world: &World, batch: &[Sent]) -> bool {
        let events: Vec<_> =
            batch.iter().map(|sent| Bytes::from(sent.event.encode_to_vec())).collect();
        let outcome = match within("upload", self.client.upload(tokio_stream::iter(events))).await {
            Ok(result) => Outcome::Uploaded(result),
            Err(error) => {
                passes("upload", &error);
                match error.metadata("received").and_then(|count| count.parse().ok()) {
                    Some(count) => Outcome::Prefix(count),
                    None => Outcome::Unknown,
                }
            }
        };
        let is_known = matches!(outcome, Outcome::Uploaded(_));
        world.record(batch.to_vec(), outcome);
        is_known
    }

    async fn publish(&self, world: &World, sent: &Sent) -> bool {
        let outcome = match within("publish", self.client.publish(sent.event.clone(), None)).await {
            Ok(result) => Outcome::Published { seq: result.seq, duplicate: result.duplicate },
            Err(error) => {
                passes("publish", &error);
                // Of what is sent again the first may be there.
                match error.may_have_applied() || !sent.event.id.is_empty() {
                    true => Outcome::Unknown,
                    false => Outcome::Refused,
                }
            }
        };
        let is_known = matches!(outcome, Outcome::Published { .. });
        world.record(vec![sent.clone()], outcome);
        is_known
    }
}

/// A network makes nothing that cannot pass.
fn passes(what: &str, error: &Error) {
    assert!(error.is_retryable(), "{what}: {error:?}");
}

/// Lives of a producer, until all is stored.
pub async fn produce(plan: ProducePlan, name: String, client: Client, world: Arc<World>) {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    loop {
        let producer = match within("a producer", client.producer(&*name, producer_options())).await
        {
            Ok(producer) => producer,
            Err(error) => {
                assert!(error.is_retryable() || is_fenced(&error), "{name}: {error:?}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Where was I?
        let stored = match producer.position().seq {
            Some(seq) => number_at(&client, seq).await,
            None => 0,
        };
        if stored == plan.events {
            break;
        }
        let life = rng.random_range(1..100);
        let last = plan.events.min(stored + life);
        if let Err(error) = append(producer, &name, stored + 1..=last, &world, &mut rng).await {
            // Its own bytes, which came to the server once more, have opened it anew.
            assert!(is_fenced(&error), "{name}: {error:?}");
        }
    }
    world.produced.lock().unwrap().insert(name, plan.events);
}

fn is_fenced(error: &Error) -> bool {
    error.reason() == "FENCED"
}

/// One life; ends in the middle as often as not.
async fn append(
    producer: Producer,
    name: &str,
    numbers: std::ops::RangeInclusive<u64>,
    world: &World,
    rng: &mut StdRng,
) -> Result<(), Error> {
    let mut acks = Vec::new();
    let mut end = Ok(());
    for number in numbers {
        let label = format!("{name}.{number}");
        let event = pb::Event {
            topic: "produced".into(),
            key: number.to_string(),
            body: format!("{label}|{}", "x".repeat(number as usize * 31 % 700)),
            ..pb::Event::default()
        };
        let sent = Sent { label, event };
        match producer.send(&sent.event).await {
            Ok(ack) => acks.push((sent, ack)),
            Err(error) => {
                end = Err(error);
                break;
            }
        }
    }
    let heard = if rng.random_bool(0.5) { acks.len() } else { rng.random_range(0..=acks.len()) };
    let unheard = acks.split_off(heard);
    for (sent, ack) in acks {
        match within("an ack", ack.durable()).await {
            Ok(durable) => {
                let seq = durable.seq.expect("a seq").get();
                world.record(vec![sent], Outcome::Published { seq, duplicate: durable.duplicate });
            }
            Err(error) => {
                world.record(vec![sent], Outcome::Unknown);
                end = Err(error);
            }
        }
    }
    for (sent, _) in unheard {
        world.record(vec![sent], Outcome::Unknown);
    }
    end
}

async fn number_at(client: &Client, seq: Seq) -> u64 {
    loop {
        match within("the last event", client.event(seq)).await {
            Ok(event) => return event.key.parse().unwrap(),
            Err(error) => passes("an event", &error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Says so many things in a room, each until it is known to be there.
pub async fn speak(room: String, said: usize, client: Client, world: Arc<World>) {
    for number in 1..=said {
        let label = format!("{room}.{number}");
        let saying = Saying::new(&room, "ann", &format!("{label}|"));
        let event = pb::Event {
            topic: format!("chat.{room}"),
            id: saying.id().to_owned(),
            body: saying.text().to_owned(),
            ..pb::Event::default()
        };
        let sent = Sent { label, event };
        loop {
            match within("saying", client.say(&saying)).await {
                Ok(result) => {
                    let (seq, duplicate) = (result.seq, result.duplicate);
                    world.record(vec![sent], Outcome::Published { seq, duplicate });
                    break;
                }
                Err(error) => passes("saying", &error),
            }
            world.record(vec![sent.clone()], Outcome::Unknown);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Hears a room from the beginning of the log to its last word.
pub async fn listen(room: String, last: String, client: Client, world: Arc<World>) {
    let mut listening = client.room(&room, "", "0");
    let mut heard = Vec::new();
    loop {
        match within("a room", listening.next()).await {
            Ok(RoomItem::Message(message)) => {
                let is_last = message.content.starts_with(&last);
                heard.push(message);
                if is_last {
                    break;
                }
            }
            Ok(_) => {}
            Err(error) => panic!("{room}: {error:?}"),
        }
    }
    world.heard.lock().unwrap().insert(room, heard);
}

/// The whole log, over a clean connection.
pub async fn read_all(client: &Client) -> Vec<pb::Event> {
    let mut options = crate::world::watch_options();
    options.start = tailmark_client::Start::Oldest;
    options.until_caught_up = true;
    let mut watch = client.watch(options);
    let mut log = Vec::new();
    while let Some(item) = within("the whole log", watch.next()).await {
        if let tailmark_client::Item::Event(received) = item.unwrap() {
            log.push(pb::Event::decode(received.bytes().clone()).unwrap());
        }
    }
    log
}
