//! What does not work in the background, as operators are told.

use std::fmt;

/// What is done in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Retention,
    Reclaim,
    Erasing,
    TopicRetention,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Job::Retention => "retention",
            Job::Reclaim => "giving back space",
            Job::Erasing => "erasing",
            Job::TopicRetention => "retention by topic",
        })
    }
}

/// Why a job does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub job: Job,
    pub error: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.job, self.error)
    }
}
