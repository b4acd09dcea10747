//! The `date` of answers, RFC 9110, section 6.6.1.
//!
//! hyper's own panics, and ends the connection with all its streams, where the clock stands before 1970 or
//! beyond year 9999. Over HTTP/2 it need not be asked, and whoever has no reasonable clock sends no date. Over
//! HTTP/1.1 hyper works it out whether or not it is wanted: such connections are told so and closed.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use ::http::{HeaderMap, HeaderValue, header};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::server::transport::linger;
use crate::server::transport::preface::Begun;

/// 10000-01-01T00:00:00Z: from here on a year has too many digits.
const END_SECONDS: u64 = 253_402_300_800;

/// Adds the date of now, where an answer has none.
pub(crate) fn add(headers: &mut HeaderMap) {
    if let Some(date) = cached(SystemTime::now()) {
        headers.entry(header::DATE).or_insert(date);
    }
}

/// Whether a date can be written at all now.
pub(crate) fn can_be_written() -> bool {
    second_of(SystemTime::now()).is_some()
}

/// What HTTP/1.1 is answered meanwhile.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\ncontent-length: 186\r\nretry-after: 5\r\nconnection: close\r\n\r\n\
    {\"code\":\"UNAVAILABLE\",\"reason\":\"CLOCK_OUT_OF_RANGE\",\"message\":\"the server's clock stands \
    before 1970 or beyond year 9999: HTTP/1.1 is answered when it is set; gRPC over HTTP/2 goes on\"}\n";
/// Tells a connection of HTTP/1.1 that there is no date, and closes it.
pub(crate) async fn refuse(stream: Begun, stop: &CancellationToken) {
    let mut stream = stream.into_inner();
    // Whoever has gone is not told.
    if stream.write_all(REFUSAL).await.is_ok() {
        linger::close(stream, stop).await;
    }
}

/// Written once a second by each thread.
fn cached(now: SystemTime) -> Option<HeaderValue> {
    thread_local! {
        static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
    }
    let second = second_of(now)?;
    LAST.with_borrow_mut(|last| match last {
        Some((at, date)) if *at == second => Some(date.clone()),
        _ => {
            let date = HeaderValue::try_from(httpdate::fmt_http_date(now)).ok()?;
            *last = Some((second, date.clone()));
            Some(date)
        }
    })
}

/// Seconds since 1970, where a date can be written of them.
fn second_of(now: SystemTime) -> Option<u64> {
    let second = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (second < END_SECONDS).then_some(second)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }

    #[test]
    fn a_date_is_written_as_rfc_9110_has_it_and_left_out_where_there_is_none() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let text = |now| cached(now).map(|date| date.to_str().unwrap().to_owned());
        assert_eq!(text(at(784_111_777)).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(text(at(0)).as_deref(), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        let last = at(END_SECONDS - 1);
        assert_eq!(text(last).as_deref(), Some("Fri, 31 Dec 9999 23:59:59 GMT"));
        assert_eq!(text(at(END_SECONDS)), None);
        assert_eq!(text(UNIX_EPOCH - Duration::from_nanos(1)), None);
        assert_eq!(text(UNIX_EPOCH - Duration::from_secs(1 << 40)), None);
    }
}
