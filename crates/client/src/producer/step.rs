//! What a producer does next: one pure function from an input to an action.
//!
//! Owns the numbers of batches, the checks, and the decision whether to go on, connect again, give
//! up one batch or fail. Must not know of time, sockets or tasks, nor what is in a batch: it counts
//! those that wait, the first of which has the number [`Machine::first`]. Invariants: a batch keeps
//! its number for as long as it may be stored; batches are sent in order, at most so many before
//! the first is acked that the log still knows their seqs; `Fail` is the last action; only `Open`
//! begins an attempt, and never while another is under way.

use std::time::Duration;

use crate::doubt::Doubts;
use crate::{Error, Kind};
use tailmark_record::Reason;

/// Batches under way at once. The log knows the seqs of a producer's last 64.
pub(super) const MAX_UNDER_WAY: usize = 32;
/// No log has had so many batches of one producer: what comes after is counted without a wrap.
const LAST_SEQ: u64 = u64::MAX / 2;

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    /// The stream stands.
    Opened { epoch: u64, last_seq: u64 },
    /// A batch is durable.
    Acked { seq: u64 },
    /// The server ended the stream with OK.
    Ended,
    /// The attempt failed.
    Failed(Error),
    /// No ack came for too long.
    Silent,
    /// The wait is over.
    Woke,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Go on.
    Rest,
    /// Begin an attempt in this epoch; 0 = a new one.
    Open { epoch: u64 },
    /// The first batch is durable: it waits no more.
    Settle,
    /// The first batch will never be stored: it waits no more. Then tell `Woke`.
    Reject(Error),
    /// Drop the attempt and wait; then tell `Woke`.
    Wait { cause: Error, at_least: Option<Duration>, fresh_connection: bool },
    /// The producer has failed for good.
    Fail(Error),
}

#[derive(Debug)]
pub(super) struct Machine {
    /// 0 before the first opening.
    epoch: u64,
    /// Number of the first batch that waits.
    first: u64,
    /// Of those that wait, how many this attempt has sent.
    sent: usize,
    /// And how many any attempt has.
    sent_ever: usize,
    /// How many may be under way.
    window: usize,
    /// This attempt has got something acked.
    has_acked: bool,
    is_open: bool,
    waits_for_server: bool,
    doubts: Doubts,
    made_progress: bool,
}

impl Machine {
    /// A producer that has not been opened.
    pub(super) fn new(waits_for_server: bool) -> Self {
        Machine {
            epoch: 0,
            first: 0,
            sent: 0,
            sent_ever: 0,
            window: MAX_UNDER_WAY,
            has_acked: false,
            is_open: false,
            waits_for_server,
            doubts: Doubts::default(),
            made_progress: false,
        }
    }

    /// Which of the waiting batches to send now, and its number. Call until there is none.
    pub(super) fn send_next(&mut self, waiting: usize) -> Option<(usize, u64)> {
        if !self.is_open || self.sent >= waiting || self.sent >= self.window {
            return None;
        }
        let at = self.sent;
        self.sent += 1;
        self.sent_ever = self.sent_ever.max(self.sent);
        Some((at, self.first + at as u64))
    }

    /// Whether an ack is due.
    pub(super) fn is_waiting(&self) -> bool {
        self.sent > 0
    }

    /// Whether the waiting batch at `at` may have been stored.
    pub(super) fn may_be_stored(&self, at: usize) -> bool {
        at < self.sent_ever
    }

