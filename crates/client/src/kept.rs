//! A watch whose cursor outlives the program.
//!
//! Owns when the cursor is saved; what it is belongs to the watch, where it is kept to the store.
//! Invariant: what is saved was done: handed over, and something else asked for after it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::cursors::{CursorStore, CursorStoreError};
use super::{Client, Error, Item, Kind, Watch, WatchOptions};
use tailmark_record::MarkerKind;

/// See [`KeptWatch::saving_every`].
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// A watch that goes on where the last run of the program ended.
///
/// **Asking for the next item says that the one before is done.** Only then may its cursor be saved;
/// it is saved when nothing more is there right now, every second while there is, before the end or
/// an error is handed over, and by [`KeptWatch::finish`]. So a program that stops at any moment, a
/// crash included, sees every event again that it was not done with: at least once, and none is
/// lost. Of those it was done with it may see again what came since the last save.
///
/// Dropped without [`KeptWatch::finish`], it saves nothing: the item handed over last may not be
/// done.
pub struct KeptWatch<S> {
    watch: Watch,
    store: Arc<Mutex<S>>,
    /// Whether whoever watches wants markers.
    has_markers: bool,
    saved: Option<String>,
    saved_at: Instant,
    save_every: Duration,
    saving: Option<JoinHandle<Result<(), CursorStoreError>>>,
    /// The cursor that `saving` saves.
    being_saved: String,
    /// How the watch has ended; handed over when the position is saved, as the last thing.
    end: Option<Result<(), Error>>,
    is_over: bool,
}

impl Client {
    /// Watches the log from the cursor in `store` on, or, when it has none, from where `options`
    /// say. Nothing is sent before the first item is asked for.
    ///
    /// ```
    /// use tailmark_client::{Client, FileStore, Item, Start, WatchOptions};
    /// # use tailmark_client::feed_v1::Event;
    ///
    /// /// One run of the program; answers what it has handled.
    /// async fn run(address: &str, file: &std::path::Path) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    ///     let mut options = WatchOptions::default();
    ///     options.patterns = vec!["orders.>".to_owned()];
    ///     // Where the very first run begins; for every other the file decides.
    ///     options.start = Start::Oldest;
    ///     // Not for ever, in an example.
    ///     options.until_caught_up = true;
    ///     let store = FileStore::open(file, &options.patterns)?;
    ///     let mut watch = Client::new(address)?.watch_kept(options, store).await?;
    ///     let mut handled = Vec::new();
    ///     while let Some(item) = watch.next().await {
    ///         if let Item::Event(event) = item? {
    ///             // Stopped in here, be it by a panic or a power failure, the program sees the event
    ///             // again. Asking for the next one says that this one is done.
    ///             handled.push(event.seq().get());
    ///         }
    ///     }
    ///     // The end was told, so all is saved. Who leaves the loop before says `watch.finish()`.
    ///     Ok(handled)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = tailmark::testing::serve().await?;
    /// # let address = server.url();
    /// # let client = Client::new(&address)?;
    /// # let event = || Event { topic: "orders.eu".into(), ..Event::default() };
    /// # let folder = tempfile::tempdir()?;
    /// # let file = folder.path().join("orders.cursor");
    /// # client.publish(event(), None).await?;
    /// # client.publish(event(), None).await?;
    /// assert_eq!(run(&address, &file).await?, [1, 2]);
    /// # client.publish(event(), None).await?;
    /// // One more has come.
    /// assert_eq!(run(&address, &file).await?, [3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Kind::CursorStore`] when the store does not tell what it has.
    pub async fn watch_kept<S: CursorStore + 'static>(
        &self,
        options: WatchOptions,
        store: S,
    ) -> Result<KeptWatch<S>, Error> {
        let store = Arc::new(Mutex::new(store));
        let saved = with_store(&store, S::load).await.unwrap_or_else(|_| Err(panicked()));
        let saved = saved.map_err(|source| failed("the saved cursor cannot be read", source))?;
        let after_cursor = saved.clone().or(options.after_cursor);
        let has_markers = options.markers;
        Ok(KeptWatch {
            // The first of them says where the watch begins, before any event.
            watch: self.watch(WatchOptions { after_cursor, markers: true, ..options }),
            has_markers,
            store,
            saved,
            saved_at: Instant::now(),
            save_every: SAVE_EVERY,
            saving: None,
            being_saved: String::new(),
            end: None,
            is_over: false,
        })
    }
}

