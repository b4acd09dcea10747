//! A budget for what waits to be sent, over all connections.
//!
//! Counted from when a stream hands bytes to its connection until that lets go of them: they are
//! sent, or the stream is over. Readers pull, so at the limit nothing is dropped: who has too much on
//! the way is not read for until some of it is gone. The rules:
//!
//! - A stream with nothing on the way may always hand over [`SMALL_BYTES`]. So no stream waits for
//!   another whose client takes nothing.
//! - Beyond that a connection may have half of what is left of the budget. So many that take nothing
//!   leave room for one more.
//! - One event that is larger goes within that half, or alone on its connection up to twice the budget;
//!   of up to [`ALONE_BYTES`] whatever there is.
//!
//! Invariant: whoever waits is woken when all that it had on the way itself has gone, when enough of its
//! connection has, or of what others have.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parking_lot::Mutex;

/// What a stream may hand over whatever there is, when it has nothing on the way.
pub(crate) const SMALL_BYTES: usize = 8 << 10;
/// What may be handed over at once by whoever is alone on its connection, whatever there is.
pub(crate) const ALONE_BYTES: usize = 1 << 20;
/// What those who are woken are expected to take each.
const PIECE_BYTES: usize = 64 << 10;
/// Most that are woken at a time, unless nothing is on the way.
const WOKEN: usize = 32;

/// The budget of one server; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Unsent(Arc<All>);

#[derive(Debug)]
struct All {
    limit: usize,
    used: AtomicUsize,
    /// Who waits for one large event.
    waiting: Waiting,
    lines: Lines,
}

/// Connections whose streams wait, by what may be on the way in all when they may have something: the
/// most first.
#[derive(Debug, Default)]
struct Lines {
    next: AtomicU64,
    count: AtomicUsize,
    waiting: Mutex<BTreeMap<Place, Weak<OfLine>>>,
}

/// That much, and the number of the connection.
type Place = (usize, u64);

/// Of one connection; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Line(Arc<OfLine>);

#[derive(Debug)]
struct OfLine {
    all: Arc<All>,
    number: u64,
    used: AtomicUsize,
    waiting: Waiting,
    /// Among those of all. Changed only while those are locked.
    place: Mutex<Option<Place>>,
}

#[derive(Debug)]
struct OfStream {
    line: Arc<OfLine>,
    used: AtomicUsize,
    /// Woken when nothing of the stream is on the way.
    waker: Mutex<Option<Waker>>,
}

/// Of one stream.
#[derive(Debug)]
pub(crate) struct Sending {
    account: Arc<OfStream>,
    of_line: Option<u64>,
    of_all: Option<u64>,
}

