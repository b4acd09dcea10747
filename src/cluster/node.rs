//! The thread of a daemon that follows the journal, takes over, and changes the event log that is served.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::beat::{self, SILENCE};
use super::forward::Forward;
use super::{Inner, count, witness};
use crate::server::ServedLog;
use tailmark_log::eventlog::needed_from;
use tailmark_log::eventlog::{EventLog, Following};
use tailmark_log::storage::shared::{Followed, Role, SharedJournal as _};
use tailmark_log::storage::{Store as _, StoreError};
use tailmark_record::{Seq, Timestamp};

/// Frames taken before it looks at anything else.
const AT_ONCE: usize = 256;
/// How long it waits for news where there is nothing to follow.
const IDLE: Duration = Duration::from_millis(20);
/// In which it looks whether there is news beside the journal's.
const PART: Duration = Duration::from_millis(5);
/// After so long it asks the journal although it has heard of nothing there.
const ANYWAY: Duration = Duration::from_millis(100);
/// How often who writes looks whether another does.
const LOOK: Duration = Duration::from_millis(500);
/// After something that did not work.
const AGAIN: Duration = Duration::from_millis(200);
/// Who takes over waits up to so long beside the silence, so that not all try at once.
const SPREAD: Duration = Duration::from_millis(400);
/// How often what was trimmed is given back to the journal.
const FORGET: Duration = Duration::from_secs(60);
/// How often the journal's servers are asked how they are.
const ASK: Duration = Duration::from_secs(5);
/// One in so many times it is also looked at what the journal promises.
const LOOKS: u64 = 12;

pub(super) struct Node {
    inner: Arc<Inner>,
    served: Option<ServedLog>,
    log: EventLog,
    following: Option<Following>,
    /// What the replica was when the log was opened.
    opened: (Role, u64),
    /// When a frame of somebody's was followed last, or the writer was heard.
    heard: Instant,
    looked: Instant,
    /// Beside the silence.
    spread: Duration,
    /// When the journal's space was looked at last, and for which oldest event it was given back.
    forgot: Instant,
    forgot_upto: Seq,
    /// What was said last of what does not work.
    said: Option<String>,
}

impl Node {
    /// Opens the log to follow it. Within a runtime.
    pub(super) fn new(inner: &Arc<Inner>) -> Result<Node, StoreError> {
        let now = Instant::now();
        let opened = (inner.replica.role(), inner.replica.term());
        let (log, following) = follow(inner)?;
        Ok(Node {
            inner: Arc::clone(inner),
            served: None,
            log,
            following: Some(following),
            opened,
            heard: now,
            looked: now,
            spread: spread(),
            forgot: now,
            forgot_upto: Seq::FIRST,
            said: None,
        })
    }

    pub(super) fn log(&self) -> EventLog {
        self.log.clone()
    }

    /// Goes on by itself until it is told to end.
    pub(super) fn start(mut self, served: ServedLog, runtime: Handle) -> Result<(), StoreError> {
        self.served = Some(served);
        runtime.spawn(tell(Arc::clone(&self.inner)));
        runtime.spawn(ask_servers(Arc::clone(&self.inner)));
        let inner = Arc::clone(&self.inner);
        let thread = std::thread::Builder::new().name("cluster".to_owned());
        let run = move || {
            let _inside = runtime.enter();
            self.run(&runtime);
        };
        let failed = |error: std::io::Error| StoreError::Stopped { reason: error.to_string() };
        *inner.thread.lock() = Some(thread.spawn(run).map_err(failed)?);
        Ok(())
    }

    fn run(&mut self, runtime: &Handle) {
        while !self.inner.is_over.load(Ordering::Relaxed) {
            if let Err(error) = self.refresh(runtime) {
                self.says(&error);
                std::thread::sleep(AGAIN);
                continue;
            }
            let inner = Arc::clone(&self.inner);
            if inner.replica.is_in_doubt() {
                // Blocks for as long as the journal has patience; what was told to others does not depend on it.
                if inner.replica.resolve().is_ok() {
                    tracing::info!(slot = inner.replica.slot(), "a commit in doubt has come out");
                }
                inner.changed();
                continue;
            }
            match inner.replica.role() {
                Role::Following => self.follow(runtime),
                Role::Writing => self.write(),
                Role::Diverged => self.wait(LOOK),
            }
        }
    }