/// What the next turn of the loop does.
enum Turn {
    Item(Item),
    End(Result<(), Error>),
    /// Nothing is there right now.
    Quiet,
}

impl<S: CursorStore + 'static> KeptWatch<S> {
    /// How long it may go on without saving while there is always more: 1 s if not set. Zero saves
    /// after each item, which makes a file as slow as the disk.
    #[must_use]
    pub fn saving_every(self, save_every: Duration) -> Self {
        KeptWatch { save_every, ..self }
    }

    /// The next item; says that all before it are done. `None` is the end, and an `Err` is final.
    /// Cancel-safe: a future that is dropped has taken no item.
    pub async fn next(&mut self) -> Option<Result<Item, Error>> {
        loop {
            if let Err(error) = self.settle().await {
                self.is_over = true;
                return Some(Err(error));
            }
            if self.is_over {
                return None;
            }
            if self.end.is_some() {
                self.watch.report(true).await;
            }
            if let Some(end) = self.end.take() {
                self.is_over = true;
                return end.err().map(Err);
            }
            // Where it begins is kept before the first event is handed over: a start like `Last` is another
            // one in the next run.
            let is_due = self.saved.is_none() || self.saved_at.elapsed() >= self.save_every;
            if is_due && self.is_unsaved() {
                self.begin_saving();
                continue;
            }
            let is_unsaved = self.is_unsaved();
            let watch = &mut self.watch;
            let turn = poll_fn(|cx| match Pin::new(&mut *watch).poll_next(cx) {
                Poll::Ready(Some(Ok(item))) => Poll::Ready(Turn::Item(item)),
                Poll::Ready(Some(Err(error))) => Poll::Ready(Turn::End(Err(error))),
                Poll::Ready(None) => Poll::Ready(Turn::End(Ok(()))),
                Poll::Pending if is_unsaved => Poll::Ready(Turn::Quiet),
                // A filtered watch that passes what it is not to see has a new cursor all the same.
                Poll::Pending => Poll::Pending,
            })
            .await;
            match turn {
                Turn::Item(Item::Marker(marker))
                    if !self.has_markers && marker.kind != MarkerKind::Gap => {}
                Turn::Item(item) => return Some(Ok(item)),
                Turn::End(end) => {
                    self.end = Some(end);
                    self.begin_saving();
                }
                Turn::Quiet => self.begin_saving(),
            }
        }
    }

    /// Says that everything handed over is done, and saves it.
    ///
    /// # Errors
    /// [`Kind::CursorStore`] when it may not have been saved.
    pub async fn finish(mut self) -> Result<(), Error> {
        self.settle().await?;
        self.begin_saving();
        self.settle().await?;
        self.watch.report(true).await;
        Ok(())
    }

    /// The watch itself.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The cursor that was saved last.
    pub fn saved(&self) -> Option<&str> {
        self.saved.as_deref()
    }

    fn is_unsaved(&self) -> bool {
        self.watch.cursor().is_some() && self.watch.cursor() != self.saved.as_deref()
    }

    /// Only for what is done.
    fn begin_saving(&mut self) {
        let Some(cursor) = self.watch.cursor().filter(|_| self.is_unsaved()) else { return };
        let cursor = cursor.to_owned();
        self.being_saved.clone_from(&cursor);
        self.saving = Some(with_store(&self.store, move |store| store.save(&cursor)));
    }

    /// Waits for the save under way, if there is one.
    async fn settle(&mut self) -> Result<(), Error> {
        let Some(saving) = &mut self.saving else { return Ok(()) };
        let result = saving.await.unwrap_or_else(|_| Err(panicked()));
        self.saving = None;
        result.map_err(|source| failed("the cursor was not saved", source))?;
        self.saved = Some(std::mem::take(&mut self.being_saved));
        self.saved_at = Instant::now();
        Ok(())
    }
}

/// Stores may block.
fn with_store<S: CursorStore + 'static, T: Send + 'static>(
    store: &Arc<Mutex<S>>,
    work: impl FnOnce(&mut S) -> T + Send + 'static,
) -> JoinHandle<T> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || {
        work(&mut store.lock().unwrap_or_else(PoisonError::into_inner))
    })
}

fn panicked() -> CursorStoreError {
    "the store panicked".into()
}

fn failed(what: &str, source: CursorStoreError) -> Error {
    Error::new(Kind::CursorStore, format!("{what}: {source}")).with_source(source)
}

#[cfg(test)]
mod tests;
