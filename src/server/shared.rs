//! What the calls share. Handlers borrow it; layers below get only the parts that they need.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRef;
use parking_lot::RwLock;
use tailmark_log::eventlog::EventLog;
use tailmark_record::Seq;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::Auth;
use super::feed::parked::Parking;
use super::feed::shared_frames::SharedFrames;
use super::figures::Figures;
use super::peers::{LogEnd, Peers};
use super::quotas::Quotas;
use super::rpc::status::{self, Failure};
use super::served::Served;
use super::transport::arrivals::Arrivals;
use super::{Gauges, Options};

/// What the calls share.
pub(crate) struct Shared {
    pub(crate) log: EventLog,
    /// Where several daemons share it.
    pub(crate) peers: Option<Arc<dyn Peers>>,
    pub(crate) options: Arc<Options>,
    /// Who calls.
    pub(crate) auth: Arc<Auth>,
    pub(crate) gauges: Gauges,
    pub(crate) figures: Arc<Figures>,
    /// What may be open at once.
    pub(crate) quotas: Arc<Quotas>,
    /// Cancelled when the server begins to stop, or another log takes the place of this one.
    pub(crate) stop: CancellationToken,
    /// Room for messages that are not whole yet.
    pub(crate) arrivals: Arrivals,
    /// Chunks of watches that wait for their clients.
    pub(crate) parking: Parking,
    /// What watches send alike.
    pub(crate) shared_frames: Arc<SharedFrames>,
    /// Whose turn it is to erase.
    pub(crate) erasing: Arc<Semaphore>,
    /// Whose turn it is to look what retention or an erasure would remove.
    pub(crate) dry_runs: Arc<Semaphore>,
    /// Connections, uploads and what comes in on chats.
    pub(crate) tasks: TaskTracker,
    pub(crate) started: Instant,
}

/// For what is known of a log to be shown by its handle.
const SHOWN: Duration = Duration::from_secs(2);

impl Shared {
    /// Where the log ends by whoever writes it, as of now; the log here has all of it by then. `None` where that is here,
    /// and nobody else can. What a cursor is that the log here does not know depends on it.
    ///
    /// # Errors
    /// Where nobody can say, or another handle has taken the place of this one.
    pub(crate) async fn confirm(&self) -> Result<Option<Seq>, Failure> {
        let Some(peers) = &self.peers else { return Ok(None) };
        let retry_delay = self.options.retry_delay;
        let Some(LogEnd { head, generation }) = peers.confirm().await else {
            return Err(status::writer_away(retry_delay));
        };
        let until = Instant::now() + SHOWN;
        let own = self.log.bounds().generations.current().generation.counter;
        while own == generation && !self.stop.is_cancelled() {
            if self.log.head() >= head {
                return Ok(Some(head));
            }
            if Instant::now() > until {
                return Err(status::writer_away(retry_delay));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(status::stopping(retry_delay))
    }

    /// The same for another handle to the log, with a token of its own.
    fn over(&self, log: EventLog, stop: CancellationToken) -> Shared {
        Shared {
            log,
            peers: self.peers.clone(),
            options: Arc::clone(&self.options),
            auth: Arc::clone(&self.auth),
            gauges: self.gauges.clone(),
            figures: Arc::clone(&self.figures),
            quotas: Arc::clone(&self.quotas),
            stop,
            arrivals: self.arrivals.clone(),
            parking: self.parking.clone(),
            shared_frames: Arc::new(SharedFrames::new(self.quotas.unsent().clone())),
            erasing: Arc::clone(&self.erasing),
            dry_runs: Arc::clone(&self.dry_runs),
            tasks: self.tasks.clone(),
            started: self.started,
        }
    }

    /// Has what was read forgotten when an erasure takes something out of it.
    fn forgets_what_is_erased(shared: &Arc<Shared>) {
        // Not for as long as the log lives: this server need not.
        let server = Arc::downgrade(shared);
        shared.log.on_erased(move || {
            if let Some(shared) = server.upgrade() {
                shared.parking.forget();
                shared.shared_frames.forget(shared.log.bounds().head);
            }
        });
    }
}

/// What the calls share that begin now. A handle to a log is of one term of its writer: where several daemons share the
/// log, another takes its place at each takeover. Clones are the same.
#[derive(Clone)]
pub(crate) struct Current(Arc<Now>);

struct Now {
    shared: RwLock<Arc<Shared>>,
    served: Served,
    /// Of the server.
    stop: CancellationToken,
}

impl Current {
    pub(crate) fn new(shared: Arc<Shared>, served: Served, stop: CancellationToken) -> Current {
        Shared::forgets_what_is_erased(&shared);
        Current(Arc::new(Now { shared: RwLock::new(shared), served, stop }))
    }

    pub(crate) fn get(&self) -> Arc<Shared> {
        Arc::clone(&self.0.shared.read())
    }
}

impl FromRef<Current> for Arc<Shared> {
    fn from_ref(current: &Current) -> Arc<Shared> {
        current.get()
    }
}

/// The log that a server serves, to be changed while it runs: another handle to the same log, which goes on where the
/// one before it ended. Clones are the same.
#[derive(Clone)]
pub struct ServedLog(pub(super) Current);

impl ServedLog {
    /// Ends all that is under way on the handle in force, as when a server stops: clients come back by themselves and
    /// go on where they were. Connections stay. What is asked meanwhile is refused as soon as the handle is closed.
    pub fn end(&self) {
        self.0.get().stop.cancel();
    }

    /// Serves this one from now on.
    pub fn serve(&self, log: EventLog) {
        let Current(now) = &self.0;
        let shared = Arc::new(self.0.get().over(log.clone(), now.stop.child_token()));
        Shared::forgets_what_is_erased(&shared);
        now.served.change(log);
        *now.shared.write() = shared;
    }

    /// The handle in force.
    pub fn log(&self) -> EventLog {
        self.0.0.served.log()
    }
}
