//! The server's lifetime, from its first listener to its last connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::pb::{v1 as reflection_v1, v1alpha as reflection_v1alpha};
use tonic_reflection::server::v1::ServerReflectionServer;
use tonic_reflection::server::v1alpha::ServerReflectionServer as ServerReflectionServerAlpha;

use super::auth::{Auth, Guard, guard};
use super::feed::parked::Parking;
use super::feed::shared_frames::SharedFrames;
use super::figures::{self, Figures, Held, Sources};
use super::peers::Peers;
use super::permits::StreamKind;
use super::quotas::Quotas;
use super::rpc::generated::chat_service_server::ChatServiceServer;
use super::rpc::generated::feed_service_server::FeedServiceServer;
use super::rpc::health;
use super::rpc::reflection::{Index, Reflection};
use super::served::Served;
use super::shared::{Current, ServedLog};
use super::transport::accept;
use super::transport::arrivals::Arrivals;
use super::transport::greeting::Notices;
use super::transport::serving::Serving;
use super::transport::vanished::Vanished;
use super::transport::windows::Windows;
use super::unsent::Unsent;
use super::{
    AccessRules, Certificates, Credentials, Gauges, Options, Shared, TlsError, chat, coding, http,
    service, watch,
};
use tailmark_log::eventlog::EventLog;

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
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A server that is ready to run.
pub struct Server {
    shared: Arc<Shared>,
    current: Current,
    /// Cancelled when it begins to stop.
    stop: CancellationToken,
    access: AccessRules,
    certificates: Option<Certificates>,
    routes: Routes,
    health: health::Reporter,
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
    /// Builds the services, and reads the certificates.
    ///
    /// # Errors
    /// When reflection cannot be built, or the certificates cannot be used.
    pub fn new(log: EventLog, options: Options) -> Result<Server, ServeError> {
        Server::with_peers(log, options, None)
    }

    /// The same where several daemons share the log: then its handle changes ([`Server::served_log`]).
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn with_peers(
        log: EventLog,
        options: Options,
        peers: Option<Arc<dyn Peers>>,
    ) -> Result<Server, ServeError> {
        let parking = Parking::new(options.parked_bytes);
        let arrivals = Arrivals::new(options.arriving_bytes, options.unary_deadline);
        let access = AccessRules::new(options.http.clone());
        let certificates = options.tls.clone().map(Certificates::open).transpose()?;
        let auth = Arc::new(Auth::new(options.auth.clone(), options.rates));
        let (options, gauges, started) = (Arc::new(options), Gauges::default(), Instant::now());
        let quotas = Arc::new(Quotas::new(&options, &gauges));
        let unsent = quotas.unsent().clone();
        let (served, stop) = (Served::new(log.clone()), CancellationToken::new());
        let figures = Figures::new(Sources {
            log: served.clone(),
            peers: peers.clone(),
            gauges: gauges.clone(),
            options: Arc::clone(&options),
            certificates: certificates.clone(),
            memory: memory(&arrivals, &unsent, &parking, &gauges),
            are_credentials_in_trouble: auth.credentials().is_in_trouble(),
            started,
        });
        let shared = Arc::new(Shared {
            log,
            peers,
            auth,
            quotas,
            arrivals,
            parking,
            shared_frames: Arc::new(SharedFrames::new(unsent)),
            erasing: Arc::new(Semaphore::new(1)),
            dry_runs: Arc::new(Semaphore::new(1)),
            options,
            gauges,
            figures: Arc::new(figures),
            stop: stop.child_token(),
            tasks: TaskTracker::new(),
            started,
        });
        let current = Current::new(Arc::clone(&shared), served.clone(), stop.clone());
        let health = health::Reporter::new(served, Arc::clone(&shared.quotas));
        let routes = routes(&shared, &current, &health)?;
        Ok(Server { shared, current, stop, access, certificates, routes, health })
    }

    /// What is open now.
    pub fn gauges(&self) -> Gauges {
        self.shared.gauges.clone()
    }

    /// Who may ask, to be changed while the server runs.
    pub fn access_rules(&self) -> AccessRules {
        self.access.clone()
    }

    /// The certificates in force, where there is TLS.
    pub fn certificates(&self) -> Option<Certificates> {
        self.certificates.clone()
    }

    /// The log, of which the handle may change while the server runs.
    pub fn served_log(&self) -> ServedLog {
        ServedLog(self.current.clone())
    }

    /// Who is known, to be changed while the server runs. At first nobody is.
    pub fn credentials(&self) -> Credentials {
        self.shared.auth.credentials().clone()
    }

    /// Shows in the figures how many lines of the program's log nobody took, which somebody else counts.
    pub fn show_dropped_log_lines(&self, count: Arc<AtomicU64>) {
        self.shared.figures.show_dropped_log_lines(count);
    }

