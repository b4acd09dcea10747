//! `grpc.health.v1.Health`, as its proto has it: a watch of a service that nobody knows says so and
//! stays. tonic-health's own service ends it.
//!
//! Services are served until the server stops: while events are refused reading goes on, and a load balancer
//! must not take that away. Whoever sends events asks for the service `readiness`, which is what `/readyz` says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::server::permits::StreamKind;
use crate::server::quotas::{Peer, Quotas};
use crate::server::rpc::status;
use crate::server::served::Served;
use tailmark_wire::methods::{chat_service, feed_service};

/// The server as a whole, and its services: they begin and end together.
const KNOWN: [&str; 3] = ["", feed_service::NAME, chat_service::NAME];
/// Whether the store takes events, as `/readyz` has it. The name is the one that Kubernetes proposes.
const READINESS: &str = "readiness";
/// How often a watch of it looks. All share one look a second.
const LOOK: Duration = Duration::from_secs(1);

/// What is told of all services.
#[derive(Clone)]
pub(crate) struct Reporter {
    serving: watch::Sender<ServingStatus>,
    served: Served,
    quotas: Arc<Quotas>,
}

type Statuses = Pin<Box<dyn Stream<Item = ServingStatus> + Send>>;

impl Reporter {
    pub(crate) fn new(served: Served, quotas: Arc<Quotas>) -> Reporter {
        Reporter { serving: watch::Sender::new(ServingStatus::Serving), served, quotas }
    }

    /// Tells everyone who watches.
    pub(crate) fn not_serving(&self) {
        self.serving.send_replace(ServingStatus::NotServing);
    }

    fn now(&self) -> ServingStatus {
        *self.serving.borrow()
    }

    async fn readiness(self) -> ServingStatus {
        match self.now() {
            ServingStatus::Serving if self.served.log().refusal().await.is_some() => {
                ServingStatus::NotServing
            }
            // It may have stopped meanwhile.
            _ => self.now(),
        }
    }

    fn statuses(&self, service: &str) -> Statuses {
        if service == READINESS {
            return Box::pin(Readiness::new(self.clone()));
        }
        if KNOWN.contains(&service) {
            return Box::pin(WatchStream::new(self.serving.subscribe()));
        }
        // No service comes into being later.
        let unknown = tokio_stream::once(ServingStatus::ServiceUnknown);
        Box::pin(unknown.chain(tokio_stream::pending()))
    }
}

/// What is told of readiness: at once, then each change once.
struct Readiness {
    reporter: Reporter,
    /// Says at once when the server stops.
    serving: WatchStream<ServingStatus>,
    due: Interval,
    looking: Option<Pin<Box<dyn Future<Output = ServingStatus> + Send>>>,
    told: Option<ServingStatus>,
}

impl Readiness {
    fn new(reporter: Reporter) -> Readiness {
        let mut due = interval(LOOK);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let serving = WatchStream::from_changes(reporter.serving.subscribe());
        Readiness { reporter, serving, due, looking: None, told: None }
    }

    /// The next that is seen, told or not.
    fn poll_seen(&mut self, cx: &mut Context<'_>) -> Poll<ServingStatus> {
        if let Poll::Ready(Some(stopped)) = Pin::new(&mut self.serving).poll_next(cx) {
            self.looking = None;
            return Poll::Ready(stopped);
        }
        let looking = match &mut self.looking {
            Some(looking) => looking,
            None => {
                ready!(self.due.poll_tick(cx));
                self.looking.insert(Box::pin(self.reporter.clone().readiness()))
            }
        };
        let seen = ready!(looking.as_mut().poll(cx));
        self.looking = None;
        Poll::Ready(seen)
    }
}

impl Stream for Readiness {
    type Item = ServingStatus;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ServingStatus>> {
        loop {
            let seen = ready!(self.poll_seen(cx));
            if self.told != Some(seen) {
                self.told = Some(seen);
                return Poll::Ready(Some(seen));
            }
        }
    }
}

#[async_trait]
impl Health for Reporter {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if service == READINESS {
            return Ok(Response::new(answer(self.clone().readiness().await)));
        }
        if !KNOWN.contains(&service.as_str()) {
            return Err(status::unknown_service(service).into());
        }
        Ok(Response::new(answer(self.now())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // Whoever asks may be nobody's principal: it is open to all.
        let peer = request.extensions().get::<Peer>();
        let permit =
            self.quotas.stream(StreamKind::Health, peer, None).map_err(status::too_many)?;
        let statuses = self.statuses(&request.get_ref().service);
        let answers = statuses.map(move |status| {
            let _held = &permit;
            Ok(answer(status))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