    /// Whether something was achieved since this was asked last: time to forget the backoff.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.made_progress)
    }

    pub(super) fn step(&mut self, input: Input) -> Action {
        match input {
            Input::Woke => {
                (self.is_open, self.sent, self.has_acked) = (false, 0, false);
                Action::Open { epoch: self.epoch }
            }
            Input::Opened { epoch, last_seq } => self.opened(epoch, last_seq),
            Input::Acked { seq } => self.acked(seq),
            Input::Ended => {
                // Proxies turn a cut into an orderly end.
                let cause = Error::new(Kind::Unavailable, "the server ended the stream early");
                self.retry(cause, None, false)
            }
            Input::Failed(error) => self.failed(error),
            Input::Silent => {
                let cause = Error::new(Kind::Timeout, "no ack in time").maybe_applied();
                self.retry(cause, None, true)
            }
        }
    }

    fn opened(&mut self, epoch: u64, last_seq: u64) -> Action {
        self.doubts.admitted();
        if self.is_open {
            return violation("the server opened the stream twice".to_owned());
        }
        if last_seq > LAST_SEQ {
            return violation(format!("no log has a batch {last_seq}"));
        }
        if self.epoch == 0 {
            (self.epoch, self.first) = (epoch, last_seq.saturating_add(1));
            self.is_open = true;
            return Action::Rest;
        }
        if epoch != self.epoch {
            return violation(format!("asked for epoch {}, got {epoch}", self.epoch));
        }
        let acked = self.first - 1;
        if last_seq < acked {
            let message = format!("batch {acked} was acked, but the log's last is {last_seq}");
            return Action::Fail(Error::new(Kind::Gone, message));
        }
        let most = acked + self.sent_ever as u64;
        if last_seq > most {
            return violation(format!("batch {most} is the last sent, the log's is {last_seq}"));
        }
        self.is_open = true;
        Action::Rest
    }

    fn acked(&mut self, seq: u64) -> Action {
        if !self.is_open || self.sent == 0 || seq != self.first {
            return violation(format!("batch {seq} was acked instead of {}", self.first));
        }
        self.first += 1;
        self.sent -= 1;
        self.sent_ever -= 1;
        self.made_progress = true;
        self.has_acked = true;
        self.doubts.forget();
        self.window = (self.window * 2).min(MAX_UNDER_WAY);
        Action::Settle
    }

    fn failed(&mut self, error: Error) -> Action {
        let is_final = error.known_reason().is_some_and(Reason::ends_producer);
        if is_final {
            return Action::Fail(error);
        }
        let has_met = self.epoch > 0;
        if error.is_retryable() || (has_met && error.passes_once_met()) {
            let hint = error.retry_delay();
            let is_missing = error.kind() == Kind::Connect || error.is_foreign();
            let is_broken = error.may_have_applied() || is_missing;
            return self.retry(error, hint, is_broken);
        }
        let is_refusal =
            matches!(error.kind(), Kind::InvalidRequest | Kind::Conflict | Kind::LimitExceeded);
        let names_first = error.metadata("producer_seq") == Some(self.first.to_string().as_str());
        if is_refusal && names_first && self.sent > 0 {
            // Not stored by this attempt nor by one before, which its opening has ended; so nothing
            // behind it was stored either, and its number is free for the next.
            (self.is_open, self.sent, self.sent_ever) = (false, 0, 0);
            return Action::Reject(error);
        }
        Action::Fail(error)
    }

    fn retry(&mut self, cause: Error, hint: Option<Duration>, fresh_connection: bool) -> Action {
        // With nothing under way no answer came that could not be read.
        if self.is_open && self.sent == 0 {
            self.doubts.forget();
        }
        self.is_open = false;
        // A proxy that takes so many bytes a call would cut all of them at once again and again.
        if self.sent > 0 && !self.has_acked {
            self.window = 1;
        }
        if self.epoch == 0 && !self.waits_for_server {
            return Action::Fail(cause);
        }
        match self.doubts.weigh(cause) {
            Ok(cause) => Action::Wait { cause, at_least: hint, fresh_connection },
            Err(error) => Action::Fail(error),
        }
    }
}

