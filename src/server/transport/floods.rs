//! Frames of HTTP/2 that cost more than they say: counted by their heads as they come, so many in a
//! second on one connection.
//!
//! h2 answers one frame after the other and bounds what it keeps of them; what they make us do it does
//! not. A request that is reset as soon as it has begun costs a handler, and a change of the windows a
//! look at every stream. Knows no contents, and changes no byte; a connection on which there is too
//! much is told so by GOAWAY, where no frame is half sent.
//!
//! What is not too much comes in turns: where frames are small and many, a little of them is read at a
//! time, and whoever else is ready comes in between.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Types and flags of frames: RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;
const HEAD_BYTES: usize = 9;
/// What a client says before its first frame.
const PREFACE_BYTES: usize = 24;

/// Steps of a turn: more of them in what was read at once, and the next turn is a short one.
const TURN_STEPS: u32 = 16;
/// What is read in a short turn: about as many requests as that.
const TURN_BYTES: usize = 1 << 10;

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    /// Requests that were begun and reset.
    Resets,
    /// Settings, each of which may change the windows of all streams.
    Settings,
    Pings,
    /// Frames with nothing in them, priorities, windows, and what nobody knows.
    Empty,
}

const ALL: [Flood; 4] = [Flood::Resets, Flood::Settings, Flood::Pings, Flood::Empty];

impl Flood {
    /// For the client and for the log.
    fn words(self) -> &'static str {
        match self {
            Flood::Resets => "too many streams were reset in a short time",
            Flood::Settings => "too many changes of settings in a short time",
            Flood::Pings => "too many pings in a short time",
            Flood::Empty => "too many frames with nothing in them in a short time",
        }
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl Error for Flood {}

/// What h2 says last to a client whose small DATA frames nobody reads: its error does not tell.
const SMALL_FRAMES: &[u8] = b"too_many_data_frames";

/// What ended a connection on which there was too much, whether by us or by h2.
pub(crate) fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let is_calm = |error: &h2::Error| {
        error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    };
    let source = |error: &&'a (dyn Error + 'static)| (*error).source();
    std::iter::successors(Some(error), source)
        .find(|it| it.is::<Flood>() || it.downcast_ref().is_some_and(is_calm))
}

/// Whether it is held against new connections from there. What one of those exceeds only because there
/// was a flood before is not, or whoever is suspect once would be for ever.
pub(crate) fn is_held_against(cause: &(dyn Error + 'static), was_suspect: bool) -> bool {
    !(was_suspect && cause.is::<Flood>())
}

/// So many at once, and so many more a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Budget {
    at_once: u32,
    per_second: u32,
}

/// What one connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budgets([Budget; ALL.len()]);

impl Budgets {
    /// Whoever may have so many streams open may give up all of them once a second, and ten times as
    /// many in one. Of the others only an attack needs as many: clients that measure the way to here
    /// ping once a round trip, some say of each frame that they took it. Where a flood came from lately there
    /// is no more at once than in a second, and of settings a tenth.
    pub(crate) fn new(streams: u32, is_suspect: bool) -> Budgets {
        let streams = streams.max(100);
        let budget = |at_once, per_second, of_suspect| Budget {
            at_once: if is_suspect { of_suspect } else { at_once },
            per_second,
        };
        Budgets([
            budget(streams.saturating_mul(10), streams, streams),
            budget(100, 1, 10),
            budget(100_000, 20_000, 20_000),
            budget(200_000, 50_000, 50_000),
        ])
    }
}

/// What of a budget was spent. The clock is looked at only when it seems to be all of it.
#[derive(Clone, Copy, Debug)]
struct Spent {
    count: u32,
    since: Instant,
}

impl Spent {
    /// Whether one more is too many.
    fn is_over(&mut self, budget: Budget) -> bool {
        self.count += 1;
        self.count > budget.at_once && self.is_over_by(budget, Instant::now())
    }

