//! Rules for topics that some daemons have, which of the load's events they are about, and what each may have taken out.

use std::collections::HashMap;

use crate::history::{Known, number_of};

/// Of the topic of numbers so many stay.
const MAX_EVENTS: usize = 200;
/// As many keys has the topic of states.
const KEYS: u64 = 16;

/// As the daemon's environment says it.
pub fn setting() -> (&'static str, String) {
    let rules = format!(
        r#"[{{pattern="load.state",keep="latest-per-key"}},{{pattern="load.number",max_events={MAX_EVENTS}}}]"#
    );
    ("TAILMARK_RETENTION_TOPICS", rules)
}

/// The topic and the key of an event.
pub fn place_of(id: &str) -> (&'static str, String) {
    let number = number_of(id);
    match number % 4 {
        0 => ("load.state", format!("k{}", number / 4 % KEYS)),
        1 => ("load.number", String::new()),
        _ => ("load.kill", String::new()),
    }
}

/// What rules may take out of a run of events that ends with the last of the log.
#[derive(Default)]
pub struct Allowed {
    /// Last place of each key.
    latest: HashMap<String, usize>,
    /// Of each place, how many events of the topic of numbers come after it, at most.
    numbers_after: Vec<usize>,
}

impl Allowed {
    /// Those that were gone before anybody could compare them may have been of any topic.
    pub fn of(events: &[Option<Known>]) -> Allowed {
        let mut allowed = Allowed::default();
        let mut numbers = 0;
        for (at, event) in events.iter().enumerate().rev() {
            allowed.numbers_after.push(numbers);
            let place = event.as_ref().map(|known| place_of(&known.id));
            match place {
                Some(("load.state", key)) => {
                    allowed.latest.entry(key).or_insert(at);
                }
                Some(("load.number", _)) | None => numbers += 1,
                Some(_) => {}
            }
        }
        allowed.numbers_after.reverse();
        allowed
    }

    /// Whether the event at a place may be gone.
    pub fn is_gone(&self, at: usize, event: &Known) -> bool {
        match place_of(&event.id) {
            ("load.state", key) => self.latest.get(&key).is_some_and(|latest| *latest > at),
            ("load.number", _) => self.numbers_after.get(at).is_some_and(|it| *it >= MAX_EVENTS),
            _ => false,
        }
    }
}
