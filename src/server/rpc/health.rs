//! `grpc.health.v1.Health`, as its proto has it: a watch of a service that nobody knows says so and
//! stays. tonic-health's own service ends it.

use std::pin::Pin;

use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::server::rpc::status;
use tailmark_wire::methods::{chat_service, feed_service};

/// The server as a whole, and its services: they begin and end together.
const KNOWN: [&str; 3] = ["", feed_service::NAME, chat_service::NAME];

/// What is told of all services.
#[derive(Clone, Debug)]
pub(crate) struct Reporter(watch::Sender<ServingStatus>);

impl Default for Reporter {
    fn default() -> Self {
        Reporter(watch::Sender::new(ServingStatus::Serving))
    }
}

impl Reporter {
    /// Tells everyone who watches.
    pub(crate) fn not_serving(&self) {
        self.0.send_replace(ServingStatus::NotServing);
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
        if !KNOWN.contains(&service.as_str()) {
            return Err(status::unknown_service(service).into());
        }
        Ok(Response::new(answer(*self.0.borrow())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if KNOWN.contains(&request.get_ref().service.as_str()) {
            let statuses = WatchStream::new(self.0.subscribe()).map(|status| Ok(answer(status)));
            return Ok(Response::new(Box::pin(statuses)));
        }
        // No service comes into being later.
        let unknown = tokio_stream::once(Ok(answer(ServingStatus::ServiceUnknown)));
        Ok(Response::new(Box::pin(unknown.chain(tokio_stream::pending()))))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
