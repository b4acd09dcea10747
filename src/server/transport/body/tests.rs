use super::*;
use crate::server::transport::arrivals::{Arrivals, SMALL_BYTES};
use http_body_util::BodyExt;
use std::time::Duration;

const LIMIT: usize = 40 << 10;

fn prefixes(one_by: Option<Instant>) -> Prefixes {
    Prefixes::new(Framing { message_bytes: LIMIT, asks: Asking::Events, one_by, is_ours: true })
}

fn message(len: usize) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
    bytes.resize(PREFIX_BYTES + len, 7);
    bytes
}

#[test]
fn a_walk_ends_before_what_is_long_or_must_not_pass() {
    let short = [message(10), message(0), message(SMALL_BYTES)].concat();
    for (bad, stop) in [
        (message(SMALL_BYTES + 1), Stop::Long(SMALL_BYTES + 1)),
        (message(LIMIT), Stop::Long(LIMIT)),
        (
            message(LIMIT + 1),
            Stop::Refused(Refusal::TooLong {
                asks: Asking::Events,
                limit: LIMIT,
                actual: LIMIT + 1,
            }),
        ),
        (vec![1, 0, 0, 0, 0], Stop::Refused(Refusal::Compressed)),
    ] {
        let data = [short.clone(), bad].concat();
        let mut walked = prefixes(None);
        assert_eq!(walked.walk(&data), (short.len(), stop));
        // Nothing of it was taken.
        assert_eq!((walked.messages, walked.skip), (3, 0));
    }
    let is_framing = |stop| matches!(stop, Stop::Refused(Refusal::Framing(_)));
    for flag in [2, 255] {
        assert!(is_framing(prefixes(None).walk(&[flag, 0, 0, 0, 0]).1), "{flag}");
    }
    let mut one = prefixes(Some(Instant::now()));
    assert!(one.end().is_some());
    assert_eq!(one.walk(&message(3)), (8, Stop::More));
    assert_eq!(one.end(), None);
    assert!(is_framing(one.walk(&message(0)).1));
    // A part of a prefix waits for the rest.
    assert_eq!(prefixes(None).walk(&message(3)[..4]), (0, Stop::More));
}

/// What a body of these pieces lets through, the long messages it hands over, and how it ends.
async fn pass(pieces: Vec<&[u8]>, is_one: bool) -> (Vec<u8>, Option<Refusal>) {
    let frames: Vec<Result<_, std::convert::Infallible>> =
        pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    let inner = http_body_util::StreamBody::new(tokio_stream::iter(frames));
    let wait = Duration::from_secs(1);
    let one_by = is_one.then(|| Instant::now() + wait);
    let arrivals = Arrivals::new(1 << 20, wait);
    let kept = Kept::default();
    let framing = Framing { message_bytes: LIMIT, asks: Asking::Events, one_by, is_ours: true };
    let mut body = Limited::new(inner, framing, arrivals.arrival(), is_one.then(|| kept.clone()));
    let mut passed = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let data = frame.into_data().unwrap();
        match codec::handed_in_test() {
            Some(long) => {
                assert!(arrivals.bytes() >= long.len(), "its room is kept");
                passed.extend_from_slice(&[0]);
                passed.extend_from_slice(&u32::try_from(long.len()).unwrap().to_be_bytes());
                passed.extend_from_slice(&long);
            }
            None => passed.extend_from_slice(&data),
        }
    }
    let refused = body.refused;
    drop(body);
    if kept.0.lock().is_none() {
        assert_eq!(arrivals.bytes(), 0);
    }
    drop(kept);
    assert_eq!(arrivals.bytes(), 0);
    (passed, refused)
}

#[tokio::test]
async fn messages_are_the_same_however_they_are_cut() {
    let long = SMALL_BYTES + 7;
    let good = [message(3), message(long), message(0), message(16), message(LIMIT)].concat();
    let too_long = [message(3), message(LIMIT + 1)].concat();
    let flag = [message(3), vec![2, 0, 0, 0, 0]].concat();
    let framing = |bytes: &[u8], is_one| (bytes.to_vec(), is_one);
    for (stream, is_one) in [
        framing(&good, false),
        framing(&good[..good.len() - 1], false),
        framing(&good, true),
        framing(&message(5), true),
        framing(&message(long), true),
        framing(&too_long, false),
        framing(&flag, false),
        framing(&[], true),
    ] {
        let whole = pass(vec![&stream], is_one).await;
        assert!(stream.starts_with(&whole.0));
        let cuts = (0..stream.len()).filter(|at| at % 997 < 3 || *at < 20);
        for at in cuts.chain([stream.len()]) {
            let (begin, end) = stream.split_at(at);
            let cut = pass(vec![begin, end], is_one).await;
            assert_eq!(cut.1, whole.1, "{} bytes at {at}", stream.len());
            assert!(cut.0 == whole.0 || whole.1.is_some(), "{} bytes at {at}", stream.len());
        }
    }
}
