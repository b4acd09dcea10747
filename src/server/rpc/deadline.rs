//! Deadlines of calls, from the `grpc-timeout` header.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Extensions, HeaderMap};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Timeout, timeout_at};
use tonic::Status;

use crate::server::rpc::status::{self, Failure};

const HEADER: &str = "grpc-timeout";

/// When a call came and how long its client waits; travels as a request extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    came: Instant,
    /// `None` = it waits for ever.
    client: Option<Instant>,
}

impl Deadline {
    /// The client's, or so long after the call came.
    pub(crate) fn or(self, default: Duration) -> Instant {
        self.client.unwrap_or(self.came + default)
    }

    /// The client's.
    pub(crate) fn of_client(self) -> Option<Instant> {
        self.client
    }
}

/// So long after now, for a call whose client cannot say.
pub(crate) fn within(time: Duration) -> Deadline {
    let came = Instant::now();
    Deadline { came, client: came.checked_add(time) }
}

/// Reads the head of a request that has just come.
pub(crate) fn read(headers: &HeaderMap) -> Result<Deadline, Failure> {
    let came = Instant::now();
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(Deadline { came, client: None }) };
    if values.any(|other| other != value) {
        return Err(status::bad_field(HEADER, "is given twice, with two values"));
    }
    match value.to_str().ok().and_then(parse) {
        Some(timeout) => Ok(Deadline { came, client: came.checked_add(timeout) }),
        None => Err(status::bad_field(HEADER, "must be up to 8 digits and one of H M S m u n")),
    }
}

/// When the client's time is over; `None` = it set none.
pub(crate) fn of(extensions: &Extensions) -> Option<Instant> {
    extensions.get().and_then(|deadline: &Deadline| deadline.of_client())
}

/// Bounds a unary call by the client's deadline, or by `default`. What came with the request is kept until
/// its end: the room of a long message is among it. Work that would come too late is not begun.
pub(crate) fn bound<F: Future>(
    extensions: Extensions,
    default: Duration,
    work: impl FnOnce() -> F,
) -> Bounded<F> {
    let deadline = match extensions.get::<Deadline>() {
        Some(deadline) => deadline.or(default),
        None => Instant::now() + default,
    };
    let work = (deadline > Instant::now()).then(|| timeout_at(deadline, work()));
    Bounded { work, _extensions: extensions }
}

pin_project! {
    /// Work with a deadline. Written by hand, as an `async fn` would hold the work twice.
    pub(crate) struct Bounded<F> {
        // Absent where its time was over before.
        #[pin]
        work: Option<Timeout<F>>,
        _extensions: Extensions,
    }
}

impl<T, F: Future<Output = Result<T, Failure>>> Future for Bounded<F> {
    type Output = Result<T, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let done = match self.project().work.as_pin_mut() {
            Some(work) => ready!(work.poll(cx)),
            None => return Poll::Ready(Err(status::deadline().into())),
        };
        Poll::Ready(match done {
            Ok(result) => result.map_err(Status::from),
            Err(_) => Err(status::deadline().into()),
        })
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_has_them() {
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "m", "5", "-1S", "100000000n", "1s", "1é", "+1S"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
