//! The accept loop. It survives floods and every error of the operating system.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::server::permits::OverLimit;
use crate::server::transport::rarely::Rarely;
use crate::server::transport::serving::Serving;
use crate::server::transport::{connection, refuse};

/// Wait after an error that another try would meet again at once, such as "too many open files".
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the server stops.
pub(crate) async fn run(listener: TcpListener, serving: Arc<Serving>) {
    let mut refused = Rarely::default();
    let mut failed = Rarely::default();
    loop {
        let accepted = tokio::select! {
            () = serving.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                if let Err(over) = begin(stream, address, &serving) {
                    refused.log(|count| {
                        let limit = over.limit;
                        tracing::warn!(limit, count, "connections over the limit were refused");
                    });
                }
            }
            Err(error) => {
                let pause = !is_about_one_connection(&error);
                failed.log(|count| tracing::warn!(%error, count, "accept failed"));
                if pause {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Begins to serve a connection; one that is too many is told so, as long as few are being told.
fn begin(stream: TcpStream, address: SocketAddr, serving: &Arc<Serving>) -> Result<(), OverLimit> {
    let grant = serving.quotas.connection(address);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    match grant {
        Ok(grant) => {
            serving.tasks.spawn(connection::serve(stream, address, Arc::clone(serving), grant));
            Ok(())
        }
        Err(over) => {
            if let Some(grant) = serving.quotas.turned_away(address) {
                let told = refuse::over_limit(stream, address, over, Arc::clone(serving), grant);
                serving.tasks.spawn(told);
            }
            Err(over)
        }
    }
}

/// Errors of a connection that was gone before it was accepted.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
