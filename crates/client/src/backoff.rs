//! How long to wait before the next attempt.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::Error;

/// What a proxy may ask for, whatever its client has set.
const LONGEST_OF_PROXY: Duration = Duration::from_secs(60);
/// As good as for ever: thirty years, as in tokio's own timers.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Exponential delays with jitter, so that clients cut off together do not come back together.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    delays: ExponentialBackoff,
    /// A delay was taken since it began.
    has_begun: bool,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(10))
    }
}

impl Backoff {
    /// Delays that double from `shortest` to `longest`, each lengthened at random by up to itself.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(shortest)
            .with_max_delay(longest)
            .with_jitter()
            .without_max_times();
        Backoff { builder, delays: builder.build(), has_begun: false, longest }
    }

    /// The next delay; on top of what the server asked for, so that its hint is honoured and yet
    /// not everyone comes back at the same moment.
    pub fn next(&mut self, at_least: Option<Duration>) -> Duration {
        self.has_begun = true;
        let delay = self.delays.next().unwrap_or(self.longest);
        delay.saturating_add(at_least.unwrap_or_default())
    }

    /// The next delay after this error. What the server asks for (`RetryInfo`) is waited for whole;
    /// what a proxy in its place asks for (`Retry-After`), up to a minute, or the longest delay
    /// where that is more.
    pub fn next_after(&mut self, error: &Error) -> Duration {
        self.after(error, error.retry_delay())
    }

    pub(super) fn after(&mut self, error: &Error, at_least: Option<Duration>) -> Duration {
        let is_of_proxy = error.http_status().is_some();
        let most = if is_of_proxy { LONGEST_OF_PROXY.max(self.longest) } else { Duration::MAX };
        self.next(at_least.map(|wait| wait.min(most)))
    }

    /// Begins again with the shortest: an attempt got somewhere.
    pub fn reset(&mut self) {
        // It draws a random number, and a watch does this for each event.
        if std::mem::take(&mut self.has_begun) {
            self.delays = self.builder.build();
        }
    }
}

/// `wait` from `start` on, however long that is: a wait without an end is a legal setting.
pub(super) fn after(start: Instant, wait: Duration) -> Instant {
    start.checked_add(wait.min(LONGEST_WAIT)).unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intermediary::Foreign;

    #[test]
    fn delays_double_with_jitter_and_stay_bounded() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(1_000));
        for _ in 0..2 {
            for low in [100, 200, 400, 800] {
                let delay = backoff.next(None);
                assert!(delay >= ms(low) && delay <= ms(2 * low), "{low}: {delay:?}");
            }
            for _ in 0..100 {
                let delay = backoff.next(None);
                assert!(delay >= ms(1_000) && delay <= ms(2_000), "{delay:?}");
            }
            backoff.reset();
        }
    }

    #[test]
    fn jitter_differs_between_clients() {
        let delays: std::collections::HashSet<_> =
            (0..50).map(|_| Backoff::default().next(None)).collect();
        assert!(delays.len() > 10, "{delays:?}");
    }

    #[test]
    fn a_hint_is_a_lower_bound() {
        let hint = Duration::from_secs(3);
        let delay = Backoff::default().next(Some(hint));
        assert!(delay > hint && delay <= hint + Duration::from_millis(200), "{delay:?}");
        assert!(Backoff::default().next(Some(Duration::MAX)) == Duration::MAX);
    }

    #[test]
    fn a_proxy_does_not_say_for_how_long_its_client_is_away() {
        use tonic::codegen::http::{HeaderMap, HeaderValue, StatusCode, header};
        let second = Duration::from_secs(1);
        let answered = |seconds: u64| {
            let value = HeaderValue::from(seconds);
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value)]);
            let foreign = Foreign::answer(StatusCode::SERVICE_UNAVAILABLE, &headers);
            Error::from_status(tonic::Status::from_error(Box::new(foreign)))
        };
        for (asked, longest, least) in
            [(3_600, 10, 60), (3_600, 600, 600), (45, 10, 45), (60, 10, 60), (5, 10, 5)]
        {
            let mut backoff = Backoff::new(second / 10, second * longest);
            let (error, least) = (answered(asked), second * least);
            assert_eq!(error.retry_delay(), Some(second * u32::try_from(asked).unwrap()));
            let delay = backoff.next_after(&error);
            assert!(delay >= least && delay <= least + second, "{asked} {longest}: {delay:?}");
        }
        // The server itself may be told to keep its clients away for an hour.
        let mut details = tonic_types::ErrorDetails::new();
        details.set_retry_info(Some(second * 3_600));
        let status = <tonic::Status as tonic_types::StatusExt>::with_error_details(
            tonic::Code::Unavailable,
            "stopping",
            details,
        );
        assert!(Backoff::default().next_after(&Error::from_status(status)) >= second * 3_600);
    }

    #[test]
    fn a_wait_without_an_end_is_no_overflow() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(after(now, second), now + second);
        assert!(after(now, Duration::MAX) > now + second * 1_000_000_000 / 2);
    }
}