    /// Opens the log anew where it is of another term or role, or its writer has ended.
    fn refresh(&mut self, runtime: &Handle) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        let now = (inner.replica.role(), inner.replica.term());
        let writes = now.0 == Role::Writing && !inner.leaves();
        let is_as_it_must = self.opened == now && writes == self.following.is_none();
        let has_ended = writes && !self.log.takes_events();
        if is_as_it_must && !has_ended || inner.replica.is_in_doubt() {
            return Ok(());
        }
        *inner.here.write() = None;
        if let Some(served) = &self.served {
            served.end();
        }
        // Also where it failed: what is acknowledged lies in the journal.
        if let Err(error) = runtime.block_on(self.log.close()) {
            tracing::warn!(%error, "the log did not close in order");
        }
        self.following = None;
        if writes {
            self.log = write(&inner)?;
            *inner.here.write() = Some(self.log.clone());
        } else {
            let (log, following) = follow(&inner)?;
            (self.log, self.following) = (log, Some(following));
        }
        let before = std::mem::replace(&mut self.opened, now);
        if let Some(served) = &self.served {
            served.serve(self.log.clone());
        }
        inner.changed();
        inner.tell();
        let (role, term, head) = (beat::Part::from(now.0), now.1, self.log.head());
        if before.1 != term || before.0 != now.0 {
            tracing::info!(?role, term, %head, "the log is of another term");
        }
        Ok(())
    }

    fn follow(&mut self, runtime: &Handle) {
        for _ in 0..AT_ONCE {
            match self.inner.replica.follow() {
                Ok(Some(Followed::Commit(commit))) => {
                    self.hears_frame();
                    if let Some(following) = &self.following {
                        following.applied(&commit);
                    }
                }
                Ok(Some(Followed::Term(_))) => {
                    self.hears_frame();
                    count(&self.inner.counters.takeovers);
                    self.inner.term_begins();
                    if self.refresh(runtime).is_err() {
                        return;
                    }
                }
                Ok(Some(Followed::Nothing)) => self.hears_frame(),
                Ok(None) => {
                    self.consider();
                    return self.wait_for_frames();
                }
                Err(error) => {
                    self.says(&error);
                    return self.wait(AGAIN);
                }
            }
        }
    }

    fn hears_frame(&mut self) {
        (self.heard, self.said) = (Instant::now(), None);
    }

    /// Takes over where nobody writes, and it has all that there is.
    fn consider(&mut self) {
        let (inner, now) = (&self.inner, Instant::now());
        if inner.leaves() {
            return;
        }
        let slot = inner.replica.slot();
        let (is_heir, beat) = {
            let heard = inner.heard.lock();
            // It names who is to take over, once that one has all.
            let names_us = |it: &beat::Beat| it.heir == Some(inner.id) && it.slot <= slot;
            let is_heir = heard.all().any(|(it, at)| names_us(it) && at.elapsed() < SILENCE);
            let beat = heard.writer(inner.replica.term(), now).map(|(_, at)| *at);
            (is_heir, beat)
        };
        // Remembered: a beat that is as old as a silence is not among those of the living any more.
        self.heard = beat.map_or(self.heard, |at| at.max(self.heard));
        // In a log that nobody has written there is nobody to wait for.
        let is_new = inner.replica.term() == 0;
        let silence = if is_new { beat::EVERY } else { SILENCE };
        if !is_heir && now.duration_since(self.heard) < silence + self.spread {
            return;
        }
        self.spread = spread();
        self.heard = now;
        match inner.replica.begin_term(Timestamp::now()) {
            Ok(term) => {
                count(&inner.counters.takeovers);
                inner.term_begins();
                tracing::info!(term, is_heir, "this daemon writes the log");
            }
            Err(StoreError::Fenced { .. }) => {}
            Err(error) => self.says(&error),
        }
    }

    fn write(&mut self) {
        if self.forgot.elapsed() > FORGET && !self.inner.leaves() {
            self.forgot = Instant::now();
            if let Err(error) = self.forget() {
                tracing::warn!(%error, "the journal's space is not given back");
            }
        }
        let most = if self.inner.leaves() { Duration::ZERO } else { LOOK };
        if self.looked.elapsed() > most {
            self.looked = Instant::now();
            if let Err(error) = self.inner.replica.follow() {
                self.says(&error);
            }
        }
        self.wait(IDLE);
    }

    /// Gives back what nobody needs of the journal, where something was trimmed since: first a checkpoint, so that who has
    /// nothing begins there, then what lies before one that is old enough.
    fn forget(&mut self) -> Result<(), StoreError> {
        let replica = &self.inner.replica;
        let oldest = replica.bounds().oldest;
        if oldest == self.forgot_upto {
            return Ok(());
        }
        replica.checkpoint()?;
        let window = self.inner.options.lock().dedup_window;
        let first = replica.forget(needed_from(&**replica, window)?)?;
        self.forgot_upto = oldest;
        tracing::info!(%oldest, first, "what was trimmed is given back to the journal");
        Ok(())
    }

    /// Waits for something to follow, or for news beside it.
    fn wait_for_frames(&self) {
        let begun = Instant::now();
        while begun.elapsed() < ANYWAY && !self.inner.replica.wait(PART) {
            if std::mem::take(&mut *self.inner.news.0.lock()) {
                return;
            }
        }
    }

    /// Waits for news, for so long at most.
    fn wait(&self, most: Duration) {
        let (is_there, news) = &self.inner.news;
        let mut is_there = is_there.lock();
        if !*is_there {
            news.wait_for(&mut is_there, most);
        }
        *is_there = false;
    }

    /// Says once what does not work.
    fn says(&mut self, error: &StoreError) {
        let what = error.to_string();
        if self.said.as_ref() != Some(&what) {
            tracing::warn!(error = what, "the journal cannot be followed");
            self.said = Some(what);
        }
    }
}

