//! Stores each line of standard input exactly once, over restarts of either side: start it, kill it,
//! start it again with the same input.
//!
//! ```text
//! tailmark serve &
//! seq 1000000 | cargo run --example producer -- http://127.0.0.1:50051 numbers-1 numbers
//! ```
//!
//! NAME is the producer's. The log remembers the last batch that it took from it, with the events it
//! holds, so nothing has to be kept here: the key of the last event says which line it was. Two runs
//! at once under one name do no harm either, for the newer fences the older.

use std::error::Error;

use prost::Message;
use tailmark_client::feed_v1::Event;
use tailmark_client::{Client, Kind, ProducerOptions};
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [address, name, topic] = &args[..] else {
        return Err("usage: producer ADDRESS NAME TOPIC < LINES".into());
    };
    let client = Client::new(address)?;
    let longest = client.log().await?.limits.map_or(1 << 20, |limits| limits.event_bytes);
    let producer = client.producer(name.as_str(), ProducerOptions::default()).await?;

    // Where was I?
    let stored = match producer.position().seq {
        None => 0,
        Some(seq) => match client.event(seq).await {
            Ok(last) => last.key.parse()?,
            // Retention has overtaken us: the log knows that it took the line, not which it was.
            Err(error) if error.kind() == Kind::Gone => {
                return Err(format!("the last line stored was trimmed: {error}").into());
            }
            Err(error) => return Err(error.into()),
        },
    };

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut number: u64 = 0;
    while let Some(line) = lines.next_line().await? {
        number += 1;
        if number <= stored {
            continue;
        }
        let event =
            Event { topic: topic.clone(), key: number.to_string(), body: line, ..Event::default() };
        // The server would refuse it, with its whole batch, and take what comes after.
        if event.encoded_len() as u64 > longest {
            producer.close().await?;
            return Err(format!("line {number} is longer than an event may be").into());
        }
        // Waits only while too much is in flight. Whether it is durable is asked below, for all.
        drop(producer.send(&event).await?);
    }
    producer.close().await?;
    eprintln!("{stored} lines were stored before, {} now", number.saturating_sub(stored));
    Ok(())
}