    /// The routes, so that others can be served on the same port. The router inside answers to
    /// gRPC and to plain HTTP. What is added to them is behind no rights: it has to ask by itself.
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
        let Server { shared, stop, access, certificates, routes, health, .. } = self;
        let cut = CancellationToken::new();
        // Whoever drops this future has cut the server off.
        let _cut_on_drop = cut.clone().drop_guard();
        let _stop_on_drop = stop.clone().drop_guard();
        let mut loops = JoinSet::new();
        loops.spawn(figures::look(Arc::clone(&shared.figures), stop.clone()));
        if let Some(certificates) = certificates.clone() {
            loops.spawn(certificates.watch(stop.clone()));
        }
        if shared.auth.is_required() {
            let credentials = shared.auth.credentials().clone();
            loops.spawn(credentials.expire_in_time(stop.clone()));
        }
        let vanished = Vanished::default();
        let patience = shared.options.http2.keepalive_timeout;
        loops.spawn(vanished.clone().run(patience, stop.clone()));
        let serving = Arc::new(Serving {
            routes: routes.prepare(),
            options: Arc::clone(&shared.options),
            tls: certificates,
            notices: Notices::default(),
            vanished,
            access,
            quotas: Arc::clone(&shared.quotas),
            calls: Arc::clone(&shared.figures.calls),
            arrivals: shared.arrivals.clone(),
            event_bytes: shared.log.limits().event_bytes,
            windows: Windows::new(shared.options.unread_bytes),
            tasks: shared.tasks.clone(),
            stop: stop.clone(),
            cut,
        });
        for listener in listeners {
            loops.spawn(accept::run(listener, Arc::clone(&serving)));
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
        health.not_serving();
        stop.cancel();
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

/// What memory is held for above the log.
fn memory(
    arrivals: &Arrivals,
    unsent: &Unsent,
    parking: &Parking,
    gauges: &Gauges,
) -> Vec<(&'static str, Held)> {
    let (arrivals, unsent, parking) = (arrivals.clone(), unsent.clone(), parking.clone());
    let coded = Arc::clone(gauges.of(StreamKind::Coded));
    let decoded = Arc::clone(gauges.of(StreamKind::Decoded));
    let of_zstd = Arc::clone(gauges.of(StreamKind::DecodedZstd));
    let coders = move || {
        coding::ENCODER_BYTES * coded.load(Ordering::Relaxed)
            + coding::DECODER_BYTES * decoded.load(Ordering::Relaxed)
            + coding::ZSTD_DECODER_BYTES * of_zstd.load(Ordering::Relaxed)
    };
    vec![
        ("arriving", Box::new(move || arrivals.bytes())),
        ("unsent", Box::new(move || unsent.bytes())),
        ("parked", Box::new(move || parking.bytes())),
        ("coded", Box::new(coders)),
    ]
}

fn routes(
    shared: &Shared,
    current: &Current,
    health: &health::Reporter,
) -> Result<Routes, ServeError> {
    let index = Index::new(&[
        tailmark_wire::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        reflection_v1::FILE_DESCRIPTOR_SET,
        reflection_v1alpha::FILE_DESCRIPTOR_SET,
    ]);
    let index = index.map_err(|error| ServeError::Reflection(error.to_string()))?;
    let reflection = Reflection {
        index: Arc::new(index),
        quotas: Arc::clone(&shared.quotas),
        options: Arc::clone(&shared.options),
    };
    let message_bytes = shared.options.message_bytes;
    let chat = chat::Rooms::new(current.clone());
    let feed = service::Feed { current: current.clone(), chat: chat.clone() };
    let feed = FeedServiceServer::new(feed)
        // `Limited` has refused them before; this only keeps tonic's own default out of the way.
        .max_decoding_message_size(message_bytes);
    let chat = ChatServiceServer::new(chat).max_decoding_message_size(message_bytes);
    let mut routes = Routes::new(watch::Bodies(feed))
        .add_service(chat)
        .add_service(HealthServer::new(health.clone()))
        .add_service(ServerReflectionServer::new(reflection.clone()))
        .add_service(ServerReflectionServerAlpha::new(reflection));
    let mut grpc = std::mem::take(routes.axum_router_mut());
    let mut plain = http::router(current);
    if shared.auth.is_required() {
        let look = Guard {
            auth: Arc::clone(&shared.auth),
            quotas: Arc::clone(&shared.quotas),
            stop: shared.stop.clone(),
        };
        grpc = grpc.layer(from_fn_with_state(look.clone(), guard));
        plain = plain.layer(from_fn_with_state(look, guard));
    }
    // Calls are counted where they are begun (`transport/exchange.rs`), routes here, refusals with them.
    let counted = from_fn_with_state(Arc::clone(&shared.figures.calls), figures::count);
    *routes.axum_router_mut() = grpc.merge(plain.layer(counted));
    Ok(routes)
}
