//! Passing on what is to be stored to the daemon that writes.
//!
//! What was not stored for sure is tried again, at whoever writes by then, for as long as callers wait anyway; what may
//! have been stored only where that stores nothing twice. A daemon that is asked passes nothing on, so that there is no
//! circle.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::peer::Lost;
use super::service;
use super::wire::{self, Open, Produce, Produced, Store, Stored, Trim, TrimDone};
use super::{Inner, Writer, count};
use tailmark_log::eventlog::{
    Answer, AppendError, AppendOptions, Appended, Batch, Done, Elsewhere, ExpectedHead,
    OpenedElsewhere, ProducerElsewhere, Reply, Trimmed,
};
use tailmark_log::storage::StoreError;
use tailmark_record::Seq;

/// For how long somebody is looked for who stores. A takeover takes 3 to 4 s where a daemon is gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// For an answer: who writes asks the journal for 15 s before it says that it does not know.
const ANSWER: Duration = Duration::from_secs(25);
/// Between two tries, unless something changes.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Where a log that is followed has its events stored.
pub(super) struct Forward(Arc<Inner>);

impl Forward {
    pub(super) fn new(inner: &Arc<Inner>) -> Forward {
        Forward(Arc::clone(inner))
    }
}

/// Nobody was found in time.
fn nobody() -> AppendError {
    AppendError::NotWriter("no daemon that writes it is known, or none answers".to_owned())
}

/// Who is of another history passes nothing on either: an ack would name a place that is another's in the log here.
fn may_pass_on(inner: &Inner) -> Result<(), AppendError> {
    match inner.diverged() {
        Some(trouble) => Err(AppendError::Diverged(trouble)),
        None => Ok(()),
    }
}

/// Waits until something changes, for a moment at most; `false` where it is too late for that.
async fn pauses(inner: &Inner, until: Instant) -> bool {
    let mut changes = inner.changes.subscribe();
    let pause = Instant::now() + PAUSE;
    if pause > until {
        return false;
    }
    let _ = timeout_at(pause, changes.changed()).await;
    true
}

async fn store(inner: Arc<Inner>, batch: Store) -> Result<Appended, AppendError> {
    let until = Instant::now() + PATIENCE;
    // Whether an earlier try may have stored it.
    let mut may_be_stored = false;
    loop {
        if let Err(diverged) = may_pass_on(&inner) {
            return Err(if may_be_stored { wire::unknown() } else { diverged });
        }
        let answer = match inner.writer() {
            Writer::Here(log) => match service::store(&log, &batch).await {
                it if it.is_elsewhere => None,
                it => Some(it),
            },
            Writer::At(address) => {
                let asked = inner.peers.ask(&address, service::STORE, batch.clone(), ANSWER).await;
                match asked {
                    Ok(Stored { is_elsewhere: true, .. }) | Err(Lost::Unsent) => None,
                    Ok(stored) => Some(stored),
                    Err(Lost::InDoubt) if batch.is_repeatable() => {
                        may_be_stored = true;
                        None
                    }
                    Err(Lost::InDoubt) => return Err(wire::unknown()),
                }
            }
            Writer::Nobody => None,
        };
        if let Some(answer) = answer {
            return match answer.read() {
                // It was not stored by this try; of one before that is not known.
                Err(error) if may_be_stored && !matches!(error, AppendError::Unknown(_)) => {
                    tracing::debug!(%error, "a batch that may be stored was refused when it was sent again");
                    Err(wire::unknown())
                }
                done => done,
            };
        }
        if !pauses(&inner, until).await {
            return Err(if may_be_stored { wire::unknown() } else { nobody() });
        }
    }
}

async fn counted<T>(
    inner: Arc<Inner>,
    done: impl Future<Output = Result<T, AppendError>>,
) -> Result<T, AppendError> {
    let done = done.await;
    count(&inner.counters.forwarded);
    if matches!(&done, Err(AppendError::NotWriter(_) | AppendError::Unknown(_))) {
        count(&inner.counters.forwards_failed);
    }
    done
}

impl Elsewhere for Forward {
    fn append(&self, batch: Batch, options: AppendOptions) -> Done<Appended> {
        let inner = Arc::clone(&self.0);
        let batch = Store::new(&batch, &options);
        Box::pin(counted(Arc::clone(&inner), store(inner, batch)))
    }

    fn open_producer(&self, id: &str, epoch: u64) -> Done<OpenedElsewhere> {
        let (inner, id) = (Arc::clone(&self.0), id.to_owned());
        Box::pin(counted(Arc::clone(&inner), open(inner, id, epoch)))
    }

    fn trim(&self, before: Seq) -> Done<Trimmed> {
        let inner = Arc::clone(&self.0);
        Box::pin(counted(Arc::clone(&inner), trim(inner, before)))
    }

    fn refusal(&self) -> Option<AppendError> {
        let is_away = || matches!(self.0.writer(), Writer::Nobody).then(nobody);
        may_pass_on(&self.0).err().or_else(is_away)
    }
}

