//! A log inside a program: opens a directory, appends, reads on after a kept cursor, follows live.
//!
//! ```sh
//! cargo run -p tailmark-log --example embed -- /tmp/embedded-log
//! ```
//!
//! Run again it goes on where it was: the cursor lies beside the log, in a file of the program's.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use tailmark_log::{
    AppendOptions, Cursor, DiskOptions, Event, EventLog, Events, Filter, Options, Seq,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: embed <directory>")?);
    let kept = dir.with_extension("cursor");

    // Opening reads what a crash left, so it may take a while: not on a thread of the runtime.
    let open = move || tailmark_log::open(dir, DiskOptions::default(), Options::default());
    let log = tokio::task::spawn_blocking(open).await??;

    // Where the last run was. The cursor says so if it cannot be gone on from: the log is another,
    // or what comes after it was removed.
    let next = match fs::read_to_string(&kept) {
        Ok(cursor) => log.resolve(Cursor::parse(cursor.trim())?).await?,
        Err(_) => Seq::FIRST,
    };

    // Somebody who appends, while this reads.
    let appending = tokio::spawn(append(log.clone()));

    let mut reader = log.reader(next, Filter::ALL);
    let mut seen = next.prev();
    while !appending.is_finished() || seen < log.head() {
        // Returns at once while there are events, else when there is one.
        let delivery = reader.next(Seq::MAX).await?;
        for event in Events::new(&delivery.chunk.events) {
            let event = Event::parse(event?)?;
            println!("{} {} {}", event.seq, event.topic, event.body);
            seen = event.seq;
        }
        // What was dealt with is not seen again.
        fs::write(&kept, log.cursor(seen).await)?;
    }
    appending.await??;
    log.close().await?;
    Ok(())
}

async fn append(log: EventLog) -> Result<(), tailmark_log::AppendError> {
    for n in 1..=5 {
        let body = format!("order {n} of this run");
        let mut batch = log.batch();
        let event = Event { topic: "orders.eu", body: &body, ..Event::default() };
        if let Err(invalid) = batch.push(&event) {
            eprintln!("not appended: {invalid}");
            continue;
        }
        // Durable when it returns: this event is there after a power loss.
        log.append(batch, AppendOptions::default()).await?;
    }
    Ok(())
}
