//! How long a client may say nothing on a stream on which it is the one who speaks.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use crate::server::Options;
use crate::server::rpc::status::{self, Failure};

/// The silence of one client. Being heard costs no look at the clock, so what is measured is from when
/// nothing more was there.
#[derive(Debug)]
pub(crate) struct Silence {
    /// How long it may last now.
    limit: Option<Duration>,
    /// The same once something was said.
    next: Option<Duration>,
    retry_delay: Duration,
    /// Absent while it speaks.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    /// Of a stream that has to be begun in time, and not to be left lying.
    pub(crate) fn new(options: &Options) -> Silence {
        Silence {
            limit: options.first_message_timeout,
            next: options.stream_idle_timeout,
            retry_delay: options.retry_delay,
            since: Some(Instant::now()),
            timer: None,
        }
    }

    /// Of one that may be silent for ever.
    pub(crate) fn never() -> Silence {
        Silence { limit: None, next: None, retry_delay: Duration::ZERO, since: None, timer: None }
    }

    /// Something came, or it is not the client who is waited for.
    pub(crate) fn heard(&mut self) {
        (self.limit, self.since) = (self.next, None);
    }

    /// To be asked while nothing is there: what the stream ends with when that lasts too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let Some(limit) = self.limit else { return Poll::Pending };
        let at = *self.since.get_or_insert_with(Instant::now) + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            // It was set for an earlier silence, and moves on when that would have been over.
            if timer.deadline() >= at {
                return Poll::Ready(status::stream_idle(limit, self.retry_delay));
            }
            timer.as_mut().reset(at);
        }
    }
}

/// What a client sends, until it is silent for too long.
#[derive(Debug)]
pub(crate) struct Heard<S> {
    /// Absent when it is over.
    messages: Option<S>,
    silence: Silence,
}

impl<S> Heard<S> {
    pub(crate) fn new(messages: S, options: &Options) -> Heard<S> {
        Heard { messages: Some(messages), silence: Silence::new(options) }
    }
}

impl<T, S: Stream<Item = Result<T, Status>> + Unpin> Stream for Heard<S> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
        if let Poll::Ready(message) = Pin::new(messages).poll_next(cx) {
            self.silence.heard();
            return Poll::Ready(message);
        }
        let failure = ready!(self.silence.poll(cx));
        self.messages = None;
        Poll::Ready(Some(Err(failure.into())))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn silence() -> Silence {
        Silence::new(&Options {
            first_message_timeout: Some(Duration::from_secs(10)),
            stream_idle_timeout: Some(Duration::from_secs(60)),
            ..Options::default()
        })
    }

    async fn ends_after(silence: &mut Silence) -> Duration {
        let begun = Instant::now();
        poll_fn(|cx| silence.poll(cx)).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_message_and_the_others_have_their_times() {
        assert_eq!(ends_after(&mut silence()).await, Duration::from_secs(10));
        let mut silence = silence();
        for _ in 0..10 {
            let short = tokio::time::timeout(Duration::from_secs(9), ends_after(&mut silence));
            assert!(short.await.is_err());
            silence.heard();
        }
        assert_eq!(ends_after(&mut silence).await, Duration::from_secs(60));
        let mut never = Silence::never();
        let long = tokio::time::timeout(Duration::from_secs(1 << 30), ends_after(&mut never));
        assert!(long.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_becomes_shorter_counts() {
        let mut silence = Silence::new(&Options {
            first_message_timeout: Some(Duration::from_secs(200)),
            stream_idle_timeout: Some(Duration::from_secs(5)),
            ..Options::default()
        });
        let long = tokio::time::timeout(Duration::from_secs(100), ends_after(&mut silence));
        assert!(long.await.is_err());
        silence.heard();
        assert_eq!(ends_after(&mut silence).await, Duration::from_secs(5));
    }
}