/// Those who wait, the first first.
#[derive(Debug, Default)]
struct Waiting {
    count: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Waiting {
    fn wait(&self, ticket: &mut Option<u64>, cx: &Context<'_>) {
        let mut queue = self.queue.lock();
        if let Some(waker) = ticket.and_then(|ticket| queue.wakers.get_mut(&ticket)) {
            waker.clone_from(cx.waker());
            return;
        }
        *ticket = Some(queue.next);
        let next = queue.next;
        queue.wakers.insert(next, cx.waker().clone());
        queue.next += 1;
        self.count.store(queue.wakers.len(), Ordering::SeqCst);
    }

    fn leave(&self, ticket: Option<u64>) {
        let Some(ticket) = ticket else { return };
        let mut queue = self.queue.lock();
        queue.wakers.remove(&ticket);
        self.count.store(queue.wakers.len(), Ordering::SeqCst);
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    fn wake(&self, most: usize) {
        let mut queue = self.queue.lock();
        let mut woken = Vec::new();
        while woken.len() < most
            && let Some((_, waker)) = queue.wakers.pop_first()
        {
            woken.push(waker);
        }
        self.count.store(queue.wakers.len(), Ordering::SeqCst);
        drop(queue);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Unsent {
    pub(crate) fn new(limit: usize) -> Unsent {
        let (used, waiting) = (AtomicUsize::new(0), Waiting::default());
        Unsent(Arc::new(All { limit, used, waiting, lines: Lines::default() }))
    }

    /// Bytes that wait to be sent now.
    pub(crate) fn bytes(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// For a connection.
    pub(crate) fn line(&self) -> Line {
        let (all, waiting) = (Arc::clone(&self.0), Waiting::default());
        let number = all.lines.next.fetch_add(1, Ordering::Relaxed);
        let (used, place) = (AtomicUsize::new(0), Mutex::default());
        Line(Arc::new(OfLine { all, number, used, waiting, place }))
    }

    /// Counts bytes that many streams may hand over, once, for as long as any of them has them.
    pub(crate) fn share(&self, bytes: Bytes) -> Bytes {
        let len = bytes.len();
        self.0.used.fetch_add(len, Ordering::SeqCst);
        Bytes::from_owner(Shared { bytes, all: Arc::clone(&self.0) })
    }
}

impl All {
    /// What one more connection may have.
    fn half_of_rest(&self) -> usize {
        self.limit.saturating_sub(self.used.load(Ordering::SeqCst)) / 2
    }

    fn gone(&self, bytes: usize) {
        let used = self.used.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        if !self.waiting.is_empty() && used <= 2 * self.limit {
            self.waiting.wake(if used == 0 { usize::MAX } else { WOKEN });
        }
        if self.lines.count.load(Ordering::SeqCst) > 0 && used <= self.limit {
            self.wake_lines(used);
        }
    }

    /// Wakes streams of connections that may have something now.
    fn wake_lines(&self, used: usize) {
        let mut woken = Vec::new();
        let mut lines = self.lines.waiting.lock();
        while woken.len() < WOKEN
            && let Some(last) = lines.last_entry()
            && last.key().0 >= used
        {
            // Let go of when nothing is locked: the last one to have it takes it off the list.
            if let Some(line) = last.remove().upgrade() {
                *line.place.lock() = None;
                woken.push(line);
            }
        }
        self.lines.count.store(lines.len(), Ordering::SeqCst);
        drop(lines);
        for line in &woken {
            let rest = line.rest();
            line.waiting.wake((1 + rest / PIECE_BYTES).min(WOKEN));
            if !line.waiting.is_empty() {
                line.listen();
            }
        }
    }
}

impl OfLine {
    /// What else the connection may have.
    fn rest(&self) -> usize {
        self.all.half_of_rest().saturating_sub(self.used.load(Ordering::SeqCst))
    }

    /// Waits for what others have on the way: until so much of it is gone that there is something for
    /// this connection beyond what it has now.
    fn listen(self: &Arc<Self>) {
        let mut lines = self.all.lines.waiting.lock();
        let own = self.used.load(Ordering::SeqCst);
        let most = self.all.limit.checked_sub(2 * (own + SMALL_BYTES));
        let place = most.map(|most| (most, self.number));
        let before = std::mem::replace(&mut *self.place.lock(), place);
        if before == place {
            return;
        }
        if let Some(before) = before {
            lines.remove(&before);
        }
        if let Some(place) = place {
            lines.insert(place, Arc::downgrade(self));
        }
        self.all.lines.count.store(lines.len(), Ordering::SeqCst);
    }

    fn gone(&self, bytes: usize) {
        let used = self.used.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        if self.waiting.is_empty() {
            return;
        }
        let rest = self.rest();
        if used == 0 {
            self.waiting.wake(usize::MAX);
        } else if rest >= SMALL_BYTES && rest >= used {
            self.waiting.wake((1 + rest / PIECE_BYTES).min(WOKEN));
        }
    }
}

impl Drop for OfLine {
    fn drop(&mut self) {
        if let Some(place) = self.place.get_mut().take() {
            let mut lines = self.all.lines.waiting.lock();
            lines.remove(&place);
            self.all.lines.count.store(lines.len(), Ordering::SeqCst);
        }
    }
}

impl Line {
    /// For a stream.
    pub(crate) fn sending(&self) -> Sending {
        let (line, waker) = (Arc::clone(&self.0), Mutex::default());
        let account = OfStream { line, used: AtomicUsize::new(0), waker };
        Sending { account: Arc::new(account), of_line: None, of_all: None }
    }
}

/// Room for an answer that is being made; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    line: Arc<OfLine>,
    bytes: usize,
}

impl Line {
    /// Waits until an answer of so many bytes may be made. As for a large event: within the half, or alone
    /// on the connection.
    pub(crate) async fn reserve(&self, bytes: usize) -> Reserved {
        let mut sending = self.sending();
        let line = Arc::clone(&self.0);
        poll_fn(|cx| {
            ready!(sending.poll_large(cx, bytes));
            // In one step with the look, as far as this task goes; who is beside it may be over by one.
            line.used.fetch_add(bytes, Ordering::SeqCst);
            line.all.used.fetch_add(bytes, Ordering::SeqCst);
            Poll::Ready(())
        })
        .await;
        Reserved { line, bytes }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.line.all.gone(self.bytes);
        self.line.gone(self.bytes);
    }
}

impl Sending {
    fn line(&self) -> &OfLine {
        &self.account.line
    }

    /// How much the stream may hand over now, at least [`SMALL_BYTES`].
    pub(crate) fn poll_may(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if let Some(most) = self.may() {
            return Poll::Ready(most);
        }
        *self.account.waker.lock() = Some(cx.waker().clone());
        self.account.line.waiting.wait(&mut self.of_line, cx);
        self.account.line.listen();
        // Something may have gone before we were there to hear of it.
        self.may().map_or(Poll::Pending, Poll::Ready)
    }

    fn may(&self) -> Option<usize> {
        let rest = self.line().rest();
        match self.account.used.load(Ordering::SeqCst) {
            0 => Some(rest.max(SMALL_BYTES)),
            _ => Some(rest).filter(|rest| *rest >= SMALL_BYTES),
        }
    }

    /// Whether it may hand over one event that is larger.
    pub(crate) fn poll_large(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<()> {
        if self.may_large(bytes) {
            return Poll::Ready(());
        }
        self.account.line.waiting.wait(&mut self.of_line, cx);
        self.account.line.all.waiting.wait(&mut self.of_all, cx);
        if self.may_large(bytes) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn may_large(&self, bytes: usize) -> bool {
        let line = self.line();
        let used = line.all.used.load(Ordering::SeqCst);
        let is_alone = line.used.load(Ordering::SeqCst) == 0;
        let fits_alone = bytes <= ALONE_BYTES || used + bytes <= 2 * line.all.limit;
        line.rest() >= bytes || used == 0 || is_alone && fits_alone
    }

    /// Counts bytes that are handed over; `is_shared` where they are counted among those of all.
    pub(crate) fn hand_over(&self, bytes: Bytes, is_shared: bool) -> Bytes {
        let len = bytes.len();
        let of_all = if is_shared { 0 } else { len };
        self.account.used.fetch_add(len, Ordering::SeqCst);
        self.line().used.fetch_add(len, Ordering::SeqCst);
        self.line().all.used.fetch_add(of_all, Ordering::SeqCst);
        Bytes::from_owner(Handed { bytes, of_all, account: Arc::clone(&self.account) })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.account.line.waiting.leave(self.of_line);
        self.account.line.all.waiting.leave(self.of_all);
    }
}

/// Bytes on their way.
struct Handed {
    bytes: Bytes,
    of_all: usize,
    account: Arc<OfStream>,
}

impl AsRef<[u8]> for Handed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let len = self.bytes.len();
        let is_last = self.account.used.fetch_sub(len, Ordering::SeqCst) == len;
        let line = &self.account.line;
        // Of all first: the connection's streams look at what is left there.
        if self.of_all > 0 {
            line.all.gone(self.of_all);
        }
        line.gone(len);
        if is_last {
            let waker = self.account.waker.lock().take();
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

/// Bytes that streams share.
struct Shared {
    bytes: Bytes,
    all: Arc<All>,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.all.gone(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn bytes(len: usize) -> Bytes {
        vec![7; len].into()
    }

    async fn may(sending: &mut Sending) -> usize {
        poll_fn(|cx| sending.poll_may(cx)).await
    }

    /// Hands over as much as it may at a time, for as long as it may.
    async fn fill(sending: &mut Sending, held: &mut Vec<Bytes>) {
        loop {
            let now = poll_fn(|cx| Poll::Ready(sending.poll_may(cx))).await;
            let Poll::Ready(most) = now else { return };
            held.push(sending.hand_over(bytes(most.min(PIECE_BYTES)), false));
        }
    }

    #[tokio::test]
    async fn one_that_takes_nothing_leaves_room_for_others() {
        let unsent = Unsent::new(LIMIT);
        let mut held = Vec::new();
        let lines: Vec<_> = (0..50).map(|_| unsent.line()).collect();
        let mut streams: Vec<_> =
            lines.iter().flat_map(|line| [line.sending(), line.sending()]).collect();
        for (at, stream) in streams.iter_mut().enumerate() {
            let before = unsent.bytes();
            fill(stream, &mut held).await;
            // Of what was left never more than half, and what everybody may have.
            let most = (LIMIT.saturating_sub(before)) / 2 + SMALL_BYTES;
            assert!(unsent.bytes() - before <= most, "{at}");
            assert!(unsent.bytes() > before, "{at}: it may have something");
        }
        assert!(unsent.bytes() <= LIMIT + streams.len() * SMALL_BYTES);
        drop(held);
        assert_eq!(unsent.bytes(), 0);
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_something_has_gone() {
        let unsent = Unsent::new(LIMIT);
        let line = unsent.line();
        let mut held = Vec::new();
        let mut stream = line.sending();
        fill(&mut stream, &mut held).await;
        let mut others: Vec<_> = (0..100).map(|_| line.sending()).collect();
        for other in &mut others {
            fill(other, &mut held).await;
        }
        let waiting = others.into_iter().chain([stream]).map(|mut stream| {
            tokio::spawn(async move {
                let most = may(&mut stream).await;
                drop(stream.hand_over(bytes(most.min(PIECE_BYTES)), false));
            })
        });
        let waiting: Vec<_> = waiting.collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|task| !task.is_finished()));
        for chunk in held {
            drop(chunk);
            tokio::task::yield_now().await;
        }
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(unsent.bytes(), 0);
    }

    /// One that waits for more.
    fn waits(mut sending: Sending) -> tokio::task::JoinHandle<Sending> {
        tokio::spawn(async move {
            may(&mut sending).await;
            sending
        })
    }

    #[tokio::test]
    async fn who_has_nothing_on_the_way_any_more_goes_on_beside_one_that_takes_nothing() {
        let unsent = Unsent::new(LIMIT);
        let line = unsent.line();
        let (stalled, goes) = (line.sending(), line.sending());
        let stalled = stalled.hand_over(bytes(352 << 10), false);
        let first = goes.hand_over(bytes(SMALL_BYTES / 2), false);
        let second = goes.hand_over(bytes(SMALL_BYTES / 2), false);
        let goes = waits(goes);
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!goes.is_finished(), "it has something on the way");
        drop(second);
        tokio::time::timeout(std::time::Duration::from_secs(5), goes).await.unwrap().unwrap();
        drop(stalled);
    }

    #[tokio::test]
    async fn what_others_had_on_the_way_is_for_who_waits_on_another_connection() {
        let unsent = Unsent::new(LIMIT);
        let (line, other) = (unsent.line(), unsent.line());
        let full = other.sending().hand_over(bytes(LIMIT), false);
        let streams = [line.sending(), line.sending()];
        let held = [&streams[0], &streams[1]].map(|it| it.hand_over(bytes(SMALL_BYTES), false));
        let waiting = streams.map(waits);
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|task| !task.is_finished()));
        assert_eq!(unsent.0.lines.waiting.lock().len(), 1);
        drop(full);
        for task in waiting {
            tokio::time::timeout(std::time::Duration::from_secs(5), task).await.unwrap().unwrap();
        }
        // Who goes away is not waited for.
        let full = other.sending().hand_over(bytes(LIMIT), false);
        let sending = line.sending();
        let more = sending.hand_over(bytes(SMALL_BYTES), false);
        let waiting = waits(sending);
        tokio::task::yield_now().await;
        waiting.abort();
        waiting.await.unwrap_err();
        drop((held, more, line));
        assert!(unsent.0.lines.waiting.lock().is_empty());
        drop(full);
        assert_eq!(unsent.bytes(), 0);
    }

    #[tokio::test]
    async fn who_is_alone_on_its_connection_may_have_a_page() {
        let unsent = Unsent::new(LIMIT);
        let (full, mut stream) = (unsent.line().sending(), unsent.line().sending());
        let full = full.hand_over(bytes(2 * LIMIT), false);
        let mut large = async |bytes| poll_fn(|cx| Poll::Ready(stream.poll_large(cx, bytes))).await;
        assert!(large(ALONE_BYTES).await.is_ready());
        assert!(large(ALONE_BYTES + 1).await.is_pending());
        drop(full);
        assert!(large(ALONE_BYTES + 1).await.is_ready());
    }

    #[tokio::test]
    async fn a_large_event_goes_alone_on_its_connection() {
        let unsent = Unsent::new(LIMIT);
        let (line, other) = (unsent.line(), unsent.line());
        let mut stream = line.sending();
        let large = LIMIT + LIMIT / 4;
        poll_fn(|cx| stream.poll_large(cx, large)).await;
        let first = stream.hand_over(bytes(large), false);
        let mut second = other.sending();
        let waiting = tokio::spawn(async move {
            poll_fn(|cx| second.poll_large(cx, large)).await;
            second
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "two of them are more than twice the budget");
        drop(first);
        drop(waiting.await.unwrap());
        // Shared bytes are counted once.
        let shared = unsent.share(bytes(PIECE_BYTES));
        let handed: Vec<_> = (0..9).map(|_| stream.hand_over(shared.clone(), true)).collect();
        assert_eq!(unsent.bytes(), PIECE_BYTES);
        drop((handed, shared));
        assert_eq!(unsent.bytes(), 0);
    }
}
