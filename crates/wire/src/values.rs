//! Plain values as the generated types and back; the only place that knows both and nothing else.

use tailmark_record::{OnLost, Start, Timestamp};

use crate::feed_v1 as pb;

/// A time for the wire.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.seconds, nanos: time.nanos }
}

/// A time from the wire, as it is: [`Timestamp::is_valid`] tells whether it is one.
pub fn from_timestamp(time: prost_types::Timestamp) -> Timestamp {
    Timestamp { seconds: time.seconds, nanos: time.nanos }
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
