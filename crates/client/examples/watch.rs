//! Follows a feed and remembers where it was: start it, stop it, start it again.
//!
//! ```text
//! tailmark serve &
//! cargo run --example watch -- http://127.0.0.1:50051 orders.cursor 'orders.>'
//! tailmark publish orders.created hello
//! ```

use std::error::Error;

use tailmark_client::{Client, FileStore, Item, Start, WatchOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(file)) = (args.next(), args.next()) else {
        return Err("usage: watch ADDRESS FILE [PATTERN...]".into());
    };
    let mut options = WatchOptions::default();
    options.patterns = args.collect();
    // The first run begins at the oldest event; the file decides for every other.
    options.start = Start::Oldest;

    let store = FileStore::open(file, &options.patterns)?;
    let mut watch = Client::new(&address)?.watch_kept(options, store).await?;
    loop {
        // Asking for the next event says that the one before is done. Stopped anywhere in this loop,
        // the program sees the event that it was at once more.
        let item = tokio::select! {
            item = watch.next() => item,
            _ = tokio::signal::ctrl_c() => break,
        };
        match item {
            None => break,
            Some(item) => match item? {
                Item::Event(received) => {
                    let event = received.event()?;
                    // Escaped: what others wrote could drive a terminal.
                    println!("{} {:?} {:?}", event.seq, event.topic, event.body);
                }
                Item::Interrupted { cause, retry_in } => {
                    eprintln!("{cause}; connecting again in {:.1} s", retry_in.as_secs_f32());
                }
                _ => {}
            },
        }
    }
    watch.finish().await?;
    Ok(())
}