/// A trim that was done is done by another as well: to trim again removes nothing more.
async fn trim(inner: Arc<Inner>, before: Seq) -> Result<Trimmed, AppendError> {
    let until = Instant::now() + PATIENCE;
    loop {
        may_pass_on(&inner)?;
        let done = match inner.writer() {
            Writer::Here(log) => return log.trim(before).await,
            Writer::At(address) => {
                let question = Trim { before: before.get() };
                inner.peers.ask(&address, service::TRIM, question, ANSWER).await.ok()
            }
            Writer::Nobody => None,
        };
        if let Some(done) = done.filter(|it: &TrimDone| !it.is_elsewhere) {
            return done.read();
        }
        if !pauses(&inner, until).await {
            return Err(nobody());
        }
    }
}

/// A producer that is opened twice is opened once: the stream before ends, and has nothing in it.
async fn open(inner: Arc<Inner>, id: String, epoch: u64) -> Result<OpenedElsewhere, AppendError> {
    let until = Instant::now() + PATIENCE;
    loop {
        may_pass_on(&inner)?;
        let opened = match inner.writer() {
            // Streams of a term end with it: its client opens another, at the log that is served now.
            Writer::Here(_) => return Err(nobody()),
            Writer::At(address) => open_there(&inner, &address, &id, epoch).await,
            Writer::Nobody => None,
        };
        if let Some(opened) = opened {
            return opened;
        }
        if !pauses(&inner, until).await {
            return Err(nobody());
        }
    }
}

/// `None` where another is to be looked for.
async fn open_there(
    inner: &Arc<Inner>,
    address: &str,
    id: &str,
    epoch: u64,
) -> Option<Result<OpenedElsewhere, AppendError>> {
    let (questions, asked) = mpsc::unbounded_channel();
    let open = Open { id: id.to_owned(), epoch };
    let _ = questions.send(Produce { open: Some(open), ..Produce::default() });
    let asked = UnboundedReceiverStream::new(asked);
    let opening = async {
        let mut answers = inner.peers.stream(address, service::PRODUCE, asked).await.ok()?;
        let Produced { opened, .. } = answers.next().await?.ok()?;
        Some((opened?, answers))
    };
    let (opened, mut answers) = tokio::time::timeout(ANSWER, opening).await.ok()??;
    if opened.is_elsewhere {
        return None;
    }
    if let Some(failed) = opened.failed {
        return Some(Err(failed.read()));
    }
    let (sent, mut waiting) = mpsc::unbounded_channel::<Reply>();
    tokio::spawn(async move {
        let mut replies = VecDeque::new();
        loop {
            let answer = tokio::select! {
                reply = waiting.recv() => match reply {
                    Some(reply) => {
                        replies.push_back(reply);
                        continue;
                    }
                    // Nobody sends any more; what was sent is still answered.
                    None => answers.next().await,
                },
                answer = answers.next() => answer,
            };
            let Some(Ok(Produced { stored: Some(stored), .. })) = answer else { break };
            // The answer may be here before the sender's word of it.
            let reply = match replies.pop_front() {
                Some(reply) => reply,
                None => match waiting.recv().await {
                    Some(reply) => reply,
                    None => break,
                },
            };
            let is_elsewhere = stored.is_elsewhere;
            reply.send(if is_elsewhere { Err(nobody()) } else { stored.read() });
        }
        // It broke off: whatever is not answered may be stored. Their senders hear that when their replies go.
        waiting.close();
        while let Some(reply) = waiting.recv().await {
            replies.push_back(reply);
        }
        replies.into_iter().for_each(|reply| reply.send(Err(wire::unknown())));
    });
    Some(Ok(OpenedElsewhere {
        epoch: opened.epoch,
        last_seq: opened.last_seq,
        last_event: Some(Seq::new(opened.last_event)).filter(|seq| *seq > Seq::ZERO),
        last_cursor: opened.last_cursor.into(),
        stream: Arc::new(There { questions, sent }),
    }))
}

/// A stream to who writes.
struct There {
    questions: mpsc::UnboundedSender<Produce>,
    sent: mpsc::UnboundedSender<Reply>,
}

impl ProducerElsewhere for There {
    fn submit(
        &self,
        seq: u64,
        batch: Batch,
        expected_head: Option<ExpectedHead>,
    ) -> Result<Answer, AppendError> {
        let options = AppendOptions { dedup: false, expected_head, atomic: true };
        let batch = Some(Store::new(&batch, &options));
        let (reply, answer) = Answer::of_reply();
        // In this order: what is refused here was not sent.
        let gone = |_| AppendError::Busy(Arc::new(StoreError::InDoubt));
        self.sent.send(reply).map_err(gone)?;
        // Where nobody takes it any more, the reply is answered as all that were sent are.
        let _ = self.questions.send(Produce { open: None, seq, batch });
        Ok(answer)
    }
}