    #[cold]
    fn is_over_by(&mut self, budget: Budget, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        let given = passed.as_millis() * u128::from(budget.per_second) / 1_000;
        let given = u32::try_from(given).unwrap_or(u32::MAX);
        // Parts of one are not lost: the time that they took stays.
        if given > 0 {
            self.count = self.count.saturating_sub(given);
            let paid = Duration::from_secs(1) * given.min(1 << 20) / budget.per_second;
            self.since = if self.count == 0 { now } else { (self.since + paid).min(now) };
        }
        self.count > budget.at_once
    }
}

/// Reads frames by their heads.
#[derive(Debug)]
struct Meter {
    budgets: Budgets,
    spent: [Spent; ALL.len()],
    head: [u8; HEAD_BYTES],
    /// Of the head of the next frame.
    have: usize,
    /// Up to it.
    skip: usize,
    /// The newest stream that was begun.
    newest: u32,
    /// The stream of the frame before.
    stream: u32,
    /// Frames that something has to be done for, since somebody set it back: all but more of the body
    /// that came before.
    steps: u32,
}

impl Meter {
    fn new(budgets: Budgets) -> Meter {
        let spent = [Spent { count: 0, since: Instant::now() }; ALL.len()];
        Meter {
            budgets,
            spent,
            head: [0; HEAD_BYTES],
            have: 0,
            skip: PREFACE_BYTES,
            newest: 0,
            stream: 0,
            steps: 0,
        }
    }

    fn see(&mut self, mut bytes: &[u8]) -> Option<Flood> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let step = self.skip.min(bytes.len());
                self.skip -= step;
                bytes = &bytes[step..];
                continue;
            }
            let step = (HEAD_BYTES - self.have).min(bytes.len());
            self.head[self.have..self.have + step].copy_from_slice(&bytes[..step]);
            self.have += step;
            bytes = &bytes[step..];
            if self.have == HEAD_BYTES {
                self.have = 0;
                if let Some(flood) = self.count() {
                    return Some(flood);
                }
            }
        }
        None
    }

    /// Counts the frame whose head is whole.
    fn count(&mut self) -> Option<Flood> {
        let [a, b, c, kind, flags, d, e, f, g] = self.head;
        let len = u32::from_be_bytes([0, a, b, c]);
        self.skip = len as usize;
        let stream = u32::from_be_bytes([d, e, f, g]) & !(1 << 31);
        let before = std::mem::replace(&mut self.stream, stream);
        if kind != DATA || stream != before {
            self.steps += 1;
        }
        let flood = match kind {
            HEADERS => {
                self.newest = self.newest.max(stream);
                return None;
            }
            DATA if len > 0 || flags & END_STREAM != 0 => return None,
            SETTINGS if flags & ACK != 0 => return None,
            SETTINGS => Flood::Settings,
            RST_STREAM => Flood::Resets,
            PING => Flood::Pings,
            _ => Flood::Empty,
        };
        let at = flood as usize;
        self.spent[at].is_over(self.budgets.0[at]).then_some(flood)
    }
}

/// What both ends know.
#[derive(Debug, Default)]
struct Found {
    /// 0 = nothing, else one more than its place among all.
    flood: AtomicU8,
    newest: AtomicU32,
    /// Some frame was written in part.
    is_midway: AtomicBool,
    /// h2 ended it over small frames that we did not come to read.
    is_small: AtomicBool,
}

/// A connection's bytes, whose frames are counted. Once there are too many nothing more comes.
#[derive(Debug)]
pub(crate) struct Metered<T> {
    inner: T,
    meter: Meter,
    found: Arc<Found>,
    turn: Turn,
}

/// How much is read next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    /// A little, not what there is.
    is_short: bool,
    /// Nothing before the others.
    is_over: bool,
}

impl Turn {
    /// The one after this, in which so many steps were read, and all that it allows where it was full.
    fn next(self, steps: u32, is_full: bool) -> Turn {
        let is_heavy = steps > TURN_STEPS;
        // Small ones that do not fill it, or few that do, are no crowd.
        let is_short = if self.is_short { is_full && steps > 2 } else { is_heavy };
        Turn { is_short, is_over: is_short && is_full }
    }
}

/// Who asks whether there were too many.
#[derive(Debug)]
pub(crate) struct Sentry(Arc<Found>);

