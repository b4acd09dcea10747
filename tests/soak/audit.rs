//! What was acked against what is there.

use std::collections::BTreeMap;

/// Acks and events that nobody has asked about yet are kept for so long.
const KEPT: usize = 100_000;

#[derive(Default)]
pub struct Audit {
    /// Seq and id of acks that the watch has not come to.
    acks: BTreeMap<u64, String>,
    /// Seq and id of events that it has passed.
    passed: BTreeMap<u64, String>,
    /// The last number of each sender.
    numbers: BTreeMap<String, u64>,
    next: u64,
    pub events: u64,
    acked: u64,
    gone: u64,
    compared: u64,
}

impl Audit {
    pub fn acked(&mut self, seq: u64, id: &str) {
        self.acked += 1;
        if let Some(there) = self.passed.get(&seq) {
            assert_eq!(there, id, "acked at {seq}");
            self.compared += 1;
        } else if seq >= self.next {
            self.acks.insert(seq, id.to_owned());
        }
    }

    /// The next event of the watch of everything. Ids are `SENDER-NUMBER`, numbers from 1 on.
    pub fn passes(&mut self, seq: u64, id: &str) {
        assert!(self.next == 0 || seq == self.next, "{seq} came where {} was due", self.next);
        self.next = seq + 1;
        self.events += 1;
        if let Some(acked) = self.acks.remove(&seq) {
            assert_eq!(acked, id, "acked at {seq}");
            self.compared += 1;
        }
        let (sender, number) = id.rsplit_once('-').unwrap();
        let number: u64 = number.parse().unwrap();
        let last = self.numbers.insert(sender.to_owned(), number);
        // After a gap one cannot know what there was.
        if let Some(last) = last {
            assert_eq!(number, last + 1, "{sender}: lost, repeated or out of order at {seq}");
        }
        self.passed.insert(seq, id.to_owned());
        if self.passed.len() > KEPT {
            self.passed.pop_first();
        }
    }

    pub fn skips(&mut self, from: u64, to: u64) {
        assert!(self.next == 0 || from == self.next, "a gap at {from} where {} was due", self.next);
        self.next = to + 1;
        self.gone += to + 1 - from;
        self.acks = self.acks.split_off(&self.next);
        self.numbers.clear();
    }

    pub fn verdict(&self) -> String {
        assert!(self.acks.is_empty(), "acked and never seen: {:?}", self.acks.first_key_value());
        assert!(self.compared > 50, "hardly anything was compared: {}", self.compared);
        let Audit { events, acked, gone, compared, .. } = self;
        format!(
            "{events} events seen, {acked} acks told a seq, {compared} compared, {gone} trimmed unseen"
        )
    }
}

type Wrong = fn(&mut Audit);

/// The control: what must not pass is found out.
pub fn each_check_can_fail() {
    let passing = |audit: &mut Audit| {
        audit.passes(1, "a-1");
        audit.passes(2, "a-2");
    };
    let bad: [(&str, Wrong); 6] = [
        ("a hole", |audit| audit.passes(4, "b-1")),
        ("a repeat", |audit| audit.passes(2, "a-2")),
        ("a lost event of a sender", |audit| audit.passes(3, "a-4")),
        ("an ack for another event", |audit| audit.acked(2, "a-1")),
        ("another event than was acked", |audit| {
            audit.acked(3, "a-3");
            audit.passes(3, "b-1");
        }),
        ("a gap somewhere else", |audit| audit.skips(5, 6)),
    ];
    for (what, wrong) in bad {
        let found = std::panic::catch_unwind(|| {
            let mut audit = Audit::default();
            passing(&mut audit);
            wrong(&mut audit);
        });
        assert!(found.is_err(), "{what} is not found");
    }
    let mut audit = Audit::default();
    passing(&mut audit);
    audit.acked(3, "a-3");
    let lost = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| audit.verdict()));
    assert!(lost.is_err(), "an ack that was never seen is not found");
}