fn violation(message: String) -> Action {
    Action::Fail(Error::new(Kind::Protocol, message))
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn refusal(code: Code, reason: &str, seq: u64) -> Error {
        let mut details = ErrorDetails::new();
        let metadata = [("producer_seq".to_owned(), seq.to_string())];
        details.set_error_info(reason, "tailmark", metadata);
        Error::from_status(Status::with_error_details(code, "said so", details))
    }

    fn unavailable() -> Error {
        Error::new(Kind::Unavailable, "cut").maybe_applied()
    }

    /// In epoch 7, after batch 4.
    fn opened() -> Machine {
        let mut machine = Machine::new(true);
        assert!(matches!(machine.step(Input::Woke), Action::Open { epoch: 0 }));
        assert!(machine.send_next(1).is_none());
        let action = machine.step(Input::Opened { epoch: 7, last_seq: 4 });
        assert!(matches!(action, Action::Rest));
        machine
    }

    fn sent(machine: &mut Machine, waiting: usize) -> Vec<(usize, u64)> {
        std::iter::from_fn(|| machine.send_next(waiting)).collect()
    }

    fn failed(action: Action) -> Kind {
        match action {
            Action::Fail(error) => error.kind(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_last_batch_that_leaves_no_number_for_the_next_is_a_violation() {
        for last_seq in [u64::MAX, u64::MAX - MAX_UNDER_WAY as u64] {
            let mut machine = Machine::new(true);
            machine.step(Input::Woke);
            let action = machine.step(Input::Opened { epoch: 7, last_seq });
            assert_eq!(failed(action), Kind::Protocol, "{last_seq}");
        }
        let mut machine = Machine::new(true);
        machine.step(Input::Woke);
        let last_seq = u64::MAX / 2 - 1;
        assert!(matches!(machine.step(Input::Opened { epoch: 7, last_seq }), Action::Rest));
        assert_eq!(sent(&mut machine, 1), [(0, last_seq + 1)]);
    }

    #[test]
    fn batches_are_sent_in_order_and_settled_in_order() {
        let mut machine = opened();
        assert!(!machine.is_waiting());
        assert_eq!(sent(&mut machine, 1), [(0, 5)]);
        assert!(machine.is_waiting());
        assert_eq!(sent(&mut machine, 2), [(1, 6)]);
        assert!(matches!(machine.step(Input::Acked { seq: 5 }), Action::Settle));
        assert!(machine.take_progress() && !machine.take_progress());
        assert_eq!(sent(&mut machine, 2), [(1, 7)]);
        assert_eq!(failed(machine.step(Input::Acked { seq: 7 })), Kind::Protocol);
        let mut machine = opened();
        assert_eq!(sent(&mut machine, 100).len(), MAX_UNDER_WAY);
    }

    #[test]
    fn what_is_not_acked_is_sent_again_in_the_same_epoch() {
        let mut machine = opened();
        sent(&mut machine, 3);
        let action = machine.step(Input::Failed(unavailable()));
        assert!(matches!(action, Action::Wait { fresh_connection: true, .. }), "{action:?}");
        assert!(machine.send_next(4).is_none() && machine.may_be_stored(2));
        assert!(matches!(machine.step(Input::Woke), Action::Open { epoch: 7 }));
        // Of which fewer than before, until it is cut too.
        machine.step(Input::Opened { epoch: 7, last_seq: 4 });
        assert_eq!(machine.send_next(3), Some((0, 5)));
        machine.step(Input::Failed(unavailable()));
        assert!(machine.may_be_stored(2), "since the first attempt");
        assert!(matches!(machine.step(Input::Woke), Action::Open { epoch: 7 }));
        // Two of the three were stored.
        assert!(matches!(machine.step(Input::Opened { epoch: 7, last_seq: 6 }), Action::Rest));
        assert_eq!(sent(&mut machine, 3), [(0, 5)], "one by one at first");
        assert!(matches!(machine.step(Input::Ended), Action::Wait { fresh_connection: false, .. }));
        machine.step(Input::Woke);
        machine.step(Input::Opened { epoch: 7, last_seq: 7 });
        assert!(matches!(machine.step(Input::Silent), Action::Wait { fresh_connection: true, .. }));
    }

    #[test]
    fn a_log_that_does_not_have_what_it_acked_is_told() {
        for (epoch, last_seq, kind) in
            [(7, 4, Kind::Gone), (7, 7, Kind::Protocol), (8, 5, Kind::Protocol)]
        {
            let mut machine = opened();
            sent(&mut machine, 2);
            machine.step(Input::Acked { seq: 5 });
            machine.step(Input::Failed(unavailable()));
            machine.step(Input::Woke);
            let action = machine.step(Input::Opened { epoch, last_seq });
            assert_eq!(failed(action), kind, "{epoch} {last_seq}");
        }
        let twice = opened().step(Input::Opened { epoch: 7, last_seq: 4 });
        assert_eq!(failed(twice), Kind::Protocol);
    }

    #[test]
    fn after_an_attempt_that_got_nowhere_batches_go_one_by_one_at_first() {
        let mut machine = opened();
        assert_eq!(sent(&mut machine, 100).len(), MAX_UNDER_WAY);
        let again = |machine: &mut Machine, last_seq| {
            machine.step(Input::Failed(unavailable()));
            machine.step(Input::Woke);
            machine.step(Input::Opened { epoch: 7, last_seq });
        };
        again(&mut machine, 4);
        assert_eq!(sent(&mut machine, 100), [(0, 5)]);
        machine.step(Input::Acked { seq: 5 });
        assert_eq!(sent(&mut machine, 99), [(0, 6), (1, 7)]);
        // One that got somewhere goes on as it was.
        again(&mut machine, 5);
        assert_eq!(sent(&mut machine, 99).len(), 2);
        machine.step(Input::Acked { seq: 6 });
        assert_eq!(sent(&mut machine, 98).len(), 3);
    }

    #[test]
    fn a_refused_batch_gives_its_number_to_the_next() {
        for (code, reason) in [
            (Code::Aborted, "HEAD_MOVED"),
            (Code::InvalidArgument, "INVALID_FIELD"),
            (Code::ResourceExhausted, "LIMIT_EXCEEDED"),
        ] {
            let mut machine = opened();
            sent(&mut machine, 2);
            let action = machine.step(Input::Failed(refusal(code, reason, 5)));
            assert!(matches!(action, Action::Reject(_)), "{action:?}");
            assert!(!machine.may_be_stored(0));
            assert!(matches!(machine.step(Input::Woke), Action::Open { epoch: 7 }));
            machine.step(Input::Opened { epoch: 7, last_seq: 4 });
            assert_eq!(sent(&mut machine, 1), [(0, 5)]);
            // Of another batch than the first: no sense can be made of that.
            let action = machine.step(Input::Failed(refusal(code, reason, 6)));
            assert!(matches!(action, Action::Fail(_)), "{action:?}");
        }
        // Nor of one that was not sent.
        let action = opened().step(Input::Failed(refusal(Code::Aborted, "HEAD_MOVED", 5)));
        assert!(matches!(action, Action::Fail(_)), "{action:?}");
        // One that turns out to be stored after all.
        let mut machine = opened();
        sent(&mut machine, 2);
        machine.step(Input::Failed(refusal(Code::Aborted, "HEAD_MOVED", 5)));
        machine.step(Input::Woke);
        let action = machine.step(Input::Opened { epoch: 7, last_seq: 5 });
        assert_eq!(failed(action), Kind::Protocol);
    }

    #[test]
    fn what_another_try_cannot_mend_is_final() {
        for (code, reason, kind) in [
            (Code::Aborted, "FENCED", Kind::Conflict),
            (Code::FailedPrecondition, "PRODUCER_UNKNOWN", Kind::Gone),
            (Code::FailedPrecondition, "PRODUCER_HOLE", Kind::InvalidRequest),
            (Code::ResourceExhausted, "DISK_FULL", Kind::LimitExceeded),
            (Code::Internal, "OUTCOME_UNKNOWN", Kind::Internal),
        ] {
            let mut machine = opened();
            sent(&mut machine, 1);
            assert_eq!(failed(machine.step(Input::Failed(refusal(code, reason, 5)))), kind);
        }
    }

    #[test]
    fn answers_that_cannot_be_read_are_given_up_in_the_end() {
        let unread = || Input::Failed(Error::from_status(Status::internal("cannot decode")));
        let again = |machine: &mut Machine, last_seq| {
            machine.step(Input::Woke);
            machine.step(Input::Opened { epoch: 7, last_seq });
            machine.send_next(2);
        };
        let mut machine = opened();
        machine.send_next(2);
        for _ in 0..9 {
            assert!(matches!(machine.step(unread()), Action::Wait { .. }));
            again(&mut machine, 4);
        }
        // An ack gets further.
        machine.step(Input::Acked { seq: 5 });
        for _ in 0..9 {
            assert!(matches!(machine.step(unread()), Action::Wait { .. }));
            again(&mut machine, 5);
        }
        assert_eq!(failed(machine.step(unread())), Kind::Internal);
        // Nor is it possible to open it.
        let mut machine = Machine::new(true);
        for _ in 0..9 {
            machine.step(Input::Woke);
            assert!(matches!(machine.step(unread()), Action::Wait { .. }));
        }
        machine.step(Input::Woke);
        assert_eq!(failed(machine.step(unread())), Kind::Internal);
        // The control: an outage lasts as long as it lasts, and so does one that sends nothing.
        let mut machine = opened();
        machine.send_next(2);
        for _ in 0..1_000 {
            assert!(matches!(machine.step(Input::Failed(unavailable())), Action::Wait { .. }));
            again(&mut machine, 4);
        }
        let mut machine = opened();
        for _ in 0..1_000 {
            assert!(matches!(machine.step(unread()), Action::Wait { .. }));
            machine.step(Input::Woke);
            machine.step(Input::Opened { epoch: 7, last_seq: 4 });
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_waited_for_unless_the_caller_will_not() {
        let cannot_connect = || Input::Failed(Error::new(Kind::Connect, "refused"));
        let mut machine = Machine::new(false);
        machine.step(Input::Woke);
        assert_eq!(failed(machine.step(cannot_connect())), Kind::Connect);
        let mut machine = Machine::new(true);
        machine.step(Input::Woke);
        assert!(matches!(machine.step(cannot_connect()), Action::Wait { .. }));
        let mut machine = Machine::new(false);
        machine.step(Input::Woke);
        assert_eq!(failed(machine.step(Input::Silent)), Kind::Timeout);
        // Later it always is.
        let mut machine = Machine { waits_for_server: false, ..opened() };
        assert!(matches!(machine.step(cannot_connect()), Action::Wait { .. }));
    }
}
