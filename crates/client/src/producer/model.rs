//! The step machine against a model of the log, over a network that loses whatever it likes: each
//! batch is stored once and in order, refused for good, or known to be in doubt.

use std::collections::VecDeque;

use proptest::prelude::*;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::step::{Action, Input, Machine};
use crate::{Error, Kind};

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Happens {
    /// The caller sends so many batches more.
    Send(usize),
    /// The server takes the next message on the way to it.
    Take,
    /// The client hears the next answer on the way to it.
    Hear,
    /// The connection breaks: what is on the way is lost, but the server may have taken so many.
    Cut(usize),
    /// The client hears nothing for too long.
    Silence,
    /// A proxy makes an orderly end of a cut.
    End,
    /// The server restarts.
    Restart,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (1..6usize).prop_map(Happens::Send),
        12 => Just(Happens::Take),
        12 => Just(Happens::Hear),
        2 => (0..5usize).prop_map(Happens::Cut),
        1 => Just(Happens::Silence),
        1 => Just(Happens::End),
        1 => Just(Happens::Restart),
    ]
}

/// Whether the server refuses a batch, whatever its number.
fn is_bad(batch: u64) -> bool {
    batch % 7 == 3
}

/// What the server says.
#[derive(Debug)]
enum Answer {
    Opened { epoch: u64, last_seq: u64 },
    Acked(u64),
    Refused(u64),
    Hole,
}

#[derive(Debug)]
enum Message {
    Open { epoch: u64 },
    Batch { seq: u64, batch: u64 },
}

/// What is wrong, on purpose: the check must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The client numbers what it sends again anew.
    Renumbers,
    /// The server does not look at numbers.
    NoNumbers,
}

struct World {
    fault: Fault,
    machine: Machine,
    action: Option<Action>,
    /// Batches that have no answer yet, in order.
    waiting: VecDeque<u64>,
    next_batch: u64,
    told_stored: Vec<u64>,
    told_refused: Vec<u64>,
    to_server: VecDeque<Message>,
    to_client: VecDeque<Answer>,
    epoch: u64,
    last_seq: u64,
    is_broken: bool,
    stored: Vec<u64>,
    shift: u64,
    attempts: usize,
}