/// Counts what comes by `inner`.
pub(crate) fn metered<T>(inner: T, budgets: Budgets) -> (Metered<T>, Sentry) {
    let found = Arc::<Found>::default();
    let meter = Meter::new(budgets);
    let metered = Metered { inner, meter, found: Arc::clone(&found), turn: Turn::default() };
    (metered, Sentry(found))
}

impl Found {
    /// Frames are written: the last of them may be the end.
    fn written(&self, bytes: &[u8]) {
        self.is_midway.store(true, Ordering::Relaxed);
        if bytes.ends_with(SMALL_FRAMES) {
            self.is_small.store(true, Ordering::Relaxed);
        }
    }
}

impl Sentry {
    /// Whether h2 ended the connection over small frames that we did not come to read. That is no flood:
    /// what sent them is a client, as long as we are fast enough.
    pub(crate) fn is_small_frames(&self) -> bool {
        self.0.is_small.load(Ordering::Relaxed)
    }

    /// What there was too much of, if there was.
    pub(crate) fn flood(&self) -> Option<Flood> {
        let at = self.0.flood.load(Ordering::Relaxed).checked_sub(1)?;
        ALL.get(usize::from(at)).copied()
    }

    /// The frame that says so; `None` where it would come amidst another one.
    pub(crate) fn last_words(&self, flood: Flood) -> Option<Vec<u8>> {
        if self.0.is_midway.load(Ordering::Relaxed) {
            return None;
        }
        let words = flood.words().as_bytes();
        let len = u32::try_from(8 + words.len()).ok()?.to_be_bytes();
        let mut frame = len[1..].to_vec();
        frame.extend([GOAWAY, 0]);
        frame.extend(0u32.to_be_bytes());
        frame.extend(self.0.newest.load(Ordering::Relaxed).to_be_bytes());
        frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend(words);
        Some(frame)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.found.flood.load(Ordering::Relaxed) != 0 {
            return Poll::Pending;
        }
        if std::mem::take(&mut this.turn.is_over) {
            // The scheduler puts a task that wakes itself behind all others.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let is_full = if this.turn.is_short {
            let most = TURN_BYTES.min(buffer.remaining());
            let mut little = ReadBuf::new(buffer.initialize_unfilled_to(most));
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut little))?;
            let read = little.filled().len();
            buffer.advance(read);
            read == most
        } else {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
            buffer.remaining() == 0
        };
        let newest = this.meter.newest;
        if let Some(flood) = this.meter.see(&buffer.filled()[before..]) {
            buffer.set_filled(before);
            this.found.newest.store(newest, Ordering::Relaxed);
            this.found.flood.store(1 + flood as u8, Ordering::Relaxed);
            // Whoever runs the connection looks when it rests.
            return Poll::Pending;
        }
        this.turn = this.turn.next(std::mem::take(&mut this.meter.steps), is_full);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.found.written(bytes);
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    /// h2 comes here when all frames that it had begun are written whole, and not before.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.found.is_midway.store(false, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.found.written(slices.last().map_or(&[], |slice| slice));
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, len: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(len).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.resize(HEAD_BYTES + len, 7);
        bytes
    }

    fn seen(frames: &[Vec<u8>], cut: usize) -> (Option<Flood>, Meter) {
        let mut meter = Meter::new(Budgets::new(100, true));
        let bytes = [vec![b'P'; PREFACE_BYTES], frames.concat()].concat();
        let flood = bytes.chunks(cut).find_map(|chunk| meter.see(chunk));
        (flood, meter)
    }

    #[test]
    fn frames_are_counted_by_kind_however_they_are_cut() {
        let window = 8;
        let all = [
            frame(SETTINGS, 0, 0, 18),
            frame(SETTINGS, ACK, 0, 0),
            frame(HEADERS, 4, 1, 300),
            frame(DATA, 0, 1, 70_000),
            frame(DATA, END_STREAM, 1, 0),
            frame(DATA, 0, 1, 0),
            frame(HEADERS, 4, 7 | 1 << 31, 2),
            frame(RST_STREAM, 0, 7, 4),
            frame(window, 0, 0, 4),
            frame(PING, 0, 0, 8),
            frame(99, 0, 0, 3),
        ];
        for cut in [1, 2, 3, 8, 9, 10, 24, 25, 4_096, 1 << 20] {
            let (flood, meter) = seen(&all, cut);
            assert_eq!(flood, None);
            assert_eq!(meter.spent.map(|spent| spent.count), [1, 1, 1, 3], "{cut}");
            assert_eq!((meter.newest, meter.have, meter.skip), (7, 0, 0), "{cut}");
        }
    }

    #[test]
    fn what_is_more_than_the_budget_is_a_flood() {
        for (kind, len, flood) in [
            (RST_STREAM, 4, Flood::Resets),
            (SETTINGS, 6, Flood::Settings),
            (PING, 8, Flood::Pings),
            (DATA, 0, Flood::Empty),
        ] {
            let at_once = Budgets::new(100, true).0[flood as usize].at_once as usize;
            assert_eq!(seen(&vec![frame(kind, 0, 1, len); at_once], 4_096).0, None, "{flood}");
            // While it is read time passes, and more of it is given.
            let frames = vec![frame(kind, 0, 1, len); 3 * at_once + 1_000];
            assert_eq!(seen(&frames, 4_096).0, Some(flood), "{flood}");
        }
    }

    #[test]
    fn a_suspect_may_give_up_its_streams_and_is_not_held_to_it_for_ever() {
        let resets = |count| vec![frame(RST_STREAM, 0, 1, 4); count];
        assert_eq!(seen(&resets(100), 4_096).0, None);
        assert_eq!(seen(&resets(1_000), 4_096).0, Some(Flood::Resets));
        assert!(is_held_against(&Flood::Resets, false));
        assert!(!is_held_against(&Flood::Resets, true));
        assert!(is_held_against(&Flood::Settings, false));
        assert!(!is_held_against(&Flood::Settings, true));
    }

    /// What h2 says of these frames when nobody reads what they bring.
    async fn of_h2(frames: &[Vec<u8>]) -> (h2::Error, Sentry) {
        use tokio::io::AsyncWriteExt;
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let bytes = [preface, frame(SETTINGS, 0, 0, 0), frames.concat()].concat();
        far.write_all(&bytes).await.unwrap();
        let (metered, sentry) = metered(near, Budgets::new(100, false));
        let mut connection = h2::server::handshake(metered).await.unwrap();
        let mut held = Vec::new();
        loop {
            match connection.accept().await.unwrap() {
                Ok(request) => held.push(request),
                Err(error) => return (error, sentry),
            }
        }
    }

    #[tokio::test]
    async fn small_frames_that_we_did_not_read_are_held_against_nobody() {
        let begin = |stream| {
            let mut begin = frame(HEADERS, 4, stream, 0);
            begin[2] = 3;
            // POST, /, http: RFC 7541 appendix A.
            [begin, vec![0x83, 0x84, 0x86]].concat()
        };
        let small = std::iter::repeat_n(frame(DATA, 0, 1, 1), 1_000);
        let (error, sentry) =
            of_h2(&std::iter::once(begin(1)).chain(small).collect::<Vec<_>>()).await;
        assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{error}");
        assert!(cause(&error).is_some() && sentry.is_small_frames());
        // The control: another verdict of h2, and ours.
        let resets = (0..100).map(|at| [begin(2 * at + 1), frame(RST_STREAM, 0, 2 * at + 1, 4)]);
        let (error, sentry) = of_h2(&resets.flatten().collect::<Vec<_>>()).await;
        assert!(cause(&error).is_some() && !sentry.is_small_frames(), "{error}");
        assert!(cause(&Flood::Pings).is_some());
    }

    /// What comes at once of these frames, until there are no more: how many bytes each time, and how often
    /// others came in between.
    async fn turns(frames: &[u8]) -> (Vec<usize>, usize) {
        use std::future::poll_fn;
        use tokio::io::AsyncWriteExt;
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut metered, _sentry) = metered(near, Budgets::new(100, false));
        far.write_all(&[&[0; PREFACE_BYTES], frames].concat()).await.unwrap();
        let (mut room, mut sizes, mut left) = (vec![0; 8 << 10], Vec::new(), 0);
        while sizes.iter().sum::<usize>() < PREFACE_BYTES + frames.len() {
            let mut is_again = false;
            let read = poll_fn(|cx| {
                let mut buffer = ReadBuf::new(&mut room);
                let polled = Pin::new(&mut metered).poll_read(cx, &mut buffer);
                if polled.is_pending() {
                    assert!(!std::mem::replace(&mut is_again, true), "it wakes itself, once");
                }
                polled.map_ok(|()| buffer.filled().len())
            });
            sizes.push(read.await.unwrap());
            left += usize::from(is_again);
        }
        (sizes, left)
    }

    #[tokio::test]
    async fn many_small_frames_come_in_turns_and_a_body_does_not() {
        let (sizes, left) = turns(&frame(PING, 0, 0, 8).repeat(1_000)).await;
        assert_eq!(sizes[0], 8 << 10);
        assert!(sizes[1..].iter().all(|size| *size <= TURN_BYTES), "{sizes:?}");
        assert_eq!(left, sizes.len() - 1);
        let bodies = [frame(DATA, 0, 1, 100).repeat(1_000), frame(DATA, 0, 1, 40_000)].concat();
        let (sizes, left) = turns(&bodies).await;
        assert_eq!((sizes.len(), left), (bodies.len().div_ceil(8 << 10), 0));
        // A crowd, and then one body.
        let crowd = [frame(PING, 0, 0, 8).repeat(1_000), frame(DATA, 0, 1, 100_000)].concat();
        let (sizes, _) = turns(&crowd).await;
        assert!(sizes[sizes.len() - 5..].contains(&(8 << 10)), "{sizes:?}");
    }

    #[test]
    fn a_budget_is_given_again_by_time_and_not_beyond_itself() {
        let budget = Budget { at_once: 10, per_second: 4 };
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut spent = Spent { count: 11, since: begun };
        assert!(spent.is_over_by(budget, at(240)));
        assert!(!spent.is_over_by(budget, at(250)));
        // Looking often loses nothing of what is on its way.
        for ms in (260..1_000).step_by(10) {
            spent.is_over_by(budget, at(ms));
        }
        assert_eq!(spent.count, 8);
        assert!(!spent.is_over_by(budget, at(60_000)));
        assert_eq!(spent.count, 0);
        spent.count = 11;
        assert!(spent.is_over_by(budget, at(60_100)), "an hour of rest is no credit");
    }

    #[tokio::test]
    async fn the_last_words_come_between_frames_or_not_at_all() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut metered, sentry) = metered(near, Budgets::new(100, true));
        let preface = vec![0; PREFACE_BYTES];
        let frames = [frame(HEADERS, 4, 5, 10), frame(RST_STREAM, 0, 5, 4)].concat();
        far.write_all(&[preface, frames].concat()).await.unwrap();
        let mut read = vec![0; 1 << 16];
        assert!(metered.read(&mut read).await.unwrap() > 0);
        assert_eq!(sentry.flood(), None);
        far.write_all(&frame(RST_STREAM, 0, 5, 4).repeat(1_000)).await.unwrap();
        let wait = tokio::time::timeout(Duration::from_millis(50), metered.read(&mut read));
        assert!(wait.await.is_err(), "nothing of a flood is passed on");
        assert_eq!(sentry.flood(), Some(Flood::Resets));
        metered.write_all(b"half of a").await.unwrap();
        assert_eq!(sentry.last_words(Flood::Resets), None);
        metered.flush().await.unwrap();
        let words = sentry.last_words(Flood::Resets).unwrap();
        assert_eq!(words[3..9], [GOAWAY, 0, 0, 0, 0, 0]);
        assert_eq!(words[9..17], [0, 0, 0, 5, 0, 0, 0, 11]);
        assert_eq!(&words[17..], Flood::Resets.words().as_bytes());
        assert_eq!(usize::from(words[2]), words.len() - HEAD_BYTES);
    }
}
