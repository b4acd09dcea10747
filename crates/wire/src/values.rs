//! Plain values as the generated types and back; the only place that knows both and nothing else.

use std::time::Duration;

use tailmark_record::{Gap, Marker, OnLost, Start, Timestamp};

use crate::feed_v1 as pb;

/// A time for the wire.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.seconds, nanos: time.nanos }
}

/// A time from the wire, as it is: [`Timestamp::is_valid`] tells whether it is one.
pub fn from_timestamp(time: prost_types::Timestamp) -> Timestamp {
    Timestamp { seconds: time.seconds, nanos: time.nanos }
}

/// A span of time for the wire.
pub fn duration(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        // Below 1,000,000,000.
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or_default(),
    }
}

impl From<Gap> for pb::Gap {
    fn from(gap: Gap) -> Self {
        let (from_seq, to_seq) = (gap.from.get(), gap.to.get());
        pb::Gap { from_seq, to_seq, reason: gap.reason.number() }
    }
}

impl From<Marker> for pb::Marker {
    fn from(marker: Marker) -> Self {
        pb::Marker {
            kind: marker.kind.number(),
            cursor: marker.cursor,
            at: marker.at.map(timestamp),
            oldest_seq: marker.oldest.get(),
            head_seq: marker.head.get(),
            lag_events: marker.lag_events,
            gap: marker.gap.map(pb::Gap::from),
            retry_delay: marker.retry_delay.map(duration),
        }
    }
}

impl From<Start> for pb::start::At {
    fn from(start: Start) -> Self {
        match start {
            Start::Oldest => Self::Oldest(true),
            Start::Latest => Self::Latest(true),
            Start::Seq(seq) => Self::Seq(seq.get()),
            Start::Time(time) => Self::Time(timestamp(time)),
            Start::Last(count) => Self::Last(count),
        }
    }
}

impl From<Start> for pb::Start {
    fn from(start: Start) -> Self {
        pb::Start { at: Some(start.into()) }
    }
}

impl From<OnLost> for pb::OnLost {
    fn from(on_lost: OnLost) -> Self {
        match on_lost {
            OnLost::Fail => pb::OnLost::Fail,
            OnLost::Oldest => pb::OnLost::Oldest,
            OnLost::Latest => pb::OnLost::Latest,
            OnLost::LastCommon => pb::OnLost::LastCommon,
        }
    }
}

impl From<pb::OnLost> for OnLost {
    fn from(on_lost: pb::OnLost) -> Self {
        match on_lost {
            pb::OnLost::Unspecified | pb::OnLost::Fail => OnLost::Fail,
            pb::OnLost::Oldest => OnLost::Oldest,
            pb::OnLost::Latest => OnLost::Latest,
            pb::OnLost::LastCommon => OnLost::LastCommon,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tailmark_record::{GapReason, MarkerKind, Seq};

    use super::*;

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        let mut marker = Marker::new(MarkerKind::Other(0), "cursor");
        marker.at = Some(Timestamp { seconds: 5, nanos: 7 });
        (marker.oldest, marker.head, marker.lag_events) = (Seq::new(2), Seq::new(9), 3);
        marker.retry_delay = Some(Duration::new(1, 999_999_999));
        for number in 0..9 {
            let kind = pb::marker::Kind::try_from(number);
            let reason = pb::gap::Reason::try_from(number);
            let gap = pb::Gap { from_seq: 1, to_seq: 4, reason: number };
            let sent = pb::Marker { kind: number, gap: Some(gap), ..marker.clone().into() };
            let read = Marker::parse(&sent.encode_to_vec()).unwrap();
            // The names are those of the proto, number by number.
            assert_eq!(
                read.kind.name(),
                kind.ok().filter(|_| number > 0).map(|it| it.as_str_name())
            );
            let name = reason.ok().filter(|_| number > 0).map(|it| it.as_str_name());
            assert_eq!(read.gap.unwrap().reason.name(), name);
            assert_eq!(pb::Marker::from(read), sent);
        }
        assert_eq!(GapReason::Ahead.number(), i32::from(pb::gap::Reason::Ahead));
        assert_eq!(GapReason::Expired.number(), i32::from(pb::gap::Reason::Expired));
        assert_eq!(GapReason::Compacted.number(), i32::from(pb::gap::Reason::Compacted));
    }
}
