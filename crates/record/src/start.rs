//! Where reading begins, and what happens when that is not there any more.

use std::fmt;

use super::{Seq, Timestamp};

/// Where a reader or a watch without a cursor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first readable event.
    Oldest,
    /// Live: after the head.
    Latest,
    /// This event, inclusive; 0 is taken for 1.
    Seq(Seq),
    /// The first event appended at or after this time: before the oldest it is the oldest, after the
    /// head it is what comes.
    Time(Timestamp),
    /// The newest so many matching events.
    Last(u64),
}

/// What a watch does when its start was trimmed, is damaged, or belongs to another history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLost {
    /// Fail, and say what is lost.
    #[default]
    Fail,
    /// Go on at the oldest readable event, after a gap marker.
    Oldest,
    /// Go on live, after a gap marker.
    Latest,
    /// Go on after the last event that both histories share, after a gap marker.
    LastCommon,
}

impl OnLost {
    /// All of them.
    pub const ALL: [OnLost; 4] = [OnLost::Fail, OnLost::Oldest, OnLost::Latest, OnLost::LastCommon];

    /// Its name, as a URL has it.
    pub const fn name(self) -> &'static str {
        match self {
            OnLost::Fail => "fail",
            OnLost::Oldest => "oldest",
            OnLost::Latest => "latest",
            OnLost::LastCommon => "last_common",
        }
    }

    /// The one with this name.
    pub fn parse(name: &str) -> Option<OnLost> {
        OnLost::ALL.into_iter().find(|it| it.name() == name)
    }
}

impl fmt::Display for OnLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
