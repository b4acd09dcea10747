//! The daemon's face: one log served over gRPC.
//!
//! Owns connections, requests, limits and deadlines. Must not know how events are stored, nor of
//! configuration files. `status.rs` alone makes statuses of errors, `convert.rs` alone translates
//! between the wire types and ours. Arrows: server -> eventlog, record, topic, wire.

mod accept;
mod append;
mod arrivals;
mod body;
mod call;
mod chat;
mod codec;
mod connection;
mod convert;
mod deadline;
mod figures;
mod frames;
mod gauges;
#[allow(missing_docs, clippy::all, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/feed.v1.FeedService.rs"));
    include!(concat!(env!("OUT_DIR"), "/chat.ChatService.rs"));
}
mod http;
mod io;
mod options;
mod outbox;
mod service;
mod status;
mod streams;
mod trace;
mod turn_away;
mod unary;
mod upload;
mod watch;
mod web;

use std::sync::Arc;
use std::time::Instant;

use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::pb::{v1 as reflection_v1, v1alpha as reflection_v1alpha};

pub use gauges::Gauges;
pub use options::{Http, Http2, Options};
pub use status::DOMAIN;

use figures::Figures;
use generated::chat_service_server::ChatServiceServer;
use generated::feed_service_server::FeedServiceServer;
use tailmark_log::eventlog::EventLog;

/// The name under which health is told, beside the empty one for the whole server.
pub const SERVICE: &str = "feed.v1.FeedService";
/// The name of the rooms, likewise.
pub const CHAT_SERVICE: &str = "chat.ChatService";

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// There is nothing to listen on.
    #[error("no listener")]
    NoListener,
    /// The built-in descriptors do not fit together.
    #[error("cannot build the reflection service: {0}")]
    Reflection(String),
}

/// What all requests share.
struct Shared {
    log: EventLog,
    options: Options,
    gauges: Gauges,
    figures: Figures,
    /// Cancelled when the server begins to stop.
    stop: CancellationToken,
    /// Room for messages that are not whole yet.
    arrivals: arrivals::Arrivals,
    /// Chunks of watches that wait for their clients.
    parking: watch::Parking,
    /// What watches send alike.
    common: Arc<watch::Common>,
    /// Who is in which room.
    presence: chat::Presence,
    /// Connections, uploads and what comes in on chats.
    tasks: TaskTracker,
    started: Instant,
}

/// A server that is ready to run.
pub struct Server {
    shared: Arc<Shared>,
    routes: Routes,
    health: HealthReporter,
}

/// Serves `log` until `shutdown` is cancelled and everything under way has come to its end, or the
/// grace is over. The log stays open.
///
/// # Errors
/// Only before the first connection.
pub async fn serve(
    listeners: Vec<TcpListener>,
    log: EventLog,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    Server::new(log, options)?.run(listeners, shutdown).await
}

impl Server {
    /// Builds the services.
    ///
    /// # Errors
    /// When reflection cannot be built.
    pub fn new(log: EventLog, options: Options) -> Result<Server, ServeError> {
        let parking = watch::Parking::new(options.parked_bytes);
        let arrivals = arrivals::Arrivals::new(options.arriving_bytes, options.unary_deadline);
        let shared = Arc::new(Shared {
            log,
            arrivals,
            parking,
            common: Arc::default(),
            options,
            gauges: Gauges::default(),
            figures: Figures::default(),
            stop: CancellationToken::new(),
            presence: chat::Presence::default(),
            tasks: TaskTracker::new(),
            started: Instant::now(),
        });
        let health = HealthReporter::new();
        let routes = routes(&shared, &health)?;
        Ok(Server { shared, routes, health })
    }

    /// What is open now.
    pub fn gauges(&self) -> Gauges {
        self.shared.gauges.clone()
    }

    /// The routes, so that others can be served on the same port. The router inside answers to
    /// gRPC and to plain HTTP.
    pub fn routes_mut(&mut self) -> &mut Routes {
        &mut self.routes
    }

    /// Runs as [`serve`] does.
    ///
    /// # Errors
    /// When there is no listener.
    pub async fn run(
        self,
        listeners: Vec<TcpListener>,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        if listeners.is_empty() {
            return Err(ServeError::NoListener);
        }
        let Server { shared, routes, health } = self;
        for name in [SERVICE, CHAT_SERVICE] {
            health.set_service_status(name, ServingStatus::Serving).await;
        }
        let cut = CancellationToken::new();
        // Whoever drops this future has cut the server off.
        let _cut_on_drop = cut.clone().drop_guard();
        let _stop_on_drop = shared.stop.clone().drop_guard();
        let routes = routes.prepare();
        let mut loops = JoinSet::new();
        loops.spawn(figures::look(Arc::clone(&shared)));
        for listener in listeners {
            loops.spawn(accept::run(listener, routes.clone(), Arc::clone(&shared), cut.clone()));
        }
        shutdown.cancelled().await;
        tracing::info!(
            instance = shared.options.instance,
            connections = shared.gauges.connections(),
            watches = shared.gauges.watches(),
            uploads = shared.gauges.uploads(),
            "stopping"
        );
        // Health first: its watchers hear of it before their streams end.
        for name in ["", SERVICE, CHAT_SERVICE] {
            health.set_service_status(name, ServingStatus::NotServing).await;
        }
        shared.stop.cancel();
        while loops.join_next().await.is_some() {}
        shared.tasks.close();
        if tokio::time::timeout(shared.options.shutdown_grace, shared.tasks.wait()).await.is_err() {
            tracing::warn!(
                connections = shared.gauges.connections(),
                watches = shared.gauges.watches(),
                uploads = shared.gauges.uploads(),
                "the grace is over; cutting what is left"
            );
        }
        Ok(())
    }
}

fn routes(shared: &Arc<Shared>, health: &HealthReporter) -> Result<Routes, ServeError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tailmark_wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(reflection_v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(reflection_v1alpha::FILE_DESCRIPTOR_SET)
            .include_reflection_service(false)
    };
    let v1 = reflection().build_v1().map_err(|error| ServeError::Reflection(error.to_string()))?;
    let v1alpha =
        reflection().build_v1alpha().map_err(|error| ServeError::Reflection(error.to_string()))?;
    let message_bytes = shared.options.message_bytes;
    let feed = FeedServiceServer::new(service::Feed(Arc::clone(shared)))
        // `Limited` has refused them before; this only keeps tonic's own default out of the way.
        .max_decoding_message_size(message_bytes);
    let chat = ChatServiceServer::new(chat::Chat(Arc::clone(shared)))
        .max_decoding_message_size(message_bytes);
    let plain = http::router(shared);
    let mut routes = Routes::new(watch::Bodies(feed))
        .add_service(chat)
        .add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())))
        .add_service(v1)
        .add_service(v1alpha);
    let grpc = std::mem::take(routes.axum_router_mut());
    let counted = from_fn_with_state(Arc::clone(&shared.figures.calls), figures::count);
    *routes.axum_router_mut() = grpc.merge(plain).layer(counted);
    Ok(routes)
}

/// What failures about positions tell, the time of the oldest event included where it can be read.
async fn facts(log: &EventLog) -> status::LogFacts {
    let bounds = log.bounds();
    let oldest_time = if bounds.is_empty() { None } else { log.time_of(bounds.oldest).await.ok() };
    status::LogFacts::new(log.id(), &bounds, oldest_time)
}