fn spread() -> Duration {
    SPREAD.mul_f64(rand::random())
}

/// Opens the log to follow it: what comes is stored by who writes.
fn follow(inner: &Arc<Inner>) -> Result<(EventLog, Following), StoreError> {
    let (engine, recovered) = (Arc::clone(&inner.replica), inner.replica.recovered()?);
    let options = inner.options.lock().clone();
    let forward = Arc::new(Forward::new(inner));
    EventLog::follow_with(engine, &recovered, &options, Some(forward))
}

fn write(inner: &Arc<Inner>) -> Result<EventLog, StoreError> {
    let recovered = inner.replica.recovered()?;
    let options = inner.options.lock().clone();
    EventLog::open(inner.replica.clone(), recovered, options)
}

/// Tells the others that it is there.
async fn tell(inner: Arc<Inner>) {
    let mut due = tokio::time::interval(beat::EVERY);
    while !inner.is_over.load(Ordering::Relaxed) {
        due.tick().await;
        inner.tell();
    }
}

/// Asks the journal's servers how they are, for who looks.
async fn ask_servers(inner: Arc<Inner>) {
    let (mut due, mut looks) = (tokio::time::interval(ASK), 0u64);
    let mut schedule = witness::Schedule::new();
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !inner.is_over.load(Ordering::Relaxed) {
        due.tick().await;
        let journal = Arc::clone(&inner.journal);
        looks += 1;
        let is_due = looks % LOOKS == 0;
        let asked = tokio::task::spawn_blocking(move || {
            // Servers come back with other settings: what acks promise is what is true then.
            let strength = if is_due { journal.look_again().map(drop) } else { Ok(()) };
            (journal.replicas(), strength)
        });
        let Ok((replicas, strength)) = asked.await else { continue };
        if let Err(error) = strength {
            tracing::warn!(%error, "the journal is weaker than it was, or cannot be looked at");
        }
        // What was so the last time is not told as what is so now.
        let (servers, silent) = match replicas {
            Ok(replicas) => (super::status::servers(replicas), None),
            Err(failure) => {
                let name = inner.journal.name();
                (Vec::new(), Some(format!("the journal {name} cannot be asked: {failure}")))
            }
        };
        // Who writes compares for all.
        let writes = inner.replica.role() == Role::Writing;
        let is_due = schedule.is_due(&servers, inner.replica.term(), Instant::now());
        *inner.servers.lock() = servers;
        *inner.silent.lock() = silent;
        if !writes {
            inner.witnessed.lock().forget();
        } else if is_due {
            let inner = Arc::clone(&inner);
            let looked = tokio::task::spawn_blocking(move || witness::compare(&inner)).await;
            if looked.is_ok_and(|is_one_astray| is_one_astray) {
                schedule.again(Instant::now());
            }
        }
    }
}
