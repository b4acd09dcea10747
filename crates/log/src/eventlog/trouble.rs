//! What does not work in the background, as operators are told.

use std::collections::BTreeMap;
use std::fmt;

use parking_lot::Mutex;

/// What is done in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// Why jobs do not work: of each the last problem, until it has worked again. No job hides another's.
#[derive(Default)]
pub(super) struct Troubles(Mutex<BTreeMap<Job, String>>);

impl Troubles {
    /// What came of a job. It is said aloud when it is another problem than before.
    pub(super) fn note<E: fmt::Display>(&self, job: Job, result: Result<(), E>) {
        let Err(error) = result else {
            self.0.lock().remove(&job);
            return;
        };
        let error = error.to_string();
        let mut troubles = self.0.lock();
        if troubles.get(&job) != Some(&error) {
            tracing::error!(%error, "{job} does not work; it is tried again");
            troubles.insert(job, error);
        }
    }

    /// All of them.
    pub(super) fn told(&self) -> Option<String> {
        let troubles = self.0.lock();
        let all: Vec<_> = troubles.iter().map(|(job, error)| format!("{job}: {error}")).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_job_hides_the_trouble_of_another() {
        let troubles = Troubles::default();
        assert_eq!(troubles.told(), None);
        troubles.note(Job::TopicRetention, Err("a block is damaged"));
        troubles.note(Job::Retention, Err("the disk is full"));
        troubles.note(Job::Reclaim, Ok::<(), &str>(()));
        let both = "retention: the disk is full; retention by topic: a block is damaged";
        assert_eq!(troubles.told().as_deref(), Some(both));
        troubles.note(Job::Retention, Ok::<(), &str>(()));
        assert_eq!(troubles.told().as_deref(), Some("retention by topic: a block is damaged"));
        troubles.note(Job::TopicRetention, Err("another block is"));
        assert_eq!(troubles.told().as_deref(), Some("retention by topic: another block is"));
        troubles.note(Job::TopicRetention, Ok::<(), &str>(()));
        assert_eq!(troubles.told(), None);
    }
}
