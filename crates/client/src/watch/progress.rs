//! What the server is told of a watch's work: how many of its events are done.
//!
//! For the server's figures alone, so nothing waits for it and nothing fails by it. One report at a time,
//! about one a second at most. A report runs as a task of its own: who works on an event for an hour
//! does not poll the watch meanwhile.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, timeout};

use crate::Client;
use tailmark_wire::feed_v1 as pb;

/// Between two reports.
const EVERY: Duration = Duration::from_secs(1);
/// For one report.
const PATIENCE: Duration = Duration::from_secs(5);
/// For the last one, with whoever ends the program waiting.
const LAST: Duration = Duration::from_secs(1);

/// How a report went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Taken,
    Failed,
    Stale,
}

pub(super) struct Progress {
    client: Client,
    /// What the server calls the stream; `None` where there is none, or it does not want to hear.
    stream: Option<String>,
    /// Events that were handed over of this stream.
    handed: u64,
    /// How many of them are done.
    done: u64,
    /// What the server knows of.
    reported: u64,
    /// The report under way, and what it tells.
    under_way: Option<(u64, JoinHandle<Told>)>,
    /// The stream was of a server that has stopped since.
    is_stale: bool,
    /// Runs out when the next one may begin.
    pause: Pin<Box<Sleep>>,
}

impl Progress {
    pub(super) fn new(client: Client) -> Progress {
        let pause = Box::pin(tokio::time::sleep(EVERY));
        Progress {
            client,
            stream: None,
            handed: 0,
            done: 0,
            reported: 0,
            under_way: None,
            is_stale: false,
            pause,
        }
    }

    /// A stream begins, which the server calls so.
    pub(super) fn opened(&mut self, stream: Option<String>) {
        (self.stream, self.is_stale) = (stream, false);
        (self.handed, self.done, self.reported, self.under_way) = (0, 0, 0, None);
    }

    /// An event is handed over.
    pub(super) fn handed_over(&mut self) {
        self.handed += 1;
    }

    /// The next item is asked for, so all before it are done. Registers for the time when that can be told.
    pub(super) fn asked(&mut self, cx: &mut Context<'_>) {
        self.done = self.handed;
        self.settle();
        while self.is_untold() && self.pause.as_mut().poll(cx).is_ready() {
            self.begin();
            self.pause.as_mut().reset(Instant::now() + EVERY);
        }
    }

    /// Nothing is asked for any more.
    pub(super) async fn finish(&mut self, last_is_done: bool) {
        if last_is_done {
            self.done = self.handed;
        }
        let last = async {
            // The one that is under way tells of less.
            for _ in 0..2 {
                if self.is_untold() {
                    self.begin();
                }
                if let Some((done, report)) = &mut self.under_way {
                    let (done, told) = (*done, report.await.unwrap_or(Told::Failed));
                    self.told(done, told);
                }
            }
        };
        // Nobody who wants to end waits for figures.
        let _ = timeout(LAST, last).await;
    }

    fn is_untold(&self) -> bool {
        self.stream.is_some() && self.done != self.reported
    }

    fn begin(&mut self) {
        if let (Some(stream), None) = (&self.stream, &self.under_way) {
            let message = pb::ReportProgressRequest { watch: stream.clone(), done: self.done };
            let client = self.client.clone();
            let report = tokio::spawn(async move {
                let call = client
                    .read(message, async |mut feed, message| feed.report_progress(message).await);
                match timeout(PATIENCE, call).await {
                    Ok(Ok(result)) if result.of_earlier_run => Told::Stale,
                    Ok(Ok(_)) => Told::Taken,
                    _ => Told::Failed,
                }
            });
            self.under_way = Some((self.done, report));
        }
    }

    fn settle(&mut self) {
        let Some((done, report)) = &mut self.under_way else { return };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(told) = Pin::new(report).poll(&mut cx) {
            let (done, told) = (*done, told.unwrap_or(Told::Failed));
            self.told(done, told);
        }
    }

    fn told(&mut self, done: u64, told: Told) {
        self.under_way = None;
        self.is_stale |= told == Told::Stale;
        if told == Told::Taken {
            self.reported = done;
        }
    }

    /// Whether the stream is over for a server that was started anew, whatever of it lies here; true once.
    pub(super) fn take_stale(&mut self) -> bool {
        let is_stale = std::mem::take(&mut self.is_stale);
        if is_stale {
            self.stream = None;
        }
        is_stale
    }
}