impl World {
    fn new(fault: Fault) -> World {
        let mut world = World {
            fault,
            machine: Machine::new(true),
            action: None,
            waiting: VecDeque::new(),
            next_batch: 0,
            told_stored: Vec::new(),
            told_refused: Vec::new(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            epoch: 0,
            last_seq: 0,
            is_broken: false,
            stored: Vec::new(),
            shift: 0,
            attempts: 0,
        };
        let action = world.machine.step(Input::Woke);
        world.act(action);
        world
    }

    /// The task.
    fn act(&mut self, action: Action) {
        match action {
            Action::Rest => {}
            Action::Open { epoch } => {
                self.attempts += 1;
                self.to_server = [Message::Open { epoch }].into();
                self.to_client.clear();
                self.is_broken = false;
            }
            Action::Settle => self.told_stored.extend(self.waiting.pop_front()),
            Action::Reject(error) => {
                assert_eq!(error.kind(), Kind::InvalidRequest);
                self.told_refused.extend(self.waiting.pop_front());
                let action = self.machine.step(Input::Woke);
                self.act(action);
            }
            Action::Wait { .. } => {
                if self.fault == Fault::Renumbers {
                    self.shift += 1;
                }
                let action = self.machine.step(Input::Woke);
                self.act(action);
            }
            Action::Fail(_) => self.action = Some(action),
        }
        while let Some((at, seq)) = self.machine.send_next(self.waiting.len()) {
            let seq = seq + self.shift;
            self.to_server.push_back(Message::Batch { seq, batch: self.waiting[at] });
        }
    }

    fn step(&mut self, input: Input) {
        let action = self.machine.step(input);
        self.act(action);
    }

    /// The log.
    fn take(&mut self) {
        if self.is_broken {
            return;
        }
        match self.to_server.pop_front() {
            None => {}
            Some(Message::Open { epoch }) => {
                assert!(epoch == 0 || epoch == self.epoch, "{epoch} instead of {}", self.epoch);
                if epoch == 0 {
                    self.epoch += 1;
                }
                let (epoch, last_seq) = (self.epoch, self.last_seq);
                self.to_client.push_back(Answer::Opened { epoch, last_seq });
            }
            Some(Message::Batch { seq, batch }) => {
                let has_numbers = self.fault != Fault::NoNumbers;
                let answer = if has_numbers && seq <= self.last_seq {
                    Answer::Acked(seq)
                } else if has_numbers && seq != self.last_seq + 1 {
                    Answer::Hole
                } else if is_bad(batch) {
                    Answer::Refused(seq)
                } else {
                    self.stored.push(batch);
                    self.last_seq = seq;
                    Answer::Acked(seq)
                };
                self.is_broken = matches!(answer, Answer::Hole | Answer::Refused(_));
                self.to_client.push_back(answer);
            }
        }
    }

    fn hear(&mut self) {
        match self.to_client.pop_front() {
            None => {}
            Some(Answer::Opened { epoch, last_seq }) => {
                self.step(Input::Opened { epoch, last_seq });
            }
            Some(Answer::Acked(seq)) => self.step(Input::Acked { seq: seq - self.shift }),
            Some(Answer::Refused(seq)) => self.step(Input::Failed(refusal("INVALID_FIELD", seq))),
            Some(Answer::Hole) => self.step(Input::Failed(refusal("PRODUCER_HOLE", 0))),
        }
    }

    fn happen(&mut self, happens: Happens) {
        match happens {
            Happens::Send(count) => {
                for _ in 0..count {
                    self.waiting.push_back(self.next_batch);
                    self.next_batch += 1;
                }
                self.act(Action::Rest);
            }
            Happens::Take => self.take(),
            Happens::Hear => self.hear(),
            Happens::Cut(taken) => {
                (0..taken).for_each(|_| self.take());
                let cut = Error::new(Kind::Unavailable, "cut").maybe_applied();
                self.step(Input::Failed(cut));
            }
            Happens::Silence => self.step(Input::Silent),
            Happens::End => self.step(Input::Ended),
            Happens::Restart => {
                self.to_server.clear();
                self.step(Input::Failed(Error::new(Kind::Connect, "refused")));
            }
        }
    }

    /// What every caller may rely on.
    fn check(&self) -> Result<(), String> {
        if let Some(failed) = &self.action {
            return Err(format!("failed: {failed:?}"));
        }
        let good = |batch: &u64| !is_bad(*batch);
        if !self.stored.iter().copied().eq((0..).filter(good).take(self.stored.len())) {
            return Err(format!("not each once and in order: {:?}", self.stored));
        }
        if !self.stored.starts_with(&self.told_stored) {
            return Err(format!("told {:?}, stored {:?}", self.told_stored, self.stored));
        }
        if let Some(batch) = self.told_refused.iter().find(|batch| !is_bad(**batch)) {
            return Err(format!("{batch} was told to be refused"));
        }
        // What is certain not to be stored is not.
        let doubtful = |at: usize| self.machine.may_be_stored(at);
        for (at, batch) in self.waiting.iter().enumerate() {
            if self.stored.contains(batch) && !doubtful(at) {
                return Err(format!("{batch} is stored and not in doubt"));
            }
        }
        Ok(())
    }
}

fn refusal(reason: &str, seq: u64) -> Error {
    let mut details = ErrorDetails::new();
    let metadata = [("producer_seq".to_owned(), seq.to_string())];
    details.set_error_info(reason, "tailmark", metadata);
    let code = match reason {
        "PRODUCER_HOLE" => Code::FailedPrecondition,
        _ => Code::InvalidArgument,
    };
    Error::from_status(Status::with_error_details(code, "said so", details))
}

/// Runs a schedule, then lets everything come to its end.
fn run(fault: Fault, schedule: &[Happens]) -> Result<World, String> {
    let mut world = World::new(fault);
    for &happens in schedule {
        world.happen(happens);
        world.check()?;
    }
    for _ in 0..10_000 {
        if world.waiting.is_empty() {
            break;
        }
        world.take();
        world.hear();
        world.check()?;
    }
    if !world.waiting.is_empty() {
        return Err(format!("{} batches wait for ever", world.waiting.len()));
    }
    let told = world.told_stored.len() + world.told_refused.len();
    if told as u64 != world.next_batch || world.told_stored != world.stored {
        return Err(format!("{told} of {} were told", world.next_batch));
    }
    Ok(world)
}

proptest! {
    #[test]
    fn every_batch_is_stored_once_and_in_order_whatever_is_lost(
        schedule in prop::collection::vec(happens(), 0..300),
    ) {
        if let Err(wrong) = run(Fault::None, &schedule) {
            prop_assert!(false, "{wrong}");
        }
    }
}

#[test]
fn a_client_or_a_log_that_is_wrong_is_found_out() {
    let lost_ack = [Happens::Send(3), Happens::Take, Happens::Hear, Happens::Take, Happens::Cut(1)];
    assert!(run(Fault::None, &lost_ack).is_ok_and(|world| world.attempts == 2));
    for fault in [Fault::Renumbers, Fault::NoNumbers] {
        assert!(run(fault, &lost_ack).is_err(), "{fault:?}");
    }
}
