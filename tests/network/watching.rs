//! Clients that watch, over connections that meet their fates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailmark_client::{
    Client, Cursor, Error, GapReason, Item, MarkerKind, MemoryStore, OnLost, Start, WatchOptions,
};
use tailmark_record::Limits;
use tailmark_record::topic::{Filter, Pattern};
use tailmark_wire::feed_v1 as pb;
use tokio_stream::StreamExt as _;

use crate::plan::{END, Manner, WatchPlan};
use crate::support::checker::{Note, Watched};
use crate::support::server::within;
use crate::way::{Happened, Path};
use crate::world::{World, client, watch_options};

pub struct Watcher {
    plan: WatchPlan,
    name: String,
    rng: StdRng,
    world: Arc<World>,
    path: Path,
    client: Client,
    notes: Vec<Note>,
}

/// What an item means for the watch.
#[derive(PartialEq, Eq)]
enum Next {
    Go,
    Lost,
    Done,
}

impl Watcher {
    pub async fn new(
        plan: WatchPlan,
        name: String,
        world: Arc<World>,
        server: std::net::SocketAddr,
        happened: Happened,
    ) -> Watcher {
        let path = Path::to(server, plan.fates.clone(), happened).await;
        let (client, rng) = (client(&path.url()), StdRng::seed_from_u64(plan.seed));
        Watcher { plan, name, rng, world, path, client, notes: vec![Note::Opened(1)] }
    }

    /// Watches from the first event to the last one of the run. An error is what the library says
    /// that it cannot go on over.
    pub async fn run(mut self) -> (Watched, Result<(), Error>) {
        let end = match self.plan.manner {
            Manner::Once => self.once().await,
            Manner::Kept => self.kept().await,
            Manner::Off(by) => self.off(by).await,
        };
        self.path.close().await;
        let limits = Limits::default();
        let patterns = self.plan.patterns.iter().map(|p| Pattern::parse(p, &limits).unwrap());
        let watched = Watched {
            name: self.name,
            filter: Filter::new(patterns.collect()),
            notes: self.notes,
            is_paused: false,
            is_early: true,
        };
        (watched, end)
    }

    fn options(&self) -> WatchOptions {
        let mut options = watch_options();
        options.patterns = self.plan.patterns.iter().map(ToString::to_string).collect();
        options.start = Start::Oldest;
        options.after_cursor = self.plan.is_from_first.then(|| "0".to_owned());
        options.markers = self.plan.has_markers;
        options.on_lost = if self.plan.has_markers { OnLost::Oldest } else { OnLost::Fail };
        options
    }

    fn take(&mut self, item: Item) -> Next {
        match item {
            Item::Event(received) => {
                let event = pb::Event::decode(received.bytes().clone()).unwrap();
                self.world.seen.fetch_max(event.seq, Ordering::SeqCst);
                let is_end = event.topic == END;
                self.notes.push(Note::Event(Box::new(event)));
                if is_end { Next::Done } else { Next::Go }
            }
            Item::Marker(marker) => {
                match (marker.kind, marker.gap) {
                    (MarkerKind::Resumed, _) => {
                        let seq = Cursor::parse(&marker.cursor).unwrap().seq().get();
                        self.notes.push(Note::Opened(seq + 1));
                    }
                    (MarkerKind::Gap, Some(gap)) => {
                        let reason = match gap.reason {
                            GapReason::Trimmed => pb::gap::Reason::Trimmed,
                            _ => pb::gap::Reason::Unspecified,
                        };
                        let (from, to) = (gap.from.get(), gap.to.get());
                        self.notes.push(Note::Gap { from, to, reason });
                    }
                    _ => {}
                }
                Next::Go
            }
            Item::Interrupted { .. } => {
                self.notes.push(Note::Cut);
                Next::Lost
            }
            other => panic!("{other:?}"),
        }
    }

    async fn once(&mut self) -> Result<(), Error> {
        let mut watch = self.client.watch(self.options());
        loop {
            let item = within(&self.name, watch.next()).await;
            if self.take(item.expect("a watch has ended by itself")?) == Next::Done {
                return Ok(());
            }
        }
    }

    /// Lives that end at any moment; each begins where the one before had got, or before that.
    async fn kept(&mut self) -> Result<(), Error> {
        let store = MemoryStore::new();
        loop {
            let watch = self.client.watch_kept(self.options(), store.clone()).await?;
            let mut again = self.unsaved(watch.saved());
            let mut watch = watch.saving_every(Duration::from_millis(self.rng.random_range(0..9)));
            for _ in 0..self.rng.random_range(1..120) {
                let item = within(&self.name, watch.next()).await;
                let next = self.take(item.expect("a watch has ended by itself")?);
                self.compare(&mut again);
                if next == Next::Done {
                    return Ok(());
                }
            }
            if self.rng.random_bool(0.3) {
                watch.finish().await?;
            }
        }
    }

    /// Takes back what lies after the cursor that was kept: it is to come again.
    fn unsaved(&mut self, saved: Option<&str>) -> BTreeMap<u64, Box<pb::Event>> {
        let kept = saved.map_or(0, |cursor| Cursor::parse(cursor).unwrap().seq().get());
        let is_later = |note: &Note| match note {
            Note::Event(event) => event.seq > kept,
            Note::Gap { to, .. } => *to > kept,
            Note::Opened(next) => *next > kept + 1,
            _ => false,
        };
        let at = self.notes.iter().position(is_later).unwrap_or(self.notes.len());
        let events = self.notes.split_off(at).into_iter().filter_map(|note| match note {
            Note::Event(event) => Some((event.seq, event)),
            _ => None,
        });
        events.collect()
    }

    /// What comes again is what it was.
    fn compare(&self, again: &mut BTreeMap<u64, Box<pb::Event>>) {
        if let Some(Note::Event(now)) = self.notes.last()
            && let Some(before) = again.remove(&now.seq)
        {
            assert_eq!(&before, now, "{}: another event under the same seq", self.name);
        }
    }

    /// The control: a client that resumes by itself, at the wrong event.
    async fn off(&mut self, by: i64) -> Result<(), Error> {
        let mut after = None;
        loop {
            let mut options = self.options();
            options.after_cursor = after.clone().or(options.after_cursor);
            let mut watch = self.client.watch(options);
            loop {
                let item = within(&self.name, watch.next()).await;
                match self.take(item.expect("a watch has ended by itself")?) {
                    Next::Done => return Ok(()),
                    Next::Lost if watch.position().is_some_and(|seq| seq.get() > 1) => {
                        let seq = watch.position().unwrap().get().saturating_add_signed(by);
                        after = Some(seq.to_string());
                        break;
                    }
                    _ => {}
                }
            }
        }
    }
}
