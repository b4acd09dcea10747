//! A server reached through memory: the services as they are, without sockets, limits of
//! connections and deadlines, which belong to the connection.

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tailmark::server::{Gauges, Options, Server};
use tailmark_log::eventlog::EventLog;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::server::{new_log, within};

pub struct InProcess {
    pub log: EventLog,
    pub gauges: Gauges,
    routes: Routes,
    _server: Server,
}

impl InProcess {
    pub fn start() -> InProcess {
        InProcess::start_with(new_log(), Options::default())
    }

    pub fn start_with(log: EventLog, options: Options) -> InProcess {
        let mut server = Server::new(log.clone(), options).unwrap();
        let routes = server.routes_mut().clone().prepare();
        InProcess { log, gauges: server.gauges(), routes, _server: server }
    }

    /// A connection of its own.
    pub async fn channel(&self) -> Channel {
        let routes = self.routes.clone();
        let connect = service_fn(move |_| {
            let (client, server) = tokio::io::duplex(64 << 10);
            let service = TowerToHyperService::new(routes.clone());
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(server), service);
            tokio::spawn(connection);
            async move { Ok::<_, std::io::Error>(TokioIo::new(client)) }
        });
        let endpoint = Endpoint::from_static("http://in.process");
        within("connect", endpoint.connect_with_connector(connect)).await.unwrap()
    }

    pub fn head(&self) -> u64 {
        self.log.bounds().head.get()
    }
}
